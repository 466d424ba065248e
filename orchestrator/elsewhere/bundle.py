"""What would be sent to a VM, as one compressed file that a notebook can carry."""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from dataclasses import dataclass

from orchestrator.errors import UsageError
from orchestrator.size import format_size
from orchestrator.source.snapshot import LocalTree, Snapshot, content_paths, read_contents
from orchestrator.vm.package import load_sources
from remote.elsewhere import OWN, REQUEST, TREE
from remote.protocol import Lacking
from remote.record import to_bytes
from remote.runfolder import RunRequest
from remote.tree import LINK

# No service takes such a notebook; and it is made in memory.
LIMIT_BYTES = 100 * 1000**2


@dataclass(frozen=True)
class Bundle:
    """Attributes:
    packed: a tar file, compressed by LZMA; equal contents give equal bytes.
    """

    packed: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.packed).hexdigest()


def make_bundle(snapshot: Snapshot, request: RunRequest) -> Bundle:
    """The snapshot, the request, and our own half that executes it there.

    Raises:
        UsageError: a file was changed since the snapshot was taken, or it is all too large.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        _add(archive, REQUEST, to_bytes(request))
        for module, text in sorted(load_sources().items()):
            leaf = module.partition(".")[2] or "__init__"
            _add(archive, f"{OWN}/remote/{leaf}.py", text.encode())
        # An empty snapshot has its folder, too.
        archive.addfile(_member(TREE, tarfile.DIRTYPE, 0o755))
        for tree in snapshot.trees:
            _add_tree(archive, tree)
            if buffer.tell() > LIMIT_BYTES:
                raise UsageError(
                    f"more than {format_size(LIMIT_BYTES)} do not fit into a notebook",
                    cause=f"the largest: {largest(snapshot)}",
                    fix="leave files out by .trainignore, or load large data in the script",
                )
    return Bundle(buffer.getvalue())


def largest(snapshot: Snapshot, count: int = 3) -> str:
    """The largest files of it, with their sizes, for people."""
    files = [*snapshot.biggest()][:count]
    return ", ".join(f"{path} ({format_size(size)})" for path, size in files)


def _add_tree(archive: tarfile.TarFile, tree: LocalTree) -> None:
    paths = content_paths(tree)
    for path, entry in sorted(tree.tree.items()):
        name = posixpath.join(TREE, tree.path, path)
        if entry.kind == LINK:
            member = _member(name, tarfile.SYMTYPE, 0o777)
            member.linkname = entry.target
            archive.addfile(member)
        else:
            wanted = [Lacking(entry.sha256, entry.size_bytes, 0)]
            content = b"".join(read_contents(paths, wanted))
            _add(archive, name, content, 0o755 if entry.executable else 0o644)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = _member(name, tarfile.REGTYPE, mode)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, mode
    return member
