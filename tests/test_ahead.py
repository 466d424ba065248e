"""What goes along with a submission: enough for the usual change, and never relied upon."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import Refused
from orchestrator.plan import Overrides, make_request
from orchestrator.settings.spec import Job
from orchestrator.source.snapshot import Snapshot
from orchestrator.vm.ahead import Ahead, LastSent, look_ahead
from orchestrator.vm.sync import submit
from remote.protocol import Done, Lacking, Offer, Patch, Submit
from remote.runfolder import State
from remote.tree import FILE, Entry, digest_of, encode_tree
from tests.servers import SshServer
from tests.vm import Told, Vm, practice

JOB = Job("job", "cat one 'dir/a name'", (), gpus=0, metrics=False)


@pytest.fixture
def vm(server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(server, tmp_path) as vm:
        vm.write("one", "1\n")
        vm.write("dir/a name", "a\n")
        vm.write("gone", "soon")
        yield vm


@pytest.fixture
def last(vm: Vm) -> LastSent:
    return LastSent(vm.root / ".train" / "sent" / "vm")


def launch(vm: Vm, last: LastSent, run_id: str) -> tuple[Snapshot, Ahead]:
    """As the round trip does it; the run succeeds."""
    snapshot = vm.freeze(JOB)
    request = make_request(JOB, vm.remote, snapshot, Overrides(), run_id)
    mirror = vm.mirrors.make(request)
    ahead = look_ahead(snapshot, (request,), last)
    link = vm.connect(ahead=ahead.calls)
    submit(link, snapshot, (request,), vm.told, ahead)
    last.keep(snapshot.code)
    (report,) = vm.finish(link, mirror)
    assert report.state is not None
    assert report.state.state is State.SUCCEEDED
    return snapshot, ahead


def calls_of(ahead: Ahead) -> list[type]:
    return [type(call) for call, _ in ahead.calls]


def test_with_the_first_submission_goes_the_question_what_is_lacking(
    vm: Vm, last: LastSent
) -> None:
    _, ahead = launch(vm, last, "first")
    assert calls_of(ahead) == [Offer, Submit]
    assert vm.wire.calls == ["upload", "complete", "submit", "watch", *vm.wire.calls[4:]]


def test_a_tree_that_the_vm_holds_is_not_sent_by_a_laptop_that_forgot_it(
    vm: Vm, last: LastSent
) -> None:
    launch(vm, last, "first")
    last.file.unlink()
    _, ahead = launch(vm, last, "second")
    assert calls_of(ahead) == [Offer, Submit]
    assert set(vm.wire.calls) == {"watch"}


def test_a_long_question_is_not_asked_before_the_vm_has_said_a_word(
    vm: Vm, last: LastSent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.vm.ahead._SIZE_LIMIT_BYTES", 50)
    _, ahead = launch(vm, last, "first")
    assert calls_of(ahead) == [Submit]
    assert vm.wire.calls[:2] == ["offer", "upload"]


def test_runs_that_were_started_are_told_as_such_whatever_the_question_came_to(
    vm: Vm, last: LastSent
) -> None:
    fake = vm.fake(
        """
hear(), hear()
say(REFUSAL, record.encode(No("disk-full", "no space")))
say(RESULT, {"unknown_trees": []})
while True:
    hear()
"""
    )
    snapshot = vm.freeze(JOB)
    request = make_request(JOB, vm.remote, snapshot, Overrides(), "run")
    ahead = look_ahead(snapshot, (request,), last)
    assert calls_of(ahead) == [Offer, Submit]
    submit(vm.connect(python=fake), snapshot, (request,), vm.told, ahead)


def test_an_unchanged_tree_needs_no_call_after_the_connection(vm: Vm, last: LastSent) -> None:
    launch(vm, last, "first")
    _, ahead = launch(vm, last, "second")
    assert calls_of(ahead) == [Submit]
    assert set(vm.wire.calls) == {"watch"}


def test_what_changed_goes_along(vm: Vm, last: LastSent) -> None:
    launch(vm, last, "first")
    vm.write("one", "2\n")
    vm.write("dir/ñ 'new'\n", "new")
    vm.write("copy", "a\n")
    (vm.root / "gone").unlink()
    (vm.root / "link").symlink_to("one")
    vm.told = told = Told()
    _, ahead = launch(vm, last, "second")
    assert calls_of(ahead) == [Patch, Submit]
    assert set(vm.wire.calls) == {"watch"}
    assert told.steps == ["synced code: sent 2 of 5 files, 5 B"]
    tree = vm.run_folder("second").tree
    assert {path.name: path.read_text() for path in tree.rglob("*") if path.is_file()} == {
        "one": "2\n",
        "a name": "a\n",
        "ñ 'new'\n": "new",
        "copy": "a\n",
        "link": "2\n",
    }
    assert str((tree / "link").readlink()) == "one"


def test_a_file_that_becomes_a_folder_goes_along(vm: Vm, last: LastSent) -> None:
    launch(vm, last, "first")
    (vm.root / "gone").unlink()
    vm.write("gone/below", "x")
    _, ahead = launch(vm, last, "second")
    assert calls_of(ahead) == [Patch, Submit]
    assert set(vm.wire.calls) == {"watch"}
    assert (vm.run_folder("second").tree / "gone" / "below").read_text() == "x"


@pytest.mark.parametrize("size", [128 * 2**10 + 1, 2**20])
def test_much_is_not_sent_unasked(vm: Vm, last: LastSent, size: int) -> None:
    launch(vm, last, "first")
    vm.write("one", os.urandom(size))
    _, ahead = launch(vm, last, "second")
    assert calls_of(ahead) == [Offer, Submit]
    assert not ahead.told.startswith("synced")


def test_a_last_tree_that_cannot_be_remembered_is_no_trouble(vm: Vm, last: LastSent) -> None:
    last.file.parent.parent.mkdir(exist_ok=True)
    last.file.parent.write_text("in the way")
    for number in range(2):
        _, ahead = launch(vm, last, f"run{number}")
        assert calls_of(ahead) == [Offer, Submit]


def test_a_vm_that_lost_the_last_tree_is_sent_all(vm: Vm, last: LastSent) -> None:
    first, _ = launch(vm, last, "first")
    (vm.store / "snapshots" / f"{first.code.digest}.json").unlink()
    for path in (vm.store / "objects").glob("*/*"):
        path.unlink()
    vm.write("one", "2\n")
    vm.told = told = Told()
    launch(vm, last, "second")
    assert told.steps == ["synced code: sent 3 of 3 files, 8 B"]


@pytest.mark.parametrize("content", [b"", b"x" * 64, b"0" * 64 + b"junk", b"\xff" * 200])
def test_a_memory_that_is_spoilt_is_none(vm: Vm, last: LastSent, content: bytes) -> None:
    launch(vm, last, "first")
    last.file.write_bytes(content)
    _, ahead = launch(vm, last, "second")
    assert calls_of(ahead) == [Offer, Submit]


def test_a_memory_that_is_wrong_costs_a_question(vm: Vm, last: LastSent) -> None:
    snapshot, _ = launch(vm, last, "first")
    entry = Entry(FILE, 3, "0" * 64, False)
    manifest = encode_tree({**snapshot.code.tree, "x": entry})
    last.file.write_bytes(digest_of(manifest).encode() + zlib.compress(manifest))
    _, ahead = launch(vm, last, "second")
    assert calls_of(ahead) == [Patch, Submit]
    assert set(vm.wire.calls) == {"watch"}


def test_changes_that_do_not_fit_are_refused(vm: Vm, last: LastSent) -> None:
    snapshot, _ = launch(vm, last, "first")
    vm.write("one", "2\n")
    _, ahead = launch(vm, last, "second")
    (patch, body), _ = ahead.calls
    assert isinstance(patch, Patch)
    (vm.store / "theirs.json").write_text("not a tree")
    below = encode_tree({"one/below": Entry(FILE, 2, "0" * 64, False)}).decode()
    link = vm.connect()
    for wrong in (
        patch._replace(digest="0" * 64),
        patch._replace(base="0" * 64),
        patch._replace(base="../theirs"),
        patch._replace(gone=("dir/a name",)),
        patch._replace(changed="[]"),
        patch._replace(changed="ñ"),
        patch._replace(changed=below),
        patch._replace(objects=(Lacking("../x", 2, 0),)),
        patch._replace(objects=(Lacking("0" * 64, 2, 0),)),
    ):
        with pytest.raises(Refused):
            link.call(wrong, Done, body)
    with pytest.raises(Refused):
        link.call(patch, Done, body[:4])
    with pytest.raises(Refused):
        link.call(patch, Done, zlib.compress(b"3\n"))
    assert link.call(patch, Done, body) == Done()
    assert snapshot.code.digest == patch.base
    assert (vm.store / "theirs.json").exists()
