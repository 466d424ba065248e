"""What a grade depends on besides the model and the framework: the grader, and its folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.records.shelf import file_sha256


@dataclass(frozen=True)
class Surroundings:
    """Attributes:
    grader: its sha256.
    folder: the real path of the folder it is in.
    files: names, sizes and times of what lies beside and below it. Held-out data may be large,
        so it is not read.
    """

    grader: str
    folder: str
    files: tuple[tuple[str, int, int, int], ...]

    def marks(self, sources: Iterable[str]) -> dict[str, str]:
        """As the ledger keeps them, of a grading that opened these Python files.

        Nobody knows which data a grader reads, through which library. But a Python file that it did
        not open, such as the script that the user edits between two runs, has no part in a verdict.
        One that is new has none either, though a grader could have looked for it in vain.
        """
        read, below = sorted(set(sources)), self.folder + os.sep
        beside = [
            file
            for file in self.files
            if not (file[0].endswith(".py") and file[0].startswith(below)) or file[0] in read
        ]
        digest = hashlib.sha256(json.dumps(beside).encode()).hexdigest()
        return {"beside": digest, "grader": self.grader, "sources": json.dumps(read)}


def look_around(grader: Path | None, model: Path | None) -> Surroundings:
    """As they are now.

    Args:
        model: left out; its content is what is graded.
    """
    if grader is None:
        return Surroundings("", "", ())
    found = []
    seen = set()
    for folder, folders, files in os.walk(grader.parent, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add((here.st_dev, here.st_ino))
        for path in (Path(folder, name) for name in files):
            with contextlib.suppress(OSError):
                if path not in (grader, model):
                    at = path.stat()
                    name = os.path.realpath(path) if path.suffix == ".py" else str(path)
                    found.append((name, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
    folder = os.path.realpath(grader.parent)
    return Surroundings(file_sha256(grader) or "", folder, tuple(sorted(found)))
