"""What is warned of before anything is sent, by what was seen of the machine before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.outlook import keep_look, misfits
from orchestrator.plan import Order, Overrides, make_request
from orchestrator.records.curves import Epoch
from orchestrator.records.ledger import Ledger, RunFact
from orchestrator.records.mirror import Mirrors
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import CloudSpec, EnvSpec, Job, Remote, Workspace
from orchestrator.source.pastcode import PastCode
from orchestrator.source.snapshot import take_snapshot
from remote.protocol import Examined
from remote.record import encode
from tests.laptop import make_laptop
from tests.servers import SshServer
from tests.vm import quoted_python

JOB = Job("category3", "python train.py", ("mymodel.h5",))
OLD = "tensorflow 2.12.0, keras 2.12.0"
NEW = "tensorflow 2.17.0, keras 3.4.0"
EPOCH = encode(Epoch(0, {}, 1, 1, "2026-01-01T12:00:00Z", 1.0))
UNUSED = "tensorflow 2.17.0, keras 3.4.0 has no code for Tesla K80"


def seen(framework: str, python: str = "/usr/bin/python3") -> Examined:
    return Examined(python, ("Tesla K80, 11441 MiB, driver 470.199",), "", framework, (), "", "")


@dataclass
class Room:
    """A workspace and the ledger beside it."""

    workspace: Workspace
    ledger: Ledger
    remote: Remote

    def warnings(
        self, job: Job = JOB, remote: Remote | None = None, gpus: int | None = None
    ) -> list[str]:
        order = Order(self.workspace, (job,), remote or self.remote, Overrides(gpus))
        return misfits(order, self.ledger)

    def train(self, run_id: str, versions: object, job: Job = JOB) -> None:
        """A run that told the versions it trained with."""
        snapshot = take_snapshot(self.workspace, (job,), Silence())
        PastCode(self.workspace.state).keep(snapshot.code)
        request = make_request(job, self.remote, snapshot, Overrides(), run_id)
        mirror = Mirrors(self.workspace.state).make(request)
        mirror.metrics.write_text(json.dumps({**EPOCH, "versions": versions}) + "\n{}\n")
        root, now = str(self.workspace.root), datetime.now(UTC)
        facts = (root, job.name, self.remote.name, request.tree, job.command, now)
        self.ledger.add(RunFact(run_id, *facts, Decimal(1), "USD", "user"))


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path / "home"))
    root = tmp_path / "exam"
    root.mkdir()
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        workspace = Workspace(root, (JOB,), exam_tensorflow="2.5")
        yield Room(workspace, ledger, Remote("k80", "203.0.113.7"))


def test_of_a_machine_that_nobody_saw_nothing_is_said(room: Room) -> None:
    assert room.warnings() == []


def test_what_the_doctor_saw_is_warned_of_before_the_next_run(room: Room) -> None:
    keep_look(room.remote, "", seen(NEW))
    gpu, exam = room.warnings()

    assert gpu.startswith(UNUSED)
    assert "(as train doctor saw it); have 'tensorflow<2.15' installed" in gpu
    assert "can be loaded by the exam's tensorflow 2.5" in exam
    assert "tensorflow==2.5.*" in exam


@pytest.mark.parametrize("how", ["remote", "job", "option"])
def test_who_trains_on_the_cpu_knows_it(room: Room, how: str) -> None:
    room.workspace = replace(room.workspace, exam_tensorflow="")
    remote = replace(room.remote, gpus=0 if how == "remote" else None)
    job = replace(JOB, gpus=0 if how == "job" else 1)
    keep_look(remote, "", seen(NEW))

    assert room.warnings(job, remote, 0 if how == "option" else None) == []


def test_what_an_earlier_run_trained_with_outdates_the_doctor(room: Room) -> None:
    keep_look(room.remote, "", seen(OLD))
    room.train("category3-20260101-100000-ab12", {"tensorflow": "2.17.0"})

    gpu, _ = room.warnings()
    assert gpu.startswith("tensorflow 2.17.0 has no code for Tesla K80")
    assert "(as in category3-20260101-100000-ab12)" in gpu


def test_a_later_doctor_outdates_the_run(room: Room) -> None:
    room.train("category3-20260101-100000-ab12", {"tensorflow": "2.17.0"})
    keep_look(room.remote, "", seen("tensorflow 2.5.3"))

    assert room.warnings() == []


def test_whoever_changed_the_requirements_is_not_warned_again(room: Room) -> None:
    room.remote = replace(room.remote, env=EnvSpec(None, "wanted.txt"))
    wanted = room.workspace.root / "wanted.txt"
    wanted.write_text("tensorflow==2.17.0\n")
    keep_look(room.remote, wanted.read_text(), seen(NEW, "/home/me/.trainshed/envs/a/bin/python"))
    room.train("category3-20260101-100000-ab12", {"tensorflow": "2.17.0"})
    assert len(room.warnings()) == 2

    wanted.write_text("tensorflow==2.5.3\n")
    assert room.warnings() == []


def test_another_interpreter_is_another_framework(room: Room) -> None:
    keep_look(room.remote, "", seen(NEW))
    room.train("category3-20260101-100000-ab12", {"tensorflow": "2.17.0"})

    assert room.warnings(replace(JOB, env=EnvSpec("python3.8"))) == []


def test_the_base_of_an_environment_says_nothing_of_what_will_be_in_it(room: Room) -> None:
    room.remote = replace(room.remote, env=EnvSpec(None, "wanted.txt"))
    (room.workspace.root / "wanted.txt").write_text("tensorflow==2.5.3\n")
    keep_look(room.remote, "tensorflow==2.5.3\n", seen(NEW))

    assert room.warnings() == []


def test_another_machine_of_the_name_is_not_the_one_that_was_seen(room: Room) -> None:
    keep_look(room.remote, "", seen(NEW))
    moved = replace(room.remote, host="203.0.113.8")

    assert room.warnings(remote=moved) == []
    assert room.warnings(remote=replace(moved, cloud=CloudSpec("azure")))


@pytest.mark.parametrize("versions", [None, [], "2.17", {"tensorflow": 2.17}, {"jax": "0.4"}])
def test_what_a_run_tells_of_its_versions_need_not_make_sense(room: Room, versions: object) -> None:
    room.train("category3-20260101-100000-ab12", versions)
    keep_look(room.remote, "", seen(""))

    assert room.warnings() == []


def test_no_depth_of_what_a_run_tells_is_too_deep(room: Room) -> None:
    room.train("category3-20260101-100000-ab12", {})
    (mirror,) = Mirrors(room.workspace.state).all()
    mirror.metrics.write_text("[" * 50_000)
    mirror.usage.write_text("[" * 50_000 + "\n")

    assert room.warnings() == []
    assert mirror.last_use_at() is None


def test_what_is_kept_of_a_look_may_be_spoilt(room: Room, tmp_path: Path) -> None:
    keep_look(room.remote, "", seen(NEW))
    (tmp_path / "home" / "looks" / "k80").write_text("{")

    assert room.warnings() == []


def test_nothing_the_vm_said_steers_the_terminal(room: Room) -> None:
    evil = "tensorflow 2.17.0\x1b[2J"
    keep_look(room.remote, "", seen(evil))

    assert "\x1b" not in "".join(room.warnings())


def test_the_command_warns_before_it_connects(tmp_path: Path, embedded_server: SshServer) -> None:
    laptop = make_laptop(tmp_path, embedded_server)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec {quoted_python()} "$@"\n')
    python.chmod(0o755)
    laptop.add_remote(embedded_server, "other", env=EnvSpec(str(python)))
    laptop.add_job("a")
    with (laptop.root / "train.yaml").open("a") as file:
        file.write("exam_environment: {tensorflow: 2.5}\n")
    (tmp_path / "tensorflow.py").write_text(
        "__version__ = '2.17.0'\nclass config: list_physical_devices = lambda kind: []\n"
    )
    laptop.train("doctor", "other")
    told = laptop.train("run", "a", "--remote", "other").stderr

    assert "(Keras 3) saves can be loaded by the exam's tensorflow 2.5" in told
    assert told.index("exam's tensorflow") < told.index("connected to other")
    assert "exam's" not in laptop.train("run", "a", "--remote", "vm").stderr
