"""What every engine promises: the way of a run, its end, and what a broken command leaves.

That a command killed at any step, or a line cut at any word, starts a run once: tests/faults.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines import Engine
from tests.laptop import LIMIT_S, Laptop, is_awaited, wait_until, without_patience


@pytest.fixture
def laptop(engine: Engine, tmp_path: Path) -> Laptop:
    return engine.laptop(tmp_path)


def states(laptop: Laptop) -> dict[str, str]:
    """By category."""
    return {run["category"]: run["state"] for run in laptop.json("status")}


def test_a_run_is_followed_pulled_and_its_verdict_recorded(laptop: Laptop) -> None:
    (laptop.root / "a" / "grader.py").touch()

    done = laptop.train("a", "-r", "far", "-p", "lr=0.1", "--json")

    assert "told [('lr', '0.1')]" in done.stderr
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (verdict["outcome"], done.returncode) == ("invalid", 1)  # it is no model, but a text
    (run_id,) = laptop.states()
    kept = laptop.root / ".train" / "runs" / run_id / "outputs" / "a" / "curve.txt"
    assert kept.read_text() == "a curve"


def test_a_failed_run_is_exit_code_1_and_names_its_log(laptop: Laptop) -> None:
    done = laptop.train("a", "-r", "far", "-p", "code=3")

    (run_id,) = laptop.states()
    assert done.returncode == 1
    assert f"{run_id} failed (exit code 3)" in done.stderr
    assert f"error: {run_id} failed\nfix:   train logs {run_id}" in done.stderr


def test_a_time_limit_ends_a_run(laptop: Laptop, tmp_path: Path) -> None:
    done = laptop.train("a", "-r", "far", "--time-limit", "1s", "-p", f"until={tmp_path / 'never'}")

    assert done.returncode == 1
    assert "timed-out (reached its time limit of 1 s" in done.stderr
    assert states(laptop) == {"a": "timed-out"}


def test_of_two_cancelled_runs_one_never_starts_and_one_is_warned(
    laptop: Laptop, engine: Engine, tmp_path: Path
) -> None:
    never = ("-r", "far", "--detach", "-p", f"until={tmp_path / 'never'}")
    for number, gpus in enumerate(engine.fillers):
        laptop.add_job(f"full{number}", gpus=gpus, metrics=False)
        laptop.ok(f"full{number}", *never)
    wait_until(lambda: set(states(laptop).values()) == {"running"}, "nothing is free")
    (waiting,) = laptop.json("a", *never)["runs"]
    assert states(laptop)["a"] == "queued"

    laptop.ok("cancel", "a")

    assert states(laptop)["a"] == "cancelled"
    assert laptop.ok("logs", waiting["run"]).stdout == ""
    for number in range(len(engine.fillers)):
        laptop.ok("cancel", f"full{number}")
        wait_until(lambda n=number: states(laptop)[f"full{n}"] == "cancelled", "it ends")  # type: ignore[misc]
    assert "warned (SIGTERM)" in laptop.ok("logs", "full0").stdout


def test_a_detached_run_is_watched_attached_to_and_pulled(laptop: Laptop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    submitted = laptop.ok("a", "-r", "far", "--detach", "-p", f"until={go}").stdout
    (run_id,) = laptop.states()
    assert submitted.splitlines() == [
        f"submitted: {run_id}",
        "  train status",
        f"  train attach {run_id}",
        f"  train cancel {run_id}",
    ]

    wait_until(lambda: is_awaited(go), "the script")
    looked = laptop.ok("status")
    assert without_patience(looked.stderr) == ""
    assert "running" in looked.stdout
    assert "so far" in looked.stdout
    assert laptop.ok("logs", run_id[:-2]).stdout.startswith("told [('until'")
    waiting = laptop.ok("pull", "a").stderr
    assert f"{run_id} is running, there is nothing to pull" in waiting

    with laptop.start("logs", "a", "-f") as following, laptop.start("attach", "a") as attached:
        go.touch()
        shown, _ = following.communicate(timeout=LIMIT_S)
        _, progress = attached.communicate(timeout=LIMIT_S)
    assert (following.returncode, attached.returncode) == (0, 0), progress
    assert shown.count("told") == 1
    assert (laptop.root / "a" / "mymodel.h5").read_text() == "a model"
    assert laptop.ok("cancel", "a").stdout == f"{run_id} has already ended: succeeded\n"


def test_a_killed_command_is_gone_on_with_and_nothing_is_started_twice(
    laptop: Laptop, engine: Engine, tmp_path: Path
) -> None:
    laptop.add_job("killed", metrics=False)
    go = tmp_path / "go"
    command = ("killed", "-r", "far", "-p", f"until={go}")
    with laptop.start(*command) as process:
        assert process.stderr is not None
        while "told" not in process.stderr.readline():
            pass
        process.kill()
    go.touch()
    done = laptop.ok(*command)

    (run_id,) = laptop.states()
    assert f"going on with {run_id}" in done.stderr
    assert (laptop.root / "killed" / "mymodel.h5").read_text() == "a model"
    assert engine.runs("killed") == [run_id]
