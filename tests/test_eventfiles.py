"""Event files come home as they grow: TensorBoard keeps a file open, so none is ever replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AgentBroken
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.screen.tell import Silence
from orchestrator.trackers import eventfiles
from orchestrator.trackers.eventfiles import EventFiles, copy_events, has_events
from orchestrator.vm.link import Link
from remote import events
from remote.events import ANSWER_LIMIT_BYTES
from remote.protocol import Events, Piece
from remote.runfolder import RunFolder, RunRequest
from tests.servers import SshServer
from tests.vm import Told, Vm, practice

OURS = "fit-1/train/events.out.tfevents.1.vm.2"
THEIRS = "my logs/events.out.tfevents.3.vm.4"


@pytest.fixture
def vm(embedded_server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(embedded_server, tmp_path) as vm:
        yield vm


@pytest.fixture
def run(vm: Vm) -> tuple[Vm, Link, Mirror]:
    """A run that has ended, into whose folder on the VM a test writes."""
    link = vm.connect()
    mirror = vm.start(link, "true")
    vm.finish(link, mirror)
    return vm, link, mirror


def write(vm: Vm, name: str, content: bytes) -> Path:
    root = vm.run_folder().events if name.startswith("fit-") else vm.run_folder().tree
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def copied(mirror: Mirror) -> dict[str, bytes]:
    folder = mirror.folder / "events"
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_grow_where_they_are(run: tuple[Vm, Link, Mirror]) -> None:
    vm, link, mirror = run
    copy_events(link, mirror, Silence())
    assert not has_events(mirror)

    write(vm, OURS, b"one")
    write(vm, THEIRS, b"1")
    copy_events(link, mirror, Silence())
    with (mirror.folder / "events" / OURS).open("rb") as opened:
        assert opened.read() == b"one"
        write(vm, OURS, b"one two")
        copy_events(link, mirror, Silence())
        assert opened.read() == b" two"

    assert copied(mirror) == {OURS: b"one two", THEIRS: b"1"}
    assert has_events(mirror)


def test_a_folder_may_have_the_mark_of_a_further_beginning_in_its_name(
    run: tuple[Vm, Link, Mirror],
) -> None:
    vm, link, mirror = run
    name = "logs~1/events.out.tfevents.3.vm.4"
    path = write(vm, name, b"first")
    copy_events(link, mirror, Silence())
    path.write_bytes(b"first and more")
    copy_events(link, mirror, Silence())

    assert copied(mirror) == {name: b"first and more"}
    # Else all of it would come again each time.
    assert [have.name for have in EventFiles(mirror).have()] == [name]


def test_a_file_begun_anew_is_another_file_here(run: tuple[Vm, Link, Mirror]) -> None:
    vm, link, mirror = run
    for content in (b"a long one", b"short", b"short, grown", b"other, grown", b"other, grown!"):
        write(vm, OURS, content)
        copy_events(link, mirror, Silence())

    assert copied(mirror) == {
        OURS: b"a long one",
        f"{OURS}~1": b"short, grown",
        f"{OURS}~2": b"other, grown!",
    }


def test_what_is_more_than_an_answer_comes_in_several(run: tuple[Vm, Link, Mirror]) -> None:
    vm, link, mirror = run
    large = bytes(range(256)) * (ANSWER_LIMIT_BYTES // 256) * 2 + b"end"
    write(vm, OURS, large)
    write(vm, THEIRS, b"small")

    copy_events(link, mirror, Silence())

    assert copied(mirror) == {OURS: large, THEIRS: b"small"}


def test_only_the_runs_own_event_files_are_told(run: tuple[Vm, Link, Mirror]) -> None:
    vm, link, mirror = run
    write(vm, "notes.txt", b"no event file")
    write(vm, f"{THEIRS}~", b"an editor's copy")
    write(vm, "a\nline/events.out.tfevents.1", b"a name that would be two lines")
    elsewhere = vm.folder / "shared data"
    elsewhere.mkdir()
    (elsewhere / "events.out.tfevents.1").write_bytes(b"not the run's")
    (vm.run_folder().tree / "data").symlink_to(elsewhere)
    (vm.run_folder().tree / "events.out.tfevents.9").symlink_to("/etc/passwd")

    copy_events(link, mirror, Silence())

    assert copied(mirror) == {}


def test_beyond_a_limit_the_rest_stays_there_and_that_is_said(
    run: tuple[Vm, Link, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, link, mirror = run
    monkeypatch.setattr(eventfiles, "LIMIT_BYTES", ANSWER_LIMIT_BYTES)
    write(vm, OURS, bytes(3 * ANSWER_LIMIT_BYTES))
    told = Told()

    copy_events(link, mirror, told)

    assert EventFiles(mirror).size_bytes == ANSWER_LIMIT_BYTES
    assert "stays on the VM" in str(told.warnings)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirrors(tmp_path).make(RunRequest("run", "job", "0" * 64, "true"))


@pytest.mark.parametrize(
    "name",
    [
        "../events.out.tfevents.1",
        "/tmp/events.out.tfevents.1",
        "a/../../tfevents",
        "tfevents/../../log",
        "log",
        "a/tfevents~1",
        "tfevents\x1b[2J",
        "tfevents\udcff\n",
        "",
    ],
)
def test_a_name_that_no_event_file_has_is_refused(mirror: Mirror, name: str) -> None:
    with pytest.raises(AgentBroken):
        EventFiles(mirror).add(Piece("run", name, 0, 1), b"x")

    assert copied(mirror) == {}


@pytest.mark.parametrize(
    "piece", [Piece("run", OURS, 5, 1), Piece("run", OURS, -1, 1), Piece("other", OURS, 3, 1)]
)
def test_a_piece_that_was_not_asked_for_is_refused(mirror: Mirror, piece: Piece) -> None:
    files = EventFiles(mirror)
    files.add(Piece("run", OURS, 0, 3), b"abc")

    with pytest.raises(AgentBroken):
        files.add(piece, b"x")

    assert copied(mirror) == {OURS: b"abc"}


def test_a_file_inside_a_file_is_refused(mirror: Mirror) -> None:
    files = EventFiles(mirror)
    files.add(Piece("run", "tfevents", 0, 1), b"x")

    with pytest.raises(AgentBroken, match="inside another"):
        files.add(Piece("run", "tfevents/tfevents", 0, 1), b"x")


def test_of_more_files_than_are_taken_those_go_on_that_came_first(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (eventfiles, events):
        monkeypatch.setattr(module, "FILES_LIMIT", 2)
    folder = RunFolder(tmp_path / "run")
    for place in (folder.tree, folder.events):
        place.mkdir(parents=True)

    def look(*names: str) -> list[str]:
        """Names of what came, after each of these has grown by a byte."""
        for name in names:
            # Those before b are in the folder that is looked into first.
            place = folder.events if name < "b" else folder.tree
            with (place / f"{name}.tfevents").open("ab") as file:
                file.write(b"x")
        files = EventFiles(mirror)
        news, _ = events.read_events(folder, Events("run", files.have()))
        for piece in news.pieces:
            files.add(piece, b"x" * piece.size_bytes)
        return [piece.name[0] for piece in news.pieces]

    assert look("b") == ["b"]
    assert look("c", "d") == ["c"]
    assert look("A", "a", "b", "c", "d") == ["b", "c"]
    assert copied(mirror) == {"b.tfevents": b"xx", "c.tfevents": b"xx"}


def test_more_files_than_anybody_writes_are_refused(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventfiles, "FILES_LIMIT", 1)
    files = EventFiles(mirror)
    files.add(Piece("run", OURS, 0, 1), b"x")
    files.add(Piece("run", OURS, 1, 1), b"y")

    with pytest.raises(AgentBroken):
        files.add(Piece("run", THEIRS, 0, 1), b"x")
