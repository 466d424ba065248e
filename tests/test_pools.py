"""A pool of several hosts: who gets which run, and what becomes of runs whose hosts die."""

from __future__ import annotations

import json
import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.records.mirror import LOST
from remote.runfolder import GIVEN_BACK
from tests.laptop import wait_until
from tests.pools import HASTY_TRAIN, LabPool, end_of, is_said
from tests.servers import free_port

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.laptop.TRAIN", HASTY_TRAIN)


def test_each_run_goes_to_the_host_where_it_begins_first_and_the_laptop_may_be_closed(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [2, 1]) as lab, ExitStack() as stack:
        away = f"127.0.0.1:{free_port()}"
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        mute = f"127.0.0.1:{silent.getsockname()[1]}"
        lab.says(["gpu0", away, mute, "gpu1"])
        lab.add_jobs("a", "b", "c", "d")
        with lab.train("--detach") as process:
            code, said = end_of(process)
        assert code == 0, said
        assert f"lab.{away.replace(':', '-')} is left out: " in said
        assert f"lab.{mute.replace(':', '-')} is left out: no answer in 10 s" in said
        wait_until(lambda: len(lab.places()) == 3, "as many scripts as there are slots")
        assert sorted(lab.places().values()) == [0, 0, 1]

        lab.open("a", "b", "c", "d")
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 0, said
        assert said.count("going on with") == 4
        assert lab.starts() == dict.fromkeys("abcd", 1)
        assert {row["remote"] for row in lab.laptop.json("status")} == {"gpu0", "gpu1"}
        for job in "abcd":
            assert (lab.laptop.root / job / "mymodel.h5").exists()


def test_a_host_that_has_nothing_to_do_takes_over_what_waits_elsewhere(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b", "c", "d")
        with lab.train() as process:
            wait_until(lambda: len(lab.places()) == 2, "the first two")
            lab.open("b", "c", "d")
            wait_until(lambda: len(lab.places()) == 4, "the others, on the host that is free")
            assert [lab.places()[job] for job in "abcd"] == [0, 1, 1, 1]
            lab.open("a")
            code, said = end_of(process)
        assert code == 0, said
        assert lab.starts() == dict.fromkeys("abcd", 1)

        (old,) = [mirror for mirror in lab.mirrors.values() if mirror.successor]
        assert old.verdict == "cancelled"
        assert f"{old.run_id} goes on as {old.last.run_id} on gpu1: gpu0 gave it back" in said
        assert old.settled
        (row,) = [row for row in lab.laptop.json("status") if row["run"] == old.run_id]
        assert row["reason"] == f"goes on as {old.last.run_id}"
        assert f"I am {old.last.run_id}" in lab.laptop.ok("logs", old.run_id).stdout


def test_a_dead_host_gives_its_runs_back_and_what_it_had_is_ended_when_it_returns(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [2, 2]) as lab:
        lab.says(["gpu0"])
        lab.add_jobs("a", "c", restart="on-interruption")
        lab.add_jobs("b")
        with lab.train() as process:
            wait_until(lambda: len(lab.places()) == 2, "two on the only host")
            assert lab.places().keys() == {"a", "c"}
            lab.says(["gpu0", "gpu1"])
            wait_until(lambda: lab.heard("running") == 3, "the one that waited, on the new host")
            lab.hosts[0].die()
            wait_until(lambda: lab.starts() == {"a": 2, "b": 1, "c": 1}, "a again, on the other")
            assert lab.places()["a"] == 1
            lab.open("b")
            wait_until(lambda: lab.starts()["c"] == 2, "c again, in the slot of b")
            process.kill()
            said = end_of(process)[1]
        assert "gpu0 does not answer" in said
        with lab.train() as process:
            wait_until(lambda: lab.heard("running") == 4, "what the next command goes on with")
            lab.hosts[0].boot()
            old = [mirror for mirror in lab.mirrors.values() if mirror.successor]
            wait_until(lambda: all(mirror.ended for mirror in old), "the ends of what it had")
            lab.open("a", "c")
            code, said = end_of(process)
        assert code == 0, said
        # Asked about, a run that may be restarted is: it was ended before anything was asked.
        assert lab.starts() == {"a": 2, "b": 1, "c": 2}
        assert all(mirror.is_given_back and mirror.settled for mirror in old)
        assert {mirror.request.restarts for mirror in lab.mirrors.values()} == {0, 2, 3}
        assert said.count("going on with") == 3


def test_a_run_that_may_not_be_started_again_stays_with_its_dead_host(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b")
        with lab.train() as process:
            wait_until(lambda: lab.heard("running") == len(lab.places()) == 2, "both")
            lab.hosts[0].die()
            lab.open("b")
            assert is_said(process, "a-", "has begun on gpu0, which does not answer")
            lab.hosts[0].boot()
            code, _ = end_of(process)
        assert code == 1
        assert lab.starts() == {"a": 1, "b": 1}
        assert sorted(mirror.verdict for mirror in lab.mirrors.values()) == [LOST, "succeeded"]


def test_a_drained_host_keeps_what_has_begun_and_gives_back_what_waits(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.says(["gpu0"])
        lab.add_jobs("a", "b")
        with lab.train() as process:
            wait_until(lambda: len(lab.places()) == 1, "the first")
            wait_until(lambda: len(lab.mirrors) == 2, "the second")
            lab.says(["gpu0", "gpu1"], drained=["gpu0"])
            wait_until(lambda: lab.places() == {"a": 0, "b": 1}, "the second, on the new host")
            lab.open("a", "b")
            code, said = end_of(process)
        assert code == 0, said
        assert "gpu0 takes no runs any more" in said
        assert lab.starts() == {"a": 1, "b": 1}


def test_a_drained_host_keeps_also_what_waits_where_no_other_is_large_enough_for_it(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [2, 1]) as lab:
        lab.says(["gpu0"])
        lab.add_jobs("a", "b", gpus=2)
        lab.add_jobs("c")
        with lab.train() as process:
            wait_until(lambda: lab.heard("running") == 1 and lab.heard("queued") == 2, "two wait")
            lab.says(["gpu0", "gpu1"], drained=["gpu0"])
            wait_until(lambda: lab.places() == {"a": 0, "c": 1}, "the small one, on the new host")
            lab.open("a", "b", "c")
            code, said = end_of(process)
        assert code == 0, said
        assert "has so many" not in said
        assert lab.places() == {"a": 0, "b": 0, "c": 1}
        assert len(lab.mirrors) == 4


@pytest.mark.parametrize(
    "point",
    [
        "orchestrator.records.mirror:Mirror.note_successor",
        "orchestrator.records.mirror:Mirrors.make",
        "orchestrator.pools.sending:Sending._submit",
        "orchestrator.records.mirror:Mirror.settle",
    ],
)
def test_a_move_that_was_cut_off_is_finished_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b", "c")
        waiting = lab.detach_three()[0].request.job
        monkeypatch.setenv("DIE_AT", point)
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 9, said
        monkeypatch.delenv("DIE_AT")
        lab.open(*"abc")
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 0, said
        assert lab.starts() == dict.fromkeys("abc", 1)
        runs = [m for m in lab.mirrors.values() if m.request.job == waiting]
        (new,) = [m for m in runs if m.successor is None]
        (old,) = [m for m in runs if m.successor is not None]
        assert (old.verdict, old.last, new.verdict) == ("cancelled", new, "succeeded")
        assert old.settled


def test_what_a_host_gave_back_is_begun_once_by_a_command_on_that_host_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a", "b", "c")
        old, where = lab.detach_three()
        waiting = old.request.job
        monkeypatch.setenv("DIE_AT", "orchestrator.records.mirror:Mirror.note_successor")
        with lab.train() as process:
            assert end_of(process)[0] == 9
        monkeypatch.delenv("DIE_AT")
        assert old.is_given_back

        gates = f"gates={lab.gates}"
        done = lab.laptop.ok(waiting, "-r", f"gpu{where}", "-p", gates, "--detach")
        assert old.successor is not None
        goes_on = f"{old.run_id} goes on as {old.last.run_id}: gpu{where} gave it back"
        assert goes_on in done.stderr
        lab.open(*"abc")
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 0, said
        assert f"going on with {old.last.run_id}" in said
        assert lab.starts() == dict.fromkeys("abc", 1)


def test_a_run_that_no_host_is_large_enough_for_is_refused_at_once(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1]) as lab:
        lab.add_jobs("a", gpus=2)
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 5
        assert "error: a wants 2 GPUs, and no host of lab that answers has so many" in said
        assert not lab.mirrors


def test_where_nobody_answers_it_is_told_what_each_one_said(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1]) as lab:
        lab.hosts[0].die()
        lab.add_jobs("a")
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 3
        assert "error: no host of lab takes these runs\ncause: gpu0: " in said
        assert GIVEN_BACK not in said


def test_the_doctor_looks_at_each_host_and_names_it(tmp_path: Path) -> None:
    with LabPool(tmp_path, [0, 0]) as lab:
        lab.says(["gpu0", lab.hosts[1].address])
        done = lab.laptop.train("doctor", "lab", "--json")
        checks = {check["check"]: check for check in json.loads(done.stdout)}
        address = f"lab.{lab.hosts[1].address.replace(':', '-')}"
        assert [checks[f"{name}: host key"]["mark"] for name in ("gpu0", address)] == ["ok"] * 2
        # What is said of an address is said of its pool.
        assert "train remote set gpu0 " in checks["gpu0: framework in python3"]["fix"]
        assert "train remote set lab " in checks[f"{address}: framework in python3"]["fix"]


def test_the_doctor_tells_each_host_with_its_money_and_then_which_are_ready(tmp_path: Path) -> None:
    with LabPool(tmp_path, [0, 0, 0]) as lab:
        lab.price(0, price={"per_hour": 0.5})
        dead = lab.hosts[2].address
        lab.says(["gpu0", "gpu1", dead], drained=["gpu1"])
        lab.hosts[2].die()
        done = lab.laptop.train("doctor", "lab")
        _, first, second, third, last = done.stdout.split("\n\n")
        assert done.returncode == 3, done.stderr
        assert re.match("── gpu0 ──\n.*\nbudget +ok +none is set$", first, re.DOTALL)
        assert second.startswith("── gpu1, drained ──\n")
        assert "budget" not in second
        name = f"lab.{dead.replace(':', '-')}"
        assert third.startswith(f"── {name} ──\n")
        assert third.endswith("to correct the remote: train remote set lab --port PORT --key FILE")
        assert last == (
            f"ready: 1 of 3 hosts of lab; not ready: {name} (connection); drained: gpu1\n"
        )


def test_a_host_that_is_lost_under_the_doctors_hands_takes_nothing_from_the_others(
    tmp_path: Path,
) -> None:
    deadly = tmp_path / "python"
    deadly.write_text('#!/bin/sh\n[ -e ~/once ] && kill $PPID\n: >~/once; exec python3 "$@"\n')
    deadly.chmod(0o755)
    with LabPool(tmp_path, [0, 0]) as lab:
        lab.price(0, env={"python": str(deadly)})
        done = lab.laptop.train("doctor", "lab")
        assert done.returncode == 4, done.stderr
        assert done.stdout.endswith("\nready: 1 of 2 hosts of lab; not ready: gpu0 (connection)\n")


def test_the_doctor_asks_about_one_host_key_after_the_other(tmp_path: Path) -> None:
    with LabPool(tmp_path, [0, 0]) as lab:
        (lab.laptop.home / "known_hosts").unlink()
        questions = {f"[{host.address.replace(':', ']:')} is not known": "y" for host in lab.hosts}
        said = lab.laptop.at_terminal("doctor", "lab", answers=questions, columns=200).stdout
        assert said.count("Trust this machine? [y/N] y\r\n") == 2
        assert "ready: 2 of 2 hosts of lab\r\n" in said


def test_a_pool_that_was_drained_while_its_last_run_went_on_ends_well(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1]) as lab:
        lab.add_jobs("a")
        with lab.train() as process:
            wait_until(lambda: lab.places() == {"a": 0}, "its start")
            lab.says(["gpu0"], drained=["gpu0"])
            assert is_said(process, "gpu0 takes no runs any more")
            lab.open("a")
            code, said = end_of(process)
        assert code == 0, said
