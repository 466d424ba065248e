"""One run on several hosts, through a real Slurm of two nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from remote.lock import is_held
from tests.clusters import Cluster
from tests.hpc import job_of, kill_supervisor, laptop, login, programs, runs
from tests.laptop import Laptop, is_awaited, wait_until
from tests.servers import SshServer

__all__ = ["laptop", "login", "programs"]

pytestmark = [pytest.mark.sshd, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

# What each worker does is told by parameters: `until1` is the file that worker 1 waits for.
WORKER = """\
import json, os, pathlib, sys, time
told = json.loads(os.environ["TF_CONFIG"])
rank = str(told["task"]["index"])
with open(os.environ["TRAINSHED_METRICS"], "a") as metrics:
    metrics.write(rank + "\\n")
print("told", json.dumps(told), os.environ["RANK"], os.environ["WORLD_SIZE"], flush=True)
until = os.environ.get("PARAM_until", "") and os.environ["PARAM_until"] + rank
if until:
    pathlib.Path(until + ".awaited").touch()
while until and not os.path.exists(until):
    time.sleep(0.01)
pathlib.Path("a/mymodel.h5").write_text("made by " + rank)
code = os.environ.get("PARAM_code" + rank, "0")
sys.exit(int(code))
"""


PAGE = Path(__file__).parent.parent / "docs/gangs.md"
SCRIPTS = re.findall(r"^### (.*?)$.*?^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def add_gang(laptop: Laptop, **keys: object) -> None:
    laptop.add_job("a", script=WORKER, nodes=2, metrics=False, **keys)


def gang(laptop: Laptop) -> dict[str, dict[str, object]]:
    """What `status` tells, by the end of the run's id."""
    return {run["run"].rpartition("-")[2].partition(".")[2]: run for run in laptop.json("status")}


def states(laptop: Laptop) -> dict[str, object]:
    return {name: run["state"] for name, run in gang(laptop).items()}


def begin(laptop: Laptop, tmp_path: Path, *words: str) -> Path:
    """Start a gang whose workers wait for files; their common beginning."""
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "hpc", "--detach", "--param", f"until={go}", *words)
    files = [Path(f"{go}{rank}") for rank in (0, 1)]
    wait_until(lambda: all(map(is_awaited, files)), "both run")
    return go


def test_each_worker_is_told_of_all_and_only_the_chiefs_outputs_come_home(
    laptop: Laptop, login: SshServer
) -> None:
    add_gang(laptop)

    done = laptop.ok("a", "--remote", "hpc")

    chief, worker = runs(login)
    assert worker.path.name == f"{chief.path.name}.w1"
    assert job_of(chief).number == job_of(worker).number
    told = []
    for run in (chief, worker):
        words = run.log.read_text().splitlines()[0]
        told.append(json.loads(words[len("told ") : -len(" 0 2")]))
        assert words.endswith(f" {len(told) - 1} 2")
        assert run.metrics.read_text() == f"{len(told) - 1}\n"
    assert told[0]["cluster"] == told[1]["cluster"]
    assert len(set(told[0]["cluster"]["worker"])) == 2
    assert [each["task"] for each in told] == [{"type": "worker", "index": n} for n in (0, 1)]
    assert (laptop.root / "a/mymodel.h5").read_text() == "made by 0"
    assert "a.w1 │ told" in done.stderr
    assert "a │ told" in done.stderr


def test_when_one_fails_the_others_are_ended_and_say_why(laptop: Laptop, tmp_path: Path) -> None:
    add_gang(laptop)
    go = begin(laptop, tmp_path, "--param", "code1=3")

    Path(f"{go}1").touch()

    wait_until(lambda: states(laptop) == {"": "failed", "w1": "failed"}, "both have ended")
    told = gang(laptop)
    assert told[""]["reason"] == "worker 1 of its gang failed"
    assert told["w1"]["exit_code"] == 3
    done = laptop.train("attach", "a")
    assert done.returncode == 1
    assert f"fix:   train logs {told['w1']['run']}\n" in done.stderr


@pytest.mark.parametrize("which", ["", "w1"])
def test_cancelling_any_ends_all(laptop: Laptop, tmp_path: Path, which: str) -> None:
    add_gang(laptop)
    begin(laptop, tmp_path)

    laptop.ok("cancel", str(gang(laptop)[which]["run"]))

    assert states(laptop) == {"": "cancelled", "w1": "cancelled"}


def test_a_gang_whose_node_fails_goes_on_together(
    laptop: Laptop, login: SshServer, cluster: Cluster, tmp_path: Path
) -> None:
    add_gang(laptop, restart="on-interruption")
    go = begin(laptop, tmp_path)
    chief, _ = runs(login)
    number = job_of(chief).number

    cluster.kill_node("n2")
    cluster.ask("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=a test")
    wait_until(lambda: cluster.ask("squeue", "-h", "-o", "%T") == "PENDING\n", "it waits again")
    for rank in (0, 1):
        Path(f"{go}{rank}").touch()
    cluster.start("slurmd.n2")
    # Slurm lets two minutes pass. Within the same second a node takes it for the job that it ended.
    cluster.ask("scontrol", "update", f"JobId={number}", "StartTime=now+3")

    wait_until(lambda: states(laptop) == {"": "succeeded", "w1": "succeeded"}, "both went on")
    assert [run["restarts"] for run in gang(laptop).values()] == [1, 1]


def test_a_gang_of_which_one_was_killed_is_handed_in_again_as_a_whole(
    laptop: Laptop, login: SshServer, tmp_path: Path
) -> None:
    add_gang(laptop, restart="on-interruption")
    go = begin(laptop, tmp_path)
    chief, worker = runs(login)
    number = job_of(chief).number

    kill_supervisor(worker)
    wait_until(lambda: not is_held(chief.lock), "the chief is ended")
    for rank in (0, 1):
        Path(f"{go}{rank}").touch()

    wait_until(lambda: states(laptop) == {"": "succeeded", "w1": "succeeded"}, "both went on")
    assert [run["restarts"] for run in gang(laptop).values()] == [1, 1]
    assert job_of(chief).number == job_of(worker).number != number


def test_a_gang_that_is_too_large_for_the_cluster_is_refused_in_slurms_words(
    laptop: Laptop,
) -> None:
    laptop.add_job("a", script=WORKER, nodes=3, metrics=False)

    done = laptop.train("a", "--remote", "hpc")

    assert done.returncode == 5
    refused = "Slurm refused: allocation failure: Requested node configuration is not available"
    assert refused in done.stderr


@pytest.mark.tf
@pytest.mark.parametrize(
    ("heading", "model", "before"),
    [("loop", "mymodel.keras", ""), ("`fit`", "mymodel.h5", "TF_USE_LEGACY_KERAS=1 ")],
)
def test_the_pages_scripts_give_all_workers_the_same_weights(
    laptop: Laptop, login: SshServer, heading: str, model: str, before: str
) -> None:
    script = next(code for title, code in SCRIPTS if heading in title)
    laptop.add_job(
        "category3",
        script=script,
        command=f"{before}python3 category3/job.py",
        outputs=[f"category3/{model}"],
        nodes=2,
    )

    laptop.ok("category3", "--remote", "hpc")

    told = [re.findall(r"^weights .*", run.log.read_text(), re.MULTILINE) for run in runs(login)]
    assert len(told) == 2
    assert len(told[0]) == 1
    assert told[0] == told[1]
    assert (laptop.root / "category3" / model).stat().st_size > 1000
