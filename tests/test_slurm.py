"""Runs through a real Slurm: a login node behind a real sshd, two nodes with two GPUs each."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.settings.spec import EnvSpec
from remote.handin import hand_in_again
from remote.restart import read_restarts
from remote.runfolder import RunFolder, Slurm
from remote.store import Store
from tests.clusters import Cluster
from tests.hpc import (
    failed_node,
    job_of,
    kill_supervisor,
    laptop,
    login,
    programs,
    put,
    runs,
    start_now,
)
from tests.laptop import Laptop, is_awaited, wait_until
from tests.servers import SshServer

__all__ = ["laptop", "login", "programs"]

pytestmark = [pytest.mark.sshd, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

SAYS_GPUS = """\
import os, pathlib
print("gpus", os.environ.get("CUDA_VISIBLE_DEVICES"), "on", os.environ["SLURMD_NODENAME"])
pathlib.Path("a/mymodel.h5").write_text("a model")
"""


def run_of(laptop: Laptop) -> Any:  # noqa: ANN401  # whatever JSON can hold
    """The workspace's only run, as `status` tells it."""
    (run,) = laptop.json("status")
    return run


@pytest.fixture
def full(cluster: Cluster) -> Iterator[None]:
    """Nothing is free on the cluster."""
    words = ("--nodes=2", "--gres=gpu:2", "--output=/dev/null", "--wrap=sleep 600")
    number = cluster.ask("sbatch", "--parsable", "--time=20", *words).strip()
    wait_until(lambda: cluster.ask("squeue", "-h", "-t", "R", "-o", "%i") != "", "it is full")
    yield
    cluster.ask("scancel", number)
    wait_until(lambda: cluster.ask("sinfo", "-h", "-o", "%T") == "idle\n", "it is free")


def test_a_run_is_handed_in_followed_and_pulled(laptop: Laptop, login: SshServer) -> None:
    laptop.add_job("a", script=SAYS_GPUS, gpus=2, metrics=False, time_limit="10m")

    done = laptop.ok("a", "--remote", "hpc")

    assert "gpus 0,1 on n" in done.stderr
    assert (laptop.root / "a/mymodel.h5").read_text() == "a model"
    (run,) = runs(login)
    assert job_of(run).name == run.path.name
    assert not list((login.home / ".trainshed/queue").iterdir())


def test_runs_of_like_terms_are_one_array(
    laptop: Laptop, login: SshServer, cluster: Cluster
) -> None:
    laptop.add_job("a", metrics=False)
    laptop.add_job("b", metrics=False)
    laptop.add_job("c", metrics=False, gpus=2)

    laptop.ok("run", "--remote", "hpc")

    a, b, c = (job_of(run) for run in runs(login))
    array = a.number.partition("_")[0]
    assert (a.number, b.number) == (f"{array}_0", f"{array}_1")
    assert c.number.isdigit()
    assert set(laptop.states().values()) == {"succeeded"}


@pytest.mark.usefixtures("full")
def test_a_run_that_waits_says_for_what_and_can_be_cancelled(
    laptop: Laptop, login: SshServer, cluster: Cluster
) -> None:
    laptop.add_job("a", metrics=False)
    laptop.ok("a", "--remote", "hpc", "--detach")
    (run,) = runs(login)
    number = job_of(run).number

    def reason() -> str:
        told = run_of(laptop)
        assert told["state"] == "queued"
        return str(told["reason"])

    wait_until(lambda: "Resources, until about " in reason(), "when it will start")
    assert f"job {number} waits in Slurm for Resources" in reason()

    laptop.ok("cancel", run.path.name)

    told = run_of(laptop)
    assert (told["state"], told["reason"]) == ("cancelled", "cancelled by the user")
    assert number not in cluster.ask("squeue", "-h", "-o", "%i")
    assert run.log.read_bytes() == b""


def test_slurms_own_time_limit_is_told_as_one(
    laptop: Laptop, login: SshServer, cluster: Cluster, tmp_path: Path
) -> None:
    laptop.add_job("a", metrics=False)
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={tmp_path / 'go'}")
    wait_until(lambda: is_awaited(tmp_path / "go"), "it runs")
    number = job_of(runs(login)[0]).number
    cluster.ask("scontrol", "update", f"JobId={number}", "TimeLimit=1")

    # What Slurm does at that time, without the wait for it.
    cluster.ask("scancel", "--batch", "--signal=TERM", number)

    wait_until(lambda: run_of(laptop)["state"] == "timed-out", "it has ended")
    assert run_of(laptop)["reason"] == "reached the time limit of its job in Slurm"


def test_a_run_is_in_slurm_once_though_the_agent_dies_before_it_has_noted_that(
    laptop: Laptop, login: SshServer, cluster: Cluster, programs: Path
) -> None:
    script = '"$real" "$@" || exit\n[ -e killed ] || { touch killed; kill -9 $PPID; }\n'
    put(programs, "sbatch", script)
    laptop.add_job("a", metrics=False)

    done = laptop.ok("a", "--remote", "hpc")

    assert (programs / "killed").exists()
    assert "connected to hpc again" in done.stderr
    (run,) = runs(login)
    assert len(jobs_of(cluster, run)) == 1
    assert run.log.read_text().count("told") == 1


def test_a_run_that_is_in_slurm_twice_is_executed_once(
    laptop: Laptop, login: SshServer, cluster: Cluster, tmp_path: Path
) -> None:
    laptop.add_job("a", metrics=False)
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "it runs")
    (run,) = runs(login)

    def once_more() -> str:
        words = f"{sys.executable} {shlex.quote(str(run.package))} {shlex.quote(str(run.path))}"
        said = tmp_path / "said"
        cluster.ask("sbatch", "--wait", f"--output={said}", "--time=2", f"--wrap={words} || true")
        return said.read_text()

    assert once_more() == "another job has this run\n"
    go.touch()
    wait_until(lambda: run_of(laptop)["state"] == "succeeded", "it has ended")
    assert once_more() == ""
    assert run.log.read_text().count("told") == 1


def test_a_run_whose_node_fails_is_lost_with_slurms_word(
    laptop: Laptop, login: SshServer, cluster: Cluster, tmp_path: Path
) -> None:
    laptop.add_job("a", metrics=False)
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "it runs")

    with failed_node(cluster, runs(login)[0]):
        wait_until(lambda: run_of(laptop)["state"] == "lost", "it is seen")
    assert run_of(laptop)["reason"] == "its node failed (NODE_FAIL)"


def test_a_run_whose_node_fails_goes_on_on_another_if_it_may(
    laptop: Laptop, login: SshServer, cluster: Cluster, tmp_path: Path
) -> None:
    laptop.add_job("a", metrics=False, restart="on-interruption")
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "it runs")
    (run,) = runs(login)
    number = job_of(run).number

    with failed_node(cluster, run):
        wait_until(lambda: "waits in Slurm" in run_of(laptop)["reason"], "it waits again")
        go.touch()
        start_now(cluster, number)
        wait_until(lambda: run_of(laptop)["state"] == "succeeded", "it went on")

    assert run_of(laptop)["restarts"] == 1
    assert jobs_of(cluster, run) == [number]


def test_what_slurm_queues_again_by_itself_is_not_handed_in_beside_it(
    laptop: Laptop,
    login: SshServer,
    cluster: Cluster,
    programs: Path,
    tmp_path: Path,
) -> None:
    """Where its queue shows the failed job as ended before it shows it as waiting again."""
    put(programs, "squeue", '"$real" "$@" | sed "$(cat lie 2>/dev/null)"\n')
    laptop.add_job("a", metrics=False, restart="on-interruption")
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "it runs")
    (run,) = runs(login)
    number = job_of(run).number

    (programs / "lie").write_text("s/|PENDING|/|NODE_FAIL|/")
    with failed_node(cluster, run):
        wait_until(lambda: "NODE_FAIL" in run_of(laptop)["reason"], "it is seen")
        told = run_of(laptop)
        assert (told["state"], told["restarts"]) == ("running", 0)
        assert f"Slurm may queue job {number} again by itself" in told["reason"]
        (programs / "lie").unlink()
        wait_until(lambda: "waits in Slurm" in run_of(laptop)["reason"], "it waits again")
        assert job_of(run).word == ""
        go.touch()
        start_now(cluster, number)
        wait_until(lambda: run_of(laptop)["state"] == "succeeded", "it went on")

    assert run_of(laptop)["restarts"] == 1
    assert jobs_of(cluster, run) == [number]


def test_two_agents_that_find_a_run_interrupted_at_once_restart_it_once(
    laptop: Laptop,
    login: SshServer,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    laptop.add_job("a", metrics=False, restart="on-interruption")
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "it runs")
    (run,) = runs(login)
    kill_supervisor(run)
    number = job_of(run).number
    state = ("squeue", "-h", "-t", "all", "-j", number, "-o", "%T")
    wait_until(lambda: cluster.ask(*state) == "FAILED\n", "its job is over")
    monkeypatch.setenv("SLURM_CONF", str(cluster.settings))
    store = Store(login.home / ".trainshed")

    # What each does then; neither looks before whether the other did.
    hand_in_again(store, run)
    hand_in_again(store, run)

    assert read_restarts(run) == 1
    assert len(jobs_of(cluster, run)) == 2
    go.touch()
    wait_until(lambda: run_of(laptop)["state"] == "succeeded", "it went on")
    assert run_of(laptop)["restarts"] == 1


def test_a_killed_supervisors_run_is_handed_in_again_if_it_may(
    laptop: Laptop, login: SshServer, cluster: Cluster, tmp_path: Path
) -> None:
    laptop.add_job("a", metrics=False, restart="on-interruption")
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "it runs")
    (run,) = runs(login)
    number = job_of(run).number

    kill_supervisor(run)
    go.touch()

    wait_until(lambda: run_of(laptop)["state"] == "succeeded", "it went on")
    assert run_of(laptop)["restarts"] == 1
    assert job_of(run).number != number


def test_what_slurm_refuses_is_told_in_its_words(laptop: Laptop, login: SshServer) -> None:
    slurm = Slurm(partition="nowhere")
    laptop.add_remote(login, "other", gpus=None, slurm=slurm, env=EnvSpec(sys.executable))
    laptop.add_job("a", metrics=False)

    done = laptop.train("a", "--remote", "other")

    assert done.returncode == 5
    assert "Slurm refused: Batch job submission failed: Invalid partition name" in done.stderr
    assert "Traceback" not in done.stderr
    assert run_of(laptop)["state"] == "lost"
    assert run_of(laptop)["reason"].startswith("Slurm took no job of it: Batch job submission fail")


def test_a_run_that_no_node_could_hold_is_told_as_such_afterwards(laptop: Laptop) -> None:
    laptop.add_job("a", metrics=False, gpus=9)

    done = laptop.train("a", "--remote", "hpc")

    assert "Requested node configuration is not available" in done.stderr
    assert run_of(laptop)["reason"] == "no node has what its job asks for (BadConstraints)"


def test_the_doctor_looks_at_the_queue_and_from_a_job(laptop: Laptop) -> None:
    checks = {check["check"]: check for check in laptop.json("doctor", "hpc", "--job")}

    assert checks["slurm"]["found"].startswith("slurm")
    assert checks["partition"]["found"] == "gpu: 2 nodes with gpu:2, up"
    assert checks["a run's job"]["found"] == "Slurm would take it"
    assert checks["compute node"]["found"].endswith(" shares these files, GPUs 0")
    assert checks["locks"]["found"] == "one that is held here is held there"
    assert "gpu by driver" not in checks


@pytest.mark.parametrize(
    ("terms", "check", "found", "fix"),
    [
        (Slurm(partition="gpus"), "partition", "there is no gpus; there is gpu", "mean gpu?"),
        (Slurm(gres="gpu:a100"), "a run's job", "would be refused: ", "slurm:"),
    ],
)
def test_the_doctor_names_what_slurm_would_refuse(
    laptop: Laptop, login: SshServer, terms: Slurm, check: str, found: str, fix: str
) -> None:
    laptop.add_remote(login, "other", gpus=None, slurm=terms, env=EnvSpec(sys.executable))

    done = laptop.train("doctor", "other", "--json")

    failed = {each["check"]: each for each in json.loads(done.stdout) if each["mark"] == "fail"}
    assert found in failed[check]["found"]
    assert fix in failed[check]["fix"]
    assert done.returncode == 5


def test_each_gpu_of_a_run_is_paid_for_and_none_is_shared(laptop: Laptop, tmp_path: Path) -> None:
    """Two runs side by side, one of them with two GPUs, at 0.50 for a GPU-hour."""

    def are(state: str) -> bool:
        return [run["state"] for run in laptop.json("status")] == [state] * 2

    go = tmp_path / "go"
    for name, gpus in (("a", 1), ("b", 2)):
        laptop.add_job(name, metrics=False, gpus=gpus)
    laptop.ok("run", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: are("running"), "both run")
    go.touch()
    wait_until(lambda: are("succeeded"), "both end")

    paid = {run["category"]: run["cost"] for run in laptop.json("status")}
    for name, gpus in (("a", 1), ("b", 2)):
        an_hour = float(paid[name]["amount"]) / (paid[name]["seconds"] / 3600)
        assert an_hour == pytest.approx(0.5 * gpus, rel=0.01)


def test_a_run_that_waits_for_weeks_is_not_tidied_away(
    laptop: Laptop, login: SshServer, full: None
) -> None:
    laptop.add_job("a", metrics=False)
    laptop.ok("a", "--remote", "hpc", "--detach")
    (run,) = runs(login)
    os.utime(run.path, (1, 1))

    laptop.ok("gc", "hpc", "--drop", "--force")

    assert run.request.exists()
    laptop.ok("cancel", run.path.name)
    assert run_of(laptop)["state"] == "cancelled"


def test_where_slurm_does_not_answer_no_run_is_thought_lost(
    laptop: Laptop, login: SshServer, programs: Path, tmp_path: Path
) -> None:
    script = "echo 'squeue: error: Unable to contact controller' >&2\nexit 1\n"
    squeue = put(programs, "squeue", script)
    laptop.add_job("a", metrics=False)
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "it runs")
    (run,) = runs(login)

    kill_supervisor(run)

    told = run_of(laptop)
    assert told["state"] == "running"
    assert told["reason"] == "Slurm does not answer: Unable to contact controller"
    squeue.unlink()
    wait_until(lambda: run_of(laptop)["state"] == "lost", "it answers again")
    assert run_of(laptop)["reason"] == "its job failed (FAILED)"


def test_however_often_we_are_asked_slurm_is_asked_every_few_seconds(
    laptop: Laptop, login: SshServer, programs: Path, tmp_path: Path
) -> None:
    put(programs, "squeue", 'echo asked >> asked\nexec "$real" "$@"\n')
    laptop.add_job("a", metrics=False)
    begun = time.monotonic()
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={tmp_path / 'go'}")
    for _ in range(6):
        laptop.ok("status")
    took_s = time.monotonic() - begun
    laptop.ok("cancel", runs(login)[0].path.name)

    asked = len((programs / "asked").read_text().splitlines())
    assert 1 <= asked <= 2 + took_s / 3


def jobs_of(cluster: Cluster, run: RunFolder) -> list[str]:
    """Their numbers, those that have ended included."""
    return cluster.ask("squeue", "-h", "-t", "all", "-n", run.path.name, "-o", "%i").split()


def test_more_runs_at_once_than_the_remote_allows_are_refused_before_anything_is_sent(
    laptop: Laptop, login: SshServer, tmp_path: Path
) -> None:
    env = EnvSpec(sys.executable)
    laptop.add_remote(login, "shared", gpus=None, slurm=Slurm(), env=env, queued=2)
    go = tmp_path / "go"
    for name in ("a", "b", "c"):
        laptop.add_job(name, metrics=False)
    words = ("--remote", "shared", "--detach", "--param", f"until={go}")
    laptop.ok("a", "b", *words)

    done = laptop.train("c", *words)

    assert done.returncode == 6
    assert "shared is to have at most 2 of your runs at once" in done.stderr
    assert "new: 1, there when this laptop last asked: 2" in done.stderr
    assert len(runs(login)) == 2
    assert laptop.ok("cancel", "c").stdout.endswith("was never sent; it is forgotten\n")
    # Those that are there already are not new.
    assert "going on with a-" in laptop.ok("a", *words).stderr
    laptop.ok("cancel", "a")
    laptop.ok("c", *words)
    for name in ("b", "c"):
        laptop.ok("cancel", name)
