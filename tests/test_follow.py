"""Following runs: every byte of a log once, in order, over as many lines as it takes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import (
    AgentBroken,
    ConnectError,
    ConnectionLost,
    HostKeyChanged,
    LoginRefused,
    NoPython,
    Refused,
    TrainshedError,
)
from orchestrator.records.mirror import Mirror, Mirrors, why_lost
from orchestrator.screen.tell import Silence
from orchestrator.vm import follow as follow_module
from orchestrator.vm.follow import END_LIMIT_BYTES, Follower, look_at_all, read_end
from orchestrator.vm.link import Link
from remote.protocol import CHUNK_BYTES, Cancel, Done, Piece, RunReport
from remote.record import to_bytes
from remote.runfolder import RunRequest, RunState, State
from tests.servers import Relay, SshServer
from tests.vm import WAIT_LIMIT_S, Told, Vm, practice, wait_until

MIB = 2**20

# Every line says which it is, so that a gap or a repetition would be seen.
COUNTS = """
import sys, time
for number in range({lines}):
    print(f"line {{number:06}}", flush=number % 500 == 0)
    if number % 5000 == 0:
        time.sleep(0.02)
"""


@pytest.fixture
def vm(server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(server, tmp_path) as vm:
        yield vm


def counted(lines: int) -> bytes:
    return b"".join(b"line %06d\n" % number for number in range(lines))


def ignore(link: Link, mirror: Mirror) -> None:
    """For a follower whose runs' ends do not matter."""


def test_fifty_mib_of_anything_come_through_as_they_are(vm: Vm) -> None:
    command = (
        "python -c 'import os, sys; b = os.urandom(1 << 20);"
        " [sys.stdout.buffer.write(b) for _ in range(50)]'; printf '\\033[2J\\000\\r\\n\\377' >&2"
    )
    link = vm.connect()
    vm.told = told = Told()
    mirror = vm.start(link, command)
    vm.finish(link, mirror)
    assert mirror.log.stat().st_size == 50 * MIB + 8
    with mirror.log.open("rb") as here, vm.run_folder().log.open("rb") as there:
        assert hashlib.file_digest(here, "sha256").digest() == (
            hashlib.file_digest(there, "sha256").digest()
        )
    assert len(told.logs["job"]) == 50 * MIB + 8


def test_a_log_over_lines_that_are_cut_has_no_gap_and_no_repetition(vm: Vm) -> None:
    """Cut between two frames, in one, in the greeting of the next line, and in its handshake."""
    lines, told = 200_000, Told()
    vm.write("train.py", COUNTS.format(lines=lines))
    cuts = [300_000, 1_000_000, 1_000, 30_000, 777_777]
    with Relay(vm.server.port) as relay:
        link = vm.connect(port=relay.port)
        mirror = vm.start(link, "python train.py")
        relay.cut_after(200)
        again = Reconnecting(vm, relay, cuts)
        Follower(again, [mirror], told, ignore, sleep=lambda _: None).follow(link)
    assert again.times == 6
    assert mirror.log.read_bytes() == counted(lines)
    assert told.logs["job"] == counted(lines)
    assert mirror.verdict == "succeeded"


def test_a_follower_that_died_is_followed_by_one_that_goes_on(vm: Vm) -> None:
    lines = 100_000
    vm.write("train.py", COUNTS.format(lines=lines))
    link = vm.connect()
    mirror = vm.start(link, "python train.py")
    with pytest.raises(Dies):
        Follower(link_lost, [mirror], Dying(), ignore).follow(link)
    half = mirror.log.stat().st_size
    assert half > 0
    link = vm.connect()
    before = vm.wire.received_bytes
    vm.finish(link, mirror)
    assert mirror.log.read_bytes() == counted(lines)
    assert vm.wire.received_bytes - before < len(counted(lines)) - half + 40_000


def test_two_followers_of_one_run_keep_one_true_log(vm: Vm) -> None:
    lines = 100_000
    vm.write("train.py", COUNTS.format(lines=lines))
    links = [vm.connect(), vm.connect()]
    mirror = vm.start(links[0], "python train.py")
    told = [Told(), Told()]
    threads = [
        threading.Thread(target=Follower(link_lost, [mirror], t, ignore).follow, args=(link,))
        for link, t in zip(links, told, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_LIMIT_S)
    assert mirror.log.read_bytes() == counted(lines)
    assert [t.logs["job"] for t in told] == [counted(lines)] * 2


def test_the_slower_of_two_followers_does_not_shorten_what_the_faster_wrote(
    tmp_path: Path,
) -> None:
    mirror = Mirrors(tmp_path).make(RunRequest("run", "job", "0" * 64, "true"))
    mirror.add(Piece("run", "log", 0, 6), b"abcdef")
    mirror.add(Piece("run", "log", 0, 3), b"abc")
    mirror.add(Piece("run", "log", 6, 3), b"ghi")
    assert mirror.log.read_bytes() == b"abcdefghi"


def test_a_run_that_ended_long_ago_is_told_whole(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "seq 100000; exit 3")
    wait_until(lambda: b'"failed"' in read(vm.run_folder().state), "it has ended")
    ended: list[str] = []
    follower = Follower(link_lost, [mirror], Silence(), lambda _, m: ended.append(m.verdict))
    follower.catch_up(link)
    assert ended == ["failed"]
    assert mirror.log.read_bytes() == vm.log()


def test_a_look_at_a_run_that_writes_all_the_time_comes_to_an_end(vm: Vm) -> None:
    mirror = vm.mirrors.make(RunRequest("run", "job", "0" * 64, "true"))
    link = vm.connect(
        python=vm.fake(
            """
while True:
    offset = hear().head["args"]["runs"][0]["log"]
    news = News((RunReport("run", "job", True, "x"),), (Piece("run", "log", offset, 3),), ())
    say(RESULT, record.encode(news), b"abc")
"""
        )
    )
    Follower(link_lost, [mirror], Silence(), ignore).catch_up(link)
    assert vm.wire.calls == ["watch"]
    assert mirror.log.read_bytes() == b"abc"


def test_many_runs_with_long_logs_fit_into_the_answers(vm: Vm) -> None:
    """90 runs with 3 files of a full piece each would be more than a frame may hold."""
    link = vm.connect()
    first = vm.start(link, "true", "run000")
    vm.finish(link, first)
    mirrors = []
    for number in range(1, 91):
        request = first.request._replace(run_id=f"run{number:03}")
        mirrors.append(vm.mirrors.make(request))
        folder = vm.run_folder(request.run_id)
        folder.path.mkdir()
        folder.request.write_bytes(to_bytes(request))
        folder.artifacts.write_bytes(b'{"files": []}')
        at = "2026-01-01T00:00:00Z"
        folder.state.write_bytes(to_bytes(RunState(State.SUCCEEDED, at, ended_at=at)))
        for file in (folder.log, folder.metrics, folder.usage):
            file.write_bytes(b"x" * 270_000)
    ended: list[str] = []
    Follower(link_lost, mirrors, Silence(), lambda _, m: ended.append(m.run_id)).catch_up(link)
    assert sorted(ended) == [mirror.run_id for mirror in mirrors]
    assert all(mirror.log.stat().st_size == 270_000 for mirror in mirrors)


def test_a_run_that_the_vm_never_had_is_left_as_not_sent(vm: Vm) -> None:
    link = vm.connect()
    request = vm.start(link, "true", "known").request
    mirror = vm.mirrors.make(request._replace(run_id="unknown"))
    vm.told = told = Told()
    vm.finish(link, mirror, vm.mirrors.all()[0])
    assert told.warnings == []
    assert mirror.verdict == "not heard of"


def test_a_run_that_the_vm_has_no_more_is_lost(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "true")
    vm.finish(link, mirror)
    seen = mirror.seen
    assert seen is not None
    running = RunReport(mirror.run_id, "job", alive=True, stamp="before")
    mirror.see(running, seen.boot_id)
    shutil.rmtree(vm.run_folder().path)
    ended: list[str] = []
    Follower(link_lost, [mirror], Silence(), lambda _, m: ended.append(m.verdict)).follow(link)
    assert ended == ["lost"]
    assert (found := mirror.seen) is not None
    assert "knows nothing of it" in why_lost(found)


def test_the_end_of_a_log_is_shown_of_a_run_that_the_vm_has_no_more(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "printf '1\\n2\\n3\\n'")
    vm.finish(link, mirror)
    seen = mirror.seen
    assert seen is not None
    mirror.see(RunReport(mirror.run_id, "job", alive=True, stamp="before"), seen.boot_id)
    shutil.rmtree(vm.run_folder().path)
    told = Told()
    again = vm.connect()
    follower = Follower(vm.connect, [mirror], told, ignore)
    follower.replay(tail=2)
    follower.follow(again)
    assert told.logs["job"] == b"2\n3\n"
    with pytest.raises(Refused, match="does not know run any more"):
        read_end(vm.connect(), mirror, 5)


def test_the_end_is_told_again_when_the_line_is_lost_while_it_is_dealt_with(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "true")
    ends: list[Link] = []

    def on_end(link: Link, mirror: Mirror) -> None:
        ends.append(link)
        if len(ends) == 1:
            raise ConnectionLost("cut while pulling")

    again = Reconnecting(vm)
    last = Follower(again, [mirror], Silence(), on_end, sleep=lambda _: None).follow(link)
    assert ends == [link, last]
    assert again.times == 1


@pytest.mark.parametrize("final", [LoginRefused, HostKeyChanged, NoPython])
def test_what_no_patience_heals_is_raised_at_once(vm: Vm, final: type[TrainshedError]) -> None:
    link = vm.connect()
    mirror = vm.start(link, "sleep 30")
    link.close()
    tries: list[float] = []

    def connect() -> Link:
        tries.append(time.monotonic())
        raise final("no")

    with pytest.raises(final):
        Follower(connect, [mirror], Silence(), ignore, sleep=lambda _: None).follow(link)
    assert len(tries) == 1
    vm.connect().call(Cancel("run"), Done)
    vm.finish(vm.connect(), mirror)


def test_a_vm_that_does_not_come_back_is_given_up_in_the_end(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "_RETRY_LIMIT_S", 1.0)
    link = vm.connect()
    mirror = vm.start(link, "sleep 30")
    link.close()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(0.05)

    def connect() -> Link:
        raise ConnectError("not there")

    with pytest.raises(ConnectionLost):
        Follower(connect, [mirror], Silence(), ignore, sleep=sleep).follow(link)
    assert waits[:3] == [0.5, 1.0, 2.0]
    vm.connect().call(Cancel("run"), Done)
    vm.finish(vm.connect(), mirror)


def test_an_agent_killed_while_following_does_not_end_the_run(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "echo one; sleep 0.5; echo two")
    for pid in vm.pids("sys.stdin.buffer"):
        os.kill(pid, signal.SIGKILL)
    again = Reconnecting(vm)
    Follower(again, [mirror], Silence(), ignore, sleep=lambda _: None).follow(link)
    assert again.times == 1
    assert mirror.log.read_bytes() == b"one\ntwo\n"


NEWS = """
while True:
    hear()
    say(RESULT, record.encode(News({reports}, {pieces}, {missing})), {body})
"""
AT = "'2026-01-01T00:00:00Z'"


@pytest.mark.parametrize(
    "news",
    [
        pytest.param({"pieces": "(Piece('run', 'log', 5, 3),)", "body": "b'abc'"}, id="gap"),
        pytest.param({"pieces": "(Piece('run', 'log', -3, 3),)", "body": "b'abc'"}, id="before"),
        pytest.param({"pieces": "(Piece('run', 'log', 0, 9),)", "body": "b'abc'"}, id="short"),
        pytest.param({"pieces": "(Piece('run', 'log', 0, -1),)", "body": "b'abc'"}, id="negative"),
        pytest.param({"pieces": "(Piece('run', 'log', 0, 0),)"}, id="empty"),
        pytest.param({"pieces": "(Piece('run', '../../x', 0, 3),)", "body": "b'abc'"}, id="name"),
        pytest.param({"pieces": "(Piece('run', 'seen', 0, 3),)", "body": "b'abc'"}, id="file"),
        pytest.param({"pieces": "(Piece('../x', 'log', 0, 3),)", "body": "b'abc'"}, id="run"),
        pytest.param({"reports": "(RunReport('other', 'job', True, 'x'),)"}, id="report"),
        pytest.param(
            {
                "reports": "(RunReport('run', 'job', False, 'x',"
                " RunState(State.FAILED, 'yesterday')),)"
            },
            id="time",
        ),
        pytest.param(
            {
                "reports": f"(RunReport('run', 'job', False, 'x', RunState(State.FAILED, {AT})),)"
                " * 2"
            },
            id="twice",
        ),
    ],
)
def test_news_that_were_not_asked_for_are_the_agents_fault(vm: Vm, news: dict[str, str]) -> None:
    mirror = vm.mirrors.make(RunRequest("run", "job", "0" * 64, "true"))
    empty = {"reports": "()", "pieces": "()", "missing": "()", "body": "b''"}
    link = vm.connect(python=vm.fake(NEWS.format(**{**empty, **news})))
    before = {path for path in vm.folder.rglob("*") if path.name != "seen.json"}
    with pytest.raises(AgentBroken):
        Follower(link_lost, [mirror], Silence(), ignore).follow(link)
    assert {path for path in vm.folder.rglob("*") if path.name != "seen.json"} == before


class Reconnecting:
    """Gives a new link, and counts how often.

    Args:
        cuts: after so many bytes through the relay each new line is cut; then no more are.
    """

    def __init__(self, vm: Vm, relay: Relay | None = None, cuts: Iterable[int] = ()) -> None:
        self._vm = vm
        self._relay = relay
        self._cuts = iter(cuts)
        self.times = 0

    def __call__(self) -> Link:
        self.times += 1
        if self._relay is None:
            return self._vm.connect()
        self._relay.cut_after(next(self._cuts, 10**12))
        return self._vm.connect(port=self._relay.port)


class Dies(Exception):
    pass


class Dying(Silence):
    """Ends its follower in the middle of a log, as a kill would."""

    def __init__(self) -> None:
        self._seen = 0

    def log(self, job: str, data: bytes) -> None:
        self._seen += len(data)
        if self._seen > 300_000:
            raise Dies


def link_lost() -> Link:
    raise ConnectionLost("the test's line was lost")


def read(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def test_remotes_are_asked_side_by_side_and_each_one_s_trouble_is_told_in_order() -> None:
    together = threading.Barrier(20, timeout=WAIT_LIMIT_S)
    names = [f"vm{number}" for number in range(20)]

    def refuse(name: str) -> Link:
        together.wait()  # breaks when they are asked one after the other
        raise ConnectError(f"no way to {name}")

    troubles = look_at_all({n: partial(refuse, n) for n in names}, dict.fromkeys(names, ()))

    assert [(name, str(error)) for name, error in troubles.items()] == [
        (name, f"no way to {name}") for name in names
    ]


def test_more_remotes_than_threads_are_all_asked() -> None:
    asked: list[int] = []

    def refuse(number: int) -> Link:
        asked.append(number)
        raise ConnectError("no")

    ways = {str(number): partial(refuse, number) for number in range(100)}
    assert len(look_at_all(ways, dict.fromkeys(ways, ()))) == 100
    assert sorted(asked) == list(range(100))
    assert look_at_all({}, {}) == {}


def test_a_bug_in_asking_one_remote_is_not_taken_for_its_silence() -> None:
    def fail() -> Link:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look_at_all({"vm": fail}, {"vm": ()})


def test_the_end_of_a_long_log_comes_alone_and_is_not_kept(vm: Vm) -> None:
    vm.write("train.py", COUNTS.format(lines=100_000))
    link = vm.connect()
    mirror = vm.start(link, "python train.py")
    log = vm.run_folder().log
    wait_until(lambda: log.exists() and log.stat().st_size == 1_200_000, "the whole log")
    before = vm.wire.received_bytes

    assert read_end(link, mirror, 20) == (counted(100_000)[-20 * 12 :], False)
    assert vm.wire.received_bytes - before < CHUNK_BYTES + 10_000
    for count in (50_000, 99_999, 100_000):
        assert read_end(link, mirror, count) == (counted(100_000)[-count * 12 :], False)
    assert read_end(link, mirror, 100_001) == (counted(100_000), False)
    assert read_end(link, mirror, 0) == (b"", False)
    assert not mirror.log.exists()
    vm.finish(link, mirror)


def test_long_lines_are_looked_for_further_back_up_to_a_limit_that_is_told(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "true")
    vm.finish(link, mirror)
    line = b"x" * 999_999 + b"\n"
    vm.run_folder().log.write_bytes(line * 12)

    assert read_end(link, mirror, 5) == (line * 5, False)
    end, is_cut = read_end(link, mirror, 9)
    assert (len(end), is_cut) == (END_LIMIT_BYTES, True)
    assert (line * 12).endswith(end)


@pytest.mark.parametrize("tail", [0, 3, 10**6])
def test_who_wants_only_the_tail_is_told_the_rest_from_there_on(vm: Vm, tail: int) -> None:
    lines = 60_000
    vm.write("train.py", COUNTS.format(lines=lines) + f"wait({str(vm.folder / 'go')!r})\n")
    text = (vm.root / "train.py").read_text()
    wait = "import os\ndef wait(go):\n    sys.stdout.flush()\n    while not os.path.exists(go): "
    wait += "time.sleep(0.01)\n    print('the end')\n"
    vm.write("train.py", wait + text)
    link = vm.connect()
    mirror = vm.start(link, "python train.py")
    log = vm.run_folder().log
    wait_until(lambda: log.exists() and log.stat().st_size == lines * 12, "the wait")

    class Going(Told):
        def doing(self, text: str, done: int = 0, total: int = 0) -> None:
            if mirror.offsets().log == lines * 12:
                (vm.folder / "go").touch()

    told = Going()
    follower = Follower(link_lost, [mirror], told, ignore)
    follower.replay(tail)
    follower.follow(link)

    shown = counted(lines)[-tail * 12 :] if tail else b""
    assert told.logs["job"] == shown + b"the end\n"
    assert mirror.log.read_bytes() == counted(lines) + b"the end\n"


def test_a_tail_is_told_before_the_end_of_a_run_that_is_over(vm: Vm) -> None:
    link = vm.connect()
    mirror = vm.start(link, "seq 10")
    vm.finish(link, mirror)
    told = Told()
    before: list[bytes] = []
    follower = Follower(link_lost, [mirror], told, lambda *_: before.append(told.logs["job"]))
    follower.replay(2)
    follower.follow(link)

    assert before == [b"9\n10\n"]


def test_what_another_command_brought_home_is_not_waited_for(vm: Vm) -> None:
    link = vm.connect()
    mirror, other = vm.start(link, "sleep 30", "one"), vm.start(link, "sleep 30", "two")
    told = Told()
    link.close()
    home = {"one"}

    def connect() -> Link:
        home.add("two")  # while nobody answers
        raise ConnectError("not there")

    follower = Follower(
        connect,
        [mirror, other],
        told,
        ignore,
        sleep=lambda _: None,
        is_home=lambda mirror: mirror.run_id in home,
    )
    follower.follow(link)

    assert [step.partition(" ")[0] for step in told.steps] == ["one", "two"]
    link = vm.connect()
    for run in (mirror, other):
        link.call(Cancel(run.run_id), Done)
    vm.finish(link, mirror, other)
