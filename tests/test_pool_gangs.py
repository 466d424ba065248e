"""One run on several hosts of a pool, each a real sshd with a home of its own."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from orchestrator.desk import Desk
from orchestrator.screen.console import Console
from orchestrator.settings.config import load_workspace
from orchestrator.watch.watching import Watching
from tests.laptop import Laptop, wait_until
from tests.pools import HASTY_TRAIN, LabPool, end_of, is_said
from tests.test_gangs import SCRIPTS, WORKER

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(120)]


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.laptop.TRAIN", HASTY_TRAIN)


def add_gang(lab: LabPool, name: str = "a", nodes: int = 2, **keys: object) -> None:
    script = WORKER.replace('"a/mymodel.h5"', f'"{name}/mymodel.h5"')
    lab.laptop.add_job(name, script=script, nodes=nodes, metrics=False, **keys)


def gang(laptop: Laptop) -> dict[str, dict[str, object]]:
    """What `status` tells, by the end of the run's id; without those that were moved."""
    told = [run for run in laptop.json("status", "--local") if "goes on" not in run["reason"]]
    return {run["run"].rpartition("-")[2].partition(".")[2]: run for run in told}


def states(laptop: Laptop) -> dict[str, object]:
    return {name: run["state"] for name, run in gang(laptop).items()}


def go(lab: LabPool) -> str:
    """The parameter that makes worker N wait for the file `goN`."""
    return f"until={lab.gates}/go"


def test_each_worker_is_told_of_all_and_all_of_them_are_one_run_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabPool(tmp_path, [1, 1, 1]) as lab:
        add_gang(lab, nodes=3, time_limit="1h")
        for host in range(3):
            lab.price(host, price={"per_hour": 100})

        done = lab.laptop.ok("a", "-r", "lab")

        runs = sorted(path for host in lab.hosts for path in host.runs.iterdir())
        assert [path.name for path in runs] == [runs[0].name + more for more in ("", ".w1", ".w2")]
        assert all(len(host.states()) == 1 for host in lab.hosts)
        told = []
        for rank, run in enumerate(runs):
            words = (run / "log").read_text().splitlines()[0]
            assert words.endswith(f" {rank} 3")
            assert (run / "metrics.jsonl").read_text() == f"{rank}\n"
            told.append(json.loads(words[len("told ") : -len(" 0 3")]))
        assert told[0]["cluster"] == told[1]["cluster"] == told[2]["cluster"]
        first = int(told[0]["cluster"]["worker"][0].partition(":")[2])
        addresses = [f"127.0.0.1:{first + rank}" for rank in range(3)]
        assert told[0]["cluster"]["worker"] == addresses
        assert [each["task"] for each in told] == [{"type": "worker", "index": n} for n in range(3)]
        assert (lab.laptop.root / "a/mymodel.h5").read_text() == "made by 0"
        assert len(lab.models) == 1
        assert "a.w2 │ told" in done.stderr
        assert lab.laptop.ok("status").stdout.count("on 3 hosts") == 1

        chief = runs[0].name
        (row,) = lab.laptop.json("cost", "--by", "run")
        assert (row["key"], row["runs"]) == (chief, 3)
        story = lab.laptop.json("report", ".")
        (trial,) = story["trials"]
        assert (trial["name"], trial["hosts"]) == (chief, 3)
        assert trial["cost"]["amount"] == row["cost"]["USD"]
        assert [chapter["runs"] for chapter in story["chapters"]] == [1]
        assert {machine["remote"] for machine in story["machines"]} == {"gpu0", "gpu1", "gpu2"}
        monkeypatch.setenv("TRAINSHED_HOME", str(lab.laptop.home))
        with Desk(load_workspace(lab.laptop.root), Console()) as desk, Watching(desk) as watching:
            (view,) = watching.board().runs
        assert (view.run_id, view.note) == (chief, "on 3 hosts")


def test_when_one_fails_the_others_are_ended_and_say_why(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        add_gang(lab)
        with lab.train("-p", go(lab), "-p", "code1=3") as process:
            wait_until(lambda: lab.heard("running") == 2, "both")
            (lab.gates / "go1").touch()
            code, said = end_of(process)

        assert code == 1, said
        told = gang(lab.laptop)
        assert {name: run["state"] for name, run in told.items()} == {"": "failed", "w1": "failed"}
        assert told[""]["reason"] == "worker 1 of its gang failed"
        assert told["w1"]["exit_code"] == 3
        assert f"fix:   train logs {told['w1']['run']}\n" in said


@pytest.mark.parametrize("which", ["", "w1"])
def test_cancelling_any_ends_all(tmp_path: Path, which: str) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        add_gang(lab)
        lab.laptop.ok("a", "-r", "lab", "--detach", "-p", go(lab))
        run_id = str(gang(lab.laptop)[which]["run"])

        lab.laptop.ok("cancel", run_id)

        assert states(lab.laptop) == {"": "cancelled", "w1": "cancelled"}
        assert [list(host.states().values()) for host in lab.hosts] == [["cancelled"]] * 2


def test_one_that_is_attached_to_is_followed_on_all_its_hosts(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        add_gang(lab)
        lab.laptop.ok("a", "-r", "lab", "--detach", "-p", go(lab), "-p", "code1=3")
        (lab.gates / "go1").touch()

        done = lab.laptop.train("attach", "a")

        assert done.returncode == 1
        assert "worker 1 of its gang failed" in done.stderr
        assert set(states(lab.laptop).values()) == {"failed"}


def test_more_hosts_than_there_are_or_than_fit_are_refused_and_nothing_is_started(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [1, 1, 2]) as lab:
        add_gang(lab, nodes=4)
        add_gang(lab, "b", gpus=2)

        done = lab.laptop.train("a", "-r", "lab")
        assert done.returncode == 2
        assert "error: a is to run on 4 hosts, and lab has 3" in done.stderr

        done = lab.laptop.train("b", "-r", "lab")
        assert done.returncode == 5
        assert "error: b is to run on 2 hosts at once, and lab has fewer that" in done.stderr
        assert not lab.mirrors


def test_two_at_once_on_the_same_hosts_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        for name in "ab":
            add_gang(lab, name)
        commands = [lab.laptop.start(name, "-r", "lab", "-p", go(lab)) for name in "ab"]
        with commands[0] as first, commands[1] as second:
            wait_until(lambda: lab.heard("running") == 2 and lab.heard("queued") == 2, "all")
            running = [m for m in lab.mirrors.values() if m.verdict == "running"]
            assert len({mirror.request.job for mirror in running}) == 1
            for rank in (0, 1):
                (lab.gates / f"go{rank}").touch()
            for process in (first, second):
                code, said = end_of(process)
                assert code == 0, said


@pytest.mark.usefixtures("haste")
def test_one_that_not_all_hosts_took_is_withdrawn_and_placed_anew_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabPool(tmp_path, [1, 1, 1]) as lab:
        add_gang(lab)
        for point in ("records.mirror:Mirror.take_on", "roundtrip:RoundTrip.record_sent"):
            monkeypatch.setenv("DIE_AT", f"orchestrator.{point}")
            assert lab.laptop.train("a", "-r", "lab", "-p", go(lab)).returncode == 9
        monkeypatch.delenv("DIE_AT")

        done = lab.laptop.ok("a", "-r", "lab", "-p", go(lab), "--detach")

        assert "not all of its hosts took it" in done.stderr
        new = {m.run_id for m in lab.mirrors.values() if m.verdict in ("queued", "running")}
        assert len(new) == 2
        wait_until(lambda: all(end == "cancelled" for end in ends(lab, new)), "the withdrawn ends")
        for rank in (0, 1):
            (lab.gates / f"go{rank}").touch()
        lab.laptop.ok("a", "-r", "lab", "-p", go(lab))
        assert set(states(lab.laptop).values()) == {"succeeded"}


def ends(lab: LabPool, but: set[str]) -> list[str]:
    """The states of the runs on the hosts, without those."""
    found = (host.states().items() for host in lab.hosts)
    return [state for runs in found for run, state in runs if run not in but]


@pytest.mark.usefixtures("haste")
def test_where_a_workers_host_dies_the_others_are_ended(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        add_gang(lab, restart="on-interruption")
        with lab.train("-p", go(lab)) as process:
            wait_until(lambda: lab.heard("running") == 2, "both")
            (worker,) = (m for m in lab.mirrors.values() if m.run_id.endswith(".w1"))
            host = lab.hosts[lab.place_of(worker)]
            host.die()
            assert is_said(process, "is ended: the host of worker 1 does not answer")
            wait_until(lambda: states(lab.laptop)[""] == "failed", "the chief")
            assert gang(lab.laptop)[""]["reason"] == "the host of worker 1 of its gang failed"
            host.boot()
            code, said = end_of(process)

        assert code == 1, said
        assert states(lab.laptop) == {"": "failed", "w1": "lost"}


@pytest.mark.usefixtures("haste")
def test_a_worker_whose_host_is_gone_is_not_waited_for_when_the_chiefs_model_is_home(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        add_gang(lab)
        words = ("a", "-r", "lab", "-p", go(lab))
        with lab.laptop.start(*words) as process:
            wait_until(lambda: lab.heard("running") == 2, "both")
            (worker,) = (m for m in lab.mirrors.values() if m.run_id.endswith(".w1"))
            host = lab.hosts[lab.place_of(worker)]
            (lab.gates / "go0").touch()
            wait_until(lambda: bool(lab.models), "the model")
            host.die()
            code, said = end_of(process)

        assert code == 4, said
        assert f"{worker.run_id} was running when gpu{lab.hosts.index(host)} last answered" in said
        assert "is ended" not in said
        assert f"error: not heard of to the end: {worker.run_id}\n" in said
        assert (lab.laptop.root / "a/mymodel.h5").read_text() == "made by 0"

        host.boot()
        done = lab.laptop.train(*words)
        assert done.returncode == 1
        assert f"error: {worker.run_id} lost" in done.stderr
        assert states(lab.laptop) == {"": "succeeded", "w1": "lost"}


@pytest.mark.tf
def test_the_pages_loop_gives_all_workers_the_same_weights(tmp_path: Path) -> None:
    script = next(code for title, code in SCRIPTS if "loop" in title)
    with LabPool(tmp_path, [0, 0]) as lab:
        lab.laptop.add_job(
            "category3",
            script=script,
            command=f"{sys.executable} category3/job.py",
            outputs=["category3/mymodel.keras"],
            nodes=2,
        )

        lab.laptop.ok("category3", "-r", "lab")

        logs = [next(host.runs.iterdir()) / "log" for host in lab.hosts]
        told = [re.findall(r"^weights .*", log.read_text(), re.MULTILINE) for log in logs]
        assert len(told[0]) == 1
        assert told[0] == told[1]
        assert (lab.laptop.root / "category3/mymodel.keras").stat().st_size > 1000
