"""Runs get their slots in the order of arrival; the dead hold nothing and block nobody.

nvidia-smi is a stand-in: a script that is the whole PATH and prints what the real one would.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote import clock
from remote.lock import take
from remote.protocol import Room
from remote.record import to_bytes
from remote.runfolder import RunFolder, RunRequest, RunState, State
from remote.slots import Slots, Waiting, drop_ticket, look_for_room, take_ticket, try_slots
from remote.store import Store
from tests.forks import at_once, fork

SMI = """#!{python}
import sys
if "--query-compute-apps" in sys.argv[1]:
    for gpu in {busy!r}:
        print(f"4711, GPU-{{gpu}}, 10910, /home/ada/my env/bin/python")
else:
    columns = sys.argv[1].partition("=")[2].split(",")
    for index in range({gpus}):
        row = {{"index": str(index), "uuid": f"GPU-{{index}}", "name": "Tesla K80"}}
        print(", ".join(row.get(column, "1") for column in columns))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def has_gpus(programs: Path, gpus: int, busy: tuple[int, ...] = ()) -> None:
    smi = programs / "nvidia-smi"
    smi.write_text(SMI.format(python=sys.executable, gpus=gpus, busy=busy))
    smi.chmod(0o755)


def request(run_id: str, gpus: int = 1, slots: int | None = None) -> RunRequest:
    return RunRequest(run_id, "job", "", "true", gpus=gpus, slots=slots)


@contextmanager
def living(store: Store, *run_ids: str) -> Iterator[None]:
    """Supervisors with tickets: their locks are held."""
    with holding_locks(store, *run_ids):
        for run_id in run_ids:
            take_ticket(store, run_id)
        yield


@contextmanager
def holding_locks(store: Store, *run_ids: str) -> Iterator[None]:
    """Supervisors that live."""
    locks = []
    for run_id in run_ids:
        folder = RunFolder(store.runs / run_id)
        folder.path.mkdir()
        lock = take(folder.lock)
        assert lock is not None
        locks.append(lock)
    yield
    for lock in locks:
        os.close(lock)


def got(found: Slots | Waiting) -> Slots:
    assert isinstance(found, Slots), found
    return found


def give_back(slots: Slots) -> None:
    for descriptor in slots.descriptors:
        os.close(descriptor)


def test_gpus_are_given_in_order_of_arrival(store: Store, programs: Path) -> None:
    has_gpus(programs, 2)
    with living(store, "first", "second", "third"):
        assert try_slots(store, request("third")) == Waiting("behind first and 1 more")
        assert try_slots(store, request("second")) == Waiting("behind first")
        first = got(try_slots(store, request("first")))
        assert (first.names, first.gpus) == (("gpu0",), (0,))
        assert try_slots(store, request("second")) == Waiting("behind first")
        drop_ticket(store, "first")
        second = got(try_slots(store, request("second")))
        assert (second.names, second.gpus) == (("gpu1",), (1,))
        drop_ticket(store, "second")
        taken = Waiting("waits for slot gpu0, held by first; waits for slot gpu1, held by second")
        assert try_slots(store, request("third")) == taken
        give_back(first)
        assert got(try_slots(store, request("third"))).gpus == (0,)
        give_back(second)


def queued(store: Store) -> list[str]:
    """Run ids in the order of their tickets."""
    tickets = sorted(path.name for path in (store.root / "queue").iterdir())
    return [name.partition("-")[2] for name in tickets]


def test_a_run_keeps_its_place_when_it_is_submitted_again(store: Store) -> None:
    with living(store, "first", "second"):
        take_ticket(store, "first")
        drop_ticket(store, "never queued")
        assert queued(store) == ["first", "second"]


def test_the_next_ticket_takes_those_of_the_dead_away_but_of_who_may_be_restarted(
    store: Store,
) -> None:
    with living(store, "lives", "dead", "interrupted", "tidied-away"):
        (store.runs / "tidied-away" / "lock").unlink()
        (store.runs / "tidied-away").rmdir()
        interrupted = RunFolder(store.runs / "interrupted")
        interrupted.request.write_bytes(to_bytes(request("interrupted")._replace(restarts=1)))
        interrupted.state.write_bytes(to_bytes(RunState(State.QUEUED, clock.now())))
        # As after a reboot: nobody holds these any more.
        for dead in ("dead", "interrupted"):
            lock = RunFolder(store.runs / dead).lock
            lock.rename(lock.with_name("held"))
        with living(store, "next"):
            assert queued(store) == ["lives", "interrupted", "next"]


def test_tickets_taken_at_once_are_all_different(store: Store) -> None:
    def queue(number: int) -> None:
        for turn in range(5):
            take_ticket(Store(store.root), f"run-{number}-{turn}")

    with holding_locks(store, *(f"run-{n}-{turn}" for n in range(4) for turn in range(5))):
        assert at_once(4, queue) == [0] * 4
    tickets = [path.name.partition("-") for path in (store.root / "queue").iterdir()]
    assert len({number for number, _, _ in tickets}) == 20
    assert len({run_id for _, _, run_id in tickets}) == 20


def test_processes_are_served_in_order_of_arrival(store: Store, tmp_path: Path) -> None:
    ids = [f"run-{number}" for number in range(4)]
    order = tmp_path / "order"

    def wait_for_turn(number: int) -> None:
        folder = RunFolder(store.runs / ids[number])
        lock = take(folder.lock)
        assert lock is not None
        (tmp_path / f"here{number}").touch()
        while len(list(tmp_path.glob("here*"))) < len(ids):
            pass
        while True:
            found = try_slots(Store(store.root), request(ids[number], slots=0))
            if isinstance(found, Slots):
                break
        with order.open("a") as file:
            file.write(f"{number}\n")
        drop_ticket(store, ids[number])

    with living(store, *ids):
        pass
    assert at_once(4, wait_for_turn) == [0] * 4
    assert order.read_text().split() == ["0", "1", "2", "3"]


def killed_after(action: Callable[[], object]) -> None:
    def act_and_die() -> None:
        action()
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(act_and_die), 0)[1]) == -signal.SIGKILL


def test_a_killed_holder_frees_its_slot(store: Store) -> None:
    killed_after(lambda: got(try_slots(store, request("dead", slots=1))))
    give_back(got(try_slots(store, request("next", slots=1))))


def test_a_slot_whose_file_is_removed_stays_its_holders(store: Store) -> None:
    first = got(try_slots(store, request("first", slots=1)))
    store.lock_path("gpu0").unlink()
    with living(store, "next"):
        for _ in range(2):
            found = try_slots(store, request("next", slots=1))
            assert isinstance(found, Waiting)
            assert found.reason.startswith("waits for slot gpu0, held by a run though")
        give_back(first)
        give_back(got(try_slots(store, request("next", slots=1))))


def test_the_ticket_of_a_killed_run_blocks_nobody(store: Store) -> None:
    with living(store, "dead", "tidied-away", "next"):
        shutil.rmtree(store.runs / "tidied-away")
        (store.runs / "dead" / "lock").rename(store.runs / "dead" / "held")
        killed_after(lambda: take(RunFolder(store.runs / "dead").lock))
        give_back(got(try_slots(store, request("next", slots=1))))
    assert queued(store) == ["dead", "tidied-away", "next"]


def test_one_killed_while_it_takes_a_ticket_blocks_nobody(store: Store) -> None:
    killed_after(lambda: take(store.lock_path("queue")))
    killed_after(lambda: take(store.lock_path("dispatch")))
    with living(store, "next"):
        give_back(got(try_slots(store, request("next", slots=1))))


def test_a_strangers_process_on_a_gpu_is_named_and_another_gpu_taken(
    store: Store, programs: Path
) -> None:
    has_gpus(programs, 2, busy=(0,))
    slots = got(try_slots(store, request("run")))
    assert slots.gpus == (1,)
    give_back(slots)
    has_gpus(programs, 1, busy=(0,))
    stranger = "gpu0 is used by /home/ada/my env/bin/python (pid 4711), not one of our runs"
    assert try_slots(store, request("run")) == Waiting(stranger)
    has_gpus(programs, 1)
    give_back(got(try_slots(store, request("run"))))


def test_our_own_runs_process_is_not_taken_for_a_strangers(store: Store, programs: Path) -> None:
    has_gpus(programs, 1)
    ours = got(try_slots(store, request("ours")))
    has_gpus(programs, 1, busy=(0,))
    assert try_slots(store, request("next")) == Waiting("waits for slot gpu0, held by ours")
    give_back(ours)
    # Of one who could not sign, as on a full disk, and of a run before it nothing is said.
    for name in ("", "no/run"):
        store.lock_path("gpu0").write_text(name)
        held = take(store.lock_path("gpu0"))
        assert held is not None
        taken = Waiting("waits for slot gpu0, held by another run")
        assert try_slots(store, request("next")) == taken
        os.close(held)


def test_who_asks_for_room_is_told_what_is_free_and_what_is_waited_for(
    store: Store, programs: Path
) -> None:
    has_gpus(programs, 3, busy=(1,))
    assert look_for_room(store, None) == Room(3, 2, 0, has_gpus=True)
    ours = got(try_slots(store, request("ours")))
    assert look_for_room(store, None) == Room(3, 1, 0, has_gpus=True)
    with living(store, "one", "two"):
        for run_id, gpus in (("one", 1), ("two", 2)):
            (store.runs / run_id / "request.json").write_bytes(to_bytes(request(run_id, gpus)))
        assert look_for_room(store, None) == Room(3, 1, 3, has_gpus=True)
        assert look_for_room(store, 0) == Room(1, 1, 2, has_gpus=False)
    # The dead wait for nothing.
    assert look_for_room(store, None) == Room(3, 1, 0, has_gpus=True)
    give_back(ours)


def test_two_gpus_are_given_together_or_not_at_all(store: Store, programs: Path) -> None:
    has_gpus(programs, 3, busy=(1,))
    both = got(try_slots(store, request("both", gpus=2)))
    assert both.gpus == (0, 2)
    give_back(both)
    one = got(try_slots(store, request("one")))
    assert isinstance(try_slots(store, request("both", gpus=2)), Waiting)
    give_back(one)
    give_back(got(try_slots(store, request("both", gpus=2))))


def test_more_than_there_are_is_said_plainly(store: Store) -> None:
    assert try_slots(store, request("run", gpus=3, slots=2)) == Waiting("needs 3 slots of 2")


def test_a_run_without_gpu_waits_for_nobody_and_sees_none(store: Store) -> None:
    with living(store, "first", "second"):
        assert try_slots(store, request("second", gpus=0)) == Slots((), (), ())


@pytest.mark.parametrize("slots", [None, 0])
def test_a_machine_without_gpus_has_one_slot(store: Store, slots: int | None) -> None:
    held = got(try_slots(store, request("run", gpus=2, slots=slots)))
    assert (held.names, held.gpus) == (("cpu0",), None)
    waiting = Waiting("waits for slot cpu0, held by run")
    assert try_slots(store, request("next", slots=slots)) == waiting
    give_back(held)


def test_gpus_that_the_user_says_are_not_to_be_used_are_not_asked_for(
    store: Store, programs: Path
) -> None:
    has_gpus(programs, 2, busy=(0, 1))
    give_back(got(try_slots(store, request("run", slots=0))))


def test_a_driver_that_fails_makes_the_run_wait_and_says_why(store: Store, programs: Path) -> None:
    (programs / "nvidia-smi").write_text(
        f"#!{sys.executable}\nprint('Driver/library version')\n1/0"
    )
    (programs / "nvidia-smi").chmod(0o755)
    found = try_slots(store, request("run"))
    assert isinstance(found, Waiting)
    assert found.reason.startswith("the GPU driver does not answer: Driver/library version")


def test_a_stopped_run_leaves_the_wait_for_the_queue(tmp_path: Path) -> None:
    def stop() -> None:
        raise InterruptedError

    store = Store(tmp_path / "store", stop)
    held = take(store.lock_path("dispatch"))
    assert held is not None
    with pytest.raises(InterruptedError):
        try_slots(store, request("run")._replace(slots=1))
    os.close(held)


def test_a_ticket_that_is_dropped_while_another_is_taken_is_nobodys_trouble(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_ticket(store, "ends")

    def is_held(lock: Path) -> bool:
        drop_ticket(store, "ends")
        return False

    monkeypatch.setattr("remote.slots.is_held", is_held)
    take_ticket(store, "begins")
    drop_ticket(store, "begins")
    assert not list((store.root / "queue").iterdir())
