"""What travels to the VM: only what it lacks, whole, and nothing but the snapshot."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AgentBroken, ConnectionLost, Refused, UsageError
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Job
from orchestrator.vm.link import Link
from orchestrator.vm.pace import Pace
from orchestrator.vm.package import load_sources
from orchestrator.vm.sync import submit
from remote.protocol import Complete, Done, Lacking, ListRuns, News, Upload
from remote.runfolder import State
from tests.servers import Relay, SshServer
from tests.vm import WAIT_LIMIT_S, Vm, practice, wait_until

MIB = 2**20
# A manifest and the calls around it; far less than any file of these tests.
TALK_BYTES = 8_000


@pytest.fixture
def vm(server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(server, tmp_path) as vm:
        yield vm


def tree_of(folder: Path) -> dict[str, tuple[str, bytes, bool]]:
    """Kind, content or target, and whether it can be executed, of everything below `folder`."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.startswith(".train"):
            continue
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()), False)
        elif path.is_file():
            executable = bool(path.stat().st_mode & stat.S_IXUSR)
            found[name] = ("file", path.read_bytes(), executable)
    return found


def sent_bytes(vm: Vm, run_id: str) -> int:
    """What one submission of the workspace as it is sends, without the agent itself."""
    link = vm.connect()
    before = vm.wire.sent_bytes
    vm.finish(link, vm.start(link, "true", run_id))
    link.close()
    return vm.wire.sent_bytes - before


UGLY_NAMES = (
    "with space",
    "quote's",
    'double"quote',
    "new\nline",
    "tab\t",
    "$HOME `id` ; rm -rf *",
    "-rf",
    "--help",
    "back\\slash",
    "ünïcödé 模型 🚂",
    "e\u0301",
    "x" * 255,
    "é" * 127,
    ".hidden",
    "...",
    "~",
    "*?[!a]",
    "trailing ",
    "%s%n{}",
)


def test_every_name_content_and_link_arrives_as_it_is(vm: Vm) -> None:
    for number, name in enumerate(UGLY_NAMES):
        vm.write(name, f"{number}".encode())
        vm.write(f"folder of {number}/{name}/{name}", os.urandom(10))
    vm.write("empty")
    vm.write("script.sh", "#!/bin/sh\n").chmod(0o755)
    (vm.root / "link").symlink_to("folder of 3/new\nline/new\nline")
    (vm.root / "folder of 1" / "up").symlink_to("../empty")
    (vm.root / "dangling").symlink_to("not there")
    here = tree_of(vm.root)
    vm.run(vm.connect(), "true")
    assert len(here) == 2 * len(UGLY_NAMES) + 5
    assert tree_of(vm.run_folder().tree) == here


def test_only_missing_contents_travel(vm: Vm) -> None:
    for name in ("a", "b", "c"):
        vm.write(name, os.urandom(MIB))
    assert 3 * MIB < sent_bytes(vm, "first") < 3 * MIB + TALK_BYTES
    changed = os.urandom(100_000)
    vm.write("b", changed)
    assert 100_000 < sent_bytes(vm, "second") < 100_000 + TALK_BYTES
    assert vm.wire.calls[:5] == ["submit", "offer", "upload", "complete", "submit"]
    assert (vm.run_folder("second").tree / "b").read_bytes() == changed


def test_an_unchanged_tree_costs_one_exchange(vm: Vm) -> None:
    for number in range(300):
        vm.write(f"folder/{number}", os.urandom(50))
    sent_bytes(vm, "first")
    link = vm.connect()
    before = vm.wire.sent_bytes
    mirror = vm.start(link, "true", "second")
    assert vm.wire.calls == ["submit"]
    assert vm.wire.sent_bytes - before < 1000
    vm.finish(link, mirror)


def test_a_renamed_or_copied_file_is_not_sent_again(vm: Vm) -> None:
    file = vm.write("model/weights", os.urandom(MIB))
    sent_bytes(vm, "first")
    vm.write("copy", file.read_bytes())
    file.rename(vm.root / "renamed")
    assert sent_bytes(vm, "second") < TALK_BYTES
    assert set(tree_of(vm.run_folder("second").tree)) == {"copy", "renamed"}


def test_a_deleted_file_is_gone_in_the_next_run_and_stays_in_the_last(vm: Vm) -> None:
    vm.write("kept", "1")
    gone = vm.write("folder/gone", "2")
    sent_bytes(vm, "first")
    gone.unlink()
    sent_bytes(vm, "second")
    assert set(tree_of(vm.run_folder("first").tree)) == {"kept", "folder/gone"}
    assert set(tree_of(vm.run_folder("second").tree)) == {"kept"}


def test_a_workspace_without_files_can_run(vm: Vm) -> None:
    assert vm.run(vm.connect(), "true").state is State.SUCCEEDED


def test_data_is_sent_once_and_shared_read_only(vm: Vm) -> None:
    vm.write("code.py", "1")
    vm.write("data set/x.npy", os.urandom(MIB))
    vm.write("data set/deep/y.npy", b"y")
    link = vm.connect()
    command = "cat 'data set/deep/y.npy'"
    vm.finish(link, vm.start(link, command, "first", data=("data set",)))
    before = vm.wire.sent_bytes
    vm.write("code.py", "2")
    vm.finish(link, vm.start(link, command, "second", data=("data set",)))
    assert vm.wire.sent_bytes - before < TALK_BYTES
    files = [vm.run_folder(run).tree / "data set" / "x.npy" for run in ("first", "second")]
    assert vm.log("first") == vm.log("second") == b"y"
    assert files[0].stat().st_ino == files[1].stat().st_ino
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o444


def test_a_job_without_the_data_does_not_send_it(vm: Vm) -> None:
    vm.write("data/x.npy", os.urandom(MIB))
    jobs = (Job("with", "true", (), data=("data",)), Job("without", "true", ()))
    snapshot = vm.freeze(*jobs)
    assert snapshot.code.tree == {}
    assert set(snapshot.data) == {"data"}


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_an_upload_cut_at_any_byte_goes_on_from_there(vm: Vm, share: float) -> None:
    size = 24 * MIB
    content = vm.write("big", os.urandom(size)).read_bytes()
    vm.write("small", os.urandom(1000))
    with Relay(vm.server.port) as relay:
        link = vm.connect(port=relay.port)
        relay.cut_after(int(size * share))
        with pytest.raises(ConnectionLost) as raised:
            vm.start(link, "true")
        link.close()
    assert raised.value.retryable
    wait_until(lambda: not vm.pids(), "the agent has seen the cut")
    arrived = sum(file.stat().st_size for file in (vm.store / "incoming").iterdir())
    # What lay in the buffers of sockets and pipes when the line was reset is lost with them: the
    # more, the slower the VM was. What it had taken is on its disk.
    assert arrived or share < 0.9
    again = vm.connect()
    before = vm.wire.sent_bytes
    snapshot = vm.freeze(Job("job", "true", ()))
    submit(again, snapshot, (vm.mirrors.all()[0].request,), vm.told)
    # Random bytes grow by a few tenths of a percent in frames and in a stream that may not shrink.
    assert vm.wire.sent_bytes - before < (size - arrived) * 1.005 + TALK_BYTES
    vm.finish(again, vm.mirrors.all()[0])
    assert (vm.run_folder().tree / "big").read_bytes() == content


def start_in_vain(vm: Vm, link: Link) -> None:
    with pytest.raises(ConnectionLost):
        vm.start(link, "true")


def test_an_agent_whose_laptop_vanished_in_an_upload_gives_it_up(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = dict(load_sources())
    name, line = "remote.agent", "_UPLOAD_SILENCE_LIMIT_S = {}\n"
    sources[name] = sources[name].replace(line.format(60), line.format(1))
    assert line.format(1) in sources[name]
    monkeypatch.setattr("orchestrator.vm.package.load_sources", lambda: sources)
    vm.write("big", os.urandom(8 * MIB))
    with Relay(vm.server.port) as relay:
        link = vm.connect(port=relay.port)
        told = Freezing(relay)
        vm.told = told
        sending = threading.Thread(target=start_in_vain, args=(vm, link))
        sending.start()
        wait_until(lambda: told.frozen and not vm.pids("-c"), "the agent has given up")
        link.close()
        sending.join()
    vm.told = Silence()
    assert vm.run(vm.connect(), "true", run_id="second").state is State.SUCCEEDED


def test_of_two_laptops_that_send_the_same_at_once_none_spoils_the_other(vm: Vm) -> None:
    content = vm.write("big", os.urandom(4 * MIB)).read_bytes()
    links = [vm.connect(), vm.connect()]

    def send(number: int) -> None:
        # Refused, where the other's half is on the way.
        with contextlib.suppress(Refused):
            vm.start(links[number], "true", f"run{number}")

    threads = [threading.Thread(target=send, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_LIMIT_S)
    snapshot = vm.freeze(Job("job", "true", ()))
    submit(links[0], snapshot, tuple(mirror.request for mirror in vm.mirrors.all()), vm.told)
    reports = vm.finish(links[0], *vm.mirrors.all())
    assert [report.state.state for report in reports if report.state] == [State.SUCCEEDED] * 2
    for number in (0, 1):
        assert (vm.run_folder(f"run{number}").tree / "big").read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.unlink(), id="removed"),
        pytest.param(lambda file: os.truncate(file, MIB), id="cut"),
        pytest.param(lambda file: file.write_bytes(os.urandom(2 * MIB)), id="other bytes"),
    ],
)
def test_a_file_changed_while_it_is_sent_is_told(vm: Vm, change: Callable[[Path], object]) -> None:
    # Two, because the one that is open is sent to its end when it is removed.
    files = [vm.write(name, os.urandom(2 * MIB)) for name in ("it's big", "so is this")]
    vm.told = Changing(lambda: [change(file) for file in files])
    with pytest.raises(UsageError, match="was changed while it was being sent"):
        vm.start(vm.connect(), "true")
    vm.told = Silence()
    state = vm.run(vm.connect(), "true", run_id="again")
    assert state.state is State.SUCCEEDED
    assert tree_of(vm.run_folder("again").tree) == tree_of(vm.root)


def test_a_content_that_went_bad_on_the_vm_is_healed_by_the_same_again(vm: Vm) -> None:
    vm.write("file", "right")
    link = vm.connect()
    vm.run(link, "true", run_id="first")
    (spoilt,) = (vm.store / "objects").glob("*/*")
    spoilt.chmod(0o644)
    spoilt.write_text("wrong")
    state = vm.run(link, "cat file", run_id="second")
    assert state.state is State.SETUP_FAILED
    assert "changed or lost" in state.reason
    assert vm.run(link, "cat file", run_id="third").state is State.SUCCEEDED
    assert vm.log("third") == b"right"


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("[Lacking('0' * 64, 3, 0)]", id="not of the snapshot"),
        pytest.param("[Lacking('../../etc/passwd', 3, 0)]", id="a path"),
        pytest.param("[Lacking(mine, 10**9, 0)]", id="larger than it is"),
        pytest.param("[Lacking(mine, 6, -1)]", id="from before its start"),
        pytest.param("[Lacking(mine, 6, 7)]", id="from behind its end"),
        pytest.param("[Lacking(mine, 6, 0, (Span(2, 7),))]", id="a part beyond its end"),
        pytest.param("[Lacking(mine, 6, 0, (Span(4, 2),))]", id="a part that ends first"),
        pytest.param(
            "[Lacking(mine, 6, 0, (Span(3, 5), Span(1, 2)))]",
            id="parts out of order",
        ),
        pytest.param(
            "[Lacking(mine, 6, 0, (Span(1, 4), Span(3, 5)))]",
            id="parts that overlap",
        ),
        pytest.param("[Lacking(mine, 6, 3, (Span(2, 5),))]", id="a part of what it has"),
        pytest.param("[Lacking(mine, 6, 0, (Span(-1, 2),))]", id="a part before its start"),
        pytest.param("[], Span(0, 9)", id="more than there is"),
        pytest.param("[], Span(-1, 1)", id="before the first"),
        pytest.param("[], Span(0, 1), Span(0, 1)", id="the same place twice"),
        pytest.param("[Lacking(mine, 6, 1)], Span(0, 1)", id="the same content twice"),
    ],
)
def test_a_vm_that_asks_for_what_is_not_in_the_snapshot_gets_nothing(vm: Vm, wanted: str) -> None:
    vm.write("file", "secret")
    fake = vm.fake(
        f"""
digest = hear().head["args"]["requests"][0]["tree"]
say(RESULT, {{"unknown_trees": [digest]}})
mine = json.loads(zlib.decompress(hear().body))[0][3]
begun, *fresh = ({wanted},)
say(RESULT, record.encode(Wanted(tuple(fresh), tuple(begun))))
while True:
    print(hear(), file=open({str(vm.folder / "heard")!r}, "a"))
"""
    )
    with pytest.raises(AgentBroken, match="not part of the snapshot"):
        vm.start(vm.connect(python=fake), "true")
    assert not (vm.folder / "heard").exists()


def test_a_vm_that_never_has_enough_is_given_up(vm: Vm) -> None:
    fake = vm.fake(
        """
while True:
    call = hear()
    if call.head["op"] == "submit":
        say(RESULT, {"unknown_trees": [call.head["args"]["requests"][0]["tree"]]})
    else:
        say(RESULT, {"fresh": [], "begun": []})
"""
    )
    with pytest.raises(Refused, match="keeps losing"):
        vm.start(vm.connect(python=fake), "true")


@pytest.mark.parametrize("tries", [1, 3])
def test_a_vm_that_has_enough_in_the_end_has_started_the_runs(vm: Vm, tries: int) -> None:
    fake = vm.fake(
        f"""
submitted = 0
while True:
    call = hear()
    if call.head["op"] == "submit":
        submitted += 1
        tree = call.head["args"]["requests"][0]["tree"]
        say(RESULT, {{"unknown_trees": [tree] if submitted <= {tries} else []}})
    else:
        say(RESULT, {{"fresh": [], "begun": []}})
"""
    )
    vm.start(vm.connect(python=fake), "true")


def test_an_agent_that_breaks_while_it_takes_files_says_so_itself(vm: Vm) -> None:
    vm.write("file", "x")
    fake = vm.fake(
        """
tree = hear().head["args"]["requests"][0]["tree"]
say(RESULT, {"unknown_trees": [tree]})
hear()
say(RESULT, record.encode(Wanted((Span(0, 1),), ())))
say(REFUSAL, record.encode(No("bug", "KeyError('x')", trace="in receive")))
say(RESULT, {})
say(RESULT, {"unknown_trees": []})
while True:
    hear()
"""
    )
    with pytest.raises(AgentBroken, match="KeyError"):
        vm.start(vm.connect(python=fake), "true")


def test_a_tree_that_was_not_offered_cannot_be_completed(vm: Vm) -> None:
    link = vm.connect()
    with pytest.raises(Refused, match="not offered"):
        link.call(Complete("0" * 64), Done)
    assert link.call(ListRuns(), News).reports == ()


def test_an_upload_that_is_refused_is_read_to_its_end(vm: Vm) -> None:
    link = vm.connect()
    link.begin_upload(
        Upload((Lacking("../../etc/passwd", 9, 0),)), [b"x" * MIB], Pace(is_bound=True)
    )
    with pytest.raises(Refused) as raised:
        link.end_call(Done)
    assert raised.value.code == "damaged"
    assert link.call(ListRuns(), News).reports == ()


class Freezing(Silence):
    """Stops the line at the first progress."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.frozen = False

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        if "sending" in text and done > 6 * MIB:
            self._relay.freeze()
            self.frozen = True


class Changing(Silence):
    """Does something once, at the first progress."""

    def __init__(self, change: Callable[[], object]) -> None:
        self._changes = [change]

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        if "sending" in text and self._changes:
            self._changes.pop()()
