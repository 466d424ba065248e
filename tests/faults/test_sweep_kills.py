"""A sweep's command is killed anywhere, and the same command again: each trial is run once."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.points import chosen, tell
from tests.faults.scene import run_module, set_up
from tests.faults.truth import Scene
from tests.laptop import Finished, Laptop
from tests.servers import SshServer
from tests.test_sweep import SCRIPT

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

HEIGHTS = {"0.1", "0.2", "0.3"}


def prepare(folder: Path, server: SshServer) -> tuple[Laptop, Scene, tuple[str, ...]]:
    laptop, scene = set_up(folder, server, server.port)
    laptop.add_job("b", script=SCRIPT, gpus=0)
    params = (f"height={','.join(sorted(HEIGHTS))}", f"starts={folder / 'starts'}")
    words = ("sweep", "b", "--remote", "far", "--sampler", "grid", "--metric", "val_accuracy")
    return laptop, scene, (*words, "-p", params[0], "-p", params[1])


def struck(laptop: Laptop, step: int, count: Path, words: tuple[str, ...]) -> Finished:
    return run_module(laptop, "struck", str(step), str(signal.SIGKILL.value), str(count), *words)


def test_a_sweep_that_is_killed_at_any_step_runs_each_trial_once(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    laptop, _, words = prepare(tmp_path / "whole", embedded_server)
    done = struck(laptop, sys.maxsize, count, words)
    assert done.returncode == 0, done.stderr
    steps = chosen(range(int(count.read_text())), few=5)
    for step in steps:
        laptop, scene, words = prepare(tmp_path / str(step), embedded_server)
        done = struck(laptop, step, count, words)
        assert done.returncode in (0, -signal.SIGKILL), f"{step}: {done.stderr}"
        assert scene.lies() == [], step

        told = json.loads(laptop.ok(*words, "--json").stdout)

        assert {one["params"]["height"]: one["state"] for one in told["trials"]} == dict.fromkeys(
            HEIGHTS, "complete"
        ), step
        starts = (tmp_path / str(step) / "starts").read_text().splitlines()
        assert sorted(line.rpartition(" ")[2] for line in starts) == sorted(HEIGHTS), step
        assert len(list(scene.store.glob("runs/*-*"))) == len(HEIGHTS), step
        assert (laptop.root / "b" / "mymodel.h5").read_text() == "0.3"
        assert scene.lies_when_done() == [], step
    tell("SIGKILL in train sweep", len(steps), "the same command runs each trial once")
