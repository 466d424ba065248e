"""A ledger made again of workspaces that are not as tidy as ours."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.records.ledger import Ledger, RunFact
from orchestrator.records.ledgerschema import workspaces_file
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.records.rebuild import keep_beside, rebuild
from orchestrator.records.shelf import Shelf
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import Artifact, RunRequest, RunState, State

MODEL = b"a model"


def made(root: Path, ledger: Path, run_id: str = "a-1") -> Mirror:
    """A workspace's run whose model came home."""
    request = RunRequest(run_id, "a", "0" * 64, "make", ("a/mymodel.h5",))
    mirror = Mirrors(root / ".train").make(request)
    sha256 = Shelf(root / ".train").adopt(_file(root / "mymodel.h5"))
    state = RunState(State.SUCCEEDED, clock.now(), ended_at=clock.now())
    output = Artifact("a/mymodel.h5", len(MODEL), sha256)
    mirror.see(RunReport(run_id, "a", False, "s", state, (output,)), "boot")
    now = datetime.now(UTC)
    fact = RunFact(run_id, str(root), "a", "vm", "0" * 64, "make", now, None, "", "")
    keep_beside(fact, mirror, ledger)
    return mirror


def _file(path: Path) -> Path:
    path.write_bytes(MODEL)
    return path


def test_a_workspace_that_was_copied_keeps_no_ledger_from_being_made(tmp_path: Path) -> None:
    ledger, first, copy = tmp_path / "ledger.sqlite3", tmp_path / "exam", tmp_path / "copy"
    made(first, ledger)
    shutil.copytree(first, copy)
    for kept in (copy / ".train" / "models").glob("*/*"):
        os.utime(kept, (0, 0))  # as a copy that does not keep times
    made(copy, ledger, "a-2")
    rebuilt = rebuild(ledger, None)
    assert rebuilt is not None
    assert (rebuilt.runs, rebuilt.artifacts, rebuilt.unknown) == (2, 2, ())
    with Ledger.open(ledger) as again:
        assert [run.workspace for run in again.runs()] == [str(first), str(copy)]


def test_the_list_of_workspaces_outlives_a_line_that_is_none(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    made(tmp_path / "one", ledger)
    with workspaces_file(ledger).open("ab") as file:
        file.write(b'"/half a \xff')
    made(tmp_path / "two", ledger, "b-1")
    made(tmp_path / "two", ledger, "b-2")
    assert workspaces_file(ledger).read_bytes().count(b"/two") == 1
    rebuilt = rebuild(ledger, None)
    assert rebuilt is not None
    assert set(rebuilt.workspaces) == {str(tmp_path / "one"), str(tmp_path / "two")}
