"""The VM's half works on the oldest Python it promises, and older ones are turned away.

Interpreters are those of TRAINSHED_OLD_PYTHON (paths, separated as in PATH), of pyenv, and on
PATH, one of each version. With TRAINSHED_REQUIRE_OLD_PYTHON=1 it is an error that 3.8 is missing.
"""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.vm.package import (
    bootstrap_command,
    bootstrap_input,
    load_sources,
    package_input,
)
from remote import protocol
from remote.bootstrap import WANTED
from remote.protocol import CALL, MAGIC, RESULT, Frame, Hello, ListRuns, News, pack, read_frame
from remote.record import decode, encode

REPOSITORY = Path(__file__).parent.parent
OURS = {(3, 8), (3, 9), (3, 10)}
TOO_OLD = {(2, 7), (3, 6), (3, 7)}

EXERCISE = r"""
import hashlib, importlib, io, os, sys, zlib
from pathlib import Path

sys.path.insert(0, sys.argv[2])
for name in sys.argv[3:]:
    if name != "remote.__main__":
        importlib.import_module(name)

from remote import clock
from remote.atomic import discard
from remote.lock import holding, is_held, take
from remote.outputs import find_outputs
from remote.processes import descendants, kill_below
from remote.protocol import Frame, Tidy, News, pack, read_frame
from remote.record import Malformed, decode, encode, from_bytes, to_bytes
from remote.runfolder import DataFolder, RunRequest, RunState, State
from remote.slots import Slots, try_slots
import remote.store
from remote.store import Store, StoreTrouble
from remote.tidy import tidy
from remote.tree import BadTree, Entry, decode_tree, digest_of, encode_tree

data = (DataFolder("d", "11"),)
request = RunRequest("run", "job", "00", "true", ("a",), data, params={"k": "v"})
assert from_bytes(RunRequest, to_bytes(request)) == request
state = RunState(State.RUNNING, clock.now(), exit_code=3)
assert decode(RunState, encode(state)) == state
assert clock.parse(state.queued_at).tzinfo is not None
for depth in (900, 990, 100000):
    for read, trouble in ((lambda b: from_bytes(RunState, b), Malformed), (decode_tree, BadTree)):
        try:
            read(b"[" * depth + b"]" * depth)
        except trouble:
            pass
frame = Frame("call", {"op": "x"}, b"body")
assert read_frame(io.BytesIO(pack(frame)).read) == frame

root = Path(sys.argv[1])
remote.store.SMALL_BYTES = -1
store = Store(root / "store")
content = os.urandom(5000)
sha = hashlib.sha256(content).hexdigest()
tree = {"a/model.h5": Entry("file", 5000, sha, True), "link": Entry("link", 0, "", False, "a")}
assert decode_tree(encode_tree(tree)) == tree
data = zlib.compress(content)
wanted = store.lacking(tree)
try:
    store.receive(wanted, [data[:3000]])
except StoreTrouble:
    pass
wanted = store.lacking(tree)
assert 0 < wanted[0].have_bytes < 5000
store.receive(wanted, [zlib.compress(content[wanted[0].have_bytes:])])
store.complete(encode_tree(tree), store.lacking(tree))
digest = digest_of(encode_tree(tree))
assert store.has_tree(digest) and store.load_tree(digest) == tree
store.copy_tree(digest, root / "copy")
assert (store.share_tree(digest) / "a" / "model.h5").read_bytes() == content
for pattern in ("a", "a/*.h5", "**/*.h5", "**.h5/x", "[z-a]", "***"):
    found = find_outputs(root / "copy", [pattern])
    assert [f.sha256 for f in found] in ([sha], []), found
assert len(find_outputs(root / "copy", ["a"])) == 1

with holding(root / "lock"):
    assert is_held(root / "lock") and take(root / "lock") is None
assert not is_held(root / "lock")
assert isinstance(try_slots(store, RunRequest("run", "job", "", "", slots=1)), Slots)
assert os.getpid() not in descendants(os.getpid())
assert {heap.kind for heap in tidy(store, 7, drop=True).heaps} >= {"runs", "contents"}
discard(root / "copy")
print("fine")
"""


def interpreters() -> dict[tuple[int, int], str]:
    """An interpreter of each version that is on this machine."""
    named = [path for path in os.environ.get("TRAINSHED_OLD_PYTHON", "").split(os.pathsep) if path]
    pyenv = Path("~/.pyenv/versions").expanduser()
    named += sorted(str(path) for path in pyenv.glob("*/bin/python"))
    named += [f"python{major}.{minor}" for major, minor in sorted(OURS | TOO_OLD)]
    found: dict[tuple[int, int], str] = {}
    for python in named:
        question = [python, "-c", "import sys; print('%d %d' % sys.version_info[:2])"]
        try:
            answer = subprocess.run(question, capture_output=True, check=True, timeout=10).stdout
        except (OSError, subprocess.SubprocessError):
            continue  # pyenv puts names on PATH that lead nowhere
        major, minor = map(int, answer.split())
        found.setdefault((major, minor), python)
    return found


FOUND = interpreters()


def those(versions: set[tuple[int, int]]) -> list[object]:
    """Test parameters: the interpreters of these versions, or a skip that says so."""
    there = sorted(versions & FOUND.keys())
    if not there:
        return [pytest.param("", marks=pytest.mark.skip(reason="there is none here"))]
    return [pytest.param(FOUND[version], id="{}.{}".format(*version)) for version in there]


def test_the_oldest_promised_python_is_here_where_that_is_required() -> None:
    if os.environ.get("TRAINSHED_REQUIRE_OLD_PYTHON") == "1":
        assert (3, 8) in FOUND


@pytest.mark.parametrize("python", those(OURS))
def test_every_module_can_be_imported_and_does_its_work(python: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path), str(REPOSITORY), *load_sources()]
    command = [python, "-I", "-W", "error", "-c", EXERCISE, *arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (b"fine\n", b"", 0)


def start(python: str, home: Path, sent: bytes) -> subprocess.CompletedProcess[bytes]:
    """The connection's command, in the shell, and all that goes into it."""
    environment = {"PATH": os.defpath, "HOME": str(home), "TRAINSHED_STORE": str(home / "store")}
    return subprocess.run(
        ["/bin/sh", "-c", bootstrap_command(python)],
        input=sent,
        capture_output=True,
        check=False,
        timeout=60,
        env=environment,
        cwd=home,
    )


@pytest.mark.parametrize("python", those(OURS))
def test_the_agent_greets_and_answers(python: str, tmp_path: Path) -> None:
    call = pack(Frame(CALL, {"op": protocol.name_of(ListRuns), "args": encode(ListRuns())}))
    done = start(python, tmp_path, bootstrap_input(call) + package_input() + call)
    assert (done.stderr, done.returncode) == (b"", 0)
    assert done.stdout.startswith(WANTED + MAGIC)
    frames = io.BytesIO(done.stdout[len(WANTED + MAGIC) :])
    greeting, answer = read_frame(frames.read), read_frame(frames.read)
    assert greeting is not None
    assert greeting.kind == RESULT
    hello = decode(Hello, greeting.head)
    assert hello.version == protocol.VERSION
    assert hello.python.startswith("3.")
    assert hello.store == str(tmp_path / "store")
    assert answer is not None
    assert decode(News, answer.head) == News((), (), ())
    assert read_frame(frames.read) == answer
    assert frames.read() == b""
    again = start(python, tmp_path, bootstrap_input())
    assert again.stdout.startswith(MAGIC)
    assert again.stderr == b""


@pytest.mark.parametrize("python", those(TOO_OLD))
def test_an_interpreter_that_is_too_old_says_so_by_its_exit_code(
    python: str, tmp_path: Path
) -> None:
    done = start(python, tmp_path, bootstrap_input())
    assert done.returncode == protocol.EXIT_OLD_PYTHON
    assert not (tmp_path / "store").exists()
