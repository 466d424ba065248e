"""What a shell offers while a command is typed; the shells' own side is click's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import orchestrator.cli  # noqa: F401  # which has all commands
from orchestrator.commands import app
from tests.laptop import SCRIPT, Laptop, make_laptop

RUNS = ["b-20261121-101553-aaaa", "a-20261121-091553-dee7"]


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    laptop = make_laptop(tmp_path, server=None)
    laptop.add_job("a", script=SCRIPT + 'rate = os.environ["PARAM_lr"]\n')
    laptop.add_job("b", script="print(os.environ.get('PARAM_batch_size', '8'))\n")
    (laptop.home / "remotes.yaml").write_text(
        "remotes: {azure-k80: {host: 192.0.2.1}, lab: {host: 192.0.2.2}}\n"
    )
    for run_id in RUNS:
        (laptop.root / ".train" / "runs" / run_id).mkdir(parents=True)
    monkeypatch.setenv("TRAINSHED_HOME", str(laptop.home))
    monkeypatch.chdir(laptop.root)
    return laptop


def offered(typed: str) -> list[str]:
    *words, begun = typed.split(" ")
    shell = ShellComplete(app, {}, "train", "_TRAIN_COMPLETE")
    return [item.value for item in shell.get_completions(words, begun)]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("--remote ", ["azure-k80", "lab"]),
        ("a --remote l", ["lab"]),
        ("run -r az", ["azure-k80"]),
        ("up ", ["azure-k80", "lab"]),
        ("session status l", ["lab"]),
        ("remote set a", ["azure-k80"]),
        ("remote add ", []),
        ("a", ["attach", "a"]),
        ("--rem", ["--remote"]),
        ("a ", ["b"]),
        ("grade a b ", []),
        ("submit ", ["a", "b"]),
        ("attach ", ["a", "b", *RUNS]),
        ("logs b-", RUNS[:1]),
        ("history --restore a-", RUNS[1:]),
        ("run --param ", ["batch_size=", "lr="]),
        ("run a --param l", ["lr="]),
        ("export b -p b", ["batch_size="]),
    ],
)
def test_a_shell_is_offered_what_there_is(laptop: Laptop, typed: str, names: list[str]) -> None:
    assert offered(typed) == names


def test_where_nothing_can_be_read_nothing_is_offered_and_nothing_said(
    laptop: Laptop, capsys: pytest.CaptureFixture[str]
) -> None:
    (laptop.root / "train.yaml").write_text("jobs: [")

    for typed in ("--remote ", "attach ", "grade ", "run --param "):
        assert offered(typed) == []
    assert capsys.readouterr() == ("", "")


def test_a_shell_waits_for_no_library_that_it_does_not_need(laptop: Laptop) -> None:
    code = (
        "import sys; from orchestrator.cli import run_command\n"
        "try: run_command()\n"
        "finally: print(*sys.modules, file=sys.stderr)\n"
    )
    asked = {"_TRAIN_COMPLETE": "bash_complete", "COMP_WORDS": "train up a", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code, "train"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "plain,azure-k80\n"
    heavy = {"paramiko", "tensorflow", "numpy", "rich", "sqlite3", "markdown_it", "asyncio"}
    assert not heavy & set(done.stderr.split())
