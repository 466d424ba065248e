"""A job's processes are found and ended whole, however they try to get away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote.processes import Process, descendants, family, parse_stat, send_signal
from tests.forks import fork

if not Path("/proc/self/stat").exists():
    pytest.skip("there is no /proc", allow_module_level=True)

# Runs in a process of its own, because it ends all that is below it. Writes one line of JSON.
SUPERVISOR = """
import json, os, signal, subprocess, sys, time
from remote.processes import adopt_orphans, descendants, kill_below, reap, send_signal
assert adopt_orphans()
job = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], start_new_session=True,
                       stdout=subprocess.PIPE)
job.stdout.readline()
if len(sys.argv) > 2:
    job.wait()
before = descendants(os.getpid())
started = time.monotonic()
kill_below(os.getpid(), job.pid)
took = time.monotonic() - started
print(json.dumps([job.pid, before, descendants(os.getpid()), job.wait(), took]))
"""

SLEEP = "import time\ntime.sleep(60)\n"
DETACHED = """
import os, time
for _ in range(2):
    if os.fork():
        os._exit(0) if _ else os.wait()
        break
    os.setsid()
else:
    print("ready", flush=True)
time.sleep(60)
"""


def supervise(job: str, *arguments: str) -> tuple[int, list[int], list[int], int, float]:
    """Process id of the job, what was below before and after the kill, exit code, seconds."""
    python = [sys.executable, "-c", SUPERVISOR, job, *arguments]
    done = subprocess.run(python, capture_output=True, check=True, timeout=100)
    job_pid, before, after, code, took = json.loads(done.stdout)
    return job_pid, before, after, code, took


def test_children_and_grandchildren_are_ended_and_the_job_tells_how() -> None:
    job = f"""
import subprocess, sys
command = [sys.executable, "-c", {SLEEP!r}]
nested = "import subprocess; subprocess.run(" + repr(command) + ")"
subprocess.Popen([sys.executable, "-c", nested])
print("ready", flush=True)
{SLEEP}"""
    pid, before, after, code, took = supervise(job)
    assert pid in before
    assert after == []
    # Reaping it for its waiter would make a killed job look like one that ended well.
    assert code == -signal.SIGKILL
    assert took < 30


def test_one_that_left_its_parents_and_their_session_is_ended() -> None:
    pid, before, after, _, _ = supervise(DETACHED)
    assert before != [pid]
    assert after == []


def test_orphans_of_a_job_that_has_ended_are_ended() -> None:
    job = """
import os, time
if os.fork() == 0:
    os.setsid()
    print("ready", flush=True)
    time.sleep(60)
"""
    _, before, after, code, _ = supervise(job, "wait for its end")
    assert len(before) == 1
    assert after == []
    assert code == 0


LEAVE = """
import os, subprocess, sys, time
from remote.processes import adopt_orphans, reap_orphans
assert adopt_orphans()
job = subprocess.Popen(["/bin/sh", "-c", "(exit 1 &); (setsid true &); exit 3"],
                       start_new_session=True)
assert job.wait() == 3
ours = subprocess.Popen(["/bin/sh", "-c", "exit 4"])
end = time.monotonic() + 60
while time.monotonic() < end:
    reap_orphans(job.pid)
    left = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    if left == [str(ours.pid)]:
        break
else:
    sys.exit(f"left: {left}, of ours {ours.pid}")
os.waitid(os.P_PID, ours.pid, os.WEXITED | os.WNOWAIT)
reap_orphans(job.pid)
assert ours.wait() == 4
job = subprocess.Popen(["/bin/sh", "-c", "exit 5"], start_new_session=True)
os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOWAIT)
reap_orphans(job.pid)
assert job.wait() == 5
reap_orphans(job.pid)
"""


def test_ended_orphans_are_taken_leave_of_but_nobody_that_is_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_processes_that_ignore_signals_and_go_on_forking_are_ended() -> None:
    job = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 60
for _ in range(3):
    os.fork()
print("ready", flush=True)
while time.monotonic() < end:
    if os.fork() == 0:
        time.sleep(0.05)
        os._exit(0)
    time.sleep(0.01)
"""
    _, before, after, code, took = supervise(job)
    assert len(before) >= 3
    assert after == []
    assert code == -signal.SIGKILL
    assert took < 30


@pytest.fixture
def child() -> Iterator[Callable[[str], int]]:
    started = []

    def start(name: str) -> int:
        script = (
            f"import sys; open('/proc/self/comm','w').write({name!r}); print(); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)
        return process.pid

    yield start
    for process in started:
        process.communicate(b"\n")


@pytest.mark.parametrize("name", [") R 1 1 (", "a b", "((", "new\nline", "ü"])
def test_a_process_may_have_any_name(child: Callable[[str], int], name: str) -> None:
    assert child(name) in descendants(os.getpid())


def test_parents_come_before_children_and_the_ended_are_left_out() -> None:
    ready, done = os.pipe()

    def tell_and_wait() -> None:
        os.write(done, b"x")
        signal.pause()

    def have_a_child() -> None:
        fork(tell_and_wait)
        signal.pause()

    parent = fork(have_a_child)
    os.read(ready, 1)
    # This process has other children, such as the servers of other tests.
    family = {parent, *descendants(parent)}
    found = [pid for pid in descendants(os.getpid()) if pid in family]
    assert found[0] == parent
    assert len(found) == 2
    send_signal(found, signal.SIGKILL)
    while True:  # until the kernel has ended it; it stays a zombie until it is waited for
        state = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        time.sleep(0.001)
    assert parent not in descendants(os.getpid())
    assert os.waitpid(parent, 0)[1] == signal.SIGKILL
    os.close(ready)
    os.close(done)


def test_signalling_one_that_has_ended_is_no_error() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    send_signal([ended.pid], signal.SIGTERM)


def test_signalling_another_users_process_is_no_error() -> None:
    def as_somebody_else() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        send_signal([1], 0)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(as_somebody_else), 0)[1]) == 0


def test_a_program_s_name_cannot_confuse_the_reading() -> None:
    line = b"7 (a) R 1 (b\n) S 5 6 7 0 -1 4194560 1 2 3 4 30 12 9 9 20 0 1 0 555 1000 42 18 0 0 0"
    found = Process(7, 5, 7, 42, 555, 42, name="a) R 1 (b\n")
    assert parse_stat(line) == found
    assert parse_stat(line.replace(b") S", b") Z")) == found._replace(ended=True)
    assert parse_stat(line.replace(b" 7 0 -1", b" 7 34817 -1")).terminal == 34817


def test_a_system_without_proc_shows_no_descendants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote.processes._PROC", tmp_path / "none")
    assert descendants(1) == []


def test_the_family_is_descendants_and_session_and_nobody_else() -> None:
    def process(pid: int, parent: int, session: int) -> Process:
        return Process(pid, parent, session, 0, 0, 0)

    everyone = [
        process(1, 0, 1),
        process(10, 1, 10),  # the root
        process(11, 10, 10),
        process(12, 11, 12),  # left the session, not its parent
        process(13, 1, 10),  # its parent died
        process(14, 13, 14),
        process(15, 1, 15),  # a neighbour
        process(100, 15, 15),
    ]

    assert sorted(one.pid for one in family(everyone, 10)) == [10, 11, 12, 13, 14]
