"""Finding held-out rows and labels in bytes, however they are written and packed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Of a row so many neighbouring values are looked for, where they differ most: any longer part of
# it has them too, and a shorter one may stand anywhere.
VALUES = 128
# A search is for so many bytes of it first, eight at a time.
_KEY_BYTES = 32
_WORD_BYTES = 8
_TRIED = 24
_FACTORS = np.random.default_rng(1).integers(1, 2**63, _KEY_BYTES // _WORD_BYTES, "<u8") | 1

# How a row may be written.
ENCODINGS: dict[str, Callable[[Array], bytes]] = {
    "as it is": lambda row: row.tobytes(),
    "float32": lambda row: row.astype("<f4").tobytes(),
    "float64": lambda row: row.astype("<f8").tobytes(),
    "scaled to 1": lambda row: (row.astype("<f4") / 255).tobytes(),
    "int64": lambda row: row.astype("<i8").tobytes(),
    "csv": lambda row: ",".join(map(str, row.tolist())).encode(),
    "words": lambda row: " ".join(map(str, row.tolist())).encode(),
    "lines": lambda row: "\n".join(map(str, row.tolist())).encode(),
    "json": lambda row: json.dumps(row.tolist()).encode(),
}


def pieces(held_out: Path) -> Iterator[tuple[str, Array]]:
    """What tells each row of a held-out file, and each stretch of its labels."""
    with np.load(held_out, allow_pickle=False) as data:
        for name in data:
            array = data[name]
            rows = array.reshape(len(array), -1) if array.ndim > 1 else _stretches(array)
            for number, row in enumerate(rows):
                yield f"{held_out.parent.name} {name}[{number}]", _telling(row)


def _stretches(labels: Array) -> Array:
    width = 48 if labels.dtype.kind in "ui" else 12
    return labels[: len(labels) // width * width].reshape(-1, width)


def _telling(row: Array) -> Array:
    starts = {int(start) for start in np.linspace(0, max(0, len(row) - VALUES), _TRIED)}
    best = max(sorted(starts), key=lambda start: len(set(row[start : start + VALUES].tolist())))
    return row[best : best + VALUES]


class Search:
    """Args:
    held_out: the files of which nothing may be found.
    """

    def __init__(self, held_out: list[Path]) -> None:
        self.wanted: dict[int, list[tuple[str, bytes, int]]] = {}
        for path in held_out:
            for name, piece in pieces(path):
                for how, encode in ENCODINGS.items():
                    data = encode(piece)
                    at = _key_at(data)
                    (key,) = _keys(data[at : at + _KEY_BYTES]).tolist()
                    self.wanted.setdefault(key, []).append((f"{name} {how}", data, at))
        self._sorted = np.sort(np.array(list(self.wanted), "<u8"))

    def found(self, data: bytes) -> set[str]:
        """What of it stands in these bytes."""
        hits = set()
        for shift in range(_WORD_BYTES):
            here = _keys(data[shift:])
            near = self._sorted[np.searchsorted(self._sorted, here).clip(max=len(self.wanted) - 1)]
            for place in np.flatnonzero(near == here).tolist():
                begin = shift + place * _WORD_BYTES
                for name, whole, at in self.wanted[int(here[place])]:
                    if begin >= at and data.startswith(whole, begin - at):
                        hits.add(name)
        return hits


def _keys(data: bytes) -> Array:
    """A number for the bytes from each eighth one on."""
    words = np.frombuffer(data, "<u8", len(data) // _WORD_BYTES)
    count = max(0, len(words) - len(_FACTORS) + 1)
    return sum(
        (words[n : n + count] * factor for n, factor in enumerate(_FACTORS)),
        np.zeros(count, "<u8"),
    )


def _key_at(data: bytes) -> int:
    """Where the bytes differ most from each other: few others will be like them."""
    starts = {int(start) for start in np.linspace(0, max(0, len(data) - _KEY_BYTES), _TRIED)}
    return max(sorted(starts), key=lambda start: len(set(data[start : start + _KEY_BYTES])))


def below(folder: Path) -> dict[str, Path]:
    """Every content in a folder, once, by its digest."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}


def unpacked(data: bytes) -> Iterator[bytes]:
    """The bytes, and what is packed in them."""
    yield data
    if data[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(data))
    elif data[:1] == b"\x78" and data[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
        try:
            yield from unpacked(zlib.decompress(data))
        except zlib.error:
            pass  # only looks like it
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for name in packed.namelist():
                yield from unpacked(packed.read(name))
