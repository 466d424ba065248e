"""What one host of a pool is asked, where it says no or does not answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from orchestrator.errors import ConnectError, ConnectionLost, Refused
from orchestrator.pools.host import Host
from orchestrator.pools.hosts import Hosts
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Silence
from orchestrator.settings.pool import Pool
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


class Away:
    """What a machine comes to when a line to it is wanted: an error, or a link."""

    def __init__(self, *answers: Exception | SimpleNamespace) -> None:
        self.tell = Told()
        self._answers = list(answers)

    def connect(self, remote: Remote) -> object:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hosts(self) -> Hosts:
        return Hosts(Pool("lab", (Remote("k80", "203.0.113.7"),)), cast(RoundTrip, self))


def _link() -> SimpleNamespace:
    return SimpleNamespace(host_key_fingerprint="", close=lambda: None)


def test_what_is_tried_on_a_host_that_cannot_be_dialled_is_passed_over() -> None:
    link = _link()
    away = Away(ConnectError("k80 does not answer"), link)
    hosts = away.hosts()
    done: list[object] = []
    assert not hosts.try_at(hosts["k80"], done.append)
    assert (done, away.tell.warnings) == ([], [])
    assert hosts.try_at(hosts["k80"], done.append)
    assert done == [link]


def test_a_line_that_breaks_is_dialled_anew_and_a_refusal_is_told_once() -> None:
    first, second = _link(), _link()
    hosts = (away := Away(first, second)).hosts()
    seen: list[object] = []

    def breaks(link: Link) -> None:
        seen.append(link)
        raise ConnectionLost("k80 is gone")

    def refuses(link: Link) -> None:
        seen.append(link)
        raise Refused("k80: no space left")

    assert not hosts.try_at(hosts["k80"], breaks)
    assert not hosts.try_at(hosts["k80"], refuses)
    assert not hosts.try_at(hosts["k80"], refuses)
    assert seen == [first, second, second]
    assert away.tell.warnings == ["k80: no space left"]
