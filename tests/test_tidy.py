"""What nothing needs may go; what anybody needs stays, whatever happens meanwhile.

Time is moved for `tidy` alone; nothing here waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from remote import clock
from remote.atomic import replace_file
from remote.lock import take
from remote.protocol import Heap, Submitted
from remote.record import to_bytes
from remote.runfolder import DataFolder, RunFolder, RunRequest, RunState, State
from remote.runs import start_runs
from remote.store import Store, StoreTrouble
from remote.tidy import tidy
from remote.tree import digest_of, encode_tree
from tests.forks import fork, killed_at_each_step
from tests.test_store import BY_SHA, CONTENTS, DIGEST, assert_true, send, stream, tree_of

OTHER_TREE = tree_of({"only here": b"print('hello')\n"})
OTHER = digest_of(encode_tree(OTHER_TREE))

Later = Callable[[float], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With two trees, one of them shared as data, an environment, and parts of each."""
    store = Store(tmp_path / "store")
    send(store)
    store.complete(encode_tree(OTHER_TREE), store.lacking(OTHER_TREE))
    store.share_tree(DIGEST)
    for name in ["complete", "cut"]:
        (store.root / "envs" / name / "bin").mkdir(parents=True)
        (store.root / "envs" / name / "bin" / "python").write_text("#!/bin/sh\n")
    (store.root / "envs" / "complete" / ".complete").touch()
    for place in ["incoming/.tmp-1", "incoming/" + "ab" * 32, "snapshots/.tmp-2"]:
        (store.root / place).write_text("part")
    for place in ["data/.tmp-3", "runs/.tmp-4"]:
        (store.root / place).mkdir()
    return store


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    def move(days: float) -> None:
        now = time.time() + days * 86400
        monkeypatch.setattr("remote.tidy.time", SimpleNamespace(time=lambda: now))

    return move


def add_run(store: Store, run_id: str, state: State | None, digest: str = DIGEST) -> RunFolder:
    folder = RunFolder(store.runs / run_id)
    folder.path.mkdir()
    data = (DataFolder("data", DIGEST),) if digest != DIGEST else ()
    request = RunRequest(run_id, "job", digest, "true", data=data, gpus=0)
    folder.request.write_bytes(to_bytes(request))
    if state is not None:
        ended_at = clock.now() if state.final else None
        replace_file(folder.state, to_bytes(RunState(state, clock.now(), ended_at=ended_at)))
    return folder


@contextmanager
def alive(folder: RunFolder) -> Iterator[None]:
    lock = take(folder.lock)
    assert lock is not None
    yield
    os.close(lock)


def heaps(store: Store, keep_days: float = 7, *, drop: bool = True) -> dict[str, Heap]:
    return {heap.kind: heap for heap in tidy(store, keep_days, drop=drop).heaps}


def dropped(store: Store, keep_days: float = 7) -> dict[str, int]:
    return {kind: heap.droppable for kind, heap in heaps(store, keep_days).items()}


def everything(store: Store) -> set[str]:
    return {str(path) for path in store.root.rglob("*")}


NOTHING = dict.fromkeys(("runs", "snapshots", "data", "environments", "agents", "contents"), 0)


def test_what_came_today_stays(store: Store, later: Later) -> None:
    add_run(store, "run", State.SUCCEEDED)
    later(0.9)
    assert dropped(store) == NOTHING
    assert_true(store)


def test_what_no_run_needs_goes_after_a_day_and_environments_when_they_are_as_old_as_runs(
    store: Store, later: Later
) -> None:
    later(1.1)
    assert dropped(store) == {**NOTHING, "snapshots": 3, "data": 2, "contents": 6}
    assert not store.has_tree(DIGEST)
    assert not list((store.root / "objects").glob("*/*"))
    later(7.1)
    assert dropped(store) == {**NOTHING, "runs": 1, "environments": 2}
    assert dropped(store) == NOTHING


def test_an_agent_goes_when_no_laptop_of_its_version_came_for_as_long(
    store: Store, later: Later
) -> None:
    (store.root / "agents").mkdir()
    for name in ("old", "present"):
        (store.root / "agents" / name).write_bytes(b"code")
    later(6.9)
    assert dropped(store)["agents"] == 0
    later(7.1)
    now = time.time() + 7.1 * 86400
    os.utime(store.root / "agents" / "present", (now, now))
    assert dropped(store)["agents"] == 1
    assert [path.name for path in (store.root / "agents").iterdir()] == ["present"]


def test_a_run_that_ended_lately_keeps_its_trees_data_and_contents(
    store: Store, later: Later
) -> None:
    add_run(store, "run", State.SUCCEEDED, OTHER)
    later(6.9)
    assert dropped(store) == {**NOTHING, "snapshots": 1, "data": 1, "contents": 2}
    assert_true(store)
    assert store.snapshot_path(OTHER).exists()
    later(7.1)
    gone = {"runs": 2, "snapshots": 2, "data": 1, "environments": 2, "contents": 4}
    assert dropped(store) == {**NOTHING, **gone}


def test_a_content_stays_while_one_tree_that_stays_names_it(store: Store, later: Later) -> None:
    add_run(store, "run", State.SUCCEEDED, OTHER)
    store.snapshot_path(DIGEST).unlink()
    later(2)
    heaps(store)
    assert [path.read_bytes() for path in (store.root / "objects").glob("*/*")] == [
        CONTENTS["train.py"]
    ]


@pytest.mark.parametrize("state", [None, State.QUEUED, State.RUNNING, State.SUCCEEDED])
def test_a_run_that_lives_keeps_all_it_needs_however_old(
    store: Store, later: Later, state: State | None
) -> None:
    folder = add_run(store, "run", state)
    (store.root / "envs" / "complete" / ".complete").touch()
    later(400)
    with alive(folder):
        gone = dropped(store, keep_days=0)
    assert gone["environments"] == 1  # the one that was cut
    assert folder.request.exists()
    assert store.has_tree(DIGEST)
    assert (store.root / "data" / DIGEST).exists()
    assert_true(store)


def test_a_dead_run_goes_with_age(store: Store, later: Later) -> None:
    for state in [None, State.QUEUED, State.RUNNING]:
        add_run(store, f"run-{state}".replace(".", "-"), state)
    later(6.9)
    assert dropped(store)["runs"] == 0
    later(7.1)
    assert dropped(store)["runs"] == 4


def test_a_run_whose_state_cannot_be_read_stays(store: Store, later: Later) -> None:
    folder = add_run(store, "run", State.RUNNING)
    folder.state.write_bytes(b"{")
    later(400)
    heaps(store)
    assert folder.path.exists()


def test_a_dry_run_says_the_same_and_drops_nothing(store: Store, later: Later) -> None:
    add_run(store, "run", State.FAILED)
    later(8)
    before = everything(store)
    said = heaps(store, drop=False)
    assert everything(store) == before
    assert said["contents"].droppable == said["contents"].count == 6
    total = sum(map(len, BY_SHA.values()))
    assert said["contents"].droppable_bytes == said["contents"].size_bytes == total + 8
    assert heaps(store, drop=True) == said
    assert heaps(store)["contents"] == Heap("contents", 0, 0, 0, 0)


def test_a_tree_that_was_asked_for_stays_for_a_day(store: Store, later: Later) -> None:
    later(2)
    for path in [store.snapshot_path(DIGEST), store.root / "data" / DIGEST]:
        os.utime(path, (0, 0))
    store.has_tree(DIGEST)
    store.share_tree(DIGEST)
    later(0.5)
    heaps(store)
    assert store.has_tree(DIGEST)
    assert (store.root / "data" / DIGEST).exists()


def test_a_run_whose_outputs_are_not_on_the_laptop_stays_with_all_it_needs(
    store: Store, later: Later
) -> None:
    wanted = add_run(store, "wanted", State.SUCCEEDED)
    pulled = add_run(store, "pulled", State.SUCCEEDED)
    later(30)
    assert tidy(store, 7, drop=True, home=("pulled", "unknown")).kept == ("wanted",)
    assert wanted.path.exists()
    assert not pulled.path.exists()
    assert store.has_tree(DIGEST)


def test_spoilt_data_stays_for_the_runs_that_are_at_work_in_it(store: Store, later: Later) -> None:
    victim = store.root / "data" / DIGEST / "train.py"
    victim.chmod(0o644)
    victim.write_text("mine now")
    with pytest.raises(StoreTrouble):
        store.share_tree(DIGEST)
    send(store)
    run = add_run(store, "run", None, OTHER)
    with alive(run):
        later(30)
        heaps(store)
        (spoilt,) = (store.root / "data").glob(".spoilt-*")
        assert (spoilt / "train.py").read_text() == "mine now"
    heaps(store)
    assert not run.path.exists()
    assert not spoilt.exists()


def test_offered_contents_stay_until_the_rest_has_come(store: Store, later: Later) -> None:
    # Old, named by no tree: then a laptop asks what of its tree is lacking.
    store.snapshot_path(DIGEST).unlink()
    store.snapshot_path(OTHER).unlink()
    asked = {path: path.stat().st_ctime_ns for path in (store.root / "objects").glob("*/*")}
    part = store.root / "incoming" / ("ab" * 32)
    os.utime(part, (0, 0))
    time.sleep(0.02)  # the kernel's clock for files ticks every 4 to 10 ms
    store.lacking(tree_of({"a": b"x", **CONTENTS}))
    assert all(path.stat().st_ctime_ns > then for path, then in asked.items())
    assert not store.lacking(tree_of(CONTENTS))


def test_files_that_vanish_or_cannot_be_removed_from_are_no_trouble(
    store: Store, later: Later
) -> None:
    folder = add_run(store, "run", State.SUCCEEDED)
    (folder.tree / "locked").mkdir(parents=True)
    (folder.tree / "locked" / "model.h5").touch()
    (folder.tree / "locked").chmod(0o500)
    (folder.tree / "data").symlink_to(store.root / "data" / DIGEST)
    (folder.tree / "gone").symlink_to("nowhere")
    later(8)
    incoming = store.root / "incoming" / ".tmp-1"
    hasty = Store(store.root, lambda: incoming.unlink(missing_ok=True))
    heaps(hasty)
    assert not folder.path.exists()


def test_killed_at_any_step_of_dropping_nothing_half_is_left_in_use(
    store: Store, later: Later, tmp_path: Path
) -> None:
    later(8)

    def refill(step: int) -> None:
        for wanted in [store.lacking(tree_of(CONTENTS))]:
            store.receive(wanted, stream(wanted))
        store.complete(encode_tree(tree_of(CONTENTS)), store.lacking(tree_of(CONTENTS)))
        store.share_tree(DIGEST)
        if not (store.runs / "run").exists():
            (add_run(store, "run", State.SUCCEEDED).tree / "a").mkdir(parents=True)

    for _ in killed_at_each_step(lambda step: tidy(store, 7, drop=True), refill):
        assert_true(store)
        run = RunFolder(store.runs / "run")
        assert not run.path.exists() or (run.request.exists() and run.state.exists())
        environment = store.root / "envs" / "complete"
        assert not environment.exists() or (environment / "bin" / "python").exists()
    later(30)
    heaps(store)
    folders = {"objects", "incoming", "snapshots", "data", "envs", "queue", "runs", "locks"}
    left = {path.relative_to(store.root).parts[0] for path in store.root.rglob("*")}
    assert left == folders
    assert not list(store.root.rglob(".tmp-*"))


def ask_for_tree(store: Store) -> None:
    if store.has_tree(DIGEST):
        (store.root / "answer").write_text("the tree is there")


def offer_tree(store: Store) -> None:
    if not store.lacking(tree_of(CONTENTS)):
        (store.root / "answer").write_text("the contents are there")


def use_data(store: Store) -> None:
    try:
        store.share_tree(DIGEST)
    except StoreTrouble:
        return
    (store.root / "answer").write_text("the data is there")


def use_environment(store: Store) -> None:
    if store.touch(store.root / "envs" / "complete" / ".complete"):
        (store.root / "answer").write_text("the environment is there")


def start_again(store: Store) -> None:
    request = RunRequest("run", "job", DIGEST, "true", gpus=0)
    if start_runs(store, (request,), b"") == Submitted(()):
        (store.root / "answer").write_text("the run is there")


@pytest.mark.parametrize("ask", [ask_for_tree, offer_tree, use_data, use_environment, start_again])
def test_what_is_asked_for_while_it_is_tidied_waits_and_is_told_the_truth(
    store: Store, later: Later, ask: Callable[[Store], None]
) -> None:
    add_run(store, "run", None)
    root = store.root
    waiting, go = os.pipe()

    def wait_and_ask() -> None:
        os.read(waiting, 1)
        ask(Store(root))

    # Started before, because what is forked from one who holds a lock holds it, too.
    child = fork(wait_and_ask)
    ticks = []

    def tick() -> None:
        """In the middle of tidying somebody else comes, and has time enough to be answered."""
        ticks.append(1)
        if len(ticks) == 3:
            os.write(go, b"x")
            end = time.monotonic() + 0.3
            while time.monotonic() < end and not (root / "answer").exists():
                time.sleep(0.01)

    later(8)
    heaps(Store(root, tick))
    assert os.waitpid(child, 0)[1] == 0
    os.close(waiting)
    os.close(go)
    answer = (root / "answer").read_text() if (root / "answer").exists() else ""
    present = {
        "": True,
        "the tree is there": store.snapshot_path(DIGEST).exists(),
        "the contents are there": bool(list((root / "objects").glob("*/*"))),
        "the data is there": (root / "data" / DIGEST).exists(),
        "the environment is there": (root / "envs" / "complete" / ".complete").exists(),
        "the run is there": (root / "runs" / "run" / "request.json").exists(),
    }
    assert present[answer], f"{answer} was said, and then it was gone"
    assert_true(store)


def test_a_dead_run_does_not_go_while_it_is_being_started_again(
    store: Store, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(store, "run", None)
    waiting, go = os.pipe()

    def take_late(path: Path) -> int | None:
        os.write(go, b"x")
        end = time.monotonic() + 0.3
        while time.monotonic() < end and path.parent.exists():
            time.sleep(0.01)
        return take(path)

    monkeypatch.setattr("remote.runs.take", take_late)
    starter = fork(lambda: start_again(store))
    os.read(waiting, 1)
    later(8)
    heaps(store)
    assert os.waitpid(starter, 0)[1] == 0
    assert (store.root / "answer").read_text() == "the run is there"
    os.close(waiting)
    os.close(go)
