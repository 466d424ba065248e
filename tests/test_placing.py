"""Which host gets which run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pools.placing import Want, begins_at_once, place, taken
from remote.protocol import Room


def room(slots: int, free: int, waiting: int = 0) -> Room:
    return Room(slots, free, waiting, has_gpus=True)


def place_each(gpus: list[int], rooms: dict[str, Room]) -> list[str | None]:
    """Runs on one host."""
    return [names[0] if names else None for names in place([Want(n) for n in gpus], rooms)]


CPU = Room(1, 1, 0, has_gpus=False)

rooms = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(
        lambda slots, held, waiting: room(slots, max(0, slots - held), waiting),
        st.integers(1, 8),
        st.integers(0, 8),
        st.integers(0, 5),
    ),
)


def test_free_slots_are_filled_before_anybody_waits() -> None:
    assert place_each([1, 1, 1], {"a": room(2, 0, 1), "b": room(1, 1), "c": room(2, 2)}) == [
        "c",
        "b",
        "c",
    ]


def test_where_all_are_busy_the_least_waiting_for_each_slot_counts() -> None:
    assert place_each([1, 1], {"a": room(1, 0, 1), "b": room(4, 0, 2)}) == ["b", "b"]


def test_a_run_goes_only_where_there_are_as_many_gpus_as_it_wants() -> None:
    assert place_each([2, 4, 1], {"a": room(1, 1), "b": room(2, 0, 4)}) == ["b", None, "a"]


def test_without_gpus_any_run_takes_the_one_slot_there_is() -> None:
    assert place_each([4], {"a": CPU}) == ["a"]
    assert place_each([1, 1], {"a": CPU, "b": room(1, 1)}) == ["a", "b"]


def test_runs_that_want_no_gpu_are_spread() -> None:
    assert sorted(filter(None, place_each([0] * 4, {"a": room(1, 1), "b": room(1, 1)}))) == list(
        "aabb"
    )


def test_who_waits_is_before_a_new_run() -> None:
    assert not begins_at_once(1, room(2, 1, 1))
    assert begins_at_once(1, room(2, 2, 1))


@given(wanted=st.lists(st.integers(0, 8), max_size=20), rooms=rooms)
def test_nobody_waits_where_another_host_had_room(
    wanted: list[int], rooms: dict[str, Room]
) -> None:
    for gpus, name in zip(wanted, place_each(wanted, rooms), strict=True):
        if name is None:
            assert all(gpus > room.slots for room in rooms.values())
            continue
        could = any(begins_at_once(gpus, other) for other in rooms.values())
        assert begins_at_once(gpus, rooms[name]) or not could
        rooms[name] = taken(gpus, rooms[name])


def test_a_gang_gets_as_many_different_hosts_those_that_are_free_first() -> None:
    rooms = {"a": room(1, 0, 3), "b": room(1, 1), "c": room(1, 0, 1), "d": room(1, 1)}

    assert place([Want(1, 2)], rooms) == [("b", "d")]
    assert place([Want(1, 3)], rooms) == [("b", "d", "c")]
    assert place([Want(1, 2), Want(1)], rooms)[1] == ("b",)


def test_a_gang_for_which_too_few_hosts_are_large_enough_gets_none() -> None:
    rooms = {"a": room(1, 1), "b": room(2, 0, 4), "c": room(4, 4)}

    assert place([Want(2, 3), Want(2, 2)], rooms) == [(), ("c", "b")]


@given(rooms=rooms, gpus=st.integers(0, 8), hosts=st.integers(1, 4))
def test_a_gang_begins_at_once_where_enough_hosts_have_room(
    rooms: dict[str, Room], gpus: int, hosts: int
) -> None:
    (names,) = place([Want(gpus, hosts)], rooms)
    free = {name for name, room in rooms.items() if begins_at_once(gpus, room)}
    assert len(set(names)) == len(names)
    if len(free) >= hosts:
        assert set(names) <= free
