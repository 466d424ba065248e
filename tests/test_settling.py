"""The last step: of which runs the user has had the result."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import GradeBelow, LaptopFull
from orchestrator.grades.settling import Result, Troubles, settle
from orchestrator.grades.standing import Exam
from orchestrator.judge import judge
from orchestrator.records.ledger import (
    ArtifactFact,
    Ledger,
    Reporter,
    RunEvent,
    RunFact,
    VerdictFact,
)
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.records.shelf import Shelf, file_sha256
from orchestrator.screen.tell import Silence, Teller
from orchestrator.settings.spec import Job, Workspace
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import Artifact, RunRequest, RunState, State

JOB = Job("a", "make", ("a/table.csv",))
MODEL = Job("a", "make", ("a/mymodel.h5",))
TABLE = b"1,2\n"
SHA256 = hashlib.sha256(TABLE).hexdigest()


@pytest.fixture
def exam(tmp_path: Path) -> Iterator[Exam]:
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        yield Exam(Workspace(tmp_path, (JOB,)), ledger)


def made(exam: Exam, job: Job = JOB, end: State = State.SUCCEEDED) -> Mirror:
    """A run that has ended, and whose one output is on the shelf."""
    request = RunRequest("a-1", "a", "0" * 64, job.command, job.outputs)
    mirror = Mirrors(exam.workspace.state).make(request)
    output = Artifact(job.outputs[0], len(TABLE), SHA256)
    exit_code = 0 if end is State.SUCCEEDED else 1
    state = RunState(end, clock.now(), ended_at=clock.now(), exit_code=exit_code)
    mirror.see(RunReport("a-1", "a", False, "s", state, (output,)), "boot")
    file = exam.workspace.root / "came"
    file.write_bytes(TABLE)
    exam.shelf.keep(file, SHA256, "table.csv")
    now = datetime.now(UTC)
    root = str(exam.workspace.root)
    exam.ledger.add(
        RunFact("a-1", root, "a", "vm", "0" * 64, JOB.command, now, None, "", ""),
        ArtifactFact("a-1", output.path, output.size_bytes, output.sha256, now),
        RunEvent("a-1", end.value, now, Reporter.VM, exit_code),
    )
    return mirror


class Warned(Silence):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Stepped(Silence):
    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)


def settled(
    exam: Exam, mirror: Mirror, job: Job = JOB, tell: Teller | None = None, *, best: bool = True
) -> Result:
    tell = tell or Silence()
    result = settle(exam, [job], [mirror], (), Troubles(tell), tell, best=best)
    result.told()
    return result


def test_a_full_laptop_leaves_the_run_for_the_same_command_to_go_on_with(
    exam: Exam, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = made(exam)

    def full(shelf: Shelf, sha256: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as patched:
        patched.setattr(Shelf, "place", full)
        result = settled(exam, mirror)
    assert isinstance(result.trouble, LaptopFull)
    assert mirror not in result.over

    assert settled(exam, mirror).trouble is None
    assert mirror.settled
    assert (mirror.folder / "outputs" / "a" / "table.csv").read_bytes() == TABLE


def test_a_place_that_cannot_be_written_to_is_told_once(
    exam: Exam, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = made(exam)

    def too_long(shelf: Shelf, sha256: str, target: Path) -> None:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(target))

    monkeypatch.setattr(Shelf, "place", too_long)
    assert settled(exam, mirror).trouble is not None
    assert mirror.settled


def test_where_there_is_no_grader_a_failed_runs_model_is_placed_when_it_is_asked_for(
    exam: Exam,
) -> None:
    mirror, told = made(exam, MODEL, State.FAILED), Warned()
    place = exam.workspace.root / "a" / "mymodel.h5"
    place.parent.mkdir()
    place.write_bytes(b"of a run that succeeded")
    settled(exam, mirror, MODEL, told)
    assert place.read_bytes() == b"of a run that succeeded"
    (warning,) = told.warnings
    assert warning.endswith("to put it into the folder: train pull a --latest")
    settled(exam, mirror, MODEL, told)
    assert told.warnings == [warning]
    settled(exam, mirror, MODEL, told, best=False)
    assert place.read_bytes() == TABLE


def test_of_many_files_the_first_are_told_and_then_their_number(exam: Exam) -> None:
    told = Stepped()
    mirror = made(exam)
    now = datetime.now(UTC)
    facts = [ArtifactFact("a-1", f"a/t{n}.csv", len(TABLE), SHA256, now) for n in range(29)]
    exam.ledger.add(*facts)
    settled(exam, mirror, JOB, told)
    assert len(told.steps) == 21
    assert told.steps[-1] == f"10 more are in {mirror.folder / 'outputs'}"


def test_a_model_that_was_judged_before_is_not_ready_now_either(tmp_path: Path) -> None:
    grader = tmp_path / "a" / "grader.py"
    grader.parent.mkdir()
    grader.write_text("x = 1")
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        exam = Exam(Workspace(tmp_path, (MODEL,)), ledger)
        mirror = made(exam, MODEL)
        versions = (("grader", str(file_sha256(grader))),)
        ledger.add(
            VerdictFact(
                "1", str(tmp_path), "a", SHA256, "a-1", "invalid", None, "", None, (), True,
                "no model", 4, versions, datetime.now(UTC),
            )
        )  # fmt: skip
        result = settle(exam, [MODEL], [mirror], [], Troubles(Silence()), Silence(), best=True)
    with pytest.raises(GradeBelow, match="a invalid: no model"):
        judge(result)
