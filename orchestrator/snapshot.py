"""The workspace frozen: its code as one tree, each declared data folder as another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.ignore import Ignore
from orchestrator.scan import Scan, scan
from orchestrator.spec import Job, Workspace
from orchestrator.tell import Teller
from remote.protocol import CHUNK_BYTES
from remote.tree import Tree, tree_digest


@dataclass(frozen=True)
class LocalTree:
    """A tree and where its contents lie on this laptop.

    Attributes:
        path: of its folder, relative to the workspace; empty for the code.
    """

    path: str
    folder: Path
    digest: str
    tree: Tree

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.tree.values())

    def where(self, sha256: str) -> Path:
        """A file with this content."""
        return next(self.folder / p for p, entry in self.tree.items() if entry.sha256 == sha256)


@dataclass(frozen=True)
class Snapshot:
    """What a submission sends.

    Attributes:
        data: by path of the data folder.
        secrets: paths left out because they look like secrets.
    """

    code: LocalTree
    data: dict[str, LocalTree]
    secrets: tuple[str, ...]

    @property
    def trees(self) -> tuple[LocalTree, ...]:
        return (self.code, *self.data.values())

    @property
    def size_bytes(self) -> int:
        return sum(tree.size_bytes for tree in self.trees)

    @property
    def files(self) -> int:
        return sum(len(tree.tree) for tree in self.trees)

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
    ignore files say.

    Raises:
        UsageError: a file cannot be read, a link leaves the tree, a data folder is not there.
    """
    jobs = tuple(jobs)
    outputs = [output for job in workspace.jobs for output in job.outputs]
    everyones_data = sorted({path for job in workspace.jobs for path in job.data})
    wanted_data = sorted({path for job in jobs for path in job.data})
    ignore = Ignore(workspace.root, outputs)
    cache = workspace.state / "stat-cache.json"
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
        return LocalTree(path, folder, tree_digest(found.entries), found.entries)

    code = freeze("")
    data = {path: freeze(path) for path in wanted_data}
    return Snapshot(code, data, tuple(sorted(secrets)))


def read_contents(tree: LocalTree, wanted: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
    """The bytes of each `(sha256, size_bytes, offset)`, in order, in chunks.

    Raises:
        UsageError: a file was changed or removed since the snapshot was taken; nothing is lost.
    """
    paths = {entry.sha256: tree.folder / path for path, entry in tree.tree.items()}
    for sha256, size_bytes, offset in wanted:
        path = paths[sha256]
        digest, read = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while read < size_bytes and (
                    block := file.read(min(size_bytes - read, CHUNK_BYTES))
                ):
                    digest.update(block)
                    read += len(block)
                    if read > offset:
                        yield block[offset - read :]
        except OSError as error:
            raise _changed(path) from error
        if digest.hexdigest() != sha256:
            raise _changed(path)


def _changed(path: Path) -> UsageError:
    return UsageError(
        f"{path} was changed while it was being sent", fix="run the same command again"
    )
