"""The last step: of which runs the user has had the result."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import LaptopFull
from orchestrator.ledger import ArtifactFact, Ledger, RunFact
from orchestrator.mirror import Mirror, Mirrors
from orchestrator.settling import Result, Troubles, settle
from orchestrator.shelf import Shelf
from orchestrator.spec import Job, Workspace
from orchestrator.standing import Exam
from orchestrator.tell import Silence
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import Artifact, RunRequest, RunState, State

JOB = Job("a", "make", ("a/table.csv",))
TABLE = b"1,2\n"
SHA256 = hashlib.sha256(TABLE).hexdigest()


@pytest.fixture
def exam(tmp_path: Path) -> Iterator[Exam]:
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        yield Exam(Workspace(tmp_path, (JOB,)), ledger)


def made(exam: Exam) -> Mirror:
    """A run that has ended, and whose one output is on the shelf."""
    request = RunRequest("a-1", "a", "0" * 64, JOB.command, JOB.outputs)
    mirror = Mirrors(exam.workspace.state).make(request)
    output = Artifact("a/table.csv", len(TABLE), SHA256)
    state = RunState(State.SUCCEEDED, clock.now(), ended_at=clock.now())
    mirror.see(RunReport("a-1", "a", False, "s", state, (output,)), "boot")
    file = exam.workspace.root / "came"
    file.write_bytes(TABLE)
    exam.shelf.keep(file, SHA256, "table.csv")
    now = datetime.now(UTC)
    root = str(exam.workspace.root)
    exam.ledger.add(
        RunFact("a-1", root, "a", "vm", "0" * 64, JOB.command, now, None, "", ""),
        ArtifactFact("a-1", output.path, output.size_bytes, output.sha256, now),
    )
    return mirror


def settled(exam: Exam, mirror: Mirror) -> Result:
    tell = Silence()
    result = settle(exam, [JOB], [mirror], (), Troubles(tell), tell, best=True)
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
