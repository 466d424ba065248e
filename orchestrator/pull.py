"""Artifacts from the VM to the shelf: resumed where they stopped, verified before they count."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from orchestrator.errors import AgentBroken, LaptopFull, ModelDamaged
from orchestrator.lanes import Piece, Work
from orchestrator.link import Call, Link
from orchestrator.printable import printable
from orchestrator.shelf import Shelf
from orchestrator.size import format_size
from orchestrator.tell import Teller
from remote.atomic import naming
from remote.parts import discard_parts, find_parts, gaps, new_part, write_all
from remote.protocol import CHUNK_BYTES, Fetch, Span
from remote.runfolder import Artifact

# How much is asked for at a file's beginning, whatever its size: who does not know that yet can
# send it ahead.
_FIRST_BYTES = 2**20


def pull(
    link: Link, run_id: str, artifact: Artifact, partial: Path, shelf: Shelf, tell: Teller
) -> Path:
    """Bring one artifact onto the shelf. One that is there already is not sent again.

    Args:
        partial: a folder for what has come so far; the next attempt goes on from it.

    Raises:
        ModelDamaged: the bytes do not have the VM's sha256; they are thrown away.
        LaptopFull: it does not fit on this laptop's disk.
        ConnectionLost: what came is kept.
    """
    known = shelf.find(artifact.sha256)
    if known is not None:
        return known
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / artifact.sha256
    path.touch()
    # In place, not appended: two who pull the same file write the same bytes there.
    with naming(path), path.open("r+b", buffering=0) as file:
        incoming = _Incoming(file, path, artifact.size_bytes)
        _check_space(partial, artifact, incoming.missing_bytes)
        name = printable(artifact.path)
        wrong = ""

        def ask(lane: Link, piece: Piece) -> None:
            # To the end, where the size is not to be told from the call: see `first_fetch`.
            whole = not piece.begin and piece.end == artifact.size_bytes
            size_bytes = max(piece.size_bytes, _FIRST_BYTES) if whole else piece.size_bytes
            lane.begin_call(Fetch(run_id, artifact.path, piece.begin, size_bytes))

        def bring(lane: Link, piece: Piece) -> None:
            for _ in incoming.take(piece, lane.end_fetch()):
                left_bytes = incoming.missing_bytes
                tell.doing(f"pulling {name}", artifact.size_bytes - left_bytes, artifact.size_bytes)

        try:
            # Again, where another who pulls the same has taken a part away.
            while missing := incoming.missing():
                Work([(name, span) for span in _opened(missing)], ask, bring).share(link)
        except _WrongLength as error:
            wrong = f"{error} came"
        except AgentBroken:
            path.unlink(missing_ok=True)  # nothing of such a VM is worth going on with
            raise
        have_bytes, digest = incoming.end()
        os.fsync(file.fileno())
    discard_parts(path)  # those of which nothing came, or that only repeat what came
    if wrong or have_bytes != artifact.size_bytes or digest != artifact.sha256:
        path.unlink(missing_ok=True)
        raise ModelDamaged(
            f"{printable(artifact.path)} of {run_id} is not what the VM hashed when the run ended",
            cause=f"{wrong or f'{have_bytes} bytes came'}, sha256 {digest}; "
            f"expected {artifact.size_bytes} bytes, {artifact.sha256}",
            fix="it was changed on the VM after the run, or the line is bad: train pull again",
        )
    try:
        return shelf.keep(path, artifact.sha256, PurePosixPath(artifact.path).name)
    except FileNotFoundError:
        known = shelf.find(artifact.sha256)
        if known is None:
            raise
        return known  # the other was faster


def first_fetch(run_id: str, outputs: Iterable[str]) -> tuple[Call, ...]:
    """What `pull` asks first of a run that has ended, if its first output was declared by name, for
    those who send it ahead.
    """
    paths = sorted(outputs)
    if not paths or any(character in path for path in paths for character in "*?["):
        return ()
    return ((Fetch(run_id, paths[0], 0, _FIRST_BYTES), b""),)


def _opened(spans: Iterable[Span]) -> Iterator[Span]:
    """As they are, but what is asked for first is a span of its own."""
    for span in spans:
        if span.begin == 0 and span.end > _FIRST_BYTES:
            yield Span(0, _FIRST_BYTES)
            span = span._replace(begin=_FIRST_BYTES)
        yield span


class _WrongLength(Exception):
    """More or fewer bytes came than were asked for."""


class _Incoming:
    """A file that comes in pieces from several lanes, hashed as it grows.

    Who brings the piece that begins at the file's end writes there; the others' pieces lie beside
    it as parts until it reaches them.
    """

    def __init__(self, file: BinaryIO, path: Path, size_bytes: int) -> None:
        self._file, self._path, self._size_bytes = file, path, size_bytes
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        self._is_led = False
        if os.fstat(file.fileno()).st_size > size_bytes:
            file.truncate(0)
        while block := file.read(CHUNK_BYTES):
            self._digest.update(block)
        self._have_bytes = file.tell()
        self._parts = find_parts(path)
        self._join()
        self.missing_bytes = sum(span.end - span.begin for span in self.missing())

    def missing(self) -> tuple[Span, ...]:
        return gaps((span for span, _ in self._parts), self._have_bytes, self._size_bytes)

    def take(self, piece: Piece, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Write a piece; yields each block when a kill of this process cannot lose it any more.

        Raises:
            _WrongLength: too much came, or too little.
        """
        begin, expected = piece.begin, f"of {piece.size_bytes} bytes from {piece.begin} on"
        with self._lock:
            leads = begin == self._have_bytes and not self._is_led
            self._is_led |= leads
        part = new_part(self._path, begin)
        try:
            with nullcontext() if leads else part.open("xb", buffering=0) as own:
                for block in blocks:
                    if len(block) > piece.size_bytes:
                        raise _WrongLength(f"{expected} more")
                    if own is None:
                        self._append(block)
                    else:
                        write_all(own, block)
                    piece.begin += len(block)
                    with self._lock:
                        self.missing_bytes -= len(block)
                    yield block
            if piece.size_bytes:
                raise _WrongLength(f"{expected} {piece.size_bytes} fewer")
        finally:
            with self._lock:
                if leads:
                    self._is_led = False
                else:
                    self._parts.append((Span(begin, piece.begin), part))
                if not self._is_led:
                    self._join()

    def end(self) -> tuple[int, str]:
        """Size and sha256 of what has come without a gap."""
        return self._have_bytes, self._digest.hexdigest()

    def _append(self, block: bytes) -> None:
        write_all(self._file, block)
        self._digest.update(block)
        self._have_bytes += len(block)

    def _join(self) -> None:
        """Append the parts that the file has reached."""
        self._parts.sort(key=lambda part: part[0].begin)
        while self._parts and self._parts[0][0].begin <= self._have_bytes:
            span, path = self._parts.pop(0)
            with suppress(FileNotFoundError):
                with path.open("rb") as part:
                    part.seek(self._have_bytes - span.begin)
                    while self._have_bytes < min(span.end, self._size_bytes) and (
                        block := part.read(CHUNK_BYTES)
                    ):
                        self._append(block)
                path.unlink()


def _check_space(folder: Path, artifact: Artifact, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LaptopFull(
            f"{printable(artifact.path)} does not fit on this laptop's disk",
            cause=f"it needs {format_size(needed)} more, {format_size(free)} are free",
            fix="free some space, then: train pull, or the same command again",
        )
