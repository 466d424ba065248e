"""`train sweep` on a pool: its trials are spread over the hosts, and moved as any run is."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from tests.laptop import wait_until
from tests.pools import HASTY_TRAIN, STARTS, LabPool, end_of

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(180)]

# A trial is worth its `height`, and tells it once a file of that name is among the gates. A poor
# one then goes on until it is ended.
SCRIPT = f"""\
import json, os, pathlib, time
height, gates = os.environ["PARAM_height"], os.environ["PARAM_gates"]
run = pathlib.Path(os.environ["TRAINSHED_RUN"])
with (pathlib.Path.home() / "{STARTS}").open("a") as file:
    file.write(run.name + "\\n")
while not os.path.exists(os.path.join(gates, height)):
    time.sleep(0.02)
with (run / "metrics.jsonl").open("a") as file:
    for epoch in range(5):
        line = {{"fit": 1, "epoch": epoch, "epochs": 5, "at": "2026-11-21T10:00:00Z",
                "seconds": 0.1, "metrics": {{"accuracy": float(height) * (epoch + 1) / 5}}}}
        file.write(json.dumps(line) + "\\n")
while float(height) < 0.2:
    time.sleep(0.02)
pathlib.Path(__file__).with_name("mymodel.h5").write_text(height)
"""


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.laptop.TRAIN", HASTY_TRAIN)


class Lab:
    """A pool with a category `a`, whose sweeps go through a grid of heights."""

    def __init__(self, pool: LabPool, **keys: object) -> None:
        self.pool = pool
        pool.laptop.add_job("a", script=SCRIPT, **keys)

    def words(self, *heights: str, remote: str = "lab") -> tuple[str, ...]:
        params = ("-p", f"height={','.join(heights)}", "-p", f"gates={self.pool.gates}")
        options = ("--sampler", "grid", "--metric", "accuracy", "--json")
        return ("sweep", "a", "-r", remote, *options, *params)

    @contextmanager
    def sweep(self, *heights: str, more: tuple[str, ...] = ()) -> Iterator[Popen[str]]:
        with self.pool.laptop.start(*self.words(*heights), *more) as process:
            yield process

    @property
    def heights(self) -> dict[str, list[int]]:
        """The hosts on which the script of each trial began, in the order of the hosts."""
        told: dict[str, list[int]] = {}
        for number, host in enumerate(self.pool.hosts):
            for run in host.starts:
                height = self.pool.mirrors[run].request.params["height"]
                told.setdefault(height, []).append(number)
        return told

    @property
    def is_on_all_hosts(self) -> bool:
        return all(host.starts for host in self.pool.hosts)

    @property
    def model(self) -> str:
        """What stands in the category's folder."""
        return (self.pool.laptop.root / "a" / "mymodel.h5").read_text()


def told_by(process: Popen[str]) -> Any:  # noqa: ANN401  # whatever JSON can hold
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def states(told: Any) -> dict[str, str]:  # noqa: ANN401
    return {trial["params"]["height"]: trial["state"] for trial in told["trials"]}


def test_trials_are_on_all_hosts_at_once_and_the_same_command_goes_on_after_a_kill(
    tmp_path: Path,
) -> None:
    heights = ("0.3", "0.9", "0.4", "0.5", "0.6")
    two = ("--parallel", "2", "--ahead", "1")
    with LabPool(tmp_path, [1, 1]) as pool:
        lab = Lab(pool)
        with lab.sweep(*heights, more=two) as process:
            wait_until(lambda: lab.is_on_all_hosts, "a trial on each host")
            wait_until(lambda: len(pool.mirrors) == 3, "the one behind them")
            process.kill()
        pool.open("0.3", "0.9", "0.4")
        with lab.sweep(*heights, more=two) as process:
            wait_until(lambda: len(lab.heights) == 5, "the others, behind what went on meanwhile")
            process.send_signal(signal.SIGINT)
            code, said = end_of(process)
        assert code == 130
        assert "detached; on lab goes on: a-" in said
        pool.open("0.5", "0.6")
        with lab.sweep(*heights, more=two) as process:
            told = told_by(process)

        assert states(told) == dict.fromkeys(heights, "complete")
        assert {height: len(hosts) for height, hosts in lab.heights.items()} == dict.fromkeys(
            heights, 1
        )
        assert lab.model == "0.9"
        assert told["result"]["runs"][0]["run"] == told["trials"][1]["run"]
        assert [model.read_text() for model in pool.models] == ["0.9"]

        again = pool.laptop.json(*lab.words(*heights), *two)
        assert again["trials"] == told["trials"]


def test_a_host_that_dies_gives_its_trials_to_the_others_and_all_come_to_their_ends(
    tmp_path: Path,
) -> None:
    heights = ("0.9", "0.3", "0.4")
    with LabPool(tmp_path, [1, 1]) as pool:
        pool.price(0, price={"per_hour": 36, "currency": "USD"})
        pool.price(1, price={"per_hour": 36, "currency": "USD"})
        lab = Lab(pool, restart="on-interruption")
        with lab.sweep(*heights, more=("--parallel", "2")) as process:
            wait_until(lambda: lab.is_on_all_hosts, "a trial on each host")
            wait_until(lambda: pool.heard("running") == 2, "both heard of")
            (dying,) = lab.heights["0.9"]
            pool.hosts[dying].die()
            pool.open("0.3", "0.4")
            wait_until(lambda: lab.heights["0.9"] == [0, 1], "the first one, on the other host")
            pool.open("0.9")
            told = told_by(process)

        assert states(told) == dict.fromkeys(heights, "complete")
        assert lab.heights == {"0.9": [0, 1], "0.3": [1 - dying], "0.4": [1 - dying]}
        runs = [run for host in pool.hosts for run in host.starts]
        assert len(runs) == len(set(runs))
        assert lab.model == "0.9"
        # The trial is its last run, and costs what both did: the first, as far as anybody knows,
        # goes on costing.
        (old,) = [m for m in pool.mirrors.values() if m.successor and m.run_id in runs]
        first = told["trials"][0]
        assert first["run"] == old.last.run_id == told["result"]["runs"][0]["run"]
        own = {row["key"]: row["cost"]["USD"] for row in pool.laptop.json("cost", "--by", "run")}
        both = [float(own[run]) for run in (old.run_id, first["run"])]
        assert both[1] < float(first["cost"]["amount"]) <= sum(both)

        pool.hosts[dying].boot()
        again = pool.laptop.json(*lab.words(*heights), "--parallel", "2")
        assert [trial["run"] for trial in again["trials"]] == [t["run"] for t in told["trials"]]


@pytest.mark.parametrize(
    "point",
    [
        "orchestrator.records.mirror:Mirrors.make",
        "orchestrator.pools.sending:Sending._submit",
        "orchestrator.roundtrip:RoundTrip.take_home",
    ],
)
def test_a_command_that_was_cut_off_has_begun_each_trial_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    with LabPool(tmp_path, [1, 1]) as pool:
        lab = Lab(pool)
        pool.open("0.3", "0.9")
        monkeypatch.setenv("DIE_AT", point)
        with lab.sweep("0.3", "0.9", more=("--parallel", "2")) as process:
            code, said = end_of(process)
        assert code == 9, said
        monkeypatch.delenv("DIE_AT")
        with lab.sweep("0.3", "0.9", more=("--parallel", "2")) as process:
            told = told_by(process)

        assert states(told) == {"0.3": "complete", "0.9": "complete"}, (told, said)
        assert {height: len(hosts) for height, hosts in lab.heights.items()} == {"0.3": 1, "0.9": 1}
        assert lab.model == "0.9"


def test_a_poor_trial_is_ended_on_whichever_host_it_is(tmp_path: Path) -> None:
    heights = ("0.5", "0.6", "0.7", "0.8", "0.9", "0.1", "0.95")
    with LabPool(tmp_path, [1, 1]) as pool:
        lab = Lab(pool)
        pool.open(*(height for height in heights if height not in ("0.1", "0.95")))
        with lab.sweep(*heights, more=("--parallel", "2", "--ahead", "0")) as process:
            # It is begun when the others before the poor one are told to the study.
            wait_until(lambda: "0.95" in lab.heights, "the last one")
            pool.open("0.1")
            wait_until(lambda: "cancelled" in _states_there(pool), "the poor trial's end")
            pool.open("0.95")
            told = told_by(process)
        assert states(told) == {**dict.fromkeys(heights, "complete"), "0.1": "pruned"}
        assert lab.model == "0.95"


def _states_there(pool: LabPool) -> list[str]:
    return [state for host in pool.hosts for state in host.states().values()]


def test_a_host_whose_own_budget_is_used_up_is_passed_over_and_unknown_prices_are_told(
    tmp_path: Path,
) -> None:
    with LabPool(tmp_path, [1, 1]) as pool:
        lab = Lab(pool)
        pool.open("0.3", "0.9")
        pool.price(1, price={"per_hour": 1, "currency": "USD"})
        done = pool.laptop.train(*lab.words("0.3", "0.9"), "--budget", "3")
        assert done.returncode == 6
        assert "the price of gpu0 is unknown" in done.stderr

        spent = {"budget": {"month": 0.01}, "price": {"per_hour": 1, "currency": "USD"}}
        pool.price(0, **spent)
        limits = ("--parallel", "2", "--time-limit", "1h")
        with lab.sweep("0.3", "0.9", more=(*limits, "--budget", "3")) as process:
            told = told_by(process)
        assert states(told) == {"0.3": "complete", "0.9": "complete"}
        assert lab.heights == {"0.3": [1], "0.9": [1]}

        # Of both together, not even one fits into this.
        words = ("--name", "small", *limits, "--budget", "0.5")
        done = pool.laptop.train(*lab.words("0.3", "0.9"), *words)
        assert done.returncode == 6
        assert "the sweep small: $0.00 of $0.50" in done.stderr


def test_what_goes_on_on_a_pool_is_not_taken_for_lost_on_one_of_its_hosts(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1, 1]) as pool:
        lab = Lab(pool)
        with lab.sweep("0.3", "0.9", more=("--parallel", "2")) as process:
            wait_until(lambda: lab.is_on_all_hosts, "a trial on each host")
            os.kill(process.pid, signal.SIGKILL)
        done = pool.laptop.train(*lab.words("0.3", "0.9", remote="gpu0"))
        assert done.returncode == 2
        assert "of the sweep a is on gpu1" in done.stderr
        assert "--remote with the pool that lists gpu0 and gpu1" in done.stderr

        pool.says(["gpu0"])
        done = pool.laptop.train(*lab.words("0.3", "0.9"), "--parallel", "2")
        assert done.returncode == 2
        assert "of the sweep a is on gpu1" in done.stderr


def test_where_no_host_answers_it_is_told_what_each_one_said(tmp_path: Path) -> None:
    with LabPool(tmp_path, [1]) as pool:
        lab = Lab(pool)
        pool.hosts[0].die()
        done = pool.laptop.train(*lab.words("0.3", "0.9"))
        assert done.returncode == 3
        assert "error: no host of lab takes these runs\ncause: gpu0: " in done.stderr


def test_a_host_that_is_busy_gives_all_that_waits_there_to_one_that_is_not_and_keeps_its_place(
    tmp_path: Path,
) -> None:
    heights = ("0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9")
    with LabPool(tmp_path, [1, 1]) as pool:
        lab = Lab(pool)
        with lab.sweep(*heights, more=("--parallel", "2", "--ahead", "5")) as process:
            wait_until(lambda: len(pool.mirrors) == 7, "all of them")
            wait_until(lambda: lab.is_on_all_hosts, "a trial on each host")
            (busy,) = lab.heights["0.3"]
            pool.open(*heights[1:])
            wait_until(lambda: pool.heard("succeeded") == 6, "the others")
            pool.open("0.3")
            out, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert states(json.loads(out)) == dict.fromkeys(heights, "complete")
        assert lab.heights == {height: [1 - busy] for height in heights} | {"0.3": [busy]}
        assert said.count("goes on as") >= 3
        assert "gets no more runs" not in said
