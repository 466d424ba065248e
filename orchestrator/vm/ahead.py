"""What is sent along with a submission before the VM has said a word, so that it need not ask.

The user mostly changes a file and trains again. The laptop remembers which tree it sent last; what
differs from it goes along, and if the VM still holds that tree, nothing else has to.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.size import format_size
from orchestrator.source.snapshot import LocalTree, Snapshot, content_paths, read_contents
from orchestrator.vm.link import Call
from remote.atomic import replace_file
from remote.protocol import Lacking, Offer, Patch, Submit
from remote.runfolder import RunRequest
from remote.tree import Tree, digest_of, encode_tree, read_tree

# Sent in vain if the VM holds other trees by now, so no more than goes through a line in no time.
_SIZE_LIMIT_BYTES = 128 * 2**10
_CHANGES_LIMIT = 500

_DIGEST_CHARS = 64


@dataclass(frozen=True)
class Ahead:
    """Attributes:
    calls: each with its body; the submission is the last.
    told: what the user may be told when the submission finds all trees; may be "".
    is_offered: whether the code tree is offered before that.
    """

    calls: tuple[Call, ...] = ()
    told: str = ""
    is_offered: bool = False


@dataclass(frozen=True)
class LastSent:
    """The code tree that a remote was sent last. Only a guess at what it holds: losing it, or
    believing it when it is wrong, costs a question.
    """

    file: Path

    def differs_from(self, digest: str) -> bool:
        try:
            with self.file.open("rb") as file:
                return file.read(_DIGEST_CHARS) != digest.encode("ascii")
        except OSError:
            return True

    def recall(self) -> tuple[str, Tree] | None:
        try:
            content = self.file.read_bytes()
            digest = content[:_DIGEST_CHARS].decode("ascii")
            manifest = zlib.decompress(content[_DIGEST_CHARS:])
        except (OSError, ValueError, zlib.error):
            return None
        return (digest, read_tree(manifest)) if digest_of(manifest) == digest else None

    def keep(self, tree: LocalTree) -> None:
        """Remember, if it is news; without a place to write to, all is asked for the next time."""
        if self.differs_from(tree.digest):
            packed = zlib.compress(tree.manifest, 1)
            with suppress(OSError):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self.file, tree.digest.encode("ascii") + packed)


def look_ahead(snapshot: Snapshot, requests: tuple[RunRequest, ...], last: LastSent) -> Ahead:
    """The submission, and before it what its code tree needs beyond the last one: the difference
    if that is small, else the question what is lacking.

    Raises:
        UsageError: a file was changed since the snapshot was taken.
    """
    submission = (Submit(requests), b"")
    code = snapshot.code
    files = sum(len(tree.tree) for tree in snapshot.trees)
    alone = Ahead((submission,), f"nothing to send, all {files} files are there")
    if not last.differs_from(code.digest):
        return alone
    before = last.recall()
    if before is None:
        return _asking(code, alone)
    base, old = before
    changed = {path: entry for path, entry in code.tree.items() if old.get(path) != entry}
    gone = tuple(path for path in old if path not in code.tree)
    known = {entry.sha256 for entry in old.values()}
    sizes = {entry.sha256: entry.size_bytes for entry in changed.values() if entry.sha256}
    new = {sha256: size for sha256, size in sizes.items() if sha256 not in known}
    size_bytes = sum(new.values())
    if len(changed) + len(gone) > _CHANGES_LIMIT or size_bytes > _SIZE_LIMIT_BYTES:
        return _asking(code, alone)
    objects = tuple(Lacking(sha256, size, 0) for sha256, size in new.items())
    contents = b"".join(read_contents(content_paths(code), objects))
    patch = Patch(code.digest, base, gone, encode_tree(changed).decode("ascii"), objects)
    told = f"synced code: sent {len(new)} of {len(code.tree)} files, {format_size(size_bytes)}"
    return Ahead(((patch, zlib.compress(contents)), submission), told)


def _asking(code: LocalTree, alone: Ahead) -> Ahead:
    """As `alone`, and before it the question what is lacking, unless that takes long."""
    question = offer(code)
    if len(question[1]) > _SIZE_LIMIT_BYTES:
        return alone
    return Ahead((question, *alone.calls), alone.told, is_offered=True)


def offer(tree: LocalTree) -> Call:
    """The question what the VM lacks of a tree."""
    return Offer(tree.digest), zlib.compress(tree.manifest, 1)
