"""The wire format between laptop and agent: frames, and the records that travel in them.

A conversation: the agent writes MAGIC and a RESULT frame with `Hello`; then for each CALL frame it
answers any number of WORKING and DATA frames and one RESULT or REFUSAL. A CALL that brings a
stream (`Upload`) is followed by the laptop's DATA frames and one END.

A frame is two big-endian 32-bit lengths, a JSON object (the head) and raw bytes (the body).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Tuple

from remote.runfolder import Artifact, RunRequest, RunState

VERSION = 1

# Not printable, so that no banner or greeting of a login shell looks like it.
MAGIC = b"\x00\xff\x00trainshed\x00\xff\n"

# A manifest of 100,000 files is about 15 MB.
HEAD_LIMIT_BYTES = 32 * 2**20
BODY_LIMIT_BYTES = 64 * 2**20
CHUNK_BYTES = 256 * 2**10

# The agent says WORKING at least this often while it has nothing else to say; the laptop takes
# three times as much silence for a dead line.
HEARTBEAT_S = 5.0

# Exit codes of the bootstrap line, out of the way of the shell's own 126 and 127.
EXIT_OLD_PYTHON = 97

CALL, DATA, END, WORKING, RESULT, REFUSAL = "call", "data", "end", "working", "result", "refusal"

_LENGTHS = struct.Struct(">II")


class Violation(ValueError):
    """Bytes that are not this protocol."""


@dataclass(frozen=True)
class Frame:
    kind: str
    head: Mapping[str, Any]
    body: bytes = b""


def pack(frame: Frame) -> bytes:
    """The frame's bytes."""
    head = json.dumps({"kind": frame.kind, **frame.head}, ensure_ascii=True, allow_nan=False)
    return _LENGTHS.pack(len(head), len(frame.body)) + head.encode("ascii") + frame.body


def read_frame(read: Callable[[int], bytes]) -> Optional[Frame]:
    """The next frame, or None where the stream ends between two frames.

    Args:
        read: gives exactly the number of bytes asked for, or fewer at the end of the stream.

    Raises:
        Violation: cut, too large, or not a frame.
    """
    lengths = read(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        raise Violation("the stream ends inside a frame")
    head_bytes, body_bytes = _LENGTHS.unpack(lengths)
    if head_bytes > HEAD_LIMIT_BYTES or body_bytes > BODY_LIMIT_BYTES:
        raise Violation(f"a frame of {head_bytes} + {body_bytes} bytes is beyond the limit")
    head, body = read(head_bytes), read(body_bytes)
    if len(head) < head_bytes or len(body) < body_bytes:
        raise Violation("the stream ends inside a frame")
    try:
        fields = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise Violation("a frame's head is not JSON") from error
    kind = fields.pop("kind", None) if isinstance(fields, dict) else None
    if not isinstance(kind, str):
        raise Violation("a frame's head has no kind")
    return Frame(kind, fields, body)


@dataclass(frozen=True)
class Hello:
    """What the agent says first.

    Attributes:
        clock_s: the VM's clock, seconds since 1970 UTC.
        boot_id: changes at each boot; empty where the system has none.
        store: the folder of everything we keep on the VM.
    """

    version: int
    python: str
    executable: str
    system: str
    user: str
    store: str
    boot_id: str
    clock_s: float
    disk_free_bytes: int
    cpus: int


@dataclass(frozen=True)
class Submit:
    """Start these runs, each at most once however often it is asked."""

    OP = "submit"
    requests: Tuple[RunRequest, ...]


@dataclass(frozen=True)
class Submitted:
    """Attributes:
    unknown_trees: digests the store does not hold; if there are any, nothing was started.
    """

    unknown_trees: Tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """A tree's manifest (in the body, zlib); answered by what it still lacks."""

    OP = "offer"
    digest: str


@dataclass(frozen=True)
class Lacking:
    """An object the store lacks; the first `have_bytes` of it came in an earlier attempt."""

    sha256: str
    size_bytes: int
    have_bytes: int


@dataclass(frozen=True)
class Wanted:
    objects: Tuple[Lacking, ...]


@dataclass(frozen=True)
class Upload:
    """The contents of `objects`, each from its `have_bytes` on, one after the other: DATA frames
    of one zlib stream, then END. When all have come, the tree `digest` is complete.
    """

    OP = "upload"
    digest: str
    objects: Tuple[Lacking, ...]


@dataclass(frozen=True)
class Offsets:
    """How far the laptop has read a run: bytes of each file, and the state it has seen."""

    run_id: str
    log: int = 0
    metrics: int = 0
    usage: int = 0
    seen: str = ""


@dataclass(frozen=True)
class Watch:
    """What is new beyond the offsets; answered at once if anything is, else after `wait_s`."""

    OP = "watch"
    runs: Tuple[Offsets, ...]
    wait_s: float = 0.0


@dataclass(frozen=True)
class RunReport:
    """A run as the VM knows it.

    Attributes:
        state: None while its supervisor has not written one yet.
        alive: whether its supervisor lives (its lock is held).
        artifacts: outputs with their digests, once the state is final.
        stamp: changes whenever the report does; goes back as `Offsets.seen`.
    """

    run_id: str
    job: str
    alive: bool
    stamp: str
    state: Optional[RunState] = None
    artifacts: Tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class Piece:
    """`size_bytes` of a run's file from `offset` on; pieces lie in the body in this order."""

    run_id: str
    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class News:
    """Attributes:
    missing: runs the VM does not know.
    """

    reports: Tuple[RunReport, ...]
    pieces: Tuple[Piece, ...]
    missing: Tuple[str, ...]


@dataclass(frozen=True)
class ListRuns:
    """Every run in the store, oldest first; answered by `News` without pieces."""

    OP = "runs"


@dataclass(frozen=True)
class Cancel:
    """Ask a run to end. Durable: the run sees it, whatever happens to the line."""

    OP = "cancel"
    run_id: str


@dataclass(frozen=True)
class Fetch:
    """An artifact's bytes from `offset` on, as DATA frames; answered by `Done`."""

    OP = "fetch"
    run_id: str
    path: str
    offset: int = 0


@dataclass(frozen=True)
class Examine:
    """Look at the machine for `train doctor`; `framework` also imports TensorFlow (slow).

    Attributes:
        requirements: text of the file from which the environment is built; empty for none.
    """

    OP = "examine"
    python: str
    requirements: str = ""
    framework: bool = True


@dataclass(frozen=True)
class Examined:
    """Attributes:
    driver_gpus: as nvidia-smi names them; driver_trouble says why it could not.
    framework: its name and version, empty where it is not installed.
    framework_gpus: as TensorFlow lists them.
    """

    python: str
    driver_gpus: Tuple[str, ...]
    driver_trouble: str
    framework: str
    framework_gpus: Tuple[str, ...]
    framework_trouble: str
    store_writable: str


@dataclass(frozen=True)
class Tidy:
    """What the store holds, and what could go: finished runs older than `keep_days` and what only
    they use. With `drop`, it goes.

    Attributes:
        keep: ids of runs that stay however old they are: their outputs are not on the laptop yet.
    """

    OP = "tidy"
    keep_days: float
    drop: bool = False
    keep: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Heap:
    """One kind of thing in the store: how many, and how many bytes, held and droppable."""

    kind: str
    count: int
    size_bytes: int
    droppable: int
    droppable_bytes: int


@dataclass(frozen=True)
class Tidied:
    heaps: Tuple[Heap, ...]


@dataclass(frozen=True)
class Done:
    """An answer without content."""


@dataclass(frozen=True)
class No:
    """Why the agent refused.

    Attributes:
        code: for programs: `disk-full`, `no-gpu`, `unknown-run`, ...; `bug` brings a trace.
        fix: what the user can do.
    """

    code: str
    message: str
    fix: str = ""
    trace: str = ""
