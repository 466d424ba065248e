"""The run that is meant by what was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.finding import find_run
from orchestrator.records.mirror import Mirrors
from orchestrator.screen.tell import Silence
from remote.protocol import RunReport
from remote.runfolder import RunRequest

FIRST, LAST = "pair-20260801-120000-0000", "pair-20260801-120100-0000"


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    """Two gangs of two, and a category whose name ends as a worker's label does."""
    mirrors = Mirrors(tmp_path / ".train")
    runs = [(f"{run}{worker}", "pair") for run in (FIRST, LAST) for worker in ("", ".w1")]
    for run_id, job in [*runs, ("solo.w1-20260801-120000-0000", "solo.w1")]:
        made = mirrors.make(RunRequest(run_id, job, "0" * 64, "true"))
        made.see(RunReport(run_id, job, alive=True, stamp="1"), boot_id="")
    return mirrors


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pair", LAST),
        ("pair.w1", f"{LAST}.w1"),
        (f"{FIRST}.w1", f"{FIRST}.w1"),
        ("solo.w1", "solo.w1-20260801-120000-0000"),
    ],
)
def test_a_worker_is_found_by_the_label_of_its_log(mirrors: Mirrors, text: str, found: str) -> None:
    assert find_run(mirrors, text, Silence()).run_id == found


@pytest.mark.parametrize("text", ["pair.w2", "none.w1", "solo.w1.w1"])
def test_a_worker_that_there_is_not_is_not_found(mirrors: Mirrors, text: str) -> None:
    with pytest.raises(UsageError, match="no run is or begins with"):
        find_run(mirrors, text, Silence())
