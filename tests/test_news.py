"""What the agent tells of runs, from their folders alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.screen.tell import Silence
from orchestrator.vm.follow import Follower
from orchestrator.vm.link import Link
from remote import clock
from remote.lock import take
from remote.protocol import News, Offsets, Watch, share_of_head
from remote.record import from_bytes, to_bytes
from remote.restart import read_restarts
from remote.runfolder import Artifact, Artifacts, RunFolder, RunRequest, RunState, State
from remote.runs import watch
from remote.store import Store
from tests.vm import Told


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", lambda: None)


def run(store: Store, run_id: str, state: State, restarts: int = 0) -> RunFolder:
    """A run that nobody supervises, with one line of log and, if it has ended, one output."""
    folder = RunFolder(store.runs / run_id)
    folder.path.mkdir()
    request = RunRequest(run_id, "job", "0" * 64, "true", ("out",), restarts=restarts)
    folder.request.write_bytes(to_bytes(request))
    ended_at = clock.now() if state.final else None
    boot_id = clock.boot_id()
    folder.state.write_bytes(to_bytes(RunState(state, clock.now(), boot_id, ended_at=ended_at)))
    if state.final:
        folder.artifacts.write_bytes(to_bytes(Artifacts((Artifact("out", 1, "0" * 64),))))
    folder.log.write_bytes(b"a line\n")
    return folder


def look(store: Store, *run_ids: str) -> tuple[News, bytes]:
    return watch(store, Watch(tuple(Offsets(run_id) for run_id in run_ids)))


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["remote.runs.counted_restart", "remote.runs.subprocess.Popen"])
def test_a_run_that_cannot_be_restarted_now_keeps_nothing_of_the_others_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    interrupted = run(store, "interrupted", State.RUNNING, restarts=3)
    run(store, "done", State.SUCCEEDED)
    monkeypatch.setattr(step, full)
    for _ in range(5):
        news, body = look(store, "interrupted", "done")
        waiting, done = news.reports
        assert (waiting.alive, done.alive) == (True, False)
        assert waiting.state is not None
        assert waiting.state.state is State.RUNNING
        assert waiting.state.reason.startswith("cannot be restarted yet: no space left")
        assert body == b"a line\n" * 2
    assert read_restarts(interrupted) == 0


class Direct:
    """A link to an agent that is a call of a function."""

    name = "far"
    clock_off_s = 0.0

    def __init__(self, store: Store) -> None:
        self.store = store
        self.hello = self
        self.boot_id = clock.boot_id()
        self.answers: list[int] = []

    def call_for_body(self, call: Watch, kind: type[News]) -> tuple[News, bytes]:
        news, body = watch(self.store, call)
        self.answers.append(len(news.reports))
        return news, body


def test_runs_with_more_outputs_than_one_answer_can_name_are_told_one_after_the_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By the names of their outputs: two of these fill an answer.
    monkeypatch.setattr("remote.runs.LIMIT_SHARE", 2.5 * share_of_head(["out"]))
    mirrors = Mirrors(tmp_path / ".train")
    mine: list[Mirror] = []
    for number in range(5):
        folder = run(store, f"job-{number}", State.SUCCEEDED)
        folder.log.unlink()
        request = RunRequest(folder.path.name, "job", "0" * 64, "true", ("out",))
        mine.append(mirrors.make(request))
    link: Any = Direct(store)
    ended: list[Link] = []

    def lost() -> Link:
        raise AssertionError("nothing is lost here")

    Follower(lost, mine, Silence(), lambda link, _: ended.append(link)).catch_up(link)
    assert link.answers == [2, 2, 1]
    assert len(ended) == 5
    assert all(mirror.ended for mirror in mine)


def test_of_runs_that_go_on_as_the_laptop_has_seen_them_nothing_is_told(store: Store) -> None:
    runs = [run(store, name, State.RUNNING) for name in ("one", "other", "third")]
    locks = [take(folder.lock) or 0 for folder in runs]
    seen, _ = look(store, "one", "other", "third")
    asked = [Offsets(report.run_id, 7, seen=report.stamp) for report in seen.reports]

    assert watch(store, Watch(tuple(asked))) == (News((), (), ()), b"")
    with runs[1].log.open("ab") as log:
        log.write(b"more")
    assert watch(store, Watch(tuple(asked)))[1] == b"more"
    os.close(locks.pop())
    assert [report.run_id for report in watch(store, Watch(tuple(asked)))[0].reports] == ["third"]
    for lock in locks:
        os.close(lock)


def test_of_many_runs_it_is_told_how_many_stand_where(store: Store, tmp_path: Path) -> None:
    mirrors = Mirrors(tmp_path / ".train")
    mine = []
    for number in range(7):
        folder = run(store, f"job-{number}", State.RUNNING if number < 2 else State.QUEUED)
        mine.append(mirrors.make(from_bytes(RunRequest, folder.request.read_bytes())))
    locks = [take(RunFolder(store.runs / mirror.run_id).lock) or 0 for mirror in mine]
    link: Any = Direct(store)
    told = Told()

    def lost() -> Link:
        raise AssertionError("nothing is lost here")

    Follower(lost, mine, told, lambda link, _: None).catch_up(link)
    assert told.doings[-1] == "following 7 runs: 2 running, 5 queued"
    Follower(lost, mine[:3], told, lambda link, _: None).catch_up(link)
    assert told.doings[-1] == "job running, job running, job queued"
    for lock in locks:
        os.close(lock)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def note(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fdatasync", note)
    return names


@pytest.mark.parametrize(("restarts", "expected"), [(0, []), (1, ["log"])])
def test_what_a_laptop_has_of_a_run_that_may_go_on_outlives_a_power_cut(
    store: Store, synced: list[str], restarts: int, expected: list[str]
) -> None:
    lock = take(run(store, "lives", State.RUNNING, restarts).lock)
    assert lock is not None
    _, body = look(store, "lives")
    os.close(lock)
    assert body == b"a line\n"
    assert synced == expected
