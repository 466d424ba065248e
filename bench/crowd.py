"""One `train run` of a generated train.yaml, whose jobs do nothing but say that they were started;
Slurm has 32 places. `submitted`: seconds until all are handed in; `wall`: until all are home;
`cpu`: the laptop's processor seconds. `squeue`, `sbatch`: how often each was asked. That each run
ended exactly once, a checker found out from the files and the ledger alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.race import say
from orchestrator.settings.spec import EnvSpec
from remote.runfolder import Slurm
from tests.clusters import Cluster, login_node, missing, open_cluster
from tests.faults.truth import STARTS, Scene
from tests.hpc import put
from tests.laptop import TRAIN, Laptop, make_laptop

COUNTS = (1, 10, 100, 1000)
COLUMNS = ("submitted, s", "wall, s", "cpu, s", "squeue", "sbatch")
DRAWN = ("submitted, s", "wall, s", "cpu, s")
_NODES = tuple(f"n{number}" for number in range(1, 9))
_COUNTED = ("squeue", "sbatch")


def measure() -> Iterator[tuple[float, ...]]:
    """Raises:
    AssertionError: there is no Slurm, or a run was lost, or executed twice.
    """
    assert not missing(), missing()
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = open_cluster(Path(folder) / "cluster", _NODES)
        try:
            for count in COUNTS:
                say(f"{count} runs on {len(_NODES)} nodes")
                yield _runs(cluster, Path(folder) / str(count), count)
        finally:
            cluster.close()


def _runs(cluster: Cluster, folder: Path, count: int) -> tuple[float, ...]:
    programs = folder / "programs"
    programs.mkdir(parents=True)
    for name in _COUNTED:
        put(programs, name, f'echo >>{name}.asked\nexec "$real" "$@"\n')
    with login_node(cluster, folder / "login", f"{programs}:{os.environ['PATH']}") as login:
        laptop = make_laptop(folder, None)
        slurm = Slurm(cpus=1, memory="100M", time_s=300.0)
        laptop.add_remote(login, "hpc", gpus=None, slurm=slurm, env=EnvSpec(sys.executable))
        job = json.dumps({"command": f"pwd >>~/{STARTS}", "outputs": [], "gpus": 0})
        with (laptop.root / "train.yaml").open("a") as file:
            file.writelines(f"  job{number:04}: {job}\n" for number in range(count))
        taken = _train(laptop)
        _check(Scene(laptop.root, laptop.home / "ledger.sqlite3", login.home), count)
    asked = (programs / f"{name}.asked" for name in _COUNTED)
    return (count, *taken, *(len(file.read_text().splitlines()) for file in asked))


def _train(laptop: Laptop) -> tuple[float, float, float]:
    """Seconds: until the last was submitted, until the end, of processor time."""
    begun = submitted = time.monotonic()
    process = subprocess.Popen(
        [*TRAIN, "run", "--remote", "hpc"],
        cwd=laptop.root,
        env=laptop.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    for line in process.stderr or ():
        said.append(line)
        if "submitted" in line:
            submitted = time.monotonic()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "".join(said[-20:])
    wall_s = time.monotonic() - begun
    return round(submitted - begun, 2), round(wall_s, 1), round(used.ru_utime + used.ru_stime, 2)


def _check(scene: Scene, count: int) -> None:
    lies = scene.lies_when_done()
    assert not lies, "\n".join(lies[:20])
    starts = (scene.home / STARTS).read_text().splitlines()
    assert len(starts) == len(set(starts)) == count, f"{len(starts)} starts of {count} runs"
    made = list(scene.store.glob("runs/*/state.json"))
    assert len(made) == count, f"{len(made)} runs of {count} jobs"
