"""Slurm's daemons are killed while runs wait and run: none is executed twice, none forgotten.

The agent's and the command's deaths: tests/test_slurm.py and tests/faults/test_kills.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import NODES, Cluster
from tests.engines import Engine
from tests.faults.points import only_in_faults, tell
from tests.faults.scene import set_up
from tests.faults.truth import STARTS, Scene
from tests.laptop import Laptop, wait_until

pytestmark = [
    pytest.mark.faults,
    pytest.mark.sshd,
    pytest.mark.slurm,
    pytest.mark.xdist_group("slurm"),
]

SCRIPT = f"""\
import os, pathlib, time
with open(os.path.join(os.environ["HOME"], "{STARTS}"), "a") as file:
    file.write(os.getcwd() + "\\n")
while not os.path.exists(os.environ["PARAM_until"]):
    time.sleep(0.02)
name = os.environ["PARAM_name"]
pathlib.Path(name, "mymodel.h5").write_text(name)
"""
RUNS = ("b", "c", "d")  # the last one waits, because each takes a whole node
WORDS = {"slurmctld": "Unable to contact slurm controller", "munged": "authentication error"}
DAEMONS = ("munged", *(f"slurmd.{name}" for name in NODES), "slurmctld")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's own commands give up after half a minute, and `train` asks several of them."""
    monkeypatch.setattr("tests.laptop.LIMIT_S", 180.0)


def prepared(engine: Engine, folder: Path) -> tuple[Laptop, Scene]:
    laptop, scene = set_up(folder, engine.server, engine.server.port, **engine.keys)
    for name in RUNS:
        script = SCRIPT.replace('os.environ["PARAM_name"]', repr(name))
        laptop.add_job(name, script=script, gpus=2, metrics=False)
    return laptop, scene


@contextlib.contextmanager
def dead(cluster: Cluster, *daemons: str) -> Iterator[None]:
    """Killed; after the block they are started again."""
    for daemon in daemons:
        cluster.kill(daemon)
    try:
        yield
    finally:
        for daemon in daemons:
            cluster.start(daemon)
        # Nodes that were out of reach for longer than SlurmdTimeout are down until they register,
        # which an administrator has done, or Slurm does after many minutes.
        cluster.ask("scontrol", "reconfigure")


def states(laptop: Laptop) -> list[str]:
    told = {run["category"]: run["state"] for run in laptop.json("status")}
    return [told[name] for name in RUNS]


def check_each_ran_once(laptop: Laptop, scene: Scene, *command: str) -> None:
    laptop.ok(*command)
    assert states(laptop) == ["succeeded"] * len(RUNS)
    assert len((scene.home / STARTS).read_text().splitlines()) == len(RUNS)
    assert len(list(scene.store.glob("runs/*-*"))) == len(RUNS)
    assert scene.lies_when_done() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "killed",
    [
        DAEMONS,
        pytest.param(("slurmctld",), marks=only_in_faults),
        pytest.param(("slurmd.n1", "slurmd.n2"), marks=only_in_faults),
        pytest.param(("munged",), marks=only_in_faults),
    ],
    ids=",".join,
)
# The nodes tell a controller that was away of an end only after most of a minute.
@pytest.mark.parametrize(
    "ends_meanwhile", [False, pytest.param(True, marks=only_in_faults)], ids=["later", "meanwhile"]
)
def test_daemons_that_are_killed_while_runs_wait_and_run(
    cluster: Cluster,
    slurm_engine: Engine,
    tmp_path: Path,
    killed: tuple[str, ...],
    ends_meanwhile: bool,
) -> None:
    laptop, scene = prepared(slurm_engine, tmp_path)
    go = tmp_path / "go"
    command = ("run", *RUNS, "-r", "far", "-p", f"until={go}")
    laptop.ok(*command, "--detach")
    wait_until(lambda: states(laptop) == ["running", "running", "queued"], "both nodes are full")
    save(cluster)

    with dead(cluster, *killed):
        assert states(laptop) == ["running", "running", "queued"]
        if ends_meanwhile:
            go.touch()
            wait_until(lambda: states(laptop)[:2] == ["succeeded"] * 2, "they end nevertheless")
    go.touch()

    # The nodes' own patience with a controller that they could not reach is over a minute.
    wait_until(lambda: states(laptop)[2] == "succeeded", "the last has its turn", limit_s=180)
    check_each_ran_once(laptop, scene, *command)
    tell(f"SIGKILL of {', '.join(killed)}", 1, "each run is executed once, and comes home")


@only_in_faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("killed", ["slurmctld", "munged"])
def test_a_daemon_that_is_dead_at_a_submission(
    cluster: Cluster, slurm_engine: Engine, tmp_path: Path, killed: str
) -> None:
    laptop, scene = prepared(slurm_engine, tmp_path)
    go = tmp_path / "go"
    go.touch()
    command = ("run", *RUNS, "-r", "far", "-p", f"until={go}")

    with dead(cluster, killed):
        done = laptop.train(*command)
    assert done.returncode == 5
    assert WORDS[killed] in done.stderr
    assert "Traceback" not in done.stderr

    check_each_ran_once(laptop, scene, *command)
    tell(f"{killed} dead at a submission", 1, "told; the same command runs each once")


def save(cluster: Cluster) -> None:
    """The controller has all that is so by now on its disk, which it writes every few seconds.

    What it forgets it starts again, under numbers that the nodes know already; and then it takes
    these nodes out of service.
    """
    file = cluster.folder / "state" / "job_state"
    before = file.stat().st_mtime_ns
    number = cluster.ask("squeue", "-h", "-r", "-t", "PD", "-o", "%i").split()[0]
    cluster.ask("scontrol", "update", f"JobId={number}", "Comment=something to write")
    wait_until(lambda: file.stat().st_mtime_ns != before, "it is written")
