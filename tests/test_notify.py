"""Who is told of a run's end, and what becomes of one who does not listen."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from orchestrator import commands, notify
from orchestrator.cli import run_command
from orchestrator.errors import ConfigError
from orchestrator.settings.config import load_notify, parse_workspace
from tests.laptop import Laptop, make_laptop
from tests.servers import SshServer

FACTS = {"run": "a-1", "category": "a", "state": "failed", "points": "", "seconds": "70"}


@pytest.fixture
def trained(tmp_path: Path, embedded_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    """A workspace in which every run takes long enough to tell somebody."""
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("a")
    monkeypatch.setattr(commands, "_NOTIFY_AFTER_S", 0.0)
    monkeypatch.setenv("TRAINSHED_HOME", str(laptop.home))
    monkeypatch.chdir(laptop.root)
    return laptop


def train(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train", *words])
    return run_command()


def say_so(laptop: Laptop, command: str) -> None:
    (laptop.home / "config.yaml").write_text(f"notify: >-\n  {command}\n")


def test_a_command_of_the_users_hears_of_each_run(
    trained: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = tmp_path / "heard it"
    script = tmp_path / "tell.sh"
    script.write_text(f'#!/bin/sh\necho "$1|$2|$TRAINSHED_STATE|$TRAINSHED_RUN" >> "{heard}"\n')
    script.chmod(0o755)
    say_so(trained, f"{script} '{{category}} {{state}}; touch pwned' {{nobody}}")

    code = train(monkeypatch, "--remote", "vm")

    (run_id,) = trained.states()
    assert code == 0
    assert heard.read_text() == f"a succeeded; touch pwned|{{nobody}}|succeeded|{run_id}\n"
    assert not (trained.root / "pwned").exists()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/no/such/program", "no such file or directory"),
        ("false", "exit code 1"),
        ("sh -c 'sleep 60 & echo $! > {category}.pid; wait'", "it took more than 0.5 s"),
    ],
)
def test_a_notifier_that_fails_or_hangs_is_told_and_harms_nothing(
    trained: Laptop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    why: str,
) -> None:
    monkeypatch.setattr(notify, "_LIMIT_S", 0.5)
    say_so(trained, command)

    assert train(monkeypatch, "--remote", "vm") == 0

    shown = capsys.readouterr()
    off = f"to have none: notify: off in {trained.home}/config.yaml"
    assert f"! notify: {command.split()[0]}: {why}; {off}\n" in shown.err
    assert "together: " in shown.out
    child = trained.root / "a.pid"
    if child.exists():
        assert not is_alive(int(child.read_text()))


def test_one_that_fails_is_put_off_where_it_was_said(
    trained: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained.root / "train.yaml"
    file.write_text(f"{file.read_text()}\nnotify: /no/such/program\n")

    assert train(monkeypatch, "--remote", "vm") == 0
    assert f"to have none: notify: off in {file}\n" in capsys.readouterr().err


def is_alive(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return False
        time.sleep(0.02)
    return Path(f"/proc/{pid}").exists()


def test_who_waited_for_less_than_a_minute_is_left_alone(
    trained: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_NOTIFY_AFTER_S", 60.0)
    say_so(trained, "false")

    assert train(monkeypatch, "--remote", "vm") == 0
    assert "notify" not in capsys.readouterr().err


def test_the_desktop_hears_of_all_runs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "notify-send"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":0")
    text = "a failed in 1 min\nb succeeded, 5 of 5"

    message = notify._message([FACTS, {**FACTS, "category": "b", "state": "succeeded",
                                       "points": "5", "seconds": ""}])  # fmt: skip
    assert message == ("Training has ended", text)
    words = ["notify-send", "--app-name=Trainshed", "--", "Training has ended", text]
    assert notify._desktop(*message) == words
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert notify._desktop(*message) == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [("off", "off"), ("on", "desktop"), ("desktop", "desktop"), ("say '{run}'", "say '{run}'")],
)
def test_it_is_said_for_one_workspace_or_for_all(said: str, meant: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"notify: {said}\n")

    assert parse_workspace(file.read_text(), tmp_path / "train.yaml").notify == meant
    assert load_notify(file) == meant
    assert load_notify(tmp_path / "none") == ""


def test_a_command_whose_quotes_are_open_is_refused_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("\nnotify: say \"it's\n")

    with pytest.raises(ConfigError, match=r"config.yaml:2: notify: expected desktop, off, or a"):
        load_notify(file)
