"""Compression of what is sent: for code and text, and not for what is compressed already."""

from __future__ import annotations

import struct
import zlib

# Level 1: over the usual line higher levels cost more time than they save.
_LEVEL = 1
# Raw, so that stored blocks can be put between. Source: RFC 1950 for what zlib puts around it.
_RAW = -zlib.MAX_WBITS
_HEADER = b"\x78\x01"
# As much of a block as tells whether the rest is worth it: from all over it, since many files may
# be in it, and most begin with a header.
_SAMPLES, _SAMPLE_BYTES = 8, 512
# How much it must shrink; where sending waits for the processor, sending twice as much takes less
# time than compressing.
_WORTH = 0.9
_WORTH_SPARING = 0.4
# Source: RFC 1951, section 3.2.4.
_STORED_LIMIT_BYTES = 2**16 - 1
_STORED = struct.Struct("<BHH")


class Deflate:
    """A zlib stream, in which blocks that would not shrink are stored as they are.

    Images and models do not shrink, and trying costs fifteen times what encrypting them does.
    """

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
        self._is_clean = True
        self._checksum = 1
        self._head = _HEADER

    def compress(self, block: bytes, *, sparing: bool) -> bytes:
        """What is to be sent now; may be empty, and belong to earlier blocks.

        Args:
            sparing: whether the processor's time is what there is little of.
        """
        self._checksum = zlib.adler32(block, self._checksum)
        head, self._head = self._head, b""
        if _shrinks(block, _WORTH_SPARING if sparing else _WORTH):
            self._is_clean = False
            return head + self._stream.compress(block)
        # A full flush forgets what was before, so that nothing will refer to it across the stored.
        parts = [head]
        if not self._is_clean:
            parts.append(self._stream.flush(zlib.Z_FULL_FLUSH))
        self._is_clean = True
        for begin in range(0, len(block), _STORED_LIMIT_BYTES):
            piece = block[begin : begin + _STORED_LIMIT_BYTES]
            parts += (_STORED.pack(0, len(piece), len(piece) ^ 0xFFFF), piece)
        return b"".join(parts)

    def flush(self) -> bytes:
        """The end of the stream."""
        return self._head + self._stream.flush() + self._checksum.to_bytes(4, "big")


def _shrinks(block: bytes, worth: float) -> bool:
    step = len(block) // _SAMPLES
    if step < _SAMPLE_BYTES:
        return True  # not worth a look
    begins = range(step // 2, step * _SAMPLES, step)
    sample = b"".join(block[begin : begin + _SAMPLE_BYTES] for begin in begins)
    return len(zlib.compress(sample, _LEVEL)) < worth * len(sample)
