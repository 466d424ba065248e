"""Machines that are not as they should be: told plainly, degraded or refused, never corrupt."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import tests.laptop
from orchestrator.settings.spec import EnvSpec
from tests.faults import denied
from tests.faults.disk import read_only
from tests.faults.points import chosen, only_in_faults, tell
from tests.faults.scene import set_up, train_until_done
from tests.faults.truth import Scene
from tests.laptop import SCRIPT, Laptop, is_awaited, wait_until
from tests.servers import SshServer, embedded

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

NO_LOCKS = ["flock=ENOLCK", "flock=EOPNOTSUPP", "flock=ENOSYS"]
# What a memory stick's says.
NO_HARD_LINKS = "link=EPERM,linkat=EPERM"
NO_PERMISSIONS = "chmod=EPERM,fchmod=EPERM,fchmodat=EPERM,fchmodat2=EPERM"


def python_denied(folder: Path, what: str) -> str:
    """A Python for the VM, all of whose processes are denied these calls."""
    if not denied.IS_POSSIBLE:
        pytest.skip("no filters of calls for this machine")
    python = folder / "python-denied"
    words = [sys.executable, str(Path(denied.__file__)), what, "--", sys.executable]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    python.chmod(0o755)
    return str(python)


def set_up_denied(tmp_path: Path, server: SshServer, what: str) -> tuple[Laptop, Scene]:
    """As `set_up`, with a second remote, `odd`: the same machine, on a lesser file system."""
    laptop, scene = set_up(tmp_path / "laptop", server, server.port)
    laptop.add_remote(server, "odd", env=EnvSpec(python_denied(tmp_path, what)))
    return laptop, scene


@pytest.mark.parametrize("what", chosen(NO_LOCKS, few=1))
def test_a_home_without_locks_is_refused(
    embedded_server: SshServer, tmp_path: Path, what: str
) -> None:
    laptop, scene = set_up_denied(tmp_path, embedded_server, what)
    done = laptop.train("--remote", "odd")
    assert done.returncode == 5
    assert "has no locks (flock)" in done.stderr
    assert "ln -s" in done.stderr
    assert list(scene.store.glob("runs/*")) == []
    asked = laptop.train("doctor", "odd", "--json")
    assert asked.returncode == 5
    assert "has no locks (flock)" in asked.stdout
    train_until_done(laptop)
    assert scene.lies() == []
    tell(f"a home without locks ({what})", 1, "refused, and told by doctor; nothing was started")


def test_a_home_without_permissions_is_refused(embedded_server: SshServer, tmp_path: Path) -> None:
    laptop, scene = set_up_denied(tmp_path, embedded_server, NO_PERMISSIONS)
    done = laptop.train("--remote", "odd")
    assert done.returncode == 5
    assert "keeps no permissions" in done.stderr
    asked = laptop.train("doctor", "odd", "--json")
    assert asked.returncode == 5
    assert "keeps no permissions" in asked.stdout
    train_until_done(laptop)
    assert scene.lies() == []
    tell("a home without permissions (FAT)", 1, "refused, and told by doctor")


def test_a_home_without_hard_links_shares_data_as_copies(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    laptop, scene = set_up_denied(tmp_path, embedded_server, NO_HARD_LINKS)
    data = laptop.root / "pictures"
    data.mkdir()
    (data / "one.bin").write_bytes(bytes(100_000))
    script = "import shutil; shutil.copyfile('pictures/one.bin', 'b/mymodel.h5')"
    laptop.add_job("b", script=script, data=["pictures"])
    laptop.ok("--remote", "odd")
    assert (laptop.root / "b/mymodel.h5").read_bytes() == bytes(100_000)
    (shared,) = scene.store.glob("data/*/**/one.bin")
    assert shared.stat().st_nlink == 1
    assert scene.lies_when_done() == []
    tell("a home without hard links", 1, "data folders are copies; nothing else differs")


def test_a_home_that_is_read_only_is_refused(tmp_path: Path) -> None:
    with embedded(tmp_path / "machine") as vm:
        for is_new in (True, False):
            laptop, scene = set_up(tmp_path / f"new {is_new}", vm, vm.port)
            if not is_new:
                laptop.ok("--remote", "far")
            with read_only(vm.home):
                done = laptop.train("--remote", "far")
                asked = laptop.train("doctor", "far", "--json")
            assert done.returncode == asked.returncode == 5
            assert "is read-only" in done.stderr
            assert "is read-only" in asked.stdout
            assert scene.lies() == []
            train_until_done(laptop)
            assert scene.lies_when_done() == []
    tell("a read-only home on the VM", 2, "refused, and told by doctor")


def test_a_laptop_whose_folders_are_read_only_says_which(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    laptop, scene = set_up(tmp_path, embedded_server, embedded_server.port)
    for folder in (laptop.root, laptop.home):
        with read_only(folder):
            done = laptop.train("--remote", "far")
        assert done.returncode == 2, done.stderr
        assert str(folder) in done.stderr
        assert "fix:" in done.stderr
        assert scene.lies() == []
    train_until_done(laptop)
    assert scene.lies_when_done() == []
    tell("read-only folders on the laptop", 2, "refused; nothing is sent")


def test_empty_files_come_and_go(embedded_server: SshServer, tmp_path: Path) -> None:
    laptop, scene = set_up(tmp_path, embedded_server, embedded_server.port)
    script = "import shutil; shutil.copyfile('b/empty', 'b/mymodel.h5')"
    (laptop.add_job("b", script=script) / "empty").touch()
    laptop.ok("--remote", "far")
    assert (laptop.root / "b/mymodel.h5").read_bytes() == b""
    assert scene.lies_when_done() == []
    tell("files of 0 bytes", 1, "sent, recorded and pulled as any")


@only_in_faults
def test_files_of_more_than_2_gib_come_and_go(
    embedded_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tests.laptop, "LIMIT_S", 500.0)
    size_bytes = 2**31 + 1
    laptop, scene = set_up(tmp_path, embedded_server, embedded_server.port)
    script = "import os; os.link('b/large', 'b/mymodel.h5')"
    with (laptop.add_job("b", script=script) / "large").open("wb") as file:
        file.truncate(size_bytes)
    laptop.ok("b", "--remote", "far")
    assert (laptop.root / "b/mymodel.h5").stat().st_size == size_bytes
    assert set(laptop.states().values()) == {"succeeded"}
    shutil.rmtree(scene.store)
    tell("files of more than 2 GiB", 1, "sent, recorded and pulled as any")


FAKETIME = "/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1"


def clock(off: str) -> dict[str, str]:
    """The environment of processes whose clock is so far off; the times of files are right."""
    library = FAKETIME.format(os.uname().machine)
    if not Path(library).exists():
        pytest.skip("no libfaketime; on Debian and Ubuntu: apt install faketime")
    return {"LD_PRELOAD": library, "FAKETIME": off, "NO_FAKE_STAT": "1"} if off else {}


def words(environment: Mapping[str, str]) -> tuple[str, ...]:
    return ("env", *(f"{name}={value}" for name, value in environment.items()))


def train(laptop: Laptop, off: str, *words: str) -> str:
    done = laptop.train(*words, cwd=None, **clock(off))
    assert done.returncode == 0, done.stderr
    return done.stdout


# The VM's, and the laptop's when a run begins and when it ends.
CLOCKS = [
    ("+1d", "", ""),
    ("-1d", "", ""),
    ("", "+1d", ""),
    ("", "+1d", "+1d"),
    ("", "-1d", "-1d"),
    ("-1d", "+1d", "+1d"),
    ("", "", "-1d"),
    ("", "-1d", ""),
]


@pytest.mark.parametrize(("vm_off", "begins_off", "ends_off"), chosen(CLOCKS, few=3))
def test_a_clock_that_is_off_by_a_day(
    tmp_path: Path, vm_off: str, begins_off: str, ends_off: str
) -> None:
    go = tmp_path / "go"
    with embedded(tmp_path / "machine", words(clock(vm_off))) as vm:
        laptop, scene = set_up(tmp_path / "laptop", vm, vm.port)
        laptop.add_job("b", script=SCRIPT)
        asked = ("--remote", "far", "-p", f"until={go}")
        train(laptop, begins_off, *asked, "--detach")
        wait_until(lambda: is_awaited(go), "the script")
        go.touch()
        train(laptop, ends_off, *asked)
        assert len(list(scene.store.glob("runs/*-*"))) == 2
        assert scene.lies_when_done() == []
        told = train(laptop, ends_off, "status")
        assert not re.search(r"-\d", re.sub(r"[ab]-\d{8}-\d{6}-\w{4}", "", told)), told
        for cost in json.loads(train(laptop, ends_off, "cost", "--json")):
            assert 0 < cost["seconds"] < 30
        for run in json.loads(train(laptop, ends_off, "status", "--json")):
            assert 0 < float(run["cost"]["amount"]) < 0.01
            assert run["queued_at"] <= run["running_at"] <= run["ended_at"]
    tell("a clock off by a day", 1, "the run is gone on with; times and cost are sound")


# Nothing but ASCII, whatever Python would rather have.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    ("vm_locale", "locale"),
    [(ASCII, {"LC_ALL": "C"}), ({"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"})],
)
def test_names_that_the_locale_cannot_say(
    tmp_path: Path, vm_locale: dict[str, str], locale: dict[str, str]
) -> None:
    with embedded(tmp_path / "machine", ("env", "-u", "LANG", *words(vm_locale)[1:])) as vm:
        laptop, scene = set_up(tmp_path / "naïve", vm, vm.port)
        script = "import shutil; shutil.copyfile('b/größe.txt'.encode(), 'b/日本.txt'.encode())"
        made = laptop.add_job("b", script=script, outputs=["b/日本.txt"])
        (made / "größe.txt").write_text("größe", encoding="utf-8")
        done = laptop.train("--remote", "far", cwd=None, **locale)
        assert done.returncode == 0, done.stderr
        (pulled,) = laptop.root.glob(".train/runs/b-*/outputs/b/*")
        assert (pulled.name, pulled.read_text("utf-8")) == ("日本.txt", "größe")
        for asking in (["status"], ["logs", "b"], ["cost"]):
            assert laptop.train(*asking, cwd=None, **locale).returncode == 0
        assert scene.lies_when_done() == []
    tell("a locale without UTF-8 at both ends", 1, "names stay what they are")


def test_a_python_here_without_utf_8_says_how_to_have_it(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    laptop, scene = set_up(tmp_path, embedded_server, embedded_server.port)
    (laptop.root / "a" / "größe.txt").touch()
    done = laptop.train("--remote", "far", cwd=None, **ASCII)
    assert done.returncode == 2
    assert "PYTHONUTF8=1" in done.stderr
    train_until_done(laptop)
    assert scene.lies_when_done() == []
    tell("a Python on the laptop without UTF-8", 1, "refused; the fix is one variable")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_no_file_of_ours_is_for_all_to_write(tmp_path: Path, mask: int) -> None:
    with umask(mask), embedded(tmp_path / "machine") as vm:
        laptop, scene = set_up(tmp_path / "laptop", vm, vm.port)
        laptop.ok("--remote", "far")
        ours = (scene.store, laptop.root / ".train", scene.ledger)
        paths = [path for folder in ours for path in [folder, *folder.rglob("*")]]
        open_ones = [p for p in paths if not p.is_symlink() and p.stat().st_mode & 0o002]
        assert open_ones == []
        for secret in (scene.store, scene.ledger, vm.key):
            assert not secret.stat().st_mode & 0o077, secret
        assert scene.lies_when_done() == []
    tell(f"umask {mask:03o} at both ends", 1, "nothing of ours is for all to write")
