"""The workspace frozen: its code as one tree, each declared data folder as another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Job, Workspace
from orchestrator.source.ignore import Ignore
from orchestrator.source.scan import Scan, scan
from remote.parts import gaps
from remote.protocol import CHUNK_BYTES, Lacking
from remote.tree import Tree, digest_of, encode_tree


@dataclass(frozen=True)
class LocalTree:
    """A tree and where its contents lie on this laptop.

    Attributes:
        path: of its folder, relative to the workspace; empty for the code.
        manifest: the tree's canonical bytes.
    """

    path: str
    folder: Path
    digest: str
    tree: Tree
    manifest: bytes


@dataclass(frozen=True)
class Snapshot:
    """What a submission sends.

    Attributes:
        data: by path of the data folder.
    """

    code: LocalTree
    data: dict[str, LocalTree]

    @property
    def trees(self) -> tuple[LocalTree, ...]:
        return (self.code, *self.data.values())

    def biggest(self) -> Iterator[tuple[str, int]]:
        """Every path with its size in bytes, biggest first."""
        sizes = [
            (f"{tree.path}/{path}".lstrip("/"), entry.size_bytes)
            for tree in self.trees
            for path, entry in tree.tree.items()
        ]
        yield from sorted(sizes, key=lambda item: (-item[1], item[0]))


def take_snapshot(workspace: Workspace, jobs: Iterable[Job], tell: Teller) -> Snapshot:
    """Freeze the workspace as the given jobs need it.

    Outputs are not part of it: they come from the VM. Neither is held-out data, whatever the
    ignore files say. What looks like a secret is left out, and told.

    Raises:
        UsageError: a file cannot be read, a link leaves the tree, a data folder is not there.
    """
    jobs = tuple(jobs)
    outputs = [output for job in workspace.jobs for output in job.outputs]
    everyones_data = sorted({path for job in workspace.jobs for path in job.data})
    wanted_data = sorted({path for job in jobs for path in job.data})
    ignore = Ignore(workspace.root, outputs)
    cache = workspace.state / "stat-cache"
    workspace.state.mkdir(exist_ok=True)
    read = 0

    def progress(path: str, size_bytes: int) -> None:
        nonlocal read
        read += size_bytes
        tell.doing("reading what changed", read)

    secrets: set[str] = set()

    def freeze(path: str) -> LocalTree:
        found: Scan
        if path:
            if not (workspace.root / path).is_dir():
                raise UsageError(
                    f"there is no data folder {path} in {workspace.root}",
                    fix="make it, or take it out of `data:` in train.yaml",
                )
            found = scan(workspace.root, ignore, cache, progress, below=path)
        else:
            found = scan(workspace.root, ignore, cache, progress, without=everyones_data)
        secrets.update(found.left_out_secrets)
        folder = workspace.root / path
        manifest = encode_tree(found.entries)
        return LocalTree(path, folder, digest_of(manifest), found.entries, manifest)

    code = freeze("")
    data = {path: freeze(path) for path in wanted_data}
    for secret in sorted(secrets):
        tell.warn(f"left out, it looks like a secret: {secret}")
    return Snapshot(code, data)


def content_paths(tree: LocalTree) -> dict[str, Path]:
    """Where each content lies, by its digest."""
    return {entry.sha256: tree.folder / path for path, entry in tree.tree.items()}


def read_contents(paths: Mapping[str, Path], wanted: Iterable[Lacking]) -> Iterator[bytes]:
    """The bytes of each that have not come, in order, in chunks.

    Args:
        paths: as `content_paths` has them.

    Raises:
        UsageError: a file of which some are left was changed or removed since the snapshot was
            taken; nothing is lost.
    """
    for one in wanted:
        if one.size_bytes and not gaps(one.parts, one.have_bytes, one.size_bytes):
            continue  # whether it is what was announced, the VM finds out
        path = paths[one.sha256]
        digest, read = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while read < one.size_bytes and (
                    block := file.read(min(one.size_bytes - read, CHUNK_BYTES))
                ):
                    digest.update(block)
                    here, read = read, read + len(block)
                    for span in gaps(one.parts, max(here, one.have_bytes), read):
                        yield block[span.begin - here : span.end - here]
        except OSError as error:
            raise _changed(path) from error
        if digest.hexdigest() != one.sha256:
            raise _changed(path)


def read_span(path: Path, begin: int, end: int) -> Iterator[bytes]:
    """Those bytes of a file, in chunks.

    Raises:
        UsageError: it has become shorter since the snapshot was taken, or was removed.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            while begin < end:
                block = file.read(min(end - begin, CHUNK_BYTES))
                if not block:
                    raise _changed(path)
                yield block
                begin += len(block)
    except OSError as error:
        raise _changed(path) from error


def _changed(path: Path) -> UsageError:
    return UsageError(
        f"{path} was changed while it was being sent", fix="run the same command again"
    )
