"""A job whose command passes by the `python` that watches Keras is warned of, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.desk import Desk
from orchestrator.plan import Order
from orchestrator.screen.console import Console
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.unwatched import unwatched
from tests.laptop import make_laptop
from tests.servers import SshServer

JOB = Job("a", "/opt/py/bin/python a/job.py", ("a/m.h5",))


def order(root: Path, *jobs: Job, remote: str = "k80") -> Order:
    return Order(Workspace(root, jobs), jobs, Remote(remote, "203.0.113.7"))


def told(root: Path, command: str) -> list[str]:
    return list(unwatched(order(root, replace(JOB, command=command))))


@pytest.mark.parametrize(
    ("command", "python"),
    [
        ("/opt/py/bin/python a/job.py", "/opt/py/bin/python"),
        ("cd a && OMP_NUM_THREADS=2 exec ~/env/bin/python3.11 -u job.py", "~/env/bin/python3.11"),
        ("python3.11 a/job.py", "python3.11"),
        ("nice -n 5 env/bin/python a/job.py --note \"it's", "env/bin/python"),
    ],
)
def test_an_interpreter_that_is_not_watched_is_named(
    tmp_path: Path, command: str, python: str
) -> None:
    (text,) = told(tmp_path, command)

    assert f"{python} is not; " in text
    assert f"--python {python})" in text


@pytest.mark.parametrize(
    "command",
    [
        "python a/job.py",
        "KEY=1 python3 -u a/job.py",
        "python a/job.py --python /usr/bin/python3.8",
        "/usr/bin/env python a/job.py",
        "sh a/run.sh",
        "torchrun --nproc-per-node 2 a/job.py",
        "cat python.txt pythons",
    ],
)
def test_of_what_is_watched_or_is_no_python_nothing_is_said(tmp_path: Path, command: str) -> None:
    assert told(tmp_path, command) == []


def test_who_wants_no_metrics_or_tells_them_itself_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    script = tmp_path / "a" / "job.py"
    script.write_text("import torch\n")

    assert list(unwatched(order(tmp_path, replace(JOB, metrics=False)))) == []
    assert len(told(tmp_path, JOB.command)) == 1
    assert told(tmp_path, f'{JOB.command} --to "$TRAINSHED_METRICS"') == []
    script.write_bytes(b"\xff\nopen(os.environ['TRAINSHED_METRICS'], 'a')\n")
    assert told(tmp_path, JOB.command) == []


def test_no_command_reaches_the_terminal(tmp_path: Path) -> None:
    (text,) = told(tmp_path, "'/opt/\x1b[2J/python' a/job.py")

    assert "\x1b" not in text


def test_each_job_is_warned_of_once_on_however_many_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path / "home"))
    jobs = (JOB, replace(JOB, name="b"))
    with Desk(Workspace(tmp_path, jobs), Console()) as desk:
        for remote in ("k80", "v100"):
            desk.foresee(order(tmp_path, *jobs, remote=remote))

    said = " ".join(capsys.readouterr().err.split())
    assert said.count("no metrics of a will be seen") == 1
    assert said.count("no metrics of b will be seen") == 1


@pytest.mark.sshd
def test_the_command_warns_of_it_before_it_connects(
    tmp_path: Path, embedded_server: SshServer
) -> None:
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("a", command="/opt/py/bin/python a/job.py")
    told = " ".join(laptop.train("run", "a", "--remote", "vm").stderr.split())

    assert told.count("no metrics of a will be seen") == 1
    assert told.index("no metrics of a will be seen") < told.index("connected to vm")
