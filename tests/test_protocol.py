"""Frames: what is packed is read back, whatever else comes is a violation."""

from __future__ import annotations

import io
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import protocol
from remote.protocol import (
    BODY_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    MAGIC,
    Frame,
    Violation,
    pack,
    read_frame,
)

KINDS = st.sampled_from(
    [protocol.CALL, protocol.DATA, protocol.END, protocol.WORKING, protocol.RESULT]
)
VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=3)
HEADS = st.dictionaries(st.text().filter(lambda key: key != "kind"), VALUES, max_size=4)
FRAMES = st.builds(Frame, KINDS, HEADS, st.binary())


def frame_of(head: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">II", len(head), len(body)) + head + body


@given(st.lists(FRAMES, max_size=4))
def test_frames_are_read_as_they_were_packed_and_then_the_stream_ends(frames: list[Frame]) -> None:
    stream = io.BytesIO(b"".join(map(pack, frames)))
    assert [read_frame(stream.read) for _ in frames] == frames
    assert read_frame(stream.read) is None


@given(FRAMES)
def test_a_stream_cut_at_any_byte_is_a_violation(frame: Frame) -> None:
    data = pack(frame)
    for end in range(1, len(data)):
        with pytest.raises(Violation, match="ends inside a frame"):
            read_frame(io.BytesIO(data[:end]).read)


@given(st.binary() | st.builds(frame_of, st.binary(), st.binary()))
def test_any_bytes_give_a_frame_or_a_violation(data: bytes) -> None:
    stream = io.BytesIO(data)
    try:
        while read_frame(stream.read) is not None:
            pass
    except Violation:
        pass


@given(VALUES | st.dictionaries(st.text(), VALUES))
def test_a_head_that_is_json_but_names_no_kind_is_a_violation(head: object) -> None:
    if isinstance(head, dict) and isinstance(head.get("kind"), str):
        return
    with pytest.raises(Violation, match="no kind"):
        read_frame(io.BytesIO(frame_of(json.dumps(head).encode())).read)


def test_a_deeply_nested_head_is_a_violation() -> None:
    for depth in (500, 990, 10**5):
        with pytest.raises(Violation):
            read_frame(io.BytesIO(frame_of(b"[" * depth + b"]" * depth)).read)


@pytest.mark.parametrize(
    "lengths", [(HEAD_LIMIT_BYTES + 1, 0), (2, BODY_LIMIT_BYTES + 1), (2**32 - 1, 2**32 - 1)]
)
def test_a_frame_beyond_the_limits_is_refused_before_it_is_read(lengths: tuple[int, int]) -> None:
    asked = []

    def read(size: int) -> bytes:
        asked.append(size)
        return struct.pack(">II", *lengths)

    with pytest.raises(Violation, match="beyond the limit"):
        read_frame(read)
    assert asked == [8]


def test_a_head_of_more_values_than_memory_is_meant_for_is_refused_unread() -> None:
    rows = b",".join([b'["a", 1, "b"]'] * 50_000)
    frame = read_frame(io.BytesIO(frame_of(b'{"kind": "result", "x": [' + rows + b"]}")).read)
    assert frame is not None
    for part in (b"[]", b"{}", b"1", b'{"":{}}'):
        head = b'{"kind": "x", "x": [' + b",".join([part] * protocol.HEAD_LIMIT_VALUES) + b"]}"
        with pytest.raises(Violation, match="more than 2097152 values"):
            read_frame(io.BytesIO(frame_of(head)).read)


def test_the_magic_is_nothing_a_login_shell_prints() -> None:
    assert not MAGIC.decode("latin-1").isprintable()
    assert MAGIC[:1] == b"\0"
