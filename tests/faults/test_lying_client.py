"""A laptop that makes no sense: the agent refuses or ends, and what others keep there stays."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote import protocol, record
from remote.agent import Agent
from remote.protocol import CALL, DATA, END, REFUSAL, RESULT, Frame, pack, read_frame
from remote.runfolder import Artifact, Artifacts, RunFolder, RunRequest, RunState, State
from remote.store import Store
from remote.tree import FILE, Entry, encode_tree
from tests.faults.points import chosen

pytestmark = pytest.mark.faults

CONTENT = b"a model"
SHA = hashlib.sha256(CONTENT).hexdigest()
TREE = encode_tree({"a": Entry(FILE, len(CONTENT), SHA, False)})
DIGEST = hashlib.sha256(TREE).hexdigest()

# What means something here, beside anything at all.
TEXTS = st.sampled_from(
    ["run", "a", SHA, DIGEST, "0" * 64, "../run", "/", "runs/run", "\0", "x" * 300, "\ud800", ""]
)
NUMBERS = st.sampled_from([0, 1, 7, -1, 2**31, 2**63, 2**70, -(2**70)])
st.register_type_strategy(str, TEXTS)
st.register_type_strategy(int, NUMBERS)
st.register_type_strategy(float, st.sampled_from([0.0, -1.0, 1e-9]))
# Not `Submit` of a tree that is here, which rightly starts it, and not what looks at the machine.
CALLS = st.one_of(
    *map(
        st.from_type,
        (
            protocol.Offer,
            protocol.Upload,
            protocol.Complete,
            protocol.Patch,
            protocol.Part,
            protocol.Watch,
            protocol.ListRuns,
            protocol.Fetch,
            protocol.Submit,
        ),
    )
)
BODIES = st.sampled_from(
    [
        b"",
        b"x",
        TREE,
        zlib.compress(TREE),
        zlib.compress(CONTENT),
        zlib.compress(b"[]"),
        b"\x78\x01",
    ]
)
HEADS: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    st.sampled_from(["op", "args", "kind", "x"]),
    st.none() | TEXTS | NUMBERS | st.just({}) | st.lists(NUMBERS, max_size=2),
    max_size=3,
)


def plain(value: Any) -> Any:  # noqa: ANN401  # what JSON can hold
    """As `record.encode` does, but for numbers that it would not write."""
    if hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def packed(call: tuple[object, ...], body: bytes) -> bytes:
    head = {"op": protocol.name_of(type(call)), "args": plain(call)}
    return pack(Frame(CALL, head, body))


FRAMES = st.one_of(
    st.builds(packed, CALLS, BODIES),
    st.builds(lambda body: pack(Frame(DATA, {}, body)), BODIES),
    st.just(pack(Frame(END, {}))),
    st.builds(lambda head, body: pack(Frame(CALL, head, body)), HEADS, BODIES),
    st.binary(max_size=20),
)


def keep_something(root: Path) -> None:
    """Another's run that has ended, its tree and its content."""
    store = Store(root)
    store.receive((protocol.Lacking(SHA, len(CONTENT), 0),), [zlib.compress(CONTENT)])
    store.complete(TREE, ())
    folder = RunFolder(root / "runs" / "run")
    folder.tree.mkdir(parents=True)
    (folder.tree / "a").write_bytes(CONTENT)
    folder.log.write_bytes(b"a line\n")
    folder.request.write_bytes(record.to_bytes(RunRequest("run", "a", "0" * 64, "true")))
    state = RunState(State.SUCCEEDED, "2026-01-01T00:00:00Z", ended_at="2026-01-01T00:00:00Z")
    folder.state.write_bytes(record.to_bytes(state))
    made = Artifacts((Artifact("a", len(CONTENT), SHA),))
    folder.artifacts.write_bytes(record.to_bytes(made))


def kept(root: Path) -> dict[str, bytes]:
    """All that others rely on, and nothing of what only has come so far."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for name in ("objects", "snapshots", "runs")
        for path in (root / name).rglob("*")
        if path.is_file() and path.name != "lock"
    }


def answers(said: bytes) -> Iterator[str]:
    stream = io.BytesIO(said)
    while (frame := read_frame(stream.read)) is not None:
        yield str(frame.head["code"]) if frame.kind == REFUSAL else frame.kind


@settings(max_examples=10 * len(chosen(range(100))), deadline=None)
@given(st.lists(FRAMES, max_size=6).map(b"".join))
def test_whatever_a_client_says_the_store_keeps_what_it_has(said: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        keep_something(root)
        before = kept(root)
        sink = io.BytesIO()
        try:
            Agent(io.BytesIO(said), sink, root, b"").serve(b"")
        except (protocol.Violation, SystemExit):
            pass
        after = kept(root)
        assert before.items() <= after.items()
        for path in after.keys() - before.keys():
            # Its own tree, whole; never a run.
            assert Path(path).stem == hashlib.sha256(after[path]).hexdigest()
        assert list(Path(folder).iterdir()) == [root]
        assert "bug" not in list(answers(sink.getvalue()))


def test_a_manifest_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    packing = zlib.compressobj(1)
    block = bytes(2**20)
    bomb = b"".join(packing.compress(block) for _ in range(257)) + packing.flush()
    sink = io.BytesIO()
    said = io.BytesIO(packed(protocol.Offer("0" * 64), bomb))
    Agent(said, sink, tmp_path / "store", b"").serve(b"")
    assert list(answers(sink.getvalue())) == [RESULT, "damaged"]
