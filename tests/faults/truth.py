"""Whether what both machines keep is true, found out from the files alone, with none of our code.

A lie is a sentence. What holds at any time, also in the middle of a crash, is in `lies`; what holds
once the user's command has ended well, in `lies_when_done`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FINAL = {"succeeded", "failed", "cancelled", "timed-out", "setup-failed"}
# Where a job notes that it was started: one line each time.
STARTS = "starts"


@dataclass(frozen=True)
class Scene:
    """Where to look.

    Attributes:
        workspace: of the laptop.
        ledger: the laptop's.
        home: of the user on the VM.
        others: on the other hosts, where it is a pool.
    """

    workspace: Path
    ledger: Path
    home: Path
    others: tuple[Path, ...] = ()

    @property
    def store(self) -> Path:
        return self.home / ".trainshed"

    def found(self, pattern: str) -> list[Path]:
        """In the stores of all hosts."""
        homes = (self.home, *self.others)
        return [path for home in homes for path in (home / ".trainshed").glob(pattern)]

    def lies(self) -> list[str]:
        """What must never be, whatever was killed or cut a moment ago."""
        return [
            *self._contents(),
            *self._trees(),
            *self._runs(),
            *self._starts(),
            *self._models(),
            *self._logs(),
            *self._ledger(),
        ]

    def lies_when_done(self) -> list[str]:
        """What must not be, either, when all has come home."""
        return [*self.lies(), *self.left_over(), *self._unfinished()]

    def _contents(self) -> Iterator[str]:
        for path in self.found("objects/*/*"):
            # A name that begins with a dot is a file that was being written.
            if not path.name.startswith(".") and sha256(path) != path.name:
                yield f"{path} has another content than it is named for"

    def _trees(self) -> Iterator[str]:
        for path in self.found("snapshots/*.json"):
            if sha256(path) != path.stem:
                yield f"{path} is another tree than it is named for"
            for name, kind, size_bytes, digest, *_ in json.loads(path.read_bytes()):
                content = path.parent.parent / "objects" / digest[:2] / digest
                if kind == "file" and (
                    not content.exists() or content.stat().st_size != size_bytes
                ):
                    yield f"{path} is complete, but {name!r} of it is not there"

    def _runs(self) -> Iterator[str]:
        for folder in self.found("runs/*"):
            if folder.name.startswith("."):
                continue
            state = read(folder / "state.json")
            if state is None or state["state"] not in FINAL:
                continue
            if state["ended_at"] is None:
                yield f"{folder.name} is {state['state']}, but nobody knows since when"
            for file in (read(folder / "artifacts.json") or {"files": ()})["files"]:
                made = folder / "tree" / file["path"]
                if sha256(made) != file["sha256"] or made.stat().st_size != file["size_bytes"]:
                    yield f"{made} is not what was recorded at the run's end"

    def _starts(self) -> Iterator[str]:
        files = [home / STARTS for home in (self.home, *self.others)]
        lines = [line for f in files if f.exists() for line in f.read_text().splitlines()]
        for folder, count in Counter(lines).items():
            # Its folder is the run's tree.
            restarts = Path(folder).parent / "restarts"
            may = 1 + (int(restarts.read_text()) if restarts.exists() else 0)
            if count > may:
                yield f"the job in {folder} was started {count} times, not {may} at most"

    def _models(self) -> Iterator[str]:
        shelf = set()
        for path in self.workspace.glob(".train/models/*/*"):
            shelf.add(path.parent.name)
            if not path.name.startswith(".") and sha256(path) != path.parent.name:
                yield f"{path} is another model than it is named for"
        for path in self.workspace.glob("*/mymodel.h5"):
            if sha256(path) not in shelf:
                yield f"{path} stands in its folder, but was never pulled whole"

    def _logs(self) -> Iterator[str]:
        for copy in self.workspace.glob(".train/runs/*/log"):
            for log in self.found(f"runs/{copy.parent.name}/log"):
                if not log.read_bytes().startswith(copy.read_bytes()):
                    yield f"{copy} is not what the VM's log begins with"

    def _ledger(self) -> Iterator[str]:
        if not self.ledger.exists():
            return
        # Elsewhere: SQLite writes beside what it reads, and the disk may be full or read-only.
        with TemporaryDirectory() as elsewhere:
            for path in self.ledger.parent.glob(f"{self.ledger.name}*"):
                shutil.copy(path, elsewhere)
            yield from self._facts(Path(elsewhere) / self.ledger.name)

    def _facts(self, copy: Path) -> Iterator[str]:
        with closing(sqlite3.connect(copy)) as ledger:
            for (said,) in ledger.execute("PRAGMA integrity_check"):
                if said != "ok":
                    yield f"the ledger is damaged: {said}"
            if not next(ledger.execute("PRAGMA user_version"))[0]:
                return  # it was being made
            ends = "SELECT run_id, count(*) FROM run_event WHERE state IN ({}) GROUP BY run_id"
            marks = ",".join(f"'{state}'" for state in sorted(FINAL))
            for run_id, count in ledger.execute(ends.format(marks)):
                if count > 1:
                    yield f"the ledger has {count} ends of {run_id}"
            artifacts = "SELECT run_id, path, sha256 FROM artifact"
            for run_id, path, digest in ledger.execute(artifacts):
                if not list(self.workspace.glob(f".train/models/{digest}/*")):
                    yield f"the ledger has {path} of {run_id}, but the shelf does not"

    def left_over(self) -> Iterator[str]:
        for path in self.workspace.glob(".train/runs/*/partial/*"):
            yield f"{path} was left behind"
        for path in self.found("incoming/*"):
            yield f"{path} was left behind"

    def _unfinished(self) -> Iterator[str]:
        # Without a request it never became a run.
        for folder in (file.parent for file in self.workspace.glob(".train/runs/*/request.json")):
            if not (folder / "settled").exists():
                yield f"{folder.name} is not settled"
            states = map(read, self.found(f"runs/{folder.name}/state.json"))
            if [state["state"] in FINAL for state in states] != [True]:
                yield f"{folder.name} has no end on the VM"


def sha256(path: Path) -> str:
    """Of a file; "" where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return ""


def read(path: Path) -> Any:  # noqa: ANN401  # whatever JSON can hold
    """What a JSON file holds; None where there is none."""
    return json.loads(path.read_bytes()) if path.exists() else None
