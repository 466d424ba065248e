"""Jobs that squeue has forgotten, told by a real slurmdbd; and what an account may not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.settings.spec import EnvSpec
from remote import slurm
from remote.runfolder import Slurm
from tests import accounts, clusters
from tests.clusters import Cluster, login_node, open_cluster
from tests.faults.points import only_in_faults, tell
from tests.hpc import job_of, kill_supervisor, runs
from tests.laptop import Laptop, is_awaited, make_laptop, wait_until
from tests.servers import SSHD, SshServer

_lacking = clusters.missing() or accounts.missing() or ("" if SSHD.exists() else f"no {SSHD}")
pytestmark = [
    only_in_faults,
    pytest.mark.faults,
    pytest.mark.sshd,
    pytest.mark.slurm,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("accounts"),
    pytest.mark.skipif(bool(_lacking), reason=_lacking),
]


@pytest.fixture(scope="module")
def kept() -> Iterator[Cluster]:
    """A cluster that keeps accounts, and forgets in its queue what ended seconds ago."""
    with TemporaryDirectory(prefix="slurm-") as folder:
        found = open_cluster(Path(folder), accounting=True)
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def login(kept: Cluster, tmp_path: Path) -> Iterator[SshServer]:
    with login_node(kept, tmp_path / "a login node") as server:
        yield server


@pytest.fixture
def laptop(login: SshServer, tmp_path: Path) -> Laptop:
    made = make_laptop(tmp_path, None)
    made.add_remote(login, "hpc", gpus=None, slurm=Slurm(), env=EnvSpec(sys.executable))
    for name in ("a", "b"):
        made.add_job(name, metrics=False)
    return made


def wait_until_forgotten(kept: Cluster, limit_s: float = 60.0) -> None:
    wait_until(lambda: kept.ask("squeue", "-h", "-t", "all") == "", "an empty queue", limit_s)


def test_a_task_of_an_array_that_the_queue_has_forgotten_is_told_by_its_account(
    laptop: Laptop, login: SshServer, kept: Cluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    laptop.ok("run", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "one runs")
    both = runs(login)
    wait_until(lambda: all(run.log.stat().st_size for run in both), "both run")
    kill_supervisor(both[1])
    go.touch()
    wait_until_forgotten(kept)

    told = {run["category"]: run for run in laptop.json("status")}

    assert told["a"]["state"] == "succeeded"
    assert told["b"]["state"] == "lost"
    assert told["b"]["reason"].startswith("its job failed (FAILED)")
    assert job_of(both[1]).number.endswith("_1")
    tell("a job that squeue has forgotten", 1, "its end is told by Slurm's accounts")


def test_the_accounts_say_how_any_job_ended(kept: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(kept.settings))
    hand_in = ("sbatch", "--parsable", "--output=/dev/null", "--time=1")
    tasks = "exit $((SLURM_ARRAY_TASK_ID == 3))"
    array = kept.ask(*hand_in, "--array=0-3", f"--wrap={tasks}").strip()
    cancelled, late = (kept.ask(*hand_in, "--wrap=sleep 600").strip() for _ in range(2))
    kept.ask("scancel", cancelled)
    wait_until_forgotten(kept, 180)  # its time limits are minutes

    names = [f"{array}_2", f"{array}_3", cancelled, late, "999999"]

    words = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", slurm.UNKNOWN)
    assert slurm.endings(names, lambda: None) == dict(zip(names, words, strict=True))


def test_what_an_account_may_not_is_refused_in_slurms_words_and_finished_later(
    laptop: Laptop, login: SshServer, kept: Cluster
) -> None:
    modify = ("sacctmgr", "-i", "modify", "user", "root", "set")
    kept.ask(*modify, "MaxSubmitJobs=1")

    refused = laptop.train("run", "--remote", "hpc")

    kept.ask(*modify, "MaxSubmitJobs=-1")
    assert refused.returncode == 5
    assert "Slurm refused: Batch job submission failed: Job violates" in refused.stderr
    laptop.ok("run", "--remote", "hpc")
    assert list(laptop.states().values()) == ["succeeded"] * 2
    assert len(runs(login)) == 2
    tell("MaxSubmitJobs at a submission", 1, "told in Slurm's words; later each runs once")
