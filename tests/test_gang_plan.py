"""What a gang is made of, what of it is refused, and how it is shown; without a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.costs.cost import Cost
from orchestrator.errors import ConfigError
from orchestrator.gangs.replicas import unfit_line
from orchestrator.plan import make_gang
from orchestrator.records.mirror import Mirrors
from orchestrator.screen.runs import fold_gangs
from orchestrator.settings.config import load_workspace
from orchestrator.status import StatusRow
from remote.protocol import RunReport
from remote.restart import may_restart, read_restarts
from remote.runfolder import (
    Gang,
    RunFolder,
    RunRequest,
    RunState,
    Slurm,
    State,
    chief_id,
    gang_folders,
    is_run_id,
    worker_id,
)
from remote.takeover import take_over
from remote.terms import job_options
from tests.laptop import HALF, Laptop, make_laptop

REQUEST = RunRequest(
    "a-20260131-120000-ab12", "a", "0" * 64, "true", ("a/m.h5",), restarts=1, slurm=Slurm()
)
RUNNING = RunState(State.RUNNING, "2026-01-31T12:00:00Z")
FIT = """\
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
model = make()
model.fit(data)
"""


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return make_laptop(tmp_path, None)


def test_a_gang_is_runs_alike_of_which_only_the_chief_has_outputs() -> None:
    chief, *workers = make_gang(REQUEST, 3)

    assert chief == REQUEST._replace(gang=Gang(0, 3))
    assert [worker.run_id for worker in workers] == [f"{REQUEST.run_id}.w{n}" for n in (1, 2)]
    assert [worker.gang for worker in workers] == [Gang(1, 3), Gang(2, 3)]
    assert [worker.outputs for worker in workers] == [(), ()]
    assert make_gang(REQUEST, 1) == (REQUEST,)


def test_a_workers_id_is_a_run_id_that_leads_to_its_chief() -> None:
    longest = f"{'j' * 64}-20260131-120000-ab12cd34"

    assert is_run_id(worker_id(longest, 63))
    assert chief_id(worker_id(longest, 63)) == chief_id(longest) == longest


def test_a_gangs_job_has_its_nodes_and_each_of_them_is_warned() -> None:
    options = set(job_options(REQUEST._replace(gang=Gang(0, 3))))

    assert {"--nodes=3", "--ntasks=3", "--signal=TERM@90", "--gres=gpu:1"} <= options


def two_running(folder: Path) -> tuple[RunFolder, RunFolder]:
    """A gang of which nobody holds a lock."""
    requests = make_gang(REQUEST, 2)
    chief, worker = gang_folders(RunFolder(folder / REQUEST.run_id), requests[0])
    for each, request in zip((chief, worker), requests, strict=True):
        each.path.mkdir()
        write(each.request, request)
        write(each.state, RUNNING)
    return chief, worker


def test_of_a_gang_none_goes_on_alone(tmp_path: Path) -> None:
    chief, worker = two_running(tmp_path)
    assert may_restart(chief)

    for end in (State.FAILED, State.SUCCEEDED):
        write(worker.state, RUNNING._replace(state=end))
        assert not may_restart(chief)


def test_a_gang_that_slurm_queues_again_goes_on_though_one_of_it_was_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chief, worker = two_running(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")

    for folder in (chief, worker):
        os.close(take_over(folder))
    assert [read_restarts(folder) for folder in (chief, worker)] == [1, 1]

    write(chief.state, RUNNING._replace(restarts=1))
    with pytest.raises(SystemExit, match="may not begin again"):
        take_over(chief)
    write(chief.state, RUNNING._replace(state=State.FAILED))
    worker.restarts.unlink()
    with pytest.raises(SystemExit, match="may not begin again"):
        take_over(worker)


def write(path: Path, record: object) -> None:
    from remote.record import to_bytes

    path.write_bytes(to_bytes(record))


@pytest.mark.parametrize("nodes", ["0", "65", "two"])
def test_nodes_are_a_number_of_hosts(laptop: Laptop, nodes: str) -> None:
    (laptop.root / "train.yaml").write_text(
        f"jobs:\n  a: {{command: x, outputs: [a/m.h5], nodes: {nodes}}}\n"
    )

    with pytest.raises(ConfigError) as error:
        load_workspace(laptop.root)

    assert "expected a number of hosts from 1 to 64" in str(error.value)


def test_fit_of_keras_3_on_several_hosts_is_found_by_its_line() -> None:
    assert unfit_line(FIT) == 4
    for name in ("experimental.MultiWorkerMirroredStrategy", "MultiWorkerMirroredStrategy"):
        assert unfit_line(FIT.replace("MultiWorkerMirroredStrategy", name)) == 4


@pytest.mark.parametrize(
    "source",
    [
        FIT.replace("MultiWorker", ""),
        FIT.replace("model.fit(data)", "strategy.run(step)"),
        FIT + "import tf_keras\n",
        f"import os\nos.environ['TF_USE_LEGACY_KERAS'] = '1'\n{FIT}",
        "not Python (",
    ],
)
def test_what_may_work_is_let_through(source: str) -> None:
    assert unfit_line(source) is None


def test_the_switch_to_keras_2_has_to_come_before_the_import() -> None:
    assert unfit_line(f"{FIT}\nimport os\nos.environ['TF_USE_LEGACY_KERAS'] = '1'\n") == 4


def test_what_is_known_to_fail_is_refused_before_anything_is_connected_or_started(
    laptop: Laptop,
) -> None:
    # Nobody answers there.
    (laptop.home / "remotes.yaml").write_text(
        "remotes:\n  hpc: {host: 127.0.0.1, port: 1, engine: slurm}\n"
    )
    laptop.add_job("a", script=FIT, nodes=2)

    for words in ((), ("--up",), ("--dry-run",)):
        done = laptop.train("a", "--remote", "hpc", *words)

        assert done.returncode == 2
        assert "a/job.py, line 4: fit of Keras 3 fails on several hosts" in done.stderr
        assert "keras #20585" in done.stderr
        assert "TF_USE_LEGACY_KERAS=1 python3 a/job.py" in done.stderr
        assert "connect" not in done.stderr

    laptop.add_job("b", script=FIT, nodes=2, command="TF_USE_LEGACY_KERAS=0 python3 b/job.py")
    laptop.ok("b", "--remote", "hpc", "--dry-run")
    laptop.ok("a", "--remote", "hpc", "--dry-run", "--nodes", "1")


def test_one_machine_is_not_taken_for_several(laptop: Laptop) -> None:
    (laptop.home / "remotes.yaml").write_text("remotes:\n  vm: {host: 127.0.0.1, port: 1}\n")
    laptop.add_job("a")

    done = laptop.train("a", "--remote", "vm", "--nodes", "3")

    assert done.returncode == 2
    assert "a is to run on 3 hosts, and vm is one" in done.stderr
    assert "engine: slurm" in done.stderr
    assert not (laptop.root / ".train/runs").exists()


@pytest.mark.parametrize(
    "words", [("sweep", "a", "--param", "lr=1,2"), ("export", "a", "--notebook")]
)
def test_what_has_one_host_is_not_made_of_a_gang(laptop: Laptop, words: tuple[str, ...]) -> None:
    (laptop.home / "remotes.yaml").write_text("remotes:\n  vm: {host: 127.0.0.1, port: 1}\n")
    laptop.add_job("a", nodes=2)

    done = laptop.train(*words)

    assert done.returncode == 2
    assert "a is to run on 2 hosts, and a" in done.stderr


def test_a_gang_has_one_line_with_what_all_cost_and_who_stands_elsewhere(tmp_path: Path) -> None:
    mirrors = Mirrors(tmp_path)
    rows = []
    states = (State.RUNNING, State.RUNNING, State.FAILED)
    for request, state in zip(make_gang(REQUEST, 3), states, strict=True):
        mirror = mirrors.make(request)
        told = RunState(state, "2026-01-31T12:00:00Z")
        mirror.see(RunReport(request.run_id, "a", alive=True, stamp="", state=told), "boot")
        rows.append(StatusRow(mirror, "hpc", Cost(HALF, "USD", 60.0, estimated=False)))

    (row,) = fold_gangs(rows)

    assert row.mirror.run_id == REQUEST.run_id
    assert row.cost == Cost(HALF * 3, "USD", 60.0, estimated=False)
    assert row.note == "on 3 hosts, w2 failed"
    assert mirrors.latest(1) == tuple(each.mirror for each in rows)
