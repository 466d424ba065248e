"""Artifacts from the VM to the shelf: resumed where they stopped, verified before they count."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from orchestrator.errors import ModelDamaged, UsageError
from orchestrator.link import Link
from orchestrator.printable import printable
from orchestrator.shelf import Shelf
from orchestrator.size import format_size
from orchestrator.tell import Teller
from remote.protocol import CHUNK_BYTES, Fetch
from remote.runfolder import Artifact
from remote.tree import SIZE_LIMIT_BYTES, BadTree, check_path, is_digest

# What Windows takes for something other than a file of this name: a device with any ending, a
# drive, a stream, or the name without what it ends in.
# Source: Microsoft, "Naming Files, Paths, and Namespaces".
_UNSAFE_NAME = re.compile(
    r"""[\\:*?"<>|] | [. ]\Z | \A(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[1-9¹²³])[ ]*(\.|\Z)""",
    re.VERBOSE | re.IGNORECASE,
)


def pull(
    link: Link, run_id: str, artifact: Artifact, partial: Path, shelf: Shelf, tell: Teller
) -> Path:
    """Bring one artifact onto the shelf. One that is there already is not sent again.

    Args:
        partial: a folder for what has come so far; the next attempt goes on from it.

    Raises:
        ModelDamaged: the bytes do not have the VM's sha256; they are thrown away.
        UsageError: it does not fit on this laptop's disk.
        ConnectionLost: what came is kept.
    """
    known = shelf.find(artifact.sha256)
    if known is not None:
        return known
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / artifact.sha256
    path.touch()
    # In place, not appended: two who pull the same file write the same bytes there.
    with path.open("r+b") as file:
        digest, have_bytes = _resume(file, artifact.size_bytes)
        _check_space(partial, artifact, have_bytes)
        for block in link.fetch(Fetch(run_id, artifact.path, have_bytes)):
            have_bytes += len(block)
            if have_bytes > artifact.size_bytes:
                break
            file.write(block)
            digest.update(block)
            name = printable(artifact.path)
            tell.doing(f"pulling {name}", have_bytes, artifact.size_bytes)
        file.flush()
        os.fsync(file.fileno())
    if have_bytes != artifact.size_bytes or digest.hexdigest() != artifact.sha256:
        path.unlink(missing_ok=True)
        raise ModelDamaged(
            f"{printable(artifact.path)} of {run_id} is not what the VM hashed when the run ended",
            cause=f"{have_bytes} bytes came, sha256 {digest.hexdigest()}; "
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


def accept(artifacts: Iterable[Artifact], outputs: Iterable[str]) -> tuple[Artifact, ...]:
    """The artifacts that are what they claim to be: plain names, declared as outputs.

    The VM is not trusted: without this it could place a file of any name. Of two that some laptop
    could not keep side by side, the first is taken: names that differ only by case or by how their
    accents are written, and a file where another needs a folder.
    """
    patterns = tuple(outputs)
    accepted = []
    files: set[str] = set()
    folders: set[str] = set()
    for artifact in artifacts:
        if not _is_sound(artifact, patterns):
            continue
        place = _place(artifact.path)
        above = {str(folder) for folder in PurePosixPath(place).parents}
        if place not in files | folders and not above & files:
            accepted.append(artifact)
            files.add(place)
            folders |= above
    return tuple(accepted)


def _is_sound(artifact: Artifact, patterns: tuple[str, ...]) -> bool:
    try:
        check_path(artifact.path)
    except (BadTree, UnicodeEncodeError):
        return False
    return (
        is_digest(artifact.sha256)
        and 0 <= artifact.size_bytes < SIZE_LIMIT_BYTES
        and printable(artifact.path) == artifact.path
        and not any(_UNSAFE_NAME.search(name) for name in artifact.path.split("/"))
        and any(_is_declared(artifact.path, pattern) for pattern in patterns)
    )


def _place(path: str) -> str:
    """What paths have in common that are one place where case or normalisation do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _is_declared(path: str, pattern: str) -> bool:
    """Whether a pattern means this path, or a folder it lies in."""
    parts, wanted = path.split("/"), pattern.strip("/").split("/")
    return _match(parts, wanted)


def _match(parts: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return True  # the path itself, or something below the folder that was named
    if wanted[0] == "**":
        return any(_match(parts[skip:], wanted[1:]) for skip in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _match(parts[1:], wanted[1:])


def _resume(file: BinaryIO, size_bytes: int) -> tuple[hashlib._Hash, int]:
    """Hash what has come; leaves the file at its end."""
    digest = hashlib.sha256()
    if os.fstat(file.fileno()).st_size > size_bytes:
        file.truncate(0)
    while block := file.read(CHUNK_BYTES):
        digest.update(block)
    return digest, file.tell()


def _check_space(folder: Path, artifact: Artifact, have_bytes: int) -> None:
    needed, free = artifact.size_bytes - have_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{printable(artifact.path)} does not fit on this laptop's disk",
            cause=f"it needs {format_size(needed)} more, {format_size(free)} are free",
            fix="free some space, then: train pull",
        )
