"""A file as it comes from the VM, in pieces over several lanes, with what a kill has left of it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from orchestrator.vm.lanes import Piece
from remote.parts import find_parts, gaps, new_part, write_all
from remote.protocol import CHUNK_BYTES, Span


class WrongLength(Exception):
    """More or fewer bytes came than were asked for."""


class Incoming:
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
            WrongLength: too much came, or too little.
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
                        raise WrongLength(f"{expected} more")
                    if own is None:
                        self._append(block)
                    else:
                        write_all(own, block)
                    piece.begin += len(block)
                    with self._lock:
                        self.missing_bytes -= len(block)
                    yield block
            if piece.size_bytes:
                raise WrongLength(f"{expected} {piece.size_bytes} fewer")
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
