"""The conversation with the agent: how it starts, what it survives, and what it refuses."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.connection import ssh
from orchestrator.connection.channel import WAITS
from orchestrator.errors import AgentBroken, ConnectionLost, NoPython, Refused, TrainshedError
from orchestrator.vm import link as link_module
from orchestrator.vm.link import Call
from remote.protocol import Cancel, Done, Fetch, ListRuns, News, Watch
from tests.servers import Relay, SshServer
from tests.vm import Vm, fetch, practice, quoted_python, wait_until

OLD_PYTHONS = sorted(
    path
    for version in ("2.7.*", "3.7.*")
    for path in Path("~/.pyenv/versions").expanduser().glob(f"{version}/bin/python")
)


@pytest.fixture
def vm(server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(server, tmp_path) as vm:
        yield vm


@contextlib.contextmanager
def start_up_files(home: Path, text: str) -> Iterator[None]:
    files = [home / name for name in (".bashrc", ".bash_profile", ".profile")]
    for file in files:
        file.write_text(text)
    try:
        yield
    finally:
        for file in files:
            file.unlink()


def test_the_agent_says_whom_it_runs_as_and_where(vm: Vm) -> None:
    hello = vm.connect().hello
    assert hello.user == getpass.getuser()
    assert Path(hello.store) == vm.store
    assert abs(hello.clock_s - time.time()) < 5
    assert hello.disk_free_bytes > 0
    assert hello.cpus >= 1


def test_nothing_but_its_source_stays_of_the_agent_when_the_line_ends(vm: Vm) -> None:
    link = vm.connect()
    assert vm.pids()
    link.close()
    wait_until(lambda: not vm.pids(), "the agent is gone")
    assert {path.parent.name for path in vm.store.rglob("*") if path.is_file()} == {"agents"}


def test_what_a_login_shell_says_first_is_read_past(vm: Vm) -> None:
    noise = "printf '\\033[31mWelcome to Ubuntu\\000\\377\\000trainshed\\000\\n'; seq 20000\n"
    shell = Path(pwd.getpwuid(os.getuid()).pw_shell).name
    with start_up_files(vm.server.home, noise):
        vm.connect()
    # sshd's own shell reads them; the practice VM's /bin/sh does not.
    if shell == "bash" and "practicevm" not in str(vm.server.home):
        assert vm.wire.received_bytes > 100_000


def test_what_is_printed_before_python_starts_is_read_past(vm: Vm) -> None:
    python = vm.program("talker", f"seq 20000\nseq 9000 >&2\nexec '{vm.python}'")
    link = vm.connect(python=python)
    assert vm.wire.received_bytes > 100_000
    assert link.call(ListRuns(), News).reports == ()


def test_a_login_shell_that_never_stops_talking_is_an_error(vm: Vm) -> None:
    with pytest.raises(AgentBroken, match="says too much"):
        vm.connect(python=vm.program("talker", "exec yes hello &&"))


def test_what_a_library_prints_does_not_fall_between_the_frames(vm: Vm) -> None:
    site = vm.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import atexit; print('hi'); atexit.register(print)\n")
    python = vm.program("python with a site", f"PYTHONPATH='{site}' exec '{vm.python}'")
    assert vm.connect(python=python).call(ListRuns(), News).reports == ()


def test_files_of_the_home_folder_are_not_taken_for_python_modules(vm: Vm) -> None:
    names = ("json.py", "zlib.py", "dataclasses.py", "secrets.py", "remote.py")
    for name in names:
        (vm.server.home / name).write_text("raise SystemExit('the wrong module')\n")
    try:
        vm.connect()
    finally:
        for name in names:
            (vm.server.home / name).unlink()


@pytest.mark.parametrize("python", ["python9", "~/no such/it's python3", "/etc/hostname"])
def test_a_machine_without_that_python_is_told_from_a_broken_one(vm: Vm, python: str) -> None:
    with pytest.raises(NoPython, match="there is no") as raised:
        vm.connect(python=python)
    assert raised.value.exit_code == 5
    assert python in str(raised.value)


def test_a_python_in_the_home_folder_is_found(vm: Vm) -> None:
    link = vm.server.home / "my python"
    link.symlink_to(vm.python)
    try:
        vm.connect(python="~/my python")
    finally:
        link.unlink()


def test_a_python_that_calls_itself_too_old_is_named(vm: Vm) -> None:
    with pytest.raises(NoPython, match=r"older than 3\.8") as raised:
        vm.connect(python=vm.program("old python", "exit 97;"))
    assert raised.value.exit_code == 5


@pytest.mark.parametrize("old", OLD_PYTHONS, ids=lambda path: path.parent.parent.name)
def test_a_python_before_3_8_is_too_old(vm: Vm, old: Path) -> None:
    with pytest.raises(NoPython, match=r"older than 3\.8"):
        vm.connect(python=str(old))


@pytest.mark.parametrize("program", ["true", "cat", "false"])
def test_a_program_that_is_no_python_is_an_error(vm: Vm, program: str) -> None:
    with pytest.raises(AgentBroken, match="did not start"):
        vm.connect(python=program)


def test_a_folder_that_cannot_be_written_is_refused(vm: Vm) -> None:
    python = vm.program(
        "python without a store", f"TRAINSHED_STORE=/proc/no exec {quoted_python()}"
    )
    with pytest.raises(Refused, match="cannot keep anything under /proc/no") as raised:
        vm.connect(python=python)
    assert raised.value.code == "store"


def test_a_refusal_leaves_the_link_usable(vm: Vm) -> None:
    link = vm.connect()
    for run_id in ("nobody", "../../etc", "", "x" * 300, "a\nb"):
        with pytest.raises(Refused) as raised:
            link.call(Cancel(run_id), Done)
        assert raised.value.code == "unknown-run"
    with pytest.raises(Refused):
        fetch(link, Fetch("nobody", "model.h5"))
    assert link.call(ListRuns(), News).reports == ()


def test_a_call_the_agent_does_not_know_is_refused(vm: Vm) -> None:
    class Dance(NamedTuple):
        pass

    link = vm.connect()
    with pytest.raises(Refused, match="dance"):
        link.call(Dance(), Done)
    assert link.call(ListRuns(), News).reports == ()


def test_an_agent_killed_in_the_middle_of_a_call_is_a_lost_connection(vm: Vm) -> None:
    link = vm.connect()
    (agent,) = vm.pids("-c")
    threading.Timer(0.2, os.kill, (agent, signal.SIGKILL)).start()
    with pytest.raises(ConnectionLost) as raised:
        link.call(Watch((), 10.0), News)
    assert raised.value.retryable
    assert raised.value.exit_code == 4


def wait_no_longer(vm: Vm, limit_s: float) -> None:
    """Than this for a word, from now on: the agent has had its time to start."""
    channel = vm.wire.channel
    channel._limit_s = limit_s
    channel._stream.settimeout(limit_s / WAITS)


def test_a_silent_agent_is_a_lost_connection(vm: Vm) -> None:
    link = vm.connect()
    wait_no_longer(vm, 0.5)
    agents = vm.pids("-c")
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ConnectionLost):
            link.call(ListRuns(), News)
    finally:
        for pid in agents:
            os.kill(pid, signal.SIGCONT)


def test_an_agent_that_says_it_works_may_take_its_time(vm: Vm) -> None:
    link = vm.connect(
        python=vm.fake(
            "hear()\nfor _ in range(12):\n    time.sleep(0.2)\n    say(WORKING, {})\n"
            "say(RESULT, {})\n"
        )
    )
    wait_no_longer(vm, 2.0)
    assert link.call(ListRuns(), Done) == Done()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_line_cut_while_the_agent_is_sent_is_a_lost_connection(vm: Vm, share: float) -> None:
    with Relay(vm.server.port) as relay:
        channel = ssh.Connection.execute

        def execute(connection: ssh.Connection, command: str, first: bytes = b"") -> ssh.Channel:
            relay.cut_after(int(len(first) * share) + 1)
            return channel(connection, command, first)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ssh.Connection, "execute", execute)
            with pytest.raises(ConnectionLost):
                vm.connect(port=relay.port).call(ListRuns(), News)
    assert vm.connect().call(ListRuns(), News).reports == ()


LENGTHS = "import struct\nhear()\nwrite(struct.pack('>II', {}, {}))\n"


@pytest.mark.parametrize(
    "body",
    [
        "hear()\nwrite(pack(Frame(RESULT, {}, b'x' * 100))[:-1])",
        "hear()\nwrite(pack(Frame(RESULT, {}, b'x' * 100))[:-100])",
        "hear()\nwrite(pack(Frame(RESULT, {}))[:8])",
        "hear()\nwrite(pack(Frame(RESULT, {}))[:3])",
        "hear()",
    ],
)
def test_a_frame_cut_at_any_byte_is_a_lost_connection(vm: Vm, body: str) -> None:
    with pytest.raises(ConnectionLost):
        vm.connect(python=vm.fake(body)).call(ListRuns(), Done)


DRIP = "\nwhile True:\n    time.sleep(0.01)\n    write(b'x')\n"


def test_a_frame_that_comes_a_byte_at_a_time_is_given_up(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_FRAME_LIMIT_S", 0.3)
    monkeypatch.setattr(link_module, "_SLOWEST_BYTES_PER_S", 10**6)
    slow = vm.connect(python=vm.fake(LENGTHS.format(10**5, 0) + DRIP))
    with pytest.raises(AgentBroken, match="too slowly"):
        slow.call(ListRuns(), Done)


def test_a_greeting_that_comes_a_byte_at_a_time_is_given_up(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_GREETING_LIMIT_S", 0.3)
    with pytest.raises(AgentBroken, match="says too much"):
        vm.connect(python=vm.fake(f"MAGIC{DRIP}"))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(LENGTHS.format(2**32 - 1, 0), id="huge head"),
        pytest.param(LENGTHS.format(2, 2**32 - 1), id="huge body"),
        pytest.param(LENGTHS.format(5, 0) + "write(b'hello')", id="no JSON"),
        pytest.param(LENGTHS.format(2, 0) + "write(b'[]')", id="no object"),
        pytest.param(LENGTHS.format(2, 0) + "write(b'{}')", id="no kind"),
        pytest.param(LENGTHS.format(12, 0) + "write(b'{\"kind\": 12}')", id="kind is no text"),
        pytest.param(LENGTHS.format(10**5, 0) + "write(b'[' * 10**5)", id="deep"),
        pytest.param("hear()\nsay(DATA, {})", id="data out of turn"),
        pytest.param("hear()\nsay(CALL, {})", id="a call"),
        pytest.param("hear()\nsay('x' * 10**6, {})", id="unknown kind"),
        pytest.param("hear()\nsay(RESULT, {})", id="fields missing"),
        pytest.param("hear()\nsay(RESULT, {'reports': 1})", id="wrong type"),
        pytest.param("hear()\nsay(REFUSAL, {'code': []})", id="no refusal"),
        pytest.param(
            "hear()\nsay(REFUSAL, {'code': 'bug', 'message': 'x', 'trace': 'y'})", id="a bug"
        ),
        pytest.param("hear()\nwrite(os.urandom(10**6))", id="garbage"),
    ],
)
def test_an_answer_that_makes_no_sense_is_the_agents_fault(vm: Vm, body: str) -> None:
    with pytest.raises(AgentBroken):
        vm.connect(python=vm.fake(body)).call(ListRuns(), News)


@pytest.mark.parametrize(
    "body",
    [
        "write(MAGIC)\nsay(RESULT, {'version': 1})",
        "write(MAGIC)\nsay(RESULT, {**hello, 'version': 99})",
        "write(MAGIC)\nsay(RESULT, {**hello, 'clock_s': True})",
        "write(MAGIC)\nsay(DATA, hello)",
        "write(MAGIC)\nsay(REFUSAL, {'code': 'store', 'message': 'no \\x1b[2J\\r\\n\\u202e'})",
    ],
)
def test_a_wrong_greeting_is_an_error_that_shows_no_control_characters(vm: Vm, body: str) -> None:
    with pytest.raises(Refused) as raised:
        vm.connect(python=vm.fake(body))
    assert all(line.isprintable() for line in raised.value.render().splitlines())


def test_a_file_that_never_comes_is_the_agents_fault(vm: Vm) -> None:
    link = vm.connect(python=vm.fake("hear()\nwhile True:\n    say(DATA, {})"))
    with pytest.raises(AgentBroken):
        fetch(link, Fetch("run", "model.h5"))


def test_every_failure_of_the_start_closes_the_connection(vm: Vm) -> None:
    before = set(threading.enumerate())
    with pytest.raises(TrainshedError):
        vm.connect(python="false")
    wait_until(lambda: not set(threading.enumerate()) - before, "no thread is left")


def agents(vm: Vm) -> list[Path]:
    return sorted((vm.store / "agents").iterdir())


def test_the_agent_is_sent_once(vm: Vm) -> None:
    vm.connect()
    assert vm.wire.sent_bytes > 30_000
    kept = agents(vm)
    assert len(kept) == 1
    vm.connect()
    assert vm.wire.sent_bytes < 4_000
    assert agents(vm) == kept


@pytest.mark.parametrize("left", [0.0, 0.5, 1.0])
def test_an_agent_that_was_spoilt_on_the_disk_is_sent_again(vm: Vm, left: float) -> None:
    vm.connect()
    (kept,) = agents(vm)
    good = kept.read_bytes()
    kept.write_bytes(good[: int(left * len(good))][:-1] + b"\0")
    assert vm.connect().call(ListRuns(), News).reports == ()
    assert vm.wire.sent_bytes > 30_000
    assert agents(vm) == [kept]
    assert len(kept.read_bytes()) == len(good)


def test_an_agent_that_others_could_have_written_is_sent_again(vm: Vm) -> None:
    vm.connect()
    (kept,) = agents(vm)
    kept.chmod(0o666)
    vm.connect()
    assert vm.wire.sent_bytes > 30_000


@pytest.mark.parametrize("umask", ["000", "002", "077"])
def test_the_store_is_its_users_alone(vm: Vm, umask: str) -> None:
    python = vm.program("careless python", f"umask {umask}; exec '{vm.python}'")
    for _ in range(2):
        vm.connect(python=python)
        assert vm.store.stat().st_mode & 0o777 == 0o700
        assert not any(path.stat().st_mode & 0o022 for path in vm.store.rglob("*"))
    assert vm.wire.sent_bytes < 4_000


def test_a_store_that_was_left_open_is_closed(vm: Vm) -> None:
    vm.store.mkdir()
    vm.store.chmod(0o777)
    vm.connect()
    assert vm.store.stat().st_mode & 0o777 == 0o700


def test_a_machine_that_cannot_keep_the_agent_is_sent_it_each_time(vm: Vm) -> None:
    vm.store.mkdir()
    (vm.store / "agents").write_text("in the way")
    for _ in range(2):
        assert vm.connect().call(ListRuns(), News).reports == ()
        assert vm.wire.sent_bytes > 30_000


def test_a_call_sent_ahead_is_answered_when_it_is_made(vm: Vm) -> None:
    link = vm.connect(ahead=[(Cancel("nobody"), b"")])
    before = vm.wire.sent_bytes
    with pytest.raises(Refused, match="knows no run"):
        link.call(Cancel("nobody"), Done)
    assert vm.wire.sent_bytes == before
    assert link.call(ListRuns(), News).reports == ()


def test_a_fetch_sent_ahead_and_never_made_does_no_harm(vm: Vm) -> None:
    first = vm.connect()
    mirror = vm.start(first, "head -c 1000000 /dev/urandom > model.h5", outputs=("model.h5",))
    vm.finish(first, mirror)
    link = vm.connect(ahead=[(Fetch("run", "model.h5", 0, 10**6), b"")])
    assert len(link.call(ListRuns(), News).reports) == 1
    link = vm.connect(ahead=[(Fetch("run", "model.h5", 0, 10), b"")])
    assert len(fetch(link, Fetch("run", "model.h5", 0, 10))) == 10


@pytest.mark.parametrize(
    "ahead", [[(ListRuns(), b"")], [(Cancel("nobody"), b""), (ListRuns(), b"x")]]
)
def test_a_call_sent_ahead_and_never_made_does_no_harm(vm: Vm, ahead: list[Call]) -> None:
    link = vm.connect(ahead=ahead)
    with pytest.raises(Refused, match="knows no run 'other'"):
        link.call(Cancel("other"), Done)
    assert link.call(ListRuns(), News).reports == ()
