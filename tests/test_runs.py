"""The life of a run on the VM: started once, frozen, supervised to a truthful end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.errors import Refused
from orchestrator.plan import Overrides
from orchestrator.records.mirror import LOST, Mirror, opinion, why_lost
from orchestrator.settings.spec import Job
from orchestrator.vm.link import Link
from orchestrator.vm.sync import submit
from remote import clock
from remote.lock import is_held, take
from remote.protocol import Cancel, Done, Fetch, ListRuns, News, Offsets, Submit, Submitted, Watch
from remote.record import from_bytes, to_bytes
from remote.runfolder import (
    BY_SWEEP,
    BY_USER,
    GIVEN_BACK,
    SESSION_OVER,
    Artifacts,
    RunRequest,
    RunState,
    Slurm,
    State,
)
from remote.runs import list_runs, watch
from remote.store import Store
from remote.supervisor import Removed, Supervisor
from tests.forks import fork
from tests.servers import SshServer
from tests.vm import WAIT_LIMIT_S, Vm, fetch, practice, wait_until

IGNORES_SIGTERM = "trap '' TERM; "


@pytest.fixture
def vm(server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(server, tmp_path) as vm:
        yield vm


def state_of(vm: Vm, run_id: str = "run") -> RunState | None:
    """As it stands on the VM."""
    with contextlib.suppress(FileNotFoundError):
        return from_bytes(RunState, vm.run_folder(run_id).state.read_bytes())
    return None


def await_state(vm: Vm, state: State, run_id: str = "run") -> None:
    wait_until(lambda: (s := state_of(vm, run_id)) and s.state is state, f"{run_id} is {state}")


def until(file: Path) -> str:
    """A command that waits for a file."""
    return f"until [ -e {shlex.quote(str(file))} ]; do sleep 0.05; done"


def await_log(vm: Vm, text: bytes, run_id: str = "run") -> None:
    wait_until(
        lambda: vm.run_folder(run_id).log.exists() and text in vm.log(run_id), f"log has {text!r}"
    )


ENDINGS = (
    ("true", State.SUCCEEDED, 0, None),
    ("exit 3", State.FAILED, 3, None),
    ("no-such-program", State.FAILED, 127, None),
    ("if", State.FAILED, 2, None),
    ("exit 255", State.FAILED, 255, None),
    ("kill -SEGV $$", State.FAILED, None, signal.SIGSEGV),
    ("kill -40 $$", State.FAILED, None, 40),  # a real-time signal has no name
    ("sh -c 'kill -KILL $$'; exit $?", State.FAILED, 137, signal.SIGKILL),
)


def test_a_run_says_how_its_command_ended(vm: Vm) -> None:
    link = vm.connect()
    mirrors = [vm.start(link, ending[0], f"run{n}") for n, ending in enumerate(ENDINGS)]
    vm.finish(link, *mirrors)
    for mirror, (command, state, code, number) in zip(mirrors, ENDINGS, strict=True):
        ended = state_of(vm, mirror.run_id)
        assert ended is not None
        assert (ended.state, ended.exit_code, ended.signal) == (state, code, number), command
        times = (ended.queued_at, ended.setting_up_at, ended.running_at, ended.ended_at)
        assert list(times) == sorted(times, key=str)
        assert ("out of memory" in ended.reason) == (number == signal.SIGKILL)


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_oldest_and_the_newest_python_can_do_it(vm: Vm, version: str) -> None:
    found = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    if not found:
        pytest.skip(f"there is no Python {version} here")
    python = Path(vm.python).read_text().replace(sys.executable, str(found[0]))
    Path(vm.python).write_text(python)
    link = vm.connect()
    assert link.hello.python.startswith(version)
    mirror = vm.start(link, "python -V; exec 2>&1; echo model > m.h5; exit 3", outputs=("m.h5",))
    (report,) = vm.finish(link, mirror)
    assert (opinion(report), len(report.artifacts)) == ("failed", 1)
    assert not (vm.run_folder().path / "supervisor.log").read_bytes()


def test_a_run_whose_python_is_not_there_fails_in_its_setup(vm: Vm) -> None:
    vm.remote = replace(vm.remote, env=replace(vm.remote.env, python="python9"))
    ended = vm.run(vm.connect(), "true", outputs=("*",))
    assert (ended.state, ended.exit_code) == (State.SETUP_FAILED, None)
    assert "python9" in ended.reason


def test_what_a_run_is_given_is_in_its_environment(vm: Vm) -> None:
    command = (
        "python -c 'import os, json, sys; json.dump(dict(os.environ), sys.stdout)'"
        "; readlink /proc/self/fd/0; pwd"
    )
    params = {"lr": "1e-3", "name": 'it\'s "x" $HOME\n'}
    vm.run(vm.connect(), command, overrides=Overrides(params=params))
    found, rest = json.JSONDecoder().raw_decode(vm.log().decode())
    assert found["PARAM_lr"] == "1e-3"
    assert found["PARAM_name"] == params["name"]
    assert json.loads(found["TRAINSHED_PARAMS"]) == params
    assert found["CUDA_VISIBLE_DEVICES"] == "-1"
    assert found["TRAINSHED_RUN"] == str(vm.run_folder().path)
    assert found["TRAINSHED_METRICS"] == str(vm.run_folder().metrics)
    assert found["HOME"] == str(vm.server.home)
    assert vm.log().decode()[rest:].split("\n")[:2] == ["/dev/null", str(vm.run_folder().tree)]


def test_the_connection_closed_right_after_the_submission_does_no_harm(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "sleep 0.3; echo done; echo model > out.h5", outputs=("out.h5",))
    link.close()
    await_state(vm, State.SUCCEEDED)
    (report,) = vm.finish(vm.connect(), mirror)
    assert [artifact.path for artifact in report.artifacts] == ["out.h5"]
    assert mirror.log.read_bytes() == b"done\n"


def test_the_same_run_submitted_again_starts_once(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "echo started; sleep 0.3")
    for _ in range(3):
        assert link.call(Submit((mirror.request,)), Submitted).unknown_trees == ()
    vm.finish(link, mirror)
    wait_until(lambda: not vm.pids(str(vm.run_folder().package)), "its supervisor has ended")
    link.call(Submit((mirror.request,)), Submitted)
    assert not vm.pids(str(vm.run_folder().package))
    assert mirror.log.read_bytes() == b"started\n"


def test_the_same_run_submitted_from_five_connections_at_once_starts_once(vm: Vm) -> None:
    links = [vm.connect() for _ in range(5)]
    vm.run(links[0], "true", run_id="first")  # brings the tree there
    mirror = vm.mirrors.make(vm.mirrors.all()[0].request._replace(run_id="run", command="echo hi"))
    barrier = threading.Barrier(5)

    def start(link: Link) -> None:
        barrier.wait(WAIT_LIMIT_S)
        link.call(Submit((mirror.request,)), Submitted)
        link.call(ListRuns(), News)

    threads = [threading.Thread(target=start, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_LIMIT_S)
    vm.finish(links[0], mirror)
    assert mirror.log.read_bytes() == b"hi\n"
    assert {path.name for path in (vm.store / "runs").iterdir()} == {"first", "run"}


def test_a_look_at_a_run_does_not_keep_it_from_starting(vm: Vm) -> None:
    """Looking at a lock shares it for a moment; a submission in that moment still counts."""
    link = vm.connect()
    vm.run(link, "true", run_id="first")
    mirror = vm.mirrors.make(vm.mirrors.all()[0].request._replace(run_id="run"))
    folder = vm.run_folder()
    folder.path.mkdir()
    folder.request.write_bytes(to_bytes(mirror.request))
    folder.package.write_bytes(vm.run_folder("first").package.read_bytes())
    with folder.lock.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        submission = threading.Thread(target=link.call, args=(Submit((mirror.request,)), Submitted))
        submission.start()
        submission.join(0.2)
    submission.join(WAIT_LIMIT_S)
    vm.finish(link, mirror)
    assert mirror.verdict == "succeeded"


def test_another_request_under_the_same_id_is_refused(vm: Vm) -> None:
    link = vm.connect()
    vm.run(link, "echo right")
    request = vm.mirrors.all()[0].request
    with pytest.raises(Refused) as raised:
        link.call(Submit((request._replace(command="echo wrong"),)), Submitted)
    assert raised.value.code == "run-exists"
    assert vm.log() == b"right\n"


def test_a_request_that_leaves_its_folder_is_refused(vm: Vm) -> None:
    link = vm.connect()
    vm.run(link, "true")
    request = vm.mirrors.all()[0].request._replace(run_id="bad")
    for bad in (
        request._replace(run_id="../out"),
        request._replace(run_id=""),
        request._replace(tree="../../etc/passwd"),
        request._replace(outputs=("../../*",)),
        request._replace(outputs=("/etc/passwd",)),
        request._replace(requirements="/etc/passwd"),
    ):
        with pytest.raises(Refused) as raised:
            link.call(Submit((bad,)), Submitted)
        assert raised.value.code == "bad-request", bad
    assert {path.name for path in (vm.store / "runs").iterdir()} == {"run"}


def test_a_glob_that_not_every_python_knows_does_not_lose_the_run(vm: Vm) -> None:
    ended = vm.run(vm.connect(), "touch model.h5", outputs=("model**.h5",))
    assert ended.state is State.SUCCEEDED


def test_runs_wait_for_the_one_cpu_slot_in_order_of_arrival(vm: Vm) -> None:
    link = vm.connect()
    order, go = vm.folder / "order", vm.folder / "go"
    command = f"basename \"$TRAINSHED_RUN\" >> '{order}'; {until(go)}"
    mirrors = [vm.start(link, command, run_id, gpus=1) for run_id in ("c", "a", "b")]
    wait_until(lambda: "behind" in getattr(state_of(vm, "b"), "reason", ""), "b waits")
    go.touch()
    vm.finish(link, *mirrors)
    assert order.read_text().split() == ["c", "a", "b"]
    ends = [state_of(vm, run_id) for run_id in ("c", "a", "b")]
    for before, after in pairwise(ends):
        assert before is not None
        assert after is not None
        assert str(before.ended_at)[:21] <= str(after.running_at)


def test_a_run_cancelled_in_the_queue_never_starts(vm: Vm) -> None:
    link = vm.connect()
    first = vm.start(link, "sleep 30", "first", gpus=1)
    second = vm.start(link, "echo started", "second", gpus=1)
    await_state(vm, State.QUEUED, "second")
    link.call(Cancel("second"), Done)
    vm.finish(link, second)
    ended = state_of(vm, "second")
    assert ended is not None
    assert (ended.state, ended.running_at) == (State.CANCELLED, None)
    assert vm.log("second") == b""
    link.call(Cancel("first"), Done)
    vm.finish(link, first)
    assert not list((vm.store / "queue").iterdir())


def test_a_cancelled_run_ends_with_all_its_processes(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "sleep 31 & setsid sleep 32 & setsid sh -c 'sleep 33 &'; sleep 34")
    wait_until(lambda: len(vm.pids("sleep")) >= 4, "all have started")
    link.call(Cancel("run"), Done)
    vm.finish(link, mirror)
    ended = state_of(vm)
    assert ended is not None
    assert (ended.state, ended.signal) == (State.CANCELLED, signal.SIGTERM)
    assert not vm.pids("sleep")
    link.call(Cancel("run"), Done)
    assert state_of(vm) == ended


@pytest.mark.parametrize("why", [BY_USER, BY_SWEEP, SESSION_OVER, "a sentence of its own"])
def test_who_ended_a_run_is_told_and_the_first_word_stands(vm: Vm, why: str) -> None:
    link = vm.connect()
    mirror = vm.start(link, "sleep 31")
    await_state(vm, State.RUNNING)
    link.call(Cancel("run", why=why), Done)
    link.call(Cancel("run", why=GIVEN_BACK), Done)
    (report,) = vm.finish(link, mirror)
    assert report.state is not None
    known = why if why in (BY_SWEEP, SESSION_OVER) else BY_USER
    assert (report.state.state, report.state.reason) == (State.CANCELLED, known)


def test_a_run_that_ignores_the_warning_is_killed_after_its_grace(vm: Vm) -> None:
    link = vm.connect()
    command = f"{IGNORES_SIGTERM} setsid sleep 31 & echo up; sleep 32; sleep 33"
    mirror = vm.start(link, command, grace_s=0.5)
    await_log(vm, b"up")
    started = time.monotonic()
    link.call(Cancel("run"), Done)
    vm.finish(link, mirror)
    ended = state_of(vm)
    assert ended is not None
    assert (ended.state, ended.exit_code, ended.signal) == (State.CANCELLED, None, signal.SIGKILL)
    assert time.monotonic() - started < 9
    assert not vm.pids("sleep")
    assert b"has 0.5 s to save" in vm.log()
    assert vm.log().count(b"is killed") == 1


def test_a_cancelled_shell_lets_its_command_save_and_begins_no_other(vm: Vm) -> None:
    vm.write("train.py", SAVES)
    link = vm.connect()
    mirror = vm.start(
        link, "python train.py; touch next; sleep 31", outputs=("model.h5", "next"), grace_s=20.0
    )
    await_log(vm, b"up")
    link.call(Cancel("run"), Done)
    (report,) = vm.finish(link, mirror)
    assert report.state is not None
    assert (report.state.state, report.state.exit_code) == (State.CANCELLED, 0)
    assert "model.h5" in {artifact.path for artifact in report.artifacts}
    assert "next" not in {artifact.path for artifact in report.artifacts}


SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    assert pathlib.Path("../stop").exists()
    pathlib.Path("model.h5").write_text("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
time.sleep(60)
"""


def test_a_run_at_its_time_limit_is_warned_and_what_it_saves_is_its_output(vm: Vm) -> None:
    vm.write("train.py", SAVES)
    link = vm.connect()
    mirror = vm.start(link, "python train.py", outputs=("model.h5",), time_limit_s=1.0)
    (report,) = vm.finish(link, mirror)
    assert report.state is not None
    assert report.state.state is State.TIMED_OUT
    assert "1 s" in report.state.reason
    assert [(a.path, a.size_bytes) for a in report.artifacts] == [("model.h5", 5)]


def test_what_a_command_left_running_ends_with_it(vm: Vm) -> None:
    assert vm.run(vm.connect(), "setsid sleep 31 & sleep 32 &").state is State.SUCCEEDED
    assert not vm.pids("sleep")


def test_a_supervisor_killed_takes_its_job_with_it_and_the_run_is_lost(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "echo up; setsid sleep 31 & sleep 32", gpus=1)
    await_log(vm, b"up")
    guard, supervisor = sorted(vm.pids(str(vm.run_folder().package)))
    assert Path(f"/proc/{supervisor}/stat").read_text().split()[3] == str(guard)
    os.kill(supervisor, signal.SIGKILL)
    (report,) = vm.finish(link, mirror)
    assert (report.alive, opinion(report), mirror.verdict) == (False, LOST, LOST)
    assert mirror.seen is not None
    assert "killed while it was running" in why_lost(mirror.seen)
    assert not vm.pids("sleep")
    # Its slot is free, and asking for it again does not start it a second time.
    link.call(Submit((mirror.request,)), Submitted)
    assert vm.run(link, "true", run_id="next", gpus=1).state is State.SUCCEEDED
    assert vm.log() == b"up\n"


def test_a_guard_killed_does_not_end_the_run(vm: Vm) -> None:
    link = vm.connect()
    go = vm.folder / "go"
    mirror = vm.start(link, f"echo up; {until(go)}")
    await_log(vm, b"up")
    os.kill(min(vm.pids(str(vm.run_folder().package))), signal.SIGKILL)
    go.touch()
    (report,) = vm.finish(link, mirror)
    assert opinion(report) == "succeeded"


def test_a_job_whose_guard_and_supervisor_are_killed_is_alive_and_holds_its_slot(vm: Vm) -> None:
    link = vm.connect()
    go, slot = vm.folder / "go", vm.store / "locks" / "cpu0"
    mirror = vm.start(link, f"echo up; {until(go)}", gpus=1)
    await_log(vm, b"up")
    for pid in sorted(vm.pids(str(vm.run_folder().package))):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not vm.pids(str(vm.run_folder().package)), "they are gone")
    assert is_held(slot)
    assert [report.alive for report in link.call(ListRuns(), News).reports] == [True]
    go.touch()
    (report,) = vm.finish(link, mirror)
    assert opinion(report) == LOST
    wait_until(lambda: not is_held(slot), "its slot is free")


def test_a_run_that_cannot_be_recorded_does_not_keep_its_slot(vm: Vm) -> None:
    link = vm.connect()
    vm.start(link, "echo up; mkdir -p ../artifacts.json/in-the-way", gpus=1)
    await_log(vm, b"up")
    wait_until(lambda: not is_held(vm.store / "locks" / "cpu0"), "its slot is free")
    assert (ended := state_of(vm))
    assert ended.state is State.RUNNING
    assert is_held(vm.run_folder().lock)
    for pid in vm.pids(str(vm.run_folder().package)):
        os.kill(pid, signal.SIGKILL)


def zombies(parents: list[int]) -> int:
    """Ended children that these have not taken leave of."""
    count = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            count += state == "Z" and int(parent) in parents
    return count


def test_orphans_that_end_while_their_job_runs_do_not_pile_up(vm: Vm) -> None:
    link = vm.connect()
    go = vm.folder / "go"
    command = "for i in 1 2 3; do (sleep 0.01 & setsid sleep 0.01 &); done; sleep 0.2; echo up"
    mirror = vm.start(link, f"{command}; {until(go)}; exit 3")
    await_log(vm, b"up")
    parents = vm.pids(str(vm.run_folder().package))
    wait_until(lambda: not zombies(parents), "they are gone")
    go.touch()
    (report,) = vm.finish(link, mirror)
    assert report.state is not None
    assert report.state.exit_code == 3


def test_a_supervisor_killed_in_the_queue_is_started_by_the_next_submission(vm: Vm) -> None:
    link = vm.connect()
    first = vm.start(link, "sleep 30", "first", gpus=1)
    second = vm.start(link, "echo hi", "second", gpus=1)
    await_state(vm, State.QUEUED, "second")
    for pid in vm.pids(str(vm.run_folder("second").package)):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_held(vm.run_folder("second").lock), "they are gone")
    link.call(Submit((second.request,)), Submitted)
    link.call(Cancel("first"), Done)
    vm.finish(link, first, second)
    assert [first.verdict, second.verdict] == ["cancelled", "succeeded"]
    assert vm.log("second") == b"hi\n"


def test_a_machine_that_shuts_down_lets_the_job_save(vm: Vm) -> None:
    vm.write("train.py", SAVES)
    link = vm.connect()
    mirror = vm.start(link, "python train.py", outputs=("model.h5",))
    await_log(vm, b"up")
    for pid in vm.pids(str(vm.run_folder().package)):
        os.kill(pid, signal.SIGTERM)
    (report,) = vm.finish(link, mirror)
    assert report.state is not None
    assert report.state.state is State.FAILED
    assert "told it to stop" in report.state.reason
    assert [artifact.path for artifact in report.artifacts] == ["model.h5"]


def test_a_command_that_is_told_to_stop_before_its_supervisor_is_stopped_by_the_machine(
    vm: Vm,
) -> None:
    state = vm.run(vm.connect(), "(sleep 0.5; kill $PPID) & sh -c 'kill $$'; exit $?")
    assert (state.state, state.signal) == (State.FAILED, signal.SIGTERM)
    assert "told it to stop" in state.reason


def test_a_removed_run_folder_leaves_no_supervisor_behind(vm: Vm) -> None:
    link = vm.connect()
    vm.start(link, "echo up; rm -rf ../../run")
    wait_until(lambda: not vm.pids(str(vm.run_folder().package)), "the supervisor has ended")


def test_two_runs_of_one_snapshot_do_not_see_each_other(vm: Vm) -> None:
    vm.write("shared.txt", "from the laptop\n")
    link = vm.connect()
    command = 'echo "$TRAINSHED_RUN" >> shared.txt; sleep 0.2; cat shared.txt; ls'
    mirrors = [vm.start(link, command, run_id) for run_id in ("first", "second")]
    vm.finish(link, *mirrors)
    for mirror in mirrors:
        path = vm.run_folder(mirror.run_id).path
        assert vm.log(mirror.run_id).decode() == f"from the laptop\n{path}\nshared.txt\n"


def test_editing_after_the_submission_changes_nothing(vm: Vm) -> None:
    file = vm.write("train.py", "print('before')")
    link = vm.connect()
    blocker = vm.start(link, "sleep 30", "blocker", gpus=1)
    mirror = vm.start(link, "python train.py", "run", gpus=1)
    file.write_text("print('after')")
    later = vm.start(link, "python train.py", "later", gpus=1)
    link.call(Cancel("blocker"), Done)
    vm.finish(link, blocker, mirror, later)
    assert (vm.log("run"), vm.log("later")) == (b"before\n", b"after\n")


def test_the_list_of_runs_has_every_run_with_its_state(vm: Vm) -> None:
    link = vm.connect()
    vm.run(link, "true", run_id="good")
    vm.run(link, "false", run_id="bad")
    (vm.store / "runs" / "stranger").mkdir()
    reports = link.call(ListRuns(), News).reports
    assert {r.run_id: opinion(r) for r in reports} == {"good": "succeeded", "bad": "failed"}


def test_a_submission_for_an_unknown_tree_starts_nothing(vm: Vm) -> None:
    link = vm.connect()
    vm.run(link, "true")
    request = vm.mirrors.all()[0].request
    wanted = (request._replace(run_id="new"), request._replace(run_id="odd", tree="0" * 64))
    assert link.call(Submit(wanted), Submitted).unknown_trees == ("0" * 64,)
    assert {path.name for path in (vm.store / "runs").iterdir()} == {"run"}


def test_more_gpus_than_the_machine_has_are_refused_at_once(vm: Vm) -> None:
    vm.remote = replace(vm.remote, gpus=2)
    with pytest.raises(Refused) as raised:
        vm.start(vm.connect(), "true", gpus=3)
    assert raised.value.code == "no-gpu"


def test_declared_gpus_are_given_out_by_index(vm: Vm) -> None:
    vm.remote = replace(vm.remote, gpus=2)
    link = vm.connect()
    go = vm.folder / "go"
    command = f'echo "$CUDA_VISIBLE_DEVICES"; {until(go)}'
    mirrors = [vm.start(link, command, run_id, gpus=1) for run_id in ("first", "second")]
    await_log(vm, b"\n", "first")
    await_log(vm, b"\n", "second")
    go.touch()
    vm.finish(link, *mirrors)
    assert sorted(vm.log("first") + vm.log("second")) == sorted(b"0\n1\n")


def supervise_here(vm: Vm, request: RunRequest) -> int:
    """The process id of this test's own child, which supervises a run."""
    folder = vm.run_folder(request.run_id)
    folder.path.mkdir(exist_ok=True)
    folder.request.write_bytes(to_bytes(request))
    folder.package.write_bytes(vm.run_folder("first").package.read_bytes())

    def supervise() -> None:
        lock = take(folder.lock)
        assert lock is not None
        Supervisor(folder, lock).run()

    return fork(supervise)


def supervised_here(vm: Vm, request: RunRequest) -> RunState:
    """A run whose supervisor is this test's own child; how it ended."""
    assert os.waitpid(supervise_here(vm, request), 0)[1] == 0
    ended = state_of(vm, request.run_id)
    assert ended is not None
    return ended


def test_a_run_that_succeeded_stays_so_and_tells_of_outputs_that_are_not_there(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.run(vm.connect(), "true", run_id="first")
    request = vm.mirrors.all()[0].request._replace(command="touch a b", outputs=("*",))
    monkeypatch.setattr("remote.outputs.LIMIT", 1)
    ended = supervised_here(vm, request._replace(run_id="run"))
    assert (ended.state, ended.reason) == (
        State.SUCCEEDED,
        "of 2 outputs only the first 1 are recorded",
    )
    assert vm.log() == b"trainshed: of 2 outputs only the first 1 are recorded\n"
    recorded = from_bytes(Artifacts, vm.run_folder().artifacts.read_bytes())
    assert [artifact.path for artifact in recorded.files] == ["a"]


def test_slurm_that_does_not_answer_costs_a_run_none_of_its_grace(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.run(vm.connect(), "true", run_id="first")
    (vm.folder / "squeue").write_text("#!/bin/sh\nsleep 30\n")
    (vm.folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{vm.folder}:{os.environ['PATH']}")
    monkeypatch.setattr("remote.slurm._BRIEF_LIMIT_S", 6.0)
    command = "trap 'sleep 1; echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    request = vm.mirrors.all()[0].request._replace(
        run_id="run", command=command, slurm=Slurm(), gpus=0, grace_s=5.0
    )
    pid = supervise_here(vm, request)
    await_log(vm, b"up")
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0
    assert b"saved" in vm.log()
    ended = state_of(vm)
    assert ended is not None
    assert (ended.state, ended.exit_code) == (State.FAILED, 0)
    assert ended.reason == "Slurm told it to stop (SIGTERM)"


def test_a_run_that_is_just_being_started_is_not_lost_and_one_that_nobody_starts_is(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.run(vm.connect(), "true", run_id="first")
    folder = vm.run_folder()
    folder.path.mkdir()
    request = vm.mirrors.all()[0].request._replace(run_id="run")
    folder.request.write_bytes(to_bytes(request))
    store = Store(vm.store)

    def is_alive() -> bool:
        (report,) = (r for r in list_runs(store).reports if r.run_id == "run")
        assert report.state is None
        return report.alive

    with store.untidied():
        assert is_alive()
    wait_until(lambda: not is_alive(), "nobody starts it")

    # The one who starts it comes to that, and goes, between the two looks.
    taken: list[int | None] = []

    def is_untidied(_: Store) -> bool:
        taken.append(take(folder.lock))
        return False

    monkeypatch.setattr(Store, "is_untidied", is_untidied)
    assert is_alive()
    assert taken != [None]


def test_asking_after_many_runs_shows_signs_of_life(vm: Vm) -> None:
    mirrors = [vm.run(vm.connect(), "true", run_id=f"run{n}") for n in range(3)]
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    store = Store(vm.store, tick)
    assert len(list_runs(store).reports) == len(mirrors)
    assert ticks >= len(mirrors)
    ticks = 0
    watch(store, Watch(tuple(Offsets(f"run{n}") for n in range(3)), 0.0))
    assert ticks >= 2 * len(mirrors)


def test_a_setup_that_takes_too_long_is_ended_with_all_it_started(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.write("requirements.txt", "x")
    vm.run(vm.connect(), "true", run_id="first")
    script = f"case $1 in -VV) ;; *) sleep 61 & echo $$ $! > '{vm.folder}/pids'; wait ;; esac;:"
    request = vm.mirrors.all()[0].request._replace(
        run_id="run",
        requirements="requirements.txt",
        python=vm.program("slow python", script),
    )
    monkeypatch.setattr("remote.supervisor._SETUP_LIMIT_S", 0.6)
    ended = supervised_here(vm, request)
    assert ended.state is State.SETUP_FAILED
    assert ended.reason == "setting up took more than 0.01 minutes: see the log"
    for pid in (vm.folder / "pids").read_text().split():
        wait_until(lambda pid=pid: is_over(int(pid)), "it was ended")  # type: ignore[misc]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_at_a_restart_costs_nothing_that_was_made_before(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.run(vm.connect(), "true", run_id="first")
    folder = vm.run_folder()
    folder.tree.mkdir(parents=True)
    (folder.tree / "model.h5").write_bytes(b"of the attempt before")
    at = clock.now()
    before = RunState(State.RUNNING, at, "another boot", setting_up_at=at, running_at=at)
    folder.state.write_bytes(to_bytes(before))
    folder.restarts.write_bytes(b"1\n")
    request = vm.mirrors.all()[0].request._replace(
        run_id="run", restarts=3, outputs=("model.h5",), command="true"
    )
    monkeypatch.setattr(Supervisor, "_set_up", full)
    ended = supervised_here(vm, request)
    assert (ended.state, ended.restarts) == (State.FAILED, 1)
    assert "no space left" in ended.reason
    recorded = from_bytes(Artifacts, folder.artifacts.read_bytes())
    assert [artifact.path for artifact in recorded.files] == ["model.h5"]


def test_what_a_script_tells_of_its_epochs_goes_on_after_a_restart_behind_a_line_that_was_cut(
    vm: Vm,
) -> None:
    told = vm.write("told", 'echo "$1" >> "$TRAINSHED_METRICS"')
    link = vm.connect()
    vm.run(link, f"sh {shlex.quote(str(told))} first", run_id="first")
    assert vm.mirrors.all()[0].metrics.read_text() == "first\n"
    folder = vm.run_folder()
    folder.path.mkdir()
    folder.metrics.write_text("first\ncut")
    at = clock.now()
    before = RunState(State.RUNNING, at, "another boot", setting_up_at=at, running_at=at)
    folder.state.write_bytes(to_bytes(before))
    folder.restarts.write_bytes(b"1\n")
    request = vm.mirrors.all()[0].request._replace(
        run_id="run", restarts=3, command=f"sh {shlex.quote(str(told))} second"
    )

    assert supervised_here(vm, request).state is State.SUCCEEDED
    assert folder.metrics.read_text() == "first\ncut\nsecond\n"


def test_a_folder_in_the_place_of_the_metrics_keeps_no_run_from_being_told_of(vm: Vm) -> None:
    ended = vm.run(vm.connect(), 'mkdir "$TRAINSHED_METRICS" || exit 4')
    assert ended.exit_code == 4
    ended = vm.run(
        vm.connect(), 'rm "$TRAINSHED_METRICS"; mkdir "$TRAINSHED_METRICS"', run_id="stubborn"
    )
    assert ended.state is State.SUCCEEDED


def test_a_run_that_ends_in_its_setup_and_cannot_be_recorded_does_not_keep_its_slot(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.run(vm.connect(), "true", run_id="first")
    (vm.run_folder().artifacts / "in-the-way").mkdir(parents=True)
    monkeypatch.setattr(Supervisor, "_set_up", full)
    pid = supervise_here(vm, vm.mirrors.all()[0].request._replace(run_id="run", gpus=1))
    try:
        await_state(vm, State.SETTING_UP)
        wait_until(lambda: not is_held(vm.store / "locks" / "cpu0"), "its slot is free")
        assert is_held(vm.run_folder().lock)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("number", "is_gone"), [(errno.EIO, False), (errno.ESTALE, True), (errno.ENOENT, True)]
)
def test_a_disk_that_does_not_answer_is_not_taken_for_a_removed_run(
    vm: Vm, monkeypatch: pytest.MonkeyPatch, number: int, is_gone: bool
) -> None:
    vm.run(vm.connect(), "true", run_id="first")
    folder = vm.run_folder("first")
    wait_until(lambda: not is_held(folder.lock), "it has ended")
    lock = take(folder.lock)
    assert lock is not None
    supervisor = Supervisor(folder, lock)

    def stat(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", stat)
        with pytest.raises(Removed) if is_gone else contextlib.nullcontext():
            supervisor._check_is_there()
    supervisor.log.close()
    os.close(lock)


def is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_of_an_output_that_grew_only_what_was_recorded_is_sent(vm: Vm) -> None:
    link = vm.connect()
    vm.run(link, "printf recorded > m.h5", outputs=("m.h5",))
    with (vm.run_folder().tree / "m.h5").open("ab") as file:
        file.write(b" and more" * 100_000)
    for offset in (0, 3, 8, 20):
        sent = fetch(link, Fetch("run", "m.h5", offset))
        assert sent == b"recorded"[offset:]
    assert link.call(ListRuns(), News).reports  # the link stays usable


def test_a_submission_of_several_runs_is_one_exchange(vm: Vm) -> None:
    link = vm.connect()
    vm.run(link, "true")
    request = vm.mirrors.all()[0].request
    mirrors: list[Mirror] = [
        vm.mirrors.make(request._replace(run_id=f"run{number}")) for number in range(3)
    ]
    calls = len(vm.wire.calls)
    submit(link, vm.freeze(Job("job", "true", ())), tuple(m.request for m in mirrors), vm.told)
    assert len(vm.wire.calls) - calls == 1
    vm.finish(link, *mirrors)
