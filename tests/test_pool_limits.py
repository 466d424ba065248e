"""What becomes of work that no host of a pool brings to an end."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.costs.sessions import begin
from orchestrator.records.ledger import Ledger
from orchestrator.settings.spec import Remote
from tests.faults.vm import processes
from tests.laptop import wait_until
from tests.pools import HASTY_TRAIN, LabPool, PoolHost, end_of, is_said
from tests.servers import HOST

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.laptop.TRAIN", HASTY_TRAIN)


def kill_supervisors(host: PoolHost, job: str) -> None:
    """As a machine does that has no memory left, or ends all whose users have gone."""
    for pid in processes(host.home, f"/{job}-"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_host_that_loses_each_run_before_it_begins_gets_no_more(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a")
        lab.open("a")
        with lab.train() as process:
            while process.poll() is None and not lab.hosts[1].starts:
                kill_supervisors(lab.hosts[0], "a")
            code, said = end_of(process)
        assert code == 0, said
        assert "gets no more runs: 3 runs of a left it: gpu0 lost it before it began" in said
        assert lab.starts() == {"a": 1}
        assert len(lab.mirrors) == 4


def test_work_for_which_no_host_is_left_is_not_waited_for_once_the_rest_is_home(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [1]) as lab:
        lab.add_jobs("a", "b")
        with lab.train() as process:
            wait_until(lambda: lab.heard("running") == lab.heard("queued") == 1, "one of each")
            while len(lab.mirrors) < 4:
                kill_supervisors(lab.hosts[0], "b")
            while lab.heard("lost") < 3:
                kill_supervisors(lab.hosts[0], "b")
            lab.open("a")
            code, said = end_of(process)
        assert code == 5
        assert "error: no host of lab takes these runs" in said
        assert "cause: gpu0: 3 runs of b left it: gpu0 lost it before it began" in said
        assert lab.starts() == {"a": 1}
        assert len(lab.models) == 1


def test_a_host_that_does_not_give_a_run_back_keeps_it_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b", "c")
        with lab.train() as process:
            wait_until(lambda: len(lab.places()) == 2 and lab.heard("queued") == 1, "all")
            (waiting,) = (m for m in lab.mirrors.values() if m.verdict == "queued")
            where, own = lab.place_of(waiting), waiting.request.job
            # Nothing can be written there.
            (lab.hosts[where].runs / waiting.run_id / "give-back").symlink_to("/no/such/folder")
            other = next(job for job, place in lab.places().items() if place != where)
            lab.open(other)
            assert is_said(process, f"! gpu{where}: No such file or directory: ")
            lab.open("a", "b", "c")
            code, said = end_of(process)
        assert code == 0, said
        assert "No such file" not in said
        assert lab.places()[own] == where
        assert lab.starts() == dict.fromkeys("abc", 1)


def test_what_a_host_refuses_to_hand_out_is_told_and_the_same_command_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b")
        lab.open("a", "b")
        monkeypatch.setenv("REFUSED", "a")
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 5, said
        (run,) = (m.run_id for m in lab.mirrors.values() if m.request.job == "a")
        assert f"error: {run} did not come home: gpu0: it is out of sorts\n" in said
        assert [path.parent.name for path in lab.laptop.root.glob("*/mymodel.h5")] == ["b"]

        monkeypatch.delenv("REFUSED")
        with lab.train("a") as process:
            code, said = end_of(process)
        assert code == 0, said
        assert lab.starts() == {"a": 1, "b": 1}


def test_what_goes_on_past_the_end_of_its_hosts_session_is_ended_over_the_lines_there_are(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b")
        with lab.train() as process:
            wait_until(lambda: lab.heard("running") == 2, "both")
            with Ledger.open(lab.laptop.home / "ledger.sqlite3") as ledger:
                begin(ledger, Remote("gpu1", HOST), datetime.now(UTC), lasts_s=0.0)
            wait_until(lambda: lab.heard("cancelled") == 1, "the one that is on it")
            lab.open("a")
            code, said = end_of(process)
        assert code == 1
        end = "the session's end has passed and runs go on; they are asked to save and end"
        assert said.count(end) == 1
        assert f"! gpu1: {end}\n" in said
        assert [list(host.states().values()) for host in lab.hosts] == [
            ["succeeded"],
            ["cancelled"],
        ]
        assert (lab.hosts[1].folder / "log").read_text().count("Accepted publickey") == 2


def test_even_at_a_terminal_a_pool_asks_nothing_and_names_the_doctor(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a")
        (lab.laptop.home / "known_hosts").write_text("")
        done = lab.laptop.at_terminal("-r", "lab", answers={})
    assert "Trust this machine?" not in done.stdout
    assert "fix:   train doctor lab" in done.stdout


def test_a_host_whose_budget_is_too_small_gets_nothing_and_the_others_do(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b", time_limit="2h")
        lab.open("a", "b")
        for host in (0, 1):
            lab.price(host, price={"per_hour": 1}, budget={"month": 1})
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 6, said
        assert "more than is left" in said.partition("error: ")[2]
        assert lab.starts() == {}

        lab.price(1, budget={"month": 10})
        with lab.train() as process:
            code, said = end_of(process)
    assert code == 0, said
    assert said.count("gpu0 gets no more runs: ") == 1
    assert [len(host.starts) for host in lab.hosts] == [0, 2]
