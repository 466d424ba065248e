"""Runs on a real MLflow server: all that is known of them, once, however often it is written."""

from __future__ import annotations

import importlib.util
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.grades.settling import Result
from orchestrator.records.ledger import Ledger, VerdictFact
from orchestrator.records.mirror import Mirrors
from orchestrator.settings.spec import Workspace
from orchestrator.trackers import afterwards
from orchestrator.trackers.tracked import status
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import RunRequest, RunState, State
from tests.laptop import Laptop, make_laptop, wait_until
from tests.servers import HOST, SshServer
from tests.tracker import authorization, tracker
from tests.vm import Told

pytestmark = [
    pytest.mark.xdist_group("tracking"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("mlflow", "sqlalchemy", "alembic", "flask"))),
        reason="MLflow's server is not installed",
    ),
]

# It writes its epochs as Keras's callback would, and of one no time that is one.
SCRIPT = """
import json, os, pathlib, time
told = pathlib.Path(os.environ["TRAINSHED_METRICS"])
go = pathlib.Path(os.environ["PARAM_go"])
with told.open("a", buffering=1) as file:
    for epoch in range(3):
        while epoch == 2 and not go.exists():
            time.sleep(0.05)
        line = {"fit": 1, "epoch": epoch, "epochs": 3,
                "at": "2026-01-01T00:00:0%dZ" % epoch if epoch != 1 else "just now",
                "seconds": 1.0, "versions": {"keras": "3.15"} if not epoch else {},
                "metrics": {"loss": 1 - epoch / 4, "val_f1 (é)": None if epoch else 0.5}}
        file.write(json.dumps(line) + "\\n")
(pathlib.Path(__file__).parent / "mymodel.h5").write_text("a model")
"""


# A slash in a password is written as %2F in an address.
LOGIN = "me:s3cret/word"


class Tracker:
    """What MLflow's page would ask.

    Attributes:
        uri: as a user types it, with the login.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.uri = address.replace("//", "//me:s3cret%2Fword@")

    def runs(self) -> list[Any]:
        (experiment,) = self._ask(
            "experiments/search", {"max_results": 9, "filter": "name = 'exam'"}
        )["experiments"]
        wanted = {"experiment_ids": [experiment["experiment_id"]]}
        return list(self._ask("runs/search", wanted).get("runs", []))

    def steps(self, run: Any, metric: str) -> list[tuple[int, float]]:  # noqa: ANN401
        query = urllib.parse.urlencode({"run_id": run["info"]["run_id"], "metric_key": metric})
        found = self._ask(f"metrics/get-history?{query}")["metrics"]
        # It tells them by their times, and one may have none of its own.
        return sorted((int(each.get("step", 0)), each["value"]) for each in found)

    def files(self, run: Any) -> list[str]:  # noqa: ANN401
        query = urllib.parse.urlencode({"run_id": run["info"]["run_id"], "path": "model"})
        return [each["path"] for each in self._ask(f"artifacts/list?{query}").get("files", [])]

    def _ask(self, what: str, body: object = None) -> Any:  # noqa: ANN401  # whatever JSON can hold
        question = urllib.request.Request(
            f"{self.address}/api/2.0/mlflow/{what}",
            json.dumps(body).encode() if body else None,
            {"Content-Type": "application/json", "Authorization": authorization(LOGIN)},
        )
        with urllib.request.urlopen(question) as answer:
            return json.loads(answer.read())


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer) -> Laptop:
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("one", script=SCRIPT)
    return laptop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    with tracker(tmp_path_factory.mktemp("mlflow") / "server", LOGIN) as address:
        yield Tracker(address)


def name_server(laptop: Laptop, address: str) -> None:
    file = laptop.root / "train.yaml"
    file.write_text(f"mlflow: {address}\n{file.read_text()}")


def pairs(listed: list[dict[str, str]]) -> dict[str, Any]:
    return {each["key"]: each["value"] for each in listed}


def test_a_run_is_written_as_it_goes_on_and_nothing_of_it_twice(
    laptop: Laptop, server: Tracker, embedded_server: SshServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    write = "mlflow", "one", "--to", server.uri
    laptop.ok("one", "--remote", "vm", "--detach", "-p", f"go={go}")
    (run_id,) = laptop.states()
    metrics = embedded_server.home / ".trainshed" / "runs" / run_id / "metrics.jsonl"

    def epochs() -> int:
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    wait_until(lambda: epochs() == 2, "its first epochs")
    laptop.ok("status")  # which brings what is new
    assert laptop.json(*write)["written"] == [run_id]
    (run,) = server.runs()
    assert run["info"]["status"] == "RUNNING"
    assert server.steps(run, "loss") == [(1, 1.0), (2, 0.75)]

    go.touch()
    name_server(laptop, server.address)
    user, password = LOGIN.split(":")
    ended = laptop.train(
        *("attach", "one"),
        MLFLOW_TRACKING_USERNAME=user,
        MLFLOW_TRACKING_PASSWORD=password,
        MLFLOW_HTTP_REQUEST_TIMEOUT="60",  # a busy machine's server is slow, and not away
    )
    assert f"• 1 of 1 runs written to {server.address}\n" in ended.stderr
    assert [run["info"]["status"] for run in server.runs()] == ["FINISHED"]
    assert "written" not in laptop.ok("pull").stderr
    with Ledger.open(laptop.home / "ledger.sqlite3") as ledger:
        (model,) = ledger.artifacts(run_id)
        root = str(laptop.root)
        at = datetime.now(UTC)
        grade = ("graded", 4, "accuracy", 0.9, (0.5,) * 5, True, "", 7, (), at)
        ledger.add(VerdictFact("v-1", root, "one", model.sha256, run_id, *grade))
    assert laptop.json(*write)["written"] == [run_id]
    done = laptop.ok(*write)
    assert done.stdout == f"0 of 1 runs written to {server.address}, the others are there already\n"
    assert "s3cret" not in done.stderr

    (run,) = server.runs()
    tags, data = pairs(run["data"]["tags"]), pairs(run["data"]["metrics"])
    assert run["info"]["status"] == "FINISHED"
    assert int(run["info"]["end_time"]) > int(run["info"]["start_time"])
    assert server.steps(run, "loss") == [(1, 1.0), (2, 0.75), (3, 0.5)]
    assert server.steps(run, "val_f1 _é_") == [(1, 0.5)]
    assert data["trainshed.points"] == 4
    assert data["trainshed.metric"] == 0.9
    assert 0 < data["trainshed.cost"] < 0.1
    assert pairs(run["data"]["params"]) == {"go": str(go)}
    assert tags["trainshed.run"] == run["info"]["run_name"] == run_id
    assert tags["trainshed.remote"] == "vm"
    assert tags["trainshed.versions"] == "keras 3.15"
    assert tags["trainshed.metric"] == "accuracy"
    assert tags["trainshed.cost"].startswith("$0.00")
    assert len(tags["trainshed.code"]) == 64
    assert tags["trainshed.model"] == model.sha256
    assert server.files(run) == ["model/mymodel.h5"]


def test_a_server_that_is_not_there_changes_nothing_but_is_told(
    laptop: Laptop, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    go.touch()
    name_server(laptop, "http://127.0.0.1:1")

    done = laptop.train("one", "--remote", "vm", "-p", f"go={go}")

    assert done.returncode == 0, done.stderr
    assert laptop.states().popitem()[1] == "succeeded"
    assert (laptop.root / "one" / "mymodel.h5").read_text() == "a model"
    assert (
        "! not written to MLflow: cannot reach the tracking server http://127.0.0.1:1; "
        "later: train mlflow\n" in done.stderr
    )


def test_a_server_that_never_answers_is_not_waited_for(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afterwards, "_LIMIT_S", 0.5)
    mirror = Mirrors(laptop.root / ".train").make(RunRequest("one-1", "one", "0" * 64, "true"))
    state = RunState(State.SUCCEEDED, clock.now(), ended_at=clock.now())
    mirror.see(RunReport("one-1", "one", alive=False, stamp="1", state=state), "")
    told = Told()

    with socket.create_server((HOST, 0)) as silent:
        address = f"http://{HOST}:{silent.getsockname()[1]}"
        workspace = Workspace(laptop.root, mlflow=address)
        afterwards.write_afterwards(workspace, Result((mirror,)), told)
        afterwards.write_afterwards(workspace, Result((mirror,), old=frozenset({"one-1"})), told)

    warning = f"not written to MLflow: {address} took more than 0.5 s; later: train mlflow"
    assert told.warnings == [warning]


def test_without_a_server_it_says_how_to_name_one(laptop: Laptop) -> None:
    done = laptop.train("mlflow")

    assert done.returncode == 2
    assert "train mlflow --to" in done.stderr
    assert "mlflow: http://" in done.stderr


def test_a_login_that_is_wrong_is_told_and_not_shown(laptop: Laptop, server: Tracker) -> None:
    done = laptop.train("mlflow", "--to", server.uri.replace("word", "other"))

    assert done.returncode == 2
    assert f"the tracking server {server.address} refuses" in done.stderr
    assert "401" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_told(laptop: Laptop) -> None:
    done = laptop.train("mlflow", "--to", "http://me:s3cret@127.0.0.1:1")

    assert done.returncode == 3
    assert "cannot reach the tracking server http://127.0.0.1:1" in done.stderr
    assert "cause: [Errno 111] Connection refused\n" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_mlflow_it_says_how_to_install_it(laptop: Laptop, tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("raise ImportError('not here')\n")

    done = laptop.train("mlflow", "--to", "http://127.0.0.1:1", PYTHONPATH=str(tmp_path))

    assert done.returncode == 2
    assert "pip install 'trainshed[mlflow]'" in done.stderr


def test_every_state_is_one_of_mlflows() -> None:
    told = {state: status(state.value) for state in State}

    assert told.pop(State.SUCCEEDED) == "FINISHED"
    assert told.pop(State.CANCELLED) == "KILLED"
    assert all((word == "FAILED") == state.final for state, word in told.items())
    assert status("lost") == "FAILED"
