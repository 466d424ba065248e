"""`train sweep`: many runs of one category, looked for by what training tells of itself."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.costs.sessions import begin
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirrors
from orchestrator.settings.spec import Remote
from tests.laptop import LIMIT_S, Laptop, make_laptop, wait_until
from tests.servers import HOST, SshServer

# It tells metrics, as a script without Keras does, and notes that it was started. What a trial is
# worth is its `height`.
SCRIPT = """\
import json, os, pathlib, sys, time
told = {name[6:]: value for name, value in os.environ.items() if name.startswith("PARAM_")}
with open(told["starts"], "a") as file:
    file.write(os.environ["TRAINSHED_RUN"] + " " + told["height"] + "\\n")
while "until" in told and told["height"] in told["slow"] and not os.path.exists(told["until"]):
    time.sleep(0.01)
if told["height"] == told.get("fails"):
    sys.exit(3)
with open(os.environ["TRAINSHED_METRICS"], "a") as file:
    for epoch in range(5):
        value = float(told["height"]) * (epoch + 1) / 5
        line = {"fit": 1, "epoch": epoch, "epochs": 5, "at": "2026-11-21T10:00:00Z",
                "seconds": 0.1, "metrics": {"loss": 1 - value, "val_accuracy": value}}
        file.write(json.dumps(line) + "\\n")
while told["height"] == told.get("hangs"):
    time.sleep(0.01)
(pathlib.Path(__file__).parent / "mymodel.h5").write_text(told["height"])
"""
PAGE = (Path(__file__).parent.parent / "docs/sweeps.md").read_text()
GRID = ("--sampler", "grid", "--metric", "val_accuracy", "--remote", "vm")


# As the page has it, after what stands for the user's own training.
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
OWN_LOOP = f"""\
def train_one_epoch(): return 1.0
def validate(): return float(os.environ["PARAM_height"])
{EXAMPLE}
open("a/mymodel.h5", "w").write(os.environ["PARAM_height"])
"""


class Sweeper:
    """A laptop with a category `a`, and what its jobs noted."""

    def __init__(self, folder: Path, server: SshServer) -> None:
        self.laptop: Laptop = make_laptop(folder, server)
        self.laptop.add_job("a", script=SCRIPT)
        self.starts = folder / "starts"
        self.go = folder / "go"

    def words(self, *heights: str, **params: str) -> tuple[str, ...]:
        given = {"starts": str(self.starts), **params}
        pairs = [f"height={','.join(heights)}", *(f"{k}={v}" for k, v in given.items())]
        return ("sweep", "a", *GRID, *(word for pair in pairs for word in ("-p", pair)))

    def started(self) -> list[str]:
        """The height of each run that was started."""
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        return [line.rpartition(" ")[2] for line in lines]

    def states(self, told: Any) -> dict[str, str]:  # noqa: ANN401  # whatever JSON can hold
        return {trial["params"]["height"]: trial["state"] for trial in told["trials"]}


@pytest.fixture
def sweeper(tmp_path: Path, openssh_server: SshServer) -> Sweeper:
    return Sweeper(tmp_path, openssh_server)


@pytest.mark.sshd
def test_the_best_trials_model_comes_home_and_no_other(sweeper: Sweeper) -> None:
    words = sweeper.words("0.2", "0.9", "0.4")
    told = sweeper.laptop.json(*words)

    assert sweeper.states(told) == {"0.2": "complete", "0.9": "complete", "0.4": "complete"}
    assert [trial["value"] for trial in told["trials"]] == [0.2, 0.9, 0.4]
    assert told["best"] == 1
    assert (sweeper.laptop.root / "a" / "mymodel.h5").read_text() == "0.9"
    assert told["result"]["runs"][0]["run"] == told["trials"][1]["run"]
    assert all(float(trial["cost"]["amount"]) > 0 for trial in told["trials"])
    shelf = sweeper.laptop.root / ".train" / "models"
    assert len(list(shelf.iterdir())) == 1
    sweeper.laptop.ok("pull")
    assert len(list(shelf.iterdir())) == 1
    sweeper.laptop.ok("pull", told["trials"][0]["run"])
    assert len(list(shelf.iterdir())) == 2

    again = sweeper.laptop.json(*words)
    assert again["trials"] == told["trials"]
    assert sorted(sweeper.started()) == ["0.2", "0.4", "0.9"]
    rows = sweeper.laptop.json("history")
    assert {row["params"]["height"] for row in rows} == {"0.2", "0.4", "0.9"}
    assert "height=0.4" in sweeper.laptop.ok("history").stdout

    storage = optuna.storages.RDBStorage(f"sqlite:///{told['study']}")
    study = optuna.load_study(study_name="a", storage=storage)
    assert [trial.user_attrs["run"] for trial in study.trials] == [
        trial["run"] for trial in told["trials"]
    ]
    assert study.best_trial.number == 1
    storage.engine.dispose()


@pytest.mark.sshd
def test_a_script_without_keras_and_under_an_interpreters_path_is_swept_as_well(
    tmp_path: Path, openssh_server: SshServer
) -> None:
    laptop = make_laptop(tmp_path, openssh_server)
    laptop.add_job("a", script=OWN_LOOP, command=f"{sys.executable} a/job.py")
    sweep = ("sweep", "a", "--sampler", "grid", "--remote", "vm", "-p", "height=0.4,0.2,0.9")
    told = laptop.json(*sweep)

    assert [trial["value"] for trial in told["trials"]] == [0.4, 0.2, 0.9]
    assert (laptop.root / "a" / "mymodel.h5").read_text() == "0.2"
    story = laptop.json("report", ".")
    assert {trial["epochs"] for trial in story["trials"]} == {20}


@pytest.mark.sshd
def test_what_is_queued_goes_on_while_the_laptop_is_closed_and_the_same_command_goes_on(
    sweeper: Sweeper,
) -> None:
    words = sweeper.words("0.1", "0.2", "0.3", "0.4", until=str(sweeper.go), slow="0.1")
    with sweeper.laptop.start(*words) as process:
        wait_until(lambda: sweeper.started() == ["0.1"], "the first trial")
        wait_until(lambda: len(sweeper.laptop.states()) == 2, "the one queued behind it")
        os.kill(process.pid, signal.SIGINT)
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 130
    assert "the same command goes on with the sweep" in said
    sweeper.go.touch()
    wait_until(lambda: len(sweeper.started()) == 2, "the second, with nobody following")

    told = sweeper.laptop.json(*words)

    assert set(sweeper.states(told).values()) == {"complete"}
    assert sweeper.started() == ["0.1", "0.2", "0.3", "0.4"]
    assert (sweeper.laptop.root / "a" / "mymodel.h5").read_text() == "0.4"


@pytest.mark.sshd
def test_trials_that_were_outdone_go_with_gc_once_the_sweep_is_over(
    sweeper: Sweeper, openssh_server: SshServer
) -> None:
    laptop, mirrors = sweeper.laptop, Mirrors(sweeper.laptop.root / ".train")
    tidy = ("gc", "vm", "--keep-days", "0", "--drop")

    def there() -> list[str]:
        runs = openssh_server.home / ".trainshed" / "runs"
        return [run for run in sorted(laptop.states()) if (runs / run).exists()]

    words = sweeper.words("0.2", "0.9", until=str(sweeper.go), slow="0.9")
    with laptop.start(*words) as process:
        wait_until(lambda: sweeper.started() == ["0.2", "0.9"], "the second trial")
        wait_until(lambda: any(mirror.settled for mirror in mirrors.all()), "the first one's end")
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
    assert "it has the only copy" in laptop.ok(*tidy).stderr
    assert len(there()) == 2

    sweeper.go.touch()
    laptop.json(*words)
    assert "only copy" not in laptop.ok(*tidy).stderr
    assert there() == []
    assert (laptop.root / "a" / "mymodel.h5").read_text() == "0.9"

    outdone = next(mirror.run_id for mirror in mirrors.all() if mirror.is_outdone)
    done = laptop.train("pull", outdone)
    assert done.returncode == 5
    assert f"vm has nothing of {outdone} any more" in done.stderr
    assert "train a --remote vm -p " in done.stderr
    assert "-p height=0.2" in done.stderr
    assert "gone from vm" in laptop.ok("status").stdout
    assert "any more" not in laptop.ok("pull").stderr


@pytest.mark.sshd
def test_failed_and_cancelled_trials_are_told_and_do_not_end_the_sweep(sweeper: Sweeper) -> None:
    words = sweeper.words("0.1", "0.2", "0.3", fails="0.1", hangs="0.2")
    with sweeper.laptop.start(*words, "--json") as process:
        wait_until(lambda: "0.2" in sweeper.started(), "the trial that hangs")
        run = sorted(sweeper.laptop.states(), key=lambda run: "0.2" in height_of(sweeper, run))[-1]
        sweeper.laptop.ok("cancel", run)
        told = json.loads(process.communicate(timeout=LIMIT_S)[0])

    assert sweeper.states(told) == {"0.1": "failed", "0.2": "failed", "0.3": "complete"}
    assert process.returncode == 0


def height_of(sweeper: Sweeper, run_id: str) -> str:
    request = sweeper.laptop.root / ".train" / "runs" / run_id / "request.json"
    return str(json.loads(request.read_text())["params"]["height"])


@pytest.mark.sshd
def test_a_trial_with_a_poor_curve_is_cancelled_and_told_as_pruned(sweeper: Sweeper) -> None:
    heights = ("0.5", "0.6", "0.7", "0.8", "0.9", "0.1", "0.95")
    told = sweeper.laptop.json(*sweeper.words(*heights, hangs="0.1"))

    assert sweeper.states(told)["0.1"] == "pruned"
    poor = told["trials"][5]["run"]
    (row,) = [row for row in sweeper.laptop.json("status", "--all") if row["run"] == poor]
    assert (row["state"], row["reason"]) == ("cancelled", "ended by its sweep")
    assert set(sweeper.states(told).values()) == {"complete", "pruned"}


@pytest.mark.sshd
def test_a_metric_that_training_does_not_tell_names_those_that_it_tells(sweeper: Sweeper) -> None:
    words = [word.replace("val_accuracy", "val_auc") for word in sweeper.words("0.1", "0.2")]
    done = sweeper.laptop.train(*words)

    assert done.returncode == 2
    assert "training told nothing of val_auc" in done.stderr
    assert "told: loss, val_accuracy" in done.stderr
    assert "--metric val_accuracy" in done.stderr
    # Nothing was learned, so the name is free for the corrected command.
    told = sweeper.laptop.json(*sweeper.words("0.1", "0.2"))
    assert set(sweeper.states(told).values()) == {"complete"}


@pytest.mark.sshd
def test_after_three_failures_and_nothing_else_no_more_are_begun(sweeper: Sweeper) -> None:
    heights = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")
    done = sweeper.laptop.train(
        *sweeper.words(*heights, fails="0.1"), "--param", "starts=/no/where"
    )

    assert done.returncode == 1
    assert "the first 3 trials failed" in done.stderr
    assert len(sweeper.laptop.states()) <= 4


@pytest.mark.sshd
def test_a_sweep_begins_no_trial_that_does_not_fit_its_budget(sweeper: Sweeper) -> None:
    # At $0.50 an hour a trial of at most 12 minutes takes up to $0.10.
    words = (*sweeper.words("0.1", "0.2", "0.3"), "--time-limit", "12m", "--ahead", "0")
    refused = sweeper.laptop.train(*words, "--budget", "0.09")
    assert refused.returncode == 6
    assert "the sweep a: $0.00 of $0.09" in refused.stderr
    assert sweeper.started() == []

    told = sweeper.laptop.json(*words, "--budget", "0.11")
    assert set(sweeper.states(told).values()) == {"complete"}


@pytest.mark.sshd
def test_a_parameter_that_the_script_never_reads_is_warned_of_before_it_is_paid_for(
    sweeper: Sweeper,
) -> None:
    (sweeper.laptop.root / "a" / "job.py").write_text("import os\nos.environ['PARAM_starts']\n")
    words = (*sweeper.words("0.1", "0.2"), "--time-limit", "12m", "--budget", "0.01")
    done = sweeper.laptop.train(*words)

    assert done.returncode == 6
    assert "no file of a names PARAM_height" in done.stderr
    assert "PARAM_starts" not in done.stderr
    assert done.stdout == ""


@pytest.mark.sshd
def test_trials_that_go_on_when_the_budget_is_used_up_are_given_up(sweeper: Sweeper) -> None:
    words = (*sweeper.words("0.1", "0.2", hangs="0.1"), "--ahead", "0", "--budget", "0.0001")
    done = sweeper.laptop.train(*words)

    assert done.returncode == 6
    assert "trial 0 is given up for the budget" in done.stderr
    assert "the budget is used up" in done.stderr
    assert list(sweeper.laptop.states().values()) == ["cancelled"]


@pytest.mark.sshd
def test_a_budget_without_a_price_is_refused(tmp_path: Path, openssh_server: SshServer) -> None:
    sweeper = Sweeper(tmp_path, openssh_server)
    sweeper.laptop.add_remote(openssh_server, "free", price=None)
    words = [word.replace("vm", "free") for word in sweeper.words("0.1", "0.2")]
    done = sweeper.laptop.train(*words, "--budget", "3")

    assert done.returncode == 6
    assert "the price of free is unknown" in done.stderr


@pytest.mark.sshd
def test_a_session_that_is_over_lets_no_trial_begin(sweeper: Sweeper) -> None:
    begun = datetime.now(UTC) - timedelta(hours=2)
    with Ledger.open(sweeper.laptop.home / "ledger.sqlite3") as ledger:
        begin(ledger, Remote("vm", HOST), begun, lasts_s=3600)
    done = sweeper.laptop.train(*sweeper.words("0.1", "0.2"))

    assert done.returncode == 6
    assert "ended at" in done.stderr
    assert sweeper.started() == []


@pytest.mark.sshd
def test_changed_code_takes_in_what_goes_on_and_begins_nothing_more(sweeper: Sweeper) -> None:
    words = sweeper.words("0.1", "0.2", "0.3", until=str(sweeper.go), slow="0.1")
    with sweeper.laptop.start(*words) as process:
        wait_until(lambda: sweeper.started() == ["0.1"], "the first trial")
        wait_until(lambda: len(sweeper.laptop.states()) == 2, "the one queued behind it")
        process.kill()
    (sweeper.laptop.root / "a" / "more.py").write_text("changed = True\n")
    sweeper.go.touch()
    told = sweeper.laptop.json(*words)

    assert sweeper.states(told) == {"0.1": "complete", "0.2": "complete"}
    assert "the code has changed" in told["stopped"]
    other = sweeper.laptop.json(*words, "--name", "a-2")
    assert len(other["trials"]) == 3
    assert "+changed = True" in sweeper.laptop.ok("history", "--diff", "a").stdout


@pytest.mark.sshd
def test_what_goes_on_on_one_remote_is_not_taken_for_lost_on_another(
    sweeper: Sweeper, openssh_server: SshServer
) -> None:
    sweeper.laptop.add_remote(openssh_server, "other")
    words = sweeper.words("0.1", "0.2", until=str(sweeper.go), slow="0.1")
    with sweeper.laptop.start(*words) as process:
        wait_until(lambda: sweeper.started() == ["0.1"], "the first trial")
        process.kill()
    done = sweeper.laptop.train(*(word.replace("vm", "other") for word in words))
    assert done.returncode == 2
    assert "of the sweep a is on vm" in done.stderr
    sweeper.go.touch()
    told = sweeper.laptop.json(*words)

    assert set(sweeper.states(told).values()) == {"complete"}


@pytest.mark.sshd
def test_other_options_under_the_same_name_are_refused(sweeper: Sweeper) -> None:
    sweeper.laptop.ok(*sweeper.words("0.1", "0.2"))
    done = sweeper.laptop.train(*sweeper.words("0.1", "0.3"))

    assert done.returncode == 2
    assert "--param height was 0.1,0.2, now it is 0.1,0.3" in done.stderr
    assert "--name NEW" in done.stderr
