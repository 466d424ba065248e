"""An environment is built once, is whole or is not used, and building it can be given up.

One test builds a real one. In the others the interpreter is a stand-in, a shell script that makes
an "environment" out of itself, so that the building can be held at a known point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from remote.doctor import examine
from remote.environment import (
    SetupFailed,
    ensure_environment,
    environment_folder,
    environment_python,
    find_python,
)
from remote.lock import is_held
from remote.protocol import Examine
from remote.store import Store
from tests.forks import at_once, fork, killed_at_each_step

STAND_IN = """#!/bin/sh
case "$1 $2" in
"-VV ") echo "Stand-in 1.0" ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo built >> '{folder}/built' ;;
"-m pip") env="${{0%/bin/python}}" && . '{folder}/pip' ;;
"-c "*) . '{folder}/answer' ;;
esac
"""


class StandIn:
    """An interpreter that is none.

    Attributes:
        pip: a shell script, executed for `python -m pip`; `$env` is the environment's folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.path = folder / "python"
        self.path.write_text(STAND_IN.format(folder=folder))
        self.path.chmod(0o755)
        self.pip = folder / "pip"
        self.pip.touch()

    @property
    def builds(self) -> int:
        return len((self.folder / "built").read_text().split())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a store")


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "stand in")


def pause() -> None:
    time.sleep(0.005)


def ensure(store: Store, python: Path, log: Path, requirements: bytes = b"x") -> str:
    with log.open("ab") as file:
        return ensure_environment(store, str(python), requirements, file, pause)


def make_wheel(folder: Path) -> Path:
    wheel = folder / "hand_made-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hand_made.py", "VALUE = 42\n")
        info = "hand_made-1.0.dist-info"
        metadata = "Metadata-Version: 2.1\nName: hand_made\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_five_that_ask_at_once_get_one_real_environment(store: Store, tmp_path: Path) -> None:
    requirements = str(make_wheel(tmp_path)).encode()

    def ask(number: int) -> None:
        python = ensure(store, Path(sys.executable), tmp_path / f"log{number}", requirements)
        (tmp_path / f"python{number}").write_text(python)

    assert at_once(5, ask) == [0] * 5
    (python,) = {file.read_text() for file in tmp_path.glob("python*")}
    logs = [file.read_text() for file in tmp_path.glob("log*")]
    assert sum("building the environment" in text for text in logs) == 1
    assert sum("Successfully installed hand" in text for text in logs) == 1
    command = [python, "-c", "import hand_made; print(hand_made.VALUE)"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"42\n"
    assert environment_python(store, sys.executable, requirements) == python


def test_what_pip_says_of_a_failure_is_in_the_log(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.pip.write_text(f"exec '{sys.executable}' \"$@\"")  # the real one
    log = tmp_path / "log"
    missing = tmp_path / "missing-1.0-py3-none-any.whl"
    with pytest.raises(SetupFailed, match=r"^pip install ended with 1: see the run's log$"):
        ensure(store, stand_in.path, log, str(missing).encode())
    assert "missing-1.0-py3-none-any.whl" in log.read_text()
    assert environment_python(store, str(stand_in.path), str(missing).encode()) == ""


def test_a_failed_build_is_begun_anew_and_a_complete_one_is_kept(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.pip.write_text('touch "$env/half"; exit 3')
    with pytest.raises(SetupFailed, match="pip install ended with 3"):
        ensure(store, stand_in.path, tmp_path / "log")
    stand_in.pip.write_text('[ "$6" ] && cat "$6" > "$env/requirements"')
    python = ensure(store, stand_in.path, tmp_path / "log")
    folder = Path(python).parent.parent
    assert not (folder / "half").exists()
    assert (folder / "requirements").read_bytes() == b"x"
    os.utime(folder / ".complete", (0, 0))
    assert ensure(store, stand_in.path, tmp_path / "log") == python
    assert stand_in.builds == 2
    assert time.time() - (folder / ".complete").stat().st_mtime < 60  # asking counts as use


def test_a_machine_without_venv_is_told_what_to_install(store: Store, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n[ $1 = -VV ] || exit 1\n")
    python.chmod(0o755)
    with pytest.raises(SetupFailed, match=r"python -m venv ended with 1.*python3-venv"):
        ensure(store, python, tmp_path / "log")


def test_a_killed_builds_pip_may_end_before_anybody_builds_in_its_place(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    # pip lives on when the supervisor is killed, and writes into the environment.
    started, go = stand_in.folder / "started", stand_in.folder / "go"
    stand_in.pip.write_text(
        f"touch '{started}'; until [ -e '{go}' ]; do sleep 0.01; done; touch \"$env/late\""
    )
    builder = fork(lambda: ensure(store, stand_in.path, tmp_path / "log"))
    while not started.exists():
        pause()
    os.kill(builder, signal.SIGKILL)
    os.waitpid(builder, 0)
    assert environment_python(store, str(stand_in.path), b"x") == ""
    builds_when_waiting = []

    def pause_and_let_go() -> None:
        builds_when_waiting.append(stand_in.builds)
        if len(builds_when_waiting) == 3:
            stand_in.pip.write_text("")
            go.touch()

    with (tmp_path / "log").open("ab") as log:
        python = ensure_environment(store, str(stand_in.path), b"x", log, pause_and_let_go)
    assert builds_when_waiting[:3] == [1, 1, 1]
    assert stand_in.builds == 2
    assert not (Path(python).parent.parent / "late").exists()


def test_killed_at_any_step_the_environment_is_whole_or_not_used(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.pip.write_text('touch "$env/installed"')

    def build(step: int) -> None:
        ensure(store, stand_in.path, tmp_path / "log", b"%d" % step)

    for step in killed_at_each_step(build):
        requirements = b"%d" % step
        python = environment_python(store, str(stand_in.path), requirements)
        assert not python or (Path(python).parent.parent / "installed").exists()
        python = ensure(store, stand_in.path, tmp_path / "log", requirements)
        assert (Path(python).parent.parent / "installed").exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_giving_up_ends_pip_and_what_pip_has_started(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    pids = stand_in.folder / "pids"
    stand_in.pip.write_text(f"sleep 60 & echo $$ $! > '{pids}.new'; mv '{pids}.new' '{pids}'; wait")

    def cancel() -> None:
        pause()
        if pids.exists():
            raise InterruptedError

    with (tmp_path / "log").open("ab") as log, pytest.raises(InterruptedError):
        ensure_environment(store, str(stand_in.path), b"x", log, cancel)
    pip, compiler = map(int, pids.read_text().split())
    assert not is_running(pip)
    end = time.monotonic() + 60
    while is_running(compiler) and time.monotonic() < end:
        pause()
    assert not is_running(compiler)
    digest = environment_folder(store, str(stand_in.path), b"x").name
    assert not is_held(store.lock_path(f"env-{digest[:16]}"))
    stand_in.pip.write_text("")
    assert ensure(store, stand_in.path, tmp_path / "log")


def test_giving_up_while_another_builds_leaves_it_alone(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    started, go = stand_in.folder / "started", stand_in.folder / "go"
    stand_in.pip.write_text(f"touch '{started}'; until [ -e '{go}' ]; do sleep 0.01; done")
    builder = fork(lambda: ensure(store, stand_in.path, tmp_path / "log"))
    while not started.exists():
        pause()

    def cancel() -> None:
        raise InterruptedError

    with (tmp_path / "other").open("ab") as log, pytest.raises(InterruptedError):
        ensure_environment(store, str(stand_in.path), b"x", log, cancel)
    go.touch()
    assert os.waitpid(builder, 0)[1] == 0
    assert environment_python(store, str(stand_in.path), b"x")
    assert stand_in.builds == 1


def test_other_requirements_and_other_interpreters_are_other_environments(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    other = StandIn(tmp_path / "other")
    folders = {
        environment_folder(store, str(stand_in.path), b"x"),
        environment_folder(store, str(stand_in.path), b"y"),
        environment_folder(store, str(other.path), b"x"),
    }
    stand_in.path.write_text(stand_in.path.read_text().replace("Stand-in 1.0", "Stand-in 1.1"))
    folders.add(environment_folder(store, str(stand_in.path), b"x"))
    assert len(folders) == 4


def test_an_interpreter_that_does_not_answer_is_not_waited_for_for_ever(
    store: Store, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.path.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("remote.environment._VERSION_LIMIT_S", 0.1)
    with pytest.raises(SetupFailed, match=r"did not tell its version within 0\.1 s"):
        ensure(store, stand_in.path, tmp_path / "log")


def test_an_interpreter_is_found_by_name_by_path_and_below_home(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(stand_in.folder))
    monkeypatch.setenv("HOME", str(stand_in.folder))
    link = stand_in.folder / "python3"
    link.symlink_to("python")
    for name in ["python3", str(link), "~/python3"]:
        # Not what the link leads to: a virtual environment's Python is known by its own path.
        assert find_python(name) == str(link)
    for name in ["python9", "/nowhere/python", "~/python9", ""]:
        with pytest.raises(SetupFailed, match="there is no"):
            find_python(name)


@pytest.mark.parametrize(
    ("answer", "framework", "trouble"),
    [
        (r"""printf 'noise\n\ntrainshed: ["tensorflow 2.16", ["/gpu:0"]]\nbye\n'""", True, ""),
        ("echo noise", False, "the question was not answered"),
        ("exit 0", False, "the question was not answered"),
        ("echo ImportError: no tensorflow >&2; exit 1", False, "ImportError: no tensorflow"),
        ("exit 3", False, "the question ended with 3"),
    ],
)
def test_the_doctor_tells_what_the_framework_says_or_what_is_wrong_with_it(
    store: Store, stand_in: StandIn, answer: str, framework: bool, trouble: str
) -> None:
    (stand_in.folder / "answer").write_text(answer)
    found = examine(store, Examine(str(stand_in.path)))
    assert found.framework == ("tensorflow 2.16" if framework else "")
    assert found.framework_gpus == (("/gpu:0",) if framework else ())
    assert found.framework_trouble == trouble
    assert found.store_writable == ""


def test_the_doctor_asks_the_environment_where_it_is_built(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    python = ensure(store, stand_in.path, tmp_path / "log")
    call = Examine(str(stand_in.path), requirements="x", framework=False)
    assert examine(store, call).python == python
    call = Examine(str(stand_in.path), requirements="y", framework=False)
    assert examine(store, call).python == str(stand_in.path)


def test_the_doctor_tells_of_an_interpreter_that_is_none(store: Store, tmp_path: Path) -> None:
    assert examine(store, Examine("python9")).framework_trouble.startswith("there is no python9")
    text = tmp_path / "python"
    text.write_bytes(b"\x00\x01 no program")
    text.chmod(0o755)
    for requirements in ["", "x"]:
        found = examine(store, Examine(str(text), requirements=requirements))
        assert found.framework_trouble == f"{text} cannot be executed: Exec format error"


def test_what_pip_downloads_and_builds_is_not_in_tmp(
    store: Store, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.pip.write_text(f'touch "$TMPDIR/a build" && echo "$TMPDIR" > \'{tmp_path}/where\'')
    ensure(store, stand_in.path, tmp_path / "log")
    where = Path((tmp_path / "where").read_text().strip())
    assert where.parent == store.root / "envs"
    assert not where.exists()
