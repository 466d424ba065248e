"""Large files over several connections: whole, resumed after any cut, and never a wrong byte."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.connection.pipe import Pipe
from orchestrator.errors import (
    AgentBroken,
    ConnectionLost,
    HostKeyChanged,
    ModelDamaged,
    Refused,
    TrainshedError,
    UsageError,
)
from orchestrator.plan import Overrides, make_request
from orchestrator.records.mirror import Mirror
from orchestrator.records.shelf import Shelf
from orchestrator.screen.tell import Silence, Teller
from orchestrator.settings.spec import Job
from orchestrator.vm import lanes
from orchestrator.vm import link as link_module
from orchestrator.vm.deflate import Deflate
from orchestrator.vm.incoming import Incoming
from orchestrator.vm.lanes import Piece, Work
from orchestrator.vm.link import Link
from orchestrator.vm.pull import pull
from orchestrator.vm.sync import submit
from remote.parts import covered, find_parts, gaps, new_part
from remote.protocol import Fetch, Span
from remote.runfolder import Artifact, State
from tests.forks import killed_at_each_step
from tests.servers import Relay, SshServer, openssh
from tests.vm import Vm, fetch, practice, wait_until

MIB = 2**20
SIZE = 24 * MIB
# What the calls of a pull and of an upload take beside the bytes that are asked for.
TALK_BYTES = 20_000
JOB = Job("job", "true", (), gpus=0, metrics=False)


@pytest.fixture(autouse=True)
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any machine is far enough for four connections."""
    monkeypatch.setattr(link_module, "NEAR_S", 0.0)
    monkeypatch.setattr(lanes, "_LANES_LIMIT", 4)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections begin at once: on loopback, the first is otherwise done before the others."""
    work, starts = Work._work, dict[Work, threading.Barrier]()

    def wait_and_work(self: Work, link: Link) -> None:
        start = starts.setdefault(self, threading.Barrier(self.lanes(link)))
        with contextlib.suppress(threading.BrokenBarrierError):
            start.wait(5)
        work(self, link)

    monkeypatch.setattr(Work, "_work", wait_and_work)


@pytest.fixture
def vm(server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(server, tmp_path) as vm:
        yield vm


def received_bytes(vm: Vm) -> int:
    return sum(wire.received_bytes for wire in (vm.wire, *vm.wire.others))


def sent_bytes(vm: Vm) -> int:
    return sum(wire.sent_bytes for wire in (vm.wire, *vm.wire.others))


def made(vm: Vm, link: Link, size: int = SIZE) -> Artifact:
    command = f"head -c {size} /dev/urandom > model.h5"
    (report,) = vm.finish(link, vm.start(link, command, outputs=("model.h5",)))
    return report.artifacts[0]


def bring(vm: Vm, link: Link, artifact: Artifact) -> Path:
    return bring_telling(vm, link, artifact, Silence())


def bring_telling(vm: Vm, link: Link, artifact: Artifact, tell: Teller) -> Path:
    state = vm.folder / "laptop"
    (pulled,) = pull(link, "run", [artifact], state / "partial", Shelf(state), tell)
    return pulled.kept.result()


def partial_bytes(vm: Vm) -> int:
    return sum(file.stat().st_size for file in (vm.folder / "laptop/partial").iterdir())


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.usefixtures("together")
def test_a_large_model_comes_over_several_connections(vm: Vm) -> None:
    link = vm.connect()
    artifact = made(vm, link)
    assert digest_of(bring(vm, link, artifact)) == artifact.sha256
    assert ["fetch" in wire.calls for wire in vm.wire.others] == [True] * 3
    assert received_bytes(vm) < SIZE + TALK_BYTES
    assert list((vm.folder / "laptop/partial").iterdir()) == []


def test_a_small_model_comes_over_the_one_that_is_open(vm: Vm) -> None:
    link = vm.connect()
    artifact = made(vm, link, MIB)
    assert digest_of(bring(vm, link, artifact)) == artifact.sha256
    assert vm.wire.others == []


def test_a_machine_that_is_near_is_sent_all_over_one_connection(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "NEAR_S", 10.0)
    link = vm.connect()
    artifact = made(vm, link)
    assert digest_of(bring(vm, link, artifact)) == artifact.sha256
    assert vm.wire.others == []


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.usefixtures("together")
def test_a_pull_cut_at_any_byte_brings_only_the_rest(vm: Vm, share: float) -> None:
    with Relay(vm.server.port) as relay:
        link = vm.connect(port=relay.port)
        artifact = made(vm, link)
        relay.cut_after(int(SIZE * share))
        with pytest.raises(ConnectionLost):
            bring(vm, link, artifact)
        link.close()
    came = partial_bytes(vm)
    link = vm.connect()
    before = received_bytes(vm)
    assert digest_of(bring(vm, link, artifact)) == artifact.sha256
    assert SIZE - came <= received_bytes(vm) - before < SIZE - came + TALK_BYTES
    assert list((vm.folder / "laptop/partial").iterdir()) == []


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.usefixtures("together")
def test_an_upload_cut_at_any_byte_sends_only_the_rest(vm: Vm, share: float) -> None:
    content = vm.write("big", os.urandom(SIZE)).read_bytes()
    vm.write("small", os.urandom(1000))
    with Relay(vm.server.port) as relay:
        link = vm.connect(port=relay.port)
        relay.cut_after(int(SIZE * share))
        with pytest.raises(ConnectionLost):
            vm.start(link, "true")
        link.close()
    wait_until(lambda: not vm.pids(), "the agents have seen the cut")
    arrived = sum(file.stat().st_size for file in (vm.store / "incoming").iterdir())
    link = vm.connect()
    before = sent_bytes(vm)
    snapshot = vm.freeze(Job("job", "true", ()))
    submit(link, snapshot, (vm.mirrors.all()[0].request,), vm.told)
    assert sent_bytes(vm) - before < (SIZE - arrived) * 1.002 + 60_000
    vm.finish(link, vm.mirrors.all()[0])
    assert (vm.run_folder().tree / "big").read_bytes() == content
    assert list((vm.store / "incoming").iterdir()) == []


@pytest.mark.usefixtures("together")
def test_a_connection_that_is_lost_leaves_its_work_to_the_others(vm: Vm) -> None:
    link = vm.connect()
    artifact = made(vm, link)
    cut = Cutting(vm)
    path = bring_telling(vm, link, artifact, cut)
    assert cut.is_done
    assert digest_of(path) == artifact.sha256


@pytest.mark.sshd
@pytest.mark.usefixtures("together")
def test_one_session_for_each_connection_is_enough(tmp_path: Path) -> None:
    with openssh(tmp_path / "server", "MaxSessions 1") as server:
        folder = tmp_path / "vm"
        folder.mkdir()
        with practice(server, folder) as vm:
            link = vm.connect()
            artifact = made(vm, link)
            assert digest_of(bring(vm, link, artifact)) == artifact.sha256
            assert ["fetch" in wire.calls for wire in vm.wire.others] == [True] * 3


@pytest.mark.sshd
def test_a_server_that_hangs_up_on_further_connections_is_no_error(tmp_path: Path) -> None:
    # Of those that are not logged in yet it bears none beside one.
    with openssh(tmp_path / "server", "MaxStartups 1:100:1") as server:
        folder = tmp_path / "vm"
        folder.mkdir()
        with practice(server, folder) as vm:
            content = vm.write("big", os.urandom(SIZE)).read_bytes()
            link = vm.connect()
            with socket.create_connection((server.host, server.port)):
                artifact = made(vm, link)
                assert (vm.run_folder().tree / "big").read_bytes() == content
                assert digest_of(bring(vm, link, artifact)) == artifact.sha256
                wait_until(lambda: vm.wire.refused == 6, "three for each way")
            assert vm.wire.others == []


def test_a_server_that_opens_no_further_connection_is_no_error(vm: Vm) -> None:
    with Relay(vm.server.port) as relay:
        content = vm.write("big", os.urandom(SIZE)).read_bytes()
        link = vm.connect(port=relay.port)
        relay._listener.close()
        artifact = made(vm, link)
        assert (vm.run_folder().tree / "big").read_bytes() == content
        assert digest_of(bring(vm, link, artifact)) == artifact.sha256
        wait_until(lambda: vm.wire.refused == 6, "three for the upload, three for the pull")
        assert vm.wire.others == []


@pytest.mark.usefixtures("together")
def test_small_files_go_over_several_connections(vm: Vm) -> None:
    files = many(vm)
    link = vm.connect()
    vm.finish(link, vm.start(link, "true"))
    tree = vm.run_folder().tree
    assert {path: (tree / path).read_bytes() for path in files} == files
    assert ["upload" in wire.calls for wire in vm.wire.others] == [True] * 3
    # Three more connections, each with its key exchange and login.
    assert sent_bytes(vm) < sum(map(len, files.values())) + 250 * len(files) + 100_000


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
@pytest.mark.usefixtures("together")
def test_small_files_cut_at_any_byte_are_sent_once(vm: Vm, share: float) -> None:
    files = many(vm)
    size = sum(map(len, files.values()))
    with Relay(vm.server.port) as relay:
        link = vm.connect(port=relay.port)
        relay.cut_after(int(size * share))
        with pytest.raises(ConnectionLost):
            vm.start(link, "true")
        link.close()
    wait_until(lambda: not vm.pids(), "the agents have seen the cut")
    arrived = sum(path.stat().st_size for path in (vm.store / "objects").glob("*/*"))
    link = vm.connect()
    before = sent_bytes(vm)
    snapshot = vm.freeze(Job("job", "true", ()))
    submit(link, snapshot, (vm.mirrors.all()[0].request,), vm.told)
    assert sent_bytes(vm) - before < size - arrived + 250 * len(files)
    vm.finish(link, vm.mirrors.all()[0])
    tree = vm.run_folder().tree
    assert {path: (tree / path).read_bytes() for path in files} == files


@pytest.mark.usefixtures("together")
def test_a_file_saved_while_it_goes_over_a_further_connection_is_told(vm: Vm) -> None:
    many(vm)
    link = vm.connect()
    snapshot = vm.freeze(JOB)
    for path in vm.root.glob("folder/*5"):
        path.write_bytes(b"saved")
    mirror = vm.mirrors.make(make_request(JOB, vm.remote, snapshot, Overrides(), "run"))
    with pytest.raises(UsageError, match="was changed while it was being sent"):
        submit(link, snapshot, (mirror.request,), vm.told)
    link = vm.connect()
    vm.finish(link, vm.start(link, "true", "again"))
    assert (vm.run_folder("again").tree / "folder" / "5").read_bytes() == b"saved"


def many(vm: Vm) -> dict[str, bytes]:
    """So many small files that they are worth four connections, beside an empty and a large one."""
    files = {f"folder/{number}": os.urandom(9_000) for number in range(1_300)}
    files |= {"empty": b"", "medium": os.urandom(300_000), "large": os.urandom(3 * MIB)}
    for path, content in files.items():
        vm.write(path, content)
    return files


FAKE = """
content = bytes(range(256)) * {blocks}
while True:
    args = hear().head["args"]
    begin, size = args["offset"], args["size_bytes"]
    {answer}
    say(RESULT, {{}})
"""


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("say(DATA, {}, content[begin : begin + size + 1])", id="a byte too many"),
        pytest.param("say(DATA, {}, content[begin : begin + size - 1])", id="a byte too few"),
        pytest.param(
            "say(DATA, {}, (content * 2)[begin + 1 : begin + size + 1])", id="from elsewhere"
        ),
        pytest.param("say(DATA, {}, content)", id="everything"),
        pytest.param("say(DATA, {}, content[:1] * size)", id="other bytes"),
        pytest.param("pass", id="nothing"),
    ],
)
@pytest.mark.usefixtures("together")
def test_a_vm_that_answers_another_range_is_refused_and_nothing_is_kept(
    vm: Vm, answer: str
) -> None:
    blocks = 12 * MIB // 256
    content = bytes(range(256)) * blocks
    link = vm.connect(python=vm.fake(FAKE.format(blocks=blocks, answer=answer)))
    with pytest.raises(ModelDamaged):
        bring(vm, link, Artifact("model.h5", len(content), hashlib.sha256(content).hexdigest()))
    wait_until(lambda: partial_bytes(vm) == 0, "nothing is kept")
    assert not (vm.folder / "laptop/models").exists()


def test_a_range_is_fetched_as_asked_and_never_beyond_what_was_recorded(vm: Vm) -> None:
    link = vm.connect()
    made(vm, link, 1000)
    content = (vm.run_folder().tree / "model.h5").read_bytes()
    for offset, size, expected in (
        (0, 10, content[:10]),
        (990, 10, content[990:]),
        (990, 11, content[990:]),
        (1000, 5, b""),
        (5, None, content[5:]),
        (5, 0, b""),
        (5, -1, b""),
    ):
        assert fetch(link, Fetch("run", "model.h5", offset, size)) == expected
    with pytest.raises(Refused):
        fetch(link, Fetch("run", "model.h5", -5, 10))


def test_parts_that_another_left_wrong_never_make_a_wrong_file(vm: Vm) -> None:
    content = vm.write("big", os.urandom(SIZE)).read_bytes()
    link = vm.connect()
    incoming = vm.store / "incoming"
    new_part(incoming / hashlib.sha256(content).hexdigest(), 3 * MIB).write_bytes(b"wrong" * MIB)
    vm.finish(link, vm.start(link, "true"))
    assert vm.wire.calls.count("upload") == 2
    assert [path for path in incoming.iterdir() if path.stat().st_size] == []
    assert (vm.run_folder().tree / "big").read_bytes() == content


def test_two_who_send_the_same_large_file_at_once_both_succeed(vm: Vm) -> None:
    vm.write("big", os.urandom(SIZE))
    links = [vm.connect(), vm.connect()]
    mirrors: dict[int, Mirror] = {}

    def send(number: int) -> None:
        mirrors[number] = vm.start(links[number], "cat big >/dev/null", f"run{number}")

    threads = [threading.Thread(target=send, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(mirrors) == {0, 1}
    for number, mirror in mirrors.items():
        (report,) = vm.finish(links[number], mirror)
        assert report.state is not None
        assert report.state.state is State.SUCCEEDED


def test_parts_with_wrong_bytes_are_thrown_away_with_the_file(vm: Vm) -> None:
    link = vm.connect()
    artifact = made(vm, link)
    partial = vm.folder / "laptop/partial"
    partial.mkdir(parents=True)
    new_part(partial / artifact.sha256, 3 * MIB).write_bytes(b"wrong" * MIB)
    with pytest.raises(ModelDamaged):
        bring(vm, link, artifact)
    assert list(partial.iterdir()) == []
    assert digest_of(bring(vm, link, artifact)) == artifact.sha256


def test_killed_at_any_step_of_joining_no_byte_of_a_pull_is_lost_or_wrong(tmp_path: Path) -> None:
    content = os.urandom(20_000)

    def prepare(step: int) -> None:
        whole = tmp_path / str(step)
        whole.write_bytes(content[:2000])
        for begin, end in ((5000, 9000), (8000, 9500), (12_000, 13_000), (15_000, 20_000)):
            new_part(whole, begin).write_bytes(content[begin:end])

    def bring_rest(step: int) -> set[int]:
        whole = tmp_path / str(step)
        with whole.open("r+b", buffering=0) as file:
            incoming = Incoming(file, whole, len(content))
            missing = {incoming.missing_bytes}
            for begin, end in reversed(incoming.missing()):
                list(incoming.take(Piece("", begin, end), iter([content[begin:end]])))
            assert incoming.end() == (len(content), hashlib.sha256(content).hexdigest())
        assert whole.read_bytes() == content
        assert find_parts(whole) == []
        return missing

    missing = set()
    for step in killed_at_each_step(bring_rest, prepare):
        missing |= bring_rest(step)
    # Nothing new yet; the last gap; all of them.
    assert missing == {7500, 5500, 0}


def test_overlapping_parts_are_each_used_as_far_as_they_are_needed(vm: Vm) -> None:
    content = vm.write("big", os.urandom(SIZE)).read_bytes()
    whole = vm.store / "incoming" / hashlib.sha256(content).hexdigest()
    link = vm.connect()
    whole.write_bytes(content[: 2 * MIB])
    for begin, end in ((1, 3), (5, 9), (6, 7), (8, 12), (12, 13)):
        new_part(whole, begin * MIB).write_bytes(content[begin * MIB : end * MIB])
    before = sent_bytes(vm)
    vm.finish(link, vm.start(link, "true"))
    assert (vm.run_folder().tree / "big").read_bytes() == content
    assert sent_bytes(vm) - before < 13 * MIB * 1.002 + 60_000
    assert list((vm.store / "incoming").iterdir()) == []


def test_spans_are_merged_and_what_is_left_is_the_rest() -> None:
    spans = [Span(5, 9), Span(0, 2), Span(1, 3), Span(6, 7), Span(9, 10), Span(20, 30)]
    assert covered(spans, 2, 25) == (Span(2, 3), Span(5, 10), Span(20, 25))
    assert gaps(spans, 2, 25) == (Span(3, 5), Span(10, 20))
    assert gaps([], 0, 5) == (Span(0, 5),)
    assert gaps([Span(0, 5)], 0, 5) == gaps([], 5, 5) == ()
    assert gaps([Span(7, 9)], 0, 5) == (Span(0, 5),)


def test_other_files_are_not_taken_for_parts(tmp_path: Path) -> None:
    whole = tmp_path / "abc"
    for name in ("abc", "abc.x-1", "abc.-1-1", "abcd.1-1", "abc.5", "abc.7-empty"):
        (tmp_path / name).write_bytes(b"" if "empty" in name else b"x")
    part = new_part(whole, 3)
    part.write_bytes(b"xy")
    assert find_parts(whole) == [(Span(3, 5), part)]


@pytest.mark.parametrize("sparing", [(False,), (True,), (False, True, True)])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_compressed_or_stored_comes_out_as_it_went_in(
    seed: int, sparing: tuple[bool, ...]
) -> None:
    noise, text = os.urandom(300_000), b"so much text " * 30_000
    sizes = (0, 1, 4095, 4096, 65_535, 65_536, 262_144)
    blocks = [
        (noise, text)[(seed + number * number // 3) % 2][:size]
        for number, size in enumerate(sizes * 3)
    ]
    deflate = Deflate()
    parts = [
        deflate.compress(block, sparing=spares)
        for block, spares in zip(blocks, itertools.cycle(sparing), strict=False)
    ]
    stream = b"".join(parts) + deflate.flush()
    assert zlib.decompress(stream) == b"".join(blocks)


def test_what_does_not_shrink_hardly_grows_and_text_shrinks() -> None:
    for block, most in ((os.urandom(MIB), MIB * 1.001), (b"so much text " * 80_000, MIB / 20)):
        for sparing in (False, True):
            deflate = Deflate()
            assert len(deflate.compress(block, sparing=sparing) + deflate.flush()) < most


def test_what_shrinks_by_half_is_compressed_where_the_line_is_the_limit() -> None:
    half = b"".join(os.urandom(2000) + b"x" * 2000 for _ in range(100))
    for sparing, least, most in ((False, 0.45, 0.6), (True, 1.0, 1.001)):
        deflate = Deflate()
        share = len(deflate.compress(half, sparing=sparing) + deflate.flush()) / len(half)
        assert least < share < most


def test_a_header_that_shrinks_does_not_stand_for_what_follows() -> None:
    block = b"x" * 4096 + os.urandom(MIB)
    deflate = Deflate()
    assert len(block) < len(deflate.compress(block, sparing=False) + deflate.flush())


def test_a_pipe_hands_on_what_came_in_order_and_then_its_end() -> None:
    pipe = Pipe()
    with pytest.raises(TimeoutError):
        pipe.read(5, 0.0)
    for data in (b"", b"abcdef", b"", b"gh"):  # packets may be empty
        pipe.feed(data)
    assert (pipe.read(4), pipe.read(4), pipe.read(4)) == (b"abcd", b"ef", b"gh")
    closing = threading.Timer(0.05, pipe.close)
    closing.start()
    assert pipe.read(4, 10.0) == b""
    closing.join()


class Cutting(Silence):
    """Closes a further connection as soon as one is there."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self.is_done = False

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        working = [wire for wire in self._vm.wire.others if wire.received_bytes > MIB]
        if working and not self.is_done:
            self.is_done = True
            working[0].close()


def test_another_machine_behind_a_further_connection_is_an_error(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(link: Link) -> Link:
        raise HostKeyChanged("another machine")

    monkeypatch.setattr(Link, "another", another)
    link = vm.connect()
    artifact = made(vm, link)
    with pytest.raises(HostKeyChanged, match="another machine"):
        bring(vm, link, artifact)


def test_an_agent_that_does_not_start_over_a_further_connection_is_done_without(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(link: Link) -> Link:
        raise AgentBroken("no process can be started")

    monkeypatch.setattr(Link, "another", another)
    link = vm.connect()
    artifact = made(vm, link)
    assert digest_of(bring(vm, link, artifact)) == artifact.sha256


@pytest.mark.usefixtures("together")
def test_an_error_of_what_came_over_a_further_connection_is_raised(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = vm.connect()
    artifact = made(vm, link)
    end_fetch = Link.end_fetch

    def refuse(lane: Link) -> Iterator[bytes]:
        yield from end_fetch(lane)
        if lane is not link:
            raise Refused("no space")

    monkeypatch.setattr(Link, "end_fetch", refuse)
    with pytest.raises(TrainshedError, match="no space"):
        bring(vm, link, artifact)
