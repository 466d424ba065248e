"""Records survive the way to JSON and back, and nothing else becomes a record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import clock
from remote.protocol import News, Watch
from remote.record import Malformed, decode, encode, from_bytes, to_bytes
from remote.runfolder import RunFolder, RunRequest, RunState, State, is_run_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class Sample(NamedTuple):
    number: float
    count: int = 0  # type: ignore[assignment]  # as in `Heap`


@given(st.from_type(RunRequest) | st.from_type(RunState) | st.from_type(News))
def test_reading_undoes_writing(record: object) -> None:
    try:
        data = to_bytes(record)
    except ValueError:  # JSON has no NaN and no infinity
        return
    assert from_bytes(type(record), data) == record
    assert data.count(b"\n") == 1
    assert data.isascii()


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_record_or_say_that_they_are_none(data: bytes) -> None:
    for cls in (RunRequest, RunState, Watch, News):
        try:
            from_bytes(cls, data)
        except Malformed:
            pass


@given(st.data())
def test_a_field_of_any_type_gives_a_record_or_says_that_it_is_none(data: st.DataObject) -> None:
    fields = {"state": "running", "queued_at": "now", "exit_code": 1, "signal": None}
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(JSON)
    try:
        from_bytes(RunState, json.dumps(fields).encode())
    except Malformed:
        pass


@pytest.mark.parametrize("form", ["%s", '{"state":%s}', '{"state":"queued","queued_at":%s}'])
def test_json_nested_to_any_depth_is_malformed(form: str) -> None:
    for depth in [*range(1, 1100, 3), 10**5]:
        with pytest.raises(Malformed):
            from_bytes(RunState, (form % ("[" * depth + "]" * depth)).encode())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"queued_at": "x"}, "RunState.state: missing"),
        ({"state": "gone", "queued_at": "x"}, "RunState.state: unknown value, found str 'gone'"),
        ({"state": 1, "queued_at": "x"}, "RunState.state: unknown value, found int '1'"),
        ({"state": "queued", "queued_at": None}, "RunState.queued_at: expected str, found null"),
        ({"state": "queued", "queued_at": []}, "RunState.queued_at: expected str, found a list"),
        (
            {"state": "queued", "queued_at": "x", "signal": True},
            "RunState.signal: expected int, found bool 'True'",
        ),
        ([], "RunState: expected an object, found a list"),
    ],
)
def test_a_malformed_record_names_the_field_what_was_expected_and_what_came(
    fields: object, complaint: str
) -> None:
    with pytest.raises(Malformed) as caught:
        decode(RunState, fields)
    assert str(caught.value) == complaint


def test_an_item_deep_in_a_record_is_named_by_its_place() -> None:
    with pytest.raises(Malformed, match=r"^Watch\.runs\[1\]\.log: expected int, found str 'x'$"):
        decode(Watch, {"runs": [{"run_id": "a"}, {"run_id": "b", "log": "x"}]})


def test_keys_of_a_newer_version_are_ignored_and_defaults_stand_in() -> None:
    state = decode(RunState, {"state": "queued", "queued_at": "x", "weather": "fine"})
    assert state == RunState(State.QUEUED, "x")


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400])
def test_a_number_beyond_floats_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match=r"Sample\.number"):
        from_bytes(Sample, b'{"number": %s}' % text.encode())


def test_a_whole_number_is_taken_for_a_float_but_not_the_other_way_round() -> None:
    assert decode(Sample, {"number": 3}) == Sample(3.0)
    for fields in [{"number": 3, "count": 1.0}, {"number": True}, {"number": 3, "count": True}]:
        with pytest.raises(Malformed):
            decode(Sample, fields)


@pytest.mark.parametrize("count", [2**64, -(10**400)])
def test_a_count_that_no_system_has_is_malformed(count: int) -> None:
    with pytest.raises(Malformed, match=r"Sample\.count: expected a smaller number"):
        decode(Sample, {"number": 0, "count": count})
    assert decode(Sample, {"number": 0, "count": 2**64 - 1}).count == 2**64 - 1


@pytest.mark.parametrize("sample", [Sample(math.nan), Sample(math.inf), Sample(0, 2**64)])
def test_no_record_is_written_that_could_not_be_read(sample: Sample) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant|larger than any"):
        to_bytes(sample)


def test_enums_tuples_and_records_are_plain_json_values() -> None:
    plain = encode(RunRequest("r", "j", "t", "c", outputs=("a",)))
    assert plain["outputs"] == ["a"]
    assert encode(RunState(State.TIMED_OUT, "x"))["state"] == "timed-out"


def test_exactly_the_states_before_the_end_are_not_final() -> None:
    assert [state.value for state in State if not state.final] == [
        "queued",
        "setting-up",
        "running",
    ]


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "../a", "-a", ".tmp-1", "a\n", "a b", "é", "a" * 129, "a\0"]
)
def test_what_cannot_name_a_folder_of_ours_is_no_run_id(text: str) -> None:
    assert not is_run_id(text)


def test_run_ids_may_hold_dots_and_dashes() -> None:
    assert is_run_id("category3-20260101.120000_ab")
    assert is_run_id("a" * 128)


def test_times_are_utc_and_survive_reading() -> None:
    text = clock.now()
    assert text.endswith("Z")
    assert clock.parse(text).isoformat(timespec="microseconds") == text[:-1] + "+00:00"
    for bad in ["", "Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", "1 o'clock Z"]:
        with pytest.raises(ValueError, match=r"UTC|isoformat"):
            clock.parse(bad)


def test_a_run_folder_names_each_file_once(tmp_path: Path) -> None:
    names = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    paths = {getattr(RunFolder(tmp_path), name) for name in names}
    assert len(paths) == len(names)
