"""What the user types: the real command line, a real SSH server, and scripts that train nothing."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.cli import run_command
from orchestrator.commands import app
from orchestrator.filelock import alone
from orchestrator.records.shelf import Shelf, file_sha256
from tests.conftest import ISOLATED_SSH_CONFIG
from tests.laptop import LIMIT_S, Laptop, is_awaited, make_laptop, wait_until, without_patience
from tests.servers import HOST, Relay, SshServer, free_port, make_key

REMOTE = app.commands["remote"]
assert isinstance(REMOTE, click.Group)
SESSION = app.commands["session"]
assert isinstance(SESSION, click.Group)
EXAM = app.commands["exam"]
assert isinstance(EXAM, click.Group)
COMMANDS: dict[tuple[str, ...], click.Command] = {
    **{(name,): command for name, command in app.commands.items()},
    **{("remote", name): command for name, command in REMOTE.commands.items()},
    **{("session", name): command for name, command in SESSION.commands.items()},
    **{("exam", name): command for name, command in EXAM.commands.items()},
}


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer) -> Laptop:
    """A workspace with one category, `a`, and the remote `vm`."""
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("a")
    return laptop


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, embedded_server: SshServer) -> Laptop:
    """One in which `a` has run and `b` has not; only to be looked at."""
    monkeypatch = pytest.MonkeyPatch()
    config = tmp_path_factory.mktemp("ssh") / "config"
    config.write_text(ISOLATED_SSH_CONFIG)
    monkeypatch.setenv("TRAINSHED_SSH_CONFIG", str(config))
    laptop = make_laptop(tmp_path_factory.mktemp("used"), embedded_server)
    laptop.add_job("a", outputs=["a/mymodel.h5", "a/curve.txt"])
    laptop.add_job("b")
    laptop.ok("run", "a", "--remote", "vm", "--param", "lr=0.1")
    monkeypatch.undo()
    return laptop


@pytest.fixture
def relay(embedded_server: SshServer) -> Iterator[Relay]:
    with Relay(embedded_server.port) as relay:
        yield relay


# The shape of the command line


def test_help_imports_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['train', '--help']\n"
        "from orchestrator.cli import run_command\n"
        "run_command()\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "Usage: train" in done.stdout
    heavy = {"paramiko", "tensorflow", "keras", "numpy", "textual", "rich", "yaml", "sqlite3"}
    heavy |= {"pydantic", "typer"}
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_in_its_help(words: tuple[str, ...]) -> None:
    lines = (COMMANDS[words].help or "").splitlines()

    example = f"Example: train {' '.join(words)}".removesuffix(" run")
    shown = [line.strip() for line in lines if line.strip().startswith(example)]
    assert shown
    for line in shown:
        _, _, typed = line.partition("Example: train ")
        parse(typed.split())


def parse(typed: list[str]) -> None:
    """Raises:
    click.UsageError: it would not be carried out.
    """
    command: click.Command = app
    words = app.expand(typed)
    context = click.Context(app, **app.context_settings)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    # With its parent, for a command keeps what it was told first of -h.
    command.make_context("train", words, context)


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
def test_help_fits_a_terminal_and_tells_each_option_once(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = []
    for word in ("-h", "--help"):
        monkeypatch.setattr(sys, "argv", ["train", *words, word])
        exit_code = run_command()
        assert exit_code == 0
        shown.append(capsys.readouterr().out)

    text = shown[0]
    assert shown[1] == text
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(" ".join(["Usage: train", *words, "[OPTIONS]"]))
    assert "RANGE" not in text
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    assert "--help" in options
    assert len(options) == len(set(options))


def test_help_lists_the_commands_in_the_order_of_their_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["init", "run", "attach", "status", "logs", "cancel", "pull", "grade", "ready"]
    order: dict[tuple[str, ...], list[str]] = {
        (): [
            *(*first, "cost", "watch", "exam", "submit", "history", "up", "down", "session"),
            *("prices", "bench", "sweep", "report", "import", "export", "tensorboard", "mlflow"),
            *("doctor", "gc", "remote", "docs"),
        ],
        ("remote",): ["add", "set", "list", "show", "drain", "remove"],
        ("session",): ["start", "stop", "status", "list"],
        ("exam",): ["start", "status", "finish"],
    }
    for words, names in order.items():
        monkeypatch.setattr(sys, "argv", ["train", *words])
        run_command()
        _, _, commands = capsys.readouterr().out.partition("Commands:\n")
        rows = [line.split(maxsplit=1) for line in commands.splitlines()]
        assert all(does.endswith(".") for _, does in rows), "a line that was cut"
        assert [name for name, _ in rows] == names


def test_a_shell_completes_what_is_typed_once_it_was_told_to(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_bytes(b"# caf\xe9")
    program = tmp_path / "train"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -P -m orchestrator.cli \"$@\"\n")
    program.chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "SHELL": "/bin/bash",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }

    def said(*words: str) -> str:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    line = said("train", "--show-completion").strip()
    for _ in range(2):
        assert str(tmp_path / ".bashrc") in said("train", "--install-completion")

    assert (tmp_path / ".bashrc").read_bytes() == b"# caf\xe9\n" + line.encode() + b"\n"
    typed = 'COMP_WORDS=(train st); COMP_CWORD=1; _train_completion train; echo "${COMPREPLY[@]}"'
    assert said("bash", "-c", f". ~/.bashrc; complete -p train >/dev/null && {typed}") == "status\n"


def test_a_shell_nobody_can_complete_for_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    monkeypatch.setattr(sys, "argv", ["train", "--show-completion"])
    exit_code = run_command()

    assert exit_code == 2
    assert capsys.readouterr().err == (
        "error: completion is for bash, fish, zsh, not 'tcsh'\n"
        "fix:   SHELL=/bin/bash train --show-completion\n"
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--remote", "x"], ["run", "--remote", "x"]),
        (["category3", "--remote", "x"], ["run", "category3", "--remote", "x"]),
        (["run", "category3"], ["run", "category3"]),
        (["status"], ["status"]),
        (["--version"], ["--version"]),
    ],
)
def test_run_is_the_command_that_may_be_left_out(typed: list[str], meant: list[str]) -> None:
    assert app.expand(typed) == meant


def test_the_three_ways_to_say_run_do_the_same(laptop: Laptop) -> None:
    ways = (["--remote", "vm"], ["a", "--remote", "vm"], ["run", "a/", "-r", "vm"])
    sent = [laptop.json(*words, "--dry-run") for words in ways]

    assert [file["path"] for file in sent[0]] == ["a/job.py", "train.yaml"]
    assert sent[0] == sent[1] == sent[2]


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["--bogus"], "no such option: --bogus", "train run --help"),
        (["--remote"], "requires an argument", "train"),
        (["logs"], "missing argument 'RUN'", "train logs --help"),
        (["status", "a"], "unexpected extra argument", "train status --help"),
        (["--remot", "vm"], "--remot (Possible options: --remote)", "train run --help"),
        (["remote", "ad"], "no such command 'ad'", "train remote --help"),
        (["remote", "add", "q"], "missing option '--host'", "train remote add --help"),
        (["run", "--gpus", "x"], "'--gpus': 'x' is not a valid whole number", "train run --help"),
        (["run", "--gpus", "-1"], "'--gpus': -1 is not in the range x>=0", "train run --help"),
        (["logs", "a", "-n", "-1"], "'--tail' / '-n': -1 is not in", "train logs --help"),
        (["gc", "vm", "--keep-days", "nan"], "not a valid number of days", "train gc --help"),
        (["gc", "vm", "--keep-days", "-1"], "-1.0 is not in the range x>=0", "train gc --help"),
        (["pull", "--best=1"], "option '--best' does not take a value", "train"),
        (["run"], "no remote was named", "train --remote vm"),
        (["a"], "no remote was named", "train a --remote vm"),
        (["--remote", "vmm"], "no remote is named 'vmm'", "did you mean vm?"),
        (["stauts"], "no category is named 'stauts'", "did you mean: train status"),
        (["nosuch", "-r", "vm"], "no category is named 'nosuch'", "train -h"),
        (["run", "a", "-r", "vm", "--time-limit", "4"], "--time-limit: '4'", "40m"),
        (["run", "a", "-r", "vm", "-p", "9=1"], "--param takes NAME=VALUE, not '9=1'", "lr=0.001"),
        (["logs", "zz"], "no run is or begins with 'zz'", "train status --all"),
        (["pull", "a", "zz"], "no run is or begins with 'zz'", "train status --all"),
        (["grade", "zz"], "no category is named 'zz'", "under `jobs:`"),
        (["cost", "--by", "x"], "--by takes remote, category", "--by run"),
        (["cost", "--since", "soon"], "--since takes a date", "2026-01-31"),
        (["cost", "--since", "999999999d"], "--since takes a date", "2026-01-31"),
        (["doctor", "zz"], "no remote is named 'zz'", "train remote add"),
        (["gc", "zz"], "no remote is named 'zz'", "train remote add"),
        (["remote", "add", "a b", "--host", "h"], "remotes.a b: expected a name", "-h"),
        (["remote", "add", "q", "--host", "-oX"], "remotes.q.host", "-h"),
        (["remote", "add", "q", "--host", "h", "--price", "nan"], "--price takes", "leave it out"),
        (
            ["remote", "add", "q", "--host", "h", "--price", "1", "--currency", "usd"],
            "expected a currency",
            "-h",
        ),
        (["remote", "add", "vm", "--host", "h"], "exists already", "train remote remove vm"),
        (["remote", "add", "q", "--host", "h", "--key", "/no/k"], "there is no key file", "--key"),
    ],
)
def test_what_is_typed_wrong_is_exit_code_2_and_told_with_a_fix(
    used: Laptop,
    words: list[str],
    error: str,
    fix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(used.root)
    monkeypatch.setenv("TRAINSHED_HOME", str(used.home))
    monkeypatch.setattr(sys, "argv", ["train", *words])
    exit_code = run_command()
    stdout, stderr = capsys.readouterr()

    assert exit_code == 2
    assert stdout == ""
    lines = without_patience(stderr).splitlines()
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert lines[-1].startswith("fix:   ")
    assert fix in lines[-1]
    assert "Traceback" not in stderr


@pytest.mark.parametrize("words", [["status"], ["--remote", "vm"], ["pull"]])
def test_outside_of_a_workspace_the_error_says_how_to_get_one(
    used: Laptop, tmp_path: Path, words: list[str]
) -> None:
    done = used.train(*words, cwd=tmp_path)

    assert done.returncode == 2
    assert without_patience(done.stderr).startswith("error: no train.yaml in ")
    assert done.stderr.rstrip().endswith("train init DIR")


def test_outside_of_a_workspace_cost_offers_all_of_them(used: Laptop, tmp_path: Path) -> None:
    done = used.train("cost", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.rstrip().endswith("train cost --all")


# Looking at what has run


def test_json_is_alone_on_stdout(used: Laptop, embedded_server: SshServer) -> None:
    (run,) = used.json("status")
    (cost,) = used.json("cost")
    (remote,) = used.json("remote", "list")
    heaps = used.json("gc", "vm")
    ready = used.train("ready", "--json")
    standing = json.loads(ready.stdout)
    pulled = used.json("pull")

    assert (run["category"], run["state"], run["remote"]) == ("a", "succeeded", "vm")
    assert (cost["key"], cost["runs"], cost["estimated"]) == ("a", 1, False)
    assert float(cost["cost"]["USD"]) > 0
    assert (remote["name"], remote["port"], remote["price_per_hour"]) == (
        "vm",
        embedded_server.port,
        "0.50",
    )
    assert {heap["kind"] for heap in heaps} >= {"runs", "snapshots", "contents"}
    assert ready.returncode == 1
    assert [one["sha256"] is None for one in standing] == [False, True]
    assert standing[0]["run"] == run["run"]
    assert pulled["runs"][0]["remote"] == "vm"


def test_what_a_run_wrote_is_alone_on_stdout(used: Laptop) -> None:
    done = used.ok("logs", "a")

    assert done.stdout == "told [('lr', '0.1')]\n"
    assert without_patience(done.stderr) == ""


def test_csv_is_alone_on_stdout(used: Laptop) -> None:
    lines = used.ok("cost", "--by", "run", "--csv").stdout.splitlines()

    assert lines[0] == "run,runs,seconds,currency,amount,unknown_runs,estimated"
    assert lines[1].startswith("a-")


def test_a_reader_that_goes_away_is_no_bug(used: Laptop) -> None:
    with used.start("status", "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()

    assert "Traceback" not in said
    assert "bug" not in said


def test_an_old_terminals_encoding_costs_marks_and_not_the_command(used: Laptop) -> None:
    done = used.train("pull", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert done.returncode == 0, done.stderr
    assert "mymodel.h5" in done.stdout


def test_a_narrow_terminal_shows_whole_run_ids(used: Laptop) -> None:
    (run_id,) = used.states()
    shown = used.at_terminal("status", "--local", answers={}, columns=40).stdout
    wide = used.at_terminal("status", "--local", answers={}, columns=200).stdout

    assert run_id in shown
    assert "state: \x1b[0msucceeded" in shown
    assert "────" in wide
    assert "state:" not in wide


def test_no_color_is_respected(used: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = used.at_terminal("doctor", answers={}).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    plain = used.at_terminal("doctor", answers={}).stdout

    assert "\x1b[32m" in coloured
    assert "\x1b[32m" not in plain


def test_ready_says_what_is_missing(used: Laptop) -> None:
    done = used.train("ready")

    assert done.returncode == 1
    assert "a: no grader.py beside it; b: no model in the folder" in done.stderr
    assert done.stderr.rstrip().endswith("train b --remote NAME")


def test_a_category_without_a_grader_cannot_be_graded(used: Laptop) -> None:
    done = used.train("grade", "a")

    assert done.returncode == 1
    assert "error: there is nothing to grade\ncause: a: no grader.py beside it" in done.stderr


def test_a_dry_run_lists_the_biggest_first_and_connects_nowhere(tmp_path: Path) -> None:
    laptop = make_laptop(tmp_path, server=None)
    laptop.add_job("a", data=["a/data"])
    (laptop.root / "a" / "data").mkdir()
    (laptop.root / "a" / "data" / "x.bin").write_bytes(bytes(5000))
    (laptop.root / ".env").write_text("TOKEN=1")

    done = laptop.ok("--dry-run")
    files = laptop.json("a", "--dry-run")

    assert "! left out, it looks like a secret: .env" in done.stderr
    assert files[0] == {"path": "a/data/x.bin", "size_bytes": 5000}
    sizes = [file["size_bytes"] for file in files]
    assert sizes == sorted(sizes, reverse=True)
    assert {file["path"] for file in files} == {"a/data/x.bin", "a/job.py", "train.yaml"}


# A run and how it ends


def test_a_job_without_grader_has_its_model_placed_and_other_outputs_beside_the_log(
    used: Laptop,
) -> None:
    (run_id,) = used.states()

    assert (used.root / "a" / "mymodel.h5").read_text() == "a model"
    assert not (used.root / "a" / "curve.txt").exists()
    kept = used.root / ".train" / "runs" / run_id / "outputs" / "a" / "curve.txt"
    assert kept.read_text() == "a curve"


def test_junk_instead_of_a_model_is_told_and_stays_out_of_the_folder(laptop: Laptop) -> None:
    (laptop.root / "a" / "grader.py").touch()
    ran = laptop.train("--remote", "vm", "--json")
    (laptop.root / "a" / "mymodel.h5").write_text("junk of my own")
    graded = laptop.train("grade", "--json")

    for done in (ran, graded):
        assert done.returncode == 1
        assert "error: a invalid: not a Keras model" in done.stderr
        (verdict,) = json.loads(done.stdout)["verdicts"]
        assert verdict["outcome"] == "invalid"
    assert json.loads(ran.stdout)["categories"][0]["sha256"] is None


def test_a_vm_that_cannot_run_it_refuses_with_exit_code_5(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    laptop.add_remote(embedded_server, "one", gpus=1)
    laptop.add_job("two", gpus=2)
    two = laptop.train("two", "--remote", "one")

    assert two.returncode == 5, two.stderr
    assert "error: one: " in two.stderr
    assert "fix:   " in two.stderr


def test_a_vm_without_that_python_is_exit_code_5(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    file = laptop.home / "remotes.yaml"
    file.write_text(file.read_text() + "    env: {python: python-none}\n")
    done = laptop.train("--remote", "vm")
    checked = laptop.train("doctor", "vm", "--json")

    assert done.returncode == checked.returncode == 5
    assert "error: there is no python-none on vm" in done.stderr
    marks = {check["check"]: check["mark"] for check in json.loads(checked.stdout)}
    assert marks["connection"] == "fail"


def test_looking_at_the_status_pulls_nothing_and_pull_does(laptop: Laptop) -> None:
    laptop.ok("a", "-r", "vm", "--detach")
    wait_until(lambda: "not here yet: train pull" in laptop.ok("status").stdout, "the end")

    assert not (laptop.root / ".train" / "models").exists()
    pulled = laptop.ok("pull", "a")
    assert "sha256" in pulled.stderr
    assert "a/mymodel.h5 is now the model" in pulled.stderr
    assert "not here yet" not in laptop.ok("status").stdout


def test_a_run_that_ended_meanwhile_is_not_told_as_submitted(laptop: Laptop) -> None:
    laptop.ok("a", "-r", "vm", "--detach")
    (run_id,) = laptop.states()
    wait_until(lambda: "not here yet: train pull" in laptop.ok("status").stdout, "the end")

    again = laptop.ok("a", "-r", "vm", "--detach")

    assert again.stdout.splitlines() == [f"ended before, not begun anew: {run_id}", "  train pull"]
    laptop.ok("pull")
    assert laptop.ok("a", "-r", "vm", "--detach").stdout.startswith("submitted: a-")
    assert len(laptop.states()) == 2


def test_ctrl_c_detaches_and_prints_the_next_three_commands(laptop: Laptop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with laptop.start("a", "-r", "vm", "-p", f"until={go}") as process:
        assert process.stderr is not None
        while "told" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130

    (run_id,) = laptop.states()
    assert said.splitlines()[-4:] == [
        f"detached; on vm goes on: {run_id}",
        "  train status",
        f"  train attach {run_id}",
        f"  train cancel {run_id}",
    ]
    assert laptop.json("status")[0]["state"] == "running"
    go.touch()
    laptop.ok("attach", run_id)


def test_after_an_interruption_what_had_ended_is_not_trained_again(
    laptop: Laptop, tmp_path: Path
) -> None:
    laptop.add_job("b")
    go = tmp_path / "go"
    command = ("a", "b", "-r", "vm", "-p", f"until={go}")
    with laptop.start(*command) as process:
        wait_until(lambda: is_awaited(go), "the first script")
        go.touch()
        wait_until(lambda: "succeeded" in laptop.states().values(), "the first run's end")
        process.kill()
    before = laptop.states()

    laptop.ok(*command)
    assert laptop.states().keys() == before.keys()
    assert (laptop.root / "a" / "mymodel.h5").exists()

    # It has had its result: the same command now means to train again.
    laptop.ok(*command)
    assert len(laptop.states()) == 2 * len(before)


def test_a_run_that_was_submitted_is_never_called_not_sent(laptop: Laptop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    laptop.ok("--remote", "vm", "--detach", "-p", f"until={go}")

    (row,) = laptop.json("status", "--local")
    assert row["state"] == "queued"
    refused = laptop.train("remote", "remove", "vm")
    assert refused.returncode == 2
    assert row["run"] in refused.stderr

    go.touch()
    laptop.ok("attach", "a")
    laptop.ok("remote", "remove", "vm")


def test_a_run_that_succeeds_without_its_model_is_exit_code_1(laptop: Laptop) -> None:
    laptop.add_job("none", script="print('told')\n")
    done = laptop.train("none", "--remote", "vm")

    assert done.returncode == 1
    assert "succeeded, but made no model" in done.stderr


def test_two_commands_at_once_share_one_run(laptop: Laptop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = ("--remote", "vm", "-p", f"until={go}", "-p", "model=one")
    with laptop.start(*command) as first, laptop.start(*command) as second:
        for process in (first, second):
            assert process.stderr is not None
            while "told" not in (line := process.stderr.readline()):
                assert line, "it ended"
        go.touch()
        said = [process.communicate(timeout=LIMIT_S)[1] for process in (first, second)]

    assert [first.returncode, second.returncode] == [0, 0], said
    assert (laptop.root / "a" / "mymodel.h5").read_text() == "one"
    assert list(laptop.states().values()) == ["succeeded"]


def test_a_command_waits_where_another_plans_or_pulls(laptop: Laptop, tmp_path: Path) -> None:
    go, state = tmp_path / "go", laptop.root / ".train"
    with laptop.start("--remote", "vm", "-p", f"until={go}") as process:
        with alone(state / "planning"):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            assert laptop.states() == {}
        wait_until(lambda: is_awaited(go), "the script")
        (run_id,) = laptop.states()
        with alone(state / "runs" / run_id / "pulling"):
            go.touch()
            wait_until(lambda: laptop.states()[run_id] == "succeeded", "the end")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            assert not (state / "models").exists()
        _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0, said
    assert (laptop.root / "a" / "mymodel.h5").read_text() == "a model"


def test_nothing_is_silent_for_long_without_a_terminal(laptop: Laptop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    timer = threading.Timer(6.5, go.touch)
    with laptop.start("a", "-r", "vm", "-p", f"until={go}") as process:
        assert process.stderr is not None
        while "told" not in process.stderr.readline():
            assert process.poll() is None
        timer.start()  # how long a machine takes until here is its own affair
        heard = [time.monotonic()]
        heard += [time.monotonic() for _ in process.stderr]
        assert process.wait() == 0
    timer.join()

    assert max(after - before for before, after in itertools.pairwise(heard)) < 6


# Machines that are new, changed, or not there


def test_an_unknown_host_key_is_an_error_without_a_terminal(
    tmp_path: Path, embedded_server: SshServer
) -> None:
    laptop = make_laptop(tmp_path, server=None)
    words = _add_words(embedded_server)
    refused = laptop.train(*words)

    assert refused.returncode == 3
    assert "fix:   " in refused.stderr
    fingerprint = refused.stderr.split("--accept-host-key ")[1].strip()
    assert not (laptop.home / "known_hosts").exists()
    assert not (laptop.home / "remotes.yaml").exists()

    added = laptop.ok(*words, "--accept-host-key", fingerprint)
    file = laptop.home / "remotes.yaml"
    assert f"new added to {file}; its ssh-ed25519 host key is {fingerprint}" in added.stdout
    assert laptop.ok("remote", "show", "new").stdout.startswith("remotes:\n  new:\n")
    assert laptop.ok("remote", "remove", "new").stdout == "new removed\n"


def test_at_a_terminal_the_fingerprint_is_shown_and_asked_about(
    tmp_path: Path, embedded_server: SshServer
) -> None:
    laptop = make_laptop(tmp_path, server=None)
    words = _add_words(embedded_server)
    refused = laptop.at_terminal(*words, answers={"[y/N]": "n"})

    assert refused.returncode == 3
    assert "SHA256:" in refused.stdout
    assert refused.stdout.split("[y/N] ")[1].startswith("n"), "the question was drawn over"
    assert not (laptop.home / "known_hosts").exists()
    assert not (laptop.home / "remotes.yaml").exists()

    taken = laptop.at_terminal(*words, answers={"[y/N]": "y"})
    assert taken.returncode == 0, taken.stdout
    assert "new added" in taken.stdout
    assert (laptop.home / "known_hosts").exists()


def test_yes_asks_nothing_even_at_a_terminal(laptop: Laptop) -> None:
    (laptop.home / "known_hosts").unlink()
    done = laptop.at_terminal("--remote", "vm", "--yes", answers={})

    assert done.returncode == 3
    assert "[y/N]" not in done.stdout


def test_a_changed_host_key_is_exit_code_3_with_both_fingerprints(
    laptop: Laptop, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()[1]
    known = laptop.home / "known_hosts"
    known.write_text(f"{known.read_text().split()[0]} ssh-ed25519 {other}\n")
    done = laptop.train("--remote", "vm")

    assert done.returncode == 3
    message, _, fix = done.stderr.partition("\nfix:")
    assert message.count("SHA256:") == 2
    assert "--accept-host-key SHA256:" in fix


def test_a_refused_login_is_exit_code_3(laptop: Laptop, tmp_path: Path) -> None:
    key = make_key(tmp_path / "stranger")
    file = laptop.home / "remotes.yaml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(f"    key: {key}" if "key:" in ln else ln for ln in lines))

    assert laptop.train("--remote", "vm").returncode == 3


def test_a_line_lost_while_sending_is_exit_code_4_and_the_same_command_goes_on(
    laptop: Laptop, embedded_server: SshServer, relay: Relay
) -> None:
    laptop.add_remote(embedded_server, "far", port=relay.port)
    data = laptop.root / "a" / "big.bin"
    data.write_bytes(os.urandom(3_000_000))
    relay.cut_after(1_500_000)
    lost = laptop.train("--remote", "far")
    (run_id,) = laptop.states()
    mirror = laptop.root / ".train" / "runs" / run_id
    was_unsent = (mirror / "unsent").exists()
    relay.cut_after(sys.maxsize)
    again = laptop.ok("--remote", "far")

    assert lost.returncode == 4, lost.stderr
    assert "fix:   " in lost.stderr
    assert not was_unsent
    assert "going on with a-" in again.stderr
    assert len(laptop.states()) == 1


def test_without_the_vm_the_copy_is_shown_and_told_to_be_one(
    laptop: Laptop, embedded_server: SshServer, tmp_path: Path
) -> None:
    with Relay(embedded_server.port) as relay:
        laptop.add_remote(embedded_server, "far", port=relay.port)
        laptop.ok("a", "-r", "far", "--detach", "-p", f"until={tmp_path / 'go'}")
        wait_until(lambda: is_awaited(tmp_path / "go"), "the script")
        laptop.ok("logs", "a")
    status = laptop.ok("status")
    logs = laptop.ok("logs", "a")
    pulled = laptop.train("pull")
    (tmp_path / "go").touch()

    assert "unreachable (last seen " in status.stdout
    assert "running" in status.stdout
    assert logs.stdout.startswith("told")
    assert "! this is the laptop's copy: cannot reach far" in logs.stderr
    assert pulled.returncode == 3
    assert "error: cannot reach far" in pulled.stderr
    assert laptop.train("attach", "a").returncode == 3
    assert laptop.train("doctor", "far").returncode == 3


def test_a_machine_that_is_not_there_is_exit_code_3(laptop: Laptop) -> None:
    file = laptop.home / "remotes.yaml"
    port = free_port()
    lines = file.read_text().splitlines()
    file.write_text("\n".join(f"    port: {port}" if "port:" in ln else ln for ln in lines))
    done = laptop.train("--remote", "vm")

    assert done.returncode == 3
    assert f"{HOST}:{port}): connection refused" in done.stderr
    assert "never reached the VM" in laptop.ok("status").stdout


# What must never be lost, sent or overwritten


def test_held_out_data_never_reaches_the_vm(laptop: Laptop, embedded_server: SshServer) -> None:
    secret, code = os.urandom(40).hex().encode(), os.urandom(40).hex().encode()
    (laptop.root / "a" / "grader.py").touch()
    (laptop.root / "a" / "heldout.npz").write_bytes(secret)
    (laptop.root / "a" / "notes.txt").write_bytes(code)
    laptop.train("--remote", "vm")

    store = embedded_server.home / ".trainshed"
    files = [path.read_bytes() for path in store.rglob("*") if path.is_file()]
    assert any(code in content for content in files)
    assert not any(secret in content for content in files)


def test_a_model_of_the_users_own_is_kept_before_another_takes_its_place(laptop: Laptop) -> None:
    model = laptop.root / "a" / "mymodel.h5"
    model.write_text("made by hand")
    mine = file_sha256(model)
    assert mine is not None
    laptop.ok("--remote", "vm")

    assert model.read_text() == "a model"
    kept = Shelf(laptop.root / ".train").find(mine)
    assert kept is not None
    assert kept.read_text() == "made by hand"


def test_a_kept_model_that_was_changed_is_not_placed(laptop: Laptop) -> None:
    (first,) = laptop.json("--remote", "vm", "-p", "model=one")["runs"]
    laptop.ok("--remote", "vm", "-p", "model=two")
    model = laptop.root / "a" / "mymodel.h5"
    assert model.read_text() == "two"
    models = (laptop.root / ".train" / "models").rglob("*.h5")
    (kept,) = (path for path in models if path.read_text() == "one")
    kept.write_text("bad")
    done = laptop.train("pull", first["run"], "--latest")

    assert done.returncode == 5
    assert f"error: {kept} was changed on this laptop" in done.stderr
    assert model.read_text() == "two"


def test_a_workspace_may_have_any_name(tmp_path: Path, embedded_server: SshServer) -> None:
    laptop = make_laptop(tmp_path, embedded_server, '-it\'s an "exam"\n$(x) `y` prüfung 試験')
    laptop.add_job("a")
    laptop.ok("--remote", "vm")

    assert (laptop.root / "a" / "mymodel.h5").exists()
    assert laptop.json("cost", "--by", "workspace")[0]["key"] == str(laptop.root)


# A laptop in a bad state


def test_records_nobody_can_read_do_not_stop_the_commands(laptop: Laptop) -> None:
    laptop.ok("--remote", "vm")
    (run_id,) = laptop.states()
    runs = laptop.root / ".train" / "runs"
    (runs / run_id / "seen.json").write_bytes(b"\xff\x00")
    (runs / "a-bad").mkdir()
    (runs / "a-bad" / "request.json").write_text("{}")

    status = laptop.train("status", "--json")
    assert f"! {runs / 'a-bad' / 'request.json'} cannot be read" in status.stderr
    assert [(row["run"], row["state"]) for row in json.loads(status.stdout)] == [
        (run_id, "succeeded")
    ]
    for words in (["logs", "a"], ["pull"], ["--remote", "vm"]):
        laptop.ok(*words)


def test_a_home_that_cannot_be_used_is_an_error_and_no_bug(laptop: Laptop, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = laptop.train("status", TRAINSHED_HOME=str(tmp_path / "file" / "home"))

    assert done.returncode == 2
    assert without_patience(done.stderr).startswith("error: cannot make the folder ")
    assert "TRAINSHED_HOME" in done.stderr


def test_a_workspace_that_cannot_be_written_is_an_error_and_no_bug(laptop: Laptop) -> None:
    (laptop.root / ".train").touch()
    done = laptop.train("--remote", "vm")

    assert done.returncode == 2
    assert without_patience(done.stderr).startswith(f"error: {laptop.root / '.train'}")
    assert "Traceback" not in done.stderr


def test_a_ledger_of_another_home_is_told(laptop: Laptop, tmp_path: Path) -> None:
    laptop.ok("a", "-r", "vm", "--detach", "-p", f"until={tmp_path / 'go'}")
    (laptop.home / "ledger.sqlite3").unlink()
    for recorded in laptop.root.glob(".train/runs/*/recorded.json"):
        recorded.unlink()
    done = laptop.train("attach", "a")
    (tmp_path / "go").touch()

    assert done.returncode == 2
    assert "the ledger does not know where a-" in done.stderr
    assert "the ledger does not know" in laptop.ok("status").stdout


def _add_words(server: SshServer) -> tuple[str, ...]:
    where = ("--host", HOST, "--port", str(server.port), "--user", server.user)
    return ("remote", "add", "new", *where, "--key", str(server.key))


# The whole way, with a network that learns

NETWORK = """\
import os
import keras
import numpy as np
x = np.random.default_rng(1).random((400, 3), dtype="float32")
y = x.sum(axis=1)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
model.compile(keras.optimizers.Adam(float(os.environ.get("PARAM_lr", 0.05))), "mse")
model.fit(x, y, epochs=25, verbose=2)
model.save("sums/mymodel.h5")
"""
GRADER = """\
import numpy as np
INPUT_SHAPE, OUTPUT_SHAPE = (3,), (1,)
METRIC, HIGHER_IS_BETTER, THRESHOLDS = "mean absolute error", False, (9.0, 8.0, 2.0, 1.0, 0.3)
def held_out():
    x = np.random.default_rng(2).random((50, 3), dtype="float32")
    return x, x.sum(axis=1)
def score(y, predictions):
    return float(np.abs(predictions.reshape(y.shape) - y).mean())
"""


@pytest.mark.tf
def test_the_best_model_stands_in_the_folder_until_another_is_asked_for(
    tmp_path: Path, embedded_server: SshServer
) -> None:
    laptop = make_laptop(tmp_path, embedded_server)
    folder = laptop.add_job(
        "sums", script=NETWORK, command=f"'{sys.executable}' sums/job.py", time_limit="2m"
    )
    (folder / "grader.py").write_text(GRADER)
    model = folder / "mymodel.h5"

    first = laptop.json("--remote", "vm")
    good = file_sha256(model)
    assert first["verdicts"][0]["points"] == 5
    assert first["categories"][0]["sha256"] == good
    assert "yes" in laptop.ok("ready").stdout
    assert float(laptop.json("cost")[0]["cost"]["USD"]) > 0

    second = laptop.json("--remote", "vm", "--param", "lr=0.000001")
    assert second["verdicts"][0]["points"] == 3
    assert file_sha256(model) == good

    laptop.ok("pull", "--latest")
    assert file_sha256(model) == second["verdicts"][0]["sha256"]
    laptop.ok("pull")
    assert file_sha256(model) == good


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["cost --json", "cost --csv", "status --local", "--help"])
def test_a_result_that_cannot_be_written_is_an_error(
    used: Laptop, words: str, unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words.split()],
            cwd=used.root,
            env={**os.environ, "TRAINSHED_HOME": str(used.home), "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert without_patience(done.stderr) == (
        "error: the result cannot be written: no space left on device\n"
        "fix:   free some space there\n"
    )


@pytest.mark.parametrize("words", ["cost --json", "status --local", "--help"])
def test_a_result_that_nobody_wants_is_no_error(used: Laptop, words: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec '{sys.executable}' -m orchestrator.cli {words} >&-"],
        cwd=used.root,
        env={**os.environ, "TRAINSHED_HOME": str(used.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
