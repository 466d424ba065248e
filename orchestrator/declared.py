"""What a run made that its job declares: the artifacts that are accepted, and whether all are here.

The VM is not trusted: without these rules it could place a file of any name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirror
from orchestrator.records.shelf import Shelf
from orchestrator.screen.printable import printable
from remote.runfolder import Artifact
from remote.tree import SIZE_LIMIT_BYTES, BadTree, check_path, is_digest

# What Windows takes for something other than a file of this name: a device with any ending, a
# drive, a stream, or the name without what it ends in.
# Source: Microsoft, "Naming Files, Paths, and Namespaces".
_UNSAFE_NAME = re.compile(
    r"""[\\:*?"<>|] | [. ]\Z | \A(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[1-9¹²³])[ ]*(\.|\Z)""",
    re.VERBOSE | re.IGNORECASE,
)


def accept(artifacts: Iterable[Artifact], outputs: Iterable[str]) -> tuple[Artifact, ...]:
    """The artifacts that are what they claim to be: plain names, declared as outputs.

    Of two that some laptop could not keep side by side, the first is taken: names that differ only
    by case or by how their accents are written, and a file where another needs a folder.
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


def unmade(artifacts: Sequence[Artifact], outputs: Iterable[str]) -> tuple[str, ...]:
    """The declared outputs of which there is nothing."""
    return tuple(
        pattern
        for pattern in outputs
        if not any(_is_declared(artifact.path, pattern) for artifact in artifacts)
    )


def is_home(mirror: Mirror, ledger: Ledger, shelf: Shelf) -> bool:
    """Whether it has ended, and all it made is on the shelf."""
    seen = mirror.seen
    if seen is None or not mirror.ended:
        return False
    recorded = {fact.path for fact in ledger.artifacts(mirror.run_id)}
    return all(
        artifact.path in recorded and shelf.find(artifact.sha256)
        for artifact in accept(seen.report.artifacts, mirror.request.outputs)
    )


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
