"""What one host of a pool is asked, where it says no."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from orchestrator.errors import Refused
from orchestrator.pools.host import Host
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Remote
from orchestrator.vm.link import Link
from remote.protocol import Cancel
from remote.runfolder import Ended, State

FALLEN = Ended("worker 1", State.FAILED)


class Told(Silence):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Refusing:
    """A link to a machine that ends all runs but one."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.asked: list[str] = []

    def call(self, call: Cancel, answer: object) -> None:
        self.asked.append(call.run_id)
        if call.run_id == self.run_id:
            raise Refused("k80: no space left")


def test_a_run_that_cannot_be_ended_is_told_once_and_asked_again_and_the_others_are_ended(
    tmp_path: Path,
) -> None:
    told, link = Told(), Refusing("a-1")
    host = Host(Remote("k80", "203.0.113.7"), cast(RoundTrip, SimpleNamespace(tell=told)))
    runs = [Mirror(tmp_path / "a-1"), Mirror(tmp_path / "b-1")]
    for run in runs:
        host.end_for(run, FALLEN)
    for _ in range(2):
        host.end_over(cast(Link, link), runs)
    host.close()
    assert link.asked == ["a-1", "b-1", "a-1"]
    assert told.warnings == ["a-1 is not ended: k80: no space left"]
