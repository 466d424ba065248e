"""The wire format between laptop and agent: frames, and the records that travel in them.

A conversation: the agent writes MAGIC and a RESULT frame with `Hello`; then for each CALL frame it
answers any number of WORKING and DATA frames and one RESULT or REFUSAL. A CALL that brings a
stream (`Upload`, `Part`) is followed by the laptop's DATA frames and one END.

A frame is two big-endian 32-bit lengths, a JSON object (the head) and raw bytes (the body).
"""

from __future__ import annotations

import json
import struct
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Optional, Tuple

from remote.runfolder import Artifact, Ended, RunRequest, RunState, Slurm

VERSION = 1

# Not printable, so that no banner or greeting of a login shell looks like it.
MAGIC = b"\x00\xff\x00trainshed\x00\xff\n"

# A manifest of 100,000 files is about 15 MB.
HEAD_LIMIT_BYTES = 32 * 2**20
BODY_LIMIT_BYTES = 64 * 2**20
# In memory `{}` takes thirty times its bytes; 50,000 artifacts are 400,000 values.
HEAD_LIMIT_VALUES = 2**21
CHUNK_BYTES = 256 * 2**10
# What an artifact takes of a head besides its path.
_ARTIFACT_BYTES, _ARTIFACT_VALUES = 160, 8

# The agent says WORKING at least this often while it has nothing else to say; the laptop takes
# three times as much silence for a dead line.
HEARTBEAT_S = 5.0

# Exit codes of the bootstrap line, out of the way of the shell's own 126 and 127.
EXIT_OLD_PYTHON = 97

CALL, DATA, END, WORKING, RESULT, REFUSAL = "call", "data", "end", "working", "result", "refusal"

_LENGTHS = struct.Struct(">II")


def name_of(call: type) -> str:
    """What a call is named on the wire."""
    return call.__name__.lower()


class Violation(ValueError):
    """Bytes that are not this protocol."""


class Frame(NamedTuple):
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
    if sum(map(head.count, (b",", b"[", b"{"))) > HEAD_LIMIT_VALUES:
        raise Violation(f"a frame's head of more than {HEAD_LIMIT_VALUES} values")
    try:
        fields = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise Violation("a frame's head is not JSON") from error
    kind = fields.pop("kind", None) if isinstance(fields, dict) else None
    if not isinstance(kind, str):
        raise Violation("a frame's head has no kind")
    return Frame(kind, fields, body)


def share_of_head(paths: Iterable[str]) -> float:
    """How much of a frame's head artifacts with these paths take: of its bytes or of its values,
    whichever is more.
    """
    share = 0.0
    for path in paths:
        text = json.dumps(path)
        text_values = sum(map(text.count, ",[{"))
        share += max(
            (len(text) + _ARTIFACT_BYTES) / HEAD_LIMIT_BYTES,
            (text_values + _ARTIFACT_VALUES) / HEAD_LIMIT_VALUES,
        )
    return share


class Boot(NamedTuple):
    """One boot of the machine, as its guard saw it.

    Attributes:
        last_s: the last sign of life, by the machine's clock.
        up_s: how long it had been up by then.
        stopped: whether the guard had turned it off.
        id: its `Hello.boot_id`; empty where an earlier version noted it.
    """

    last_s: float
    up_s: float
    stopped: bool = False
    id: str = ""


class Hello(NamedTuple):
    """What the agent says first.

    Attributes:
        clock_s: the VM's clock, seconds since 1970 UTC.
        boot_id: changes at each boot; empty where the system has none.
        store: the folder of everything we keep on the VM.
        up_s: for how long the machine is on since its last boot; 0 where the system does not say.
        boots: the guard's records of those before, oldest first.
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
    up_s: float = 0.0
    boots: Tuple[Boot, ...] = ()


class Submit(NamedTuple):
    """Start these runs, each at most once however often it is asked."""

    requests: Tuple[RunRequest, ...]


class Submitted(NamedTuple):
    """Attributes:
    unknown_trees: digests the store does not hold; if there are any, nothing was started.
    """

    unknown_trees: Tuple[str, ...]


class Offer(NamedTuple):
    """A tree's manifest (in the body, zlib); answered by what it still lacks."""

    digest: str


class Span(NamedTuple):
    """The bytes of a file from `begin` up to, and without, `end`."""

    begin: int
    end: int


class Lacking(NamedTuple):
    """An object the store lacks; the first `have_bytes` of it came in an earlier attempt.

    Attributes:
        parts: what has come beyond those, in order, without overlaps.
    """

    sha256: str
    size_bytes: int
    have_bytes: int
    parts: Tuple[Span, ...] = ()


class Wanted(NamedTuple):
    """What is lacking of an offered tree.

    Attributes:
        fresh: of what nothing has come, as places among the tree's contents in order of digests.
        begun: of what something has come.
    """

    fresh: Tuple[Span, ...]
    begun: Tuple[Lacking, ...]


class Upload(NamedTuple):
    """The contents of `objects`, each from its `have_bytes` on and without its `parts`, one after
    the other: DATA frames of one zlib stream, then END.
    """

    objects: Tuple[Lacking, ...]


class Complete(NamedTuple):
    """All contents of a tree that was offered over this line have come, over this one or others."""

    digest: str


class Patch(NamedTuple):
    """Make a tree out of one that the store may hold. The contents of `objects` come in the body,
    one after the other, as one zlib stream.

    Attributes:
        digest: of the tree to be made.
        base: digest of the tree it starts from.
        gone: paths of `base` that are left out.
        changed: entries beside those of `base` or in their place, as `encode_tree` has them.
    """

    digest: str
    base: str
    gone: Tuple[str, ...]
    changed: str
    objects: Tuple[Lacking, ...]


class Part(NamedTuple):
    """A part of a large object, of which others come over other lines; followed as `Upload`."""

    sha256: str
    span: Span


class Offsets(NamedTuple):
    """How far the laptop has read a run: bytes of each file, and the state it has seen.

    A negative number asks for that many bytes before the end.
    """

    run_id: str
    log: int = 0
    metrics: int = 0
    usage: int = 0
    seen: str = ""


class Watch(NamedTuple):
    """What is new beyond the offsets; answered at once if anything is, else after `wait_s`."""

    runs: Tuple[Offsets, ...]
    wait_s: float = 0.0


class RunReport(NamedTuple):
    """A run as the VM knows it.

    Attributes:
        state: None while its supervisor has not written one yet.
        alive: whether its supervisor lives (its lock is held), or is still to be started again.
        artifacts: outputs with their digests, once the state is final.
        stamp: changes whenever the report does; goes back as `Offsets.seen`.
        lost: how it ended without a state of an end, where the machine knows.
    """

    run_id: str
    job: str
    alive: bool
    stamp: str
    state: Optional[RunState] = None
    artifacts: Tuple[Artifact, ...] = ()
    lost: str = ""


class Piece(NamedTuple):
    """`size_bytes` of a run's file from `offset` on; pieces lie in the body in this order."""

    run_id: str
    name: str
    offset: int
    size_bytes: int


class News(NamedTuple):
    """Attributes:
    reports: of the runs that have ended, or of which the laptop has not seen this.
    missing: runs the VM does not know.
    left: runs that are told of at the next call, because the answer is full.
    """

    reports: Tuple[RunReport, ...]
    pieces: Tuple[Piece, ...]
    missing: Tuple[str, ...]
    left: Tuple[str, ...] = ()


class ListRuns(NamedTuple):
    """Every run in the store, oldest first; answered by `News` without pieces."""


class Have(NamedTuple):
    """The beginning of an event file that the laptop has.

    Attributes:
        name: as `Piece` has it.
        tail: checksum of its last bytes, as `remote.events.checksum` has it.
    """

    name: str
    size_bytes: int
    tail: int


class Events(NamedTuple):
    """What a run's event files of TensorBoard have beyond `have`; answered by `News` with pieces
    only, named by the paths of the files. One from 0 on, of a file that the laptop has a beginning
    of, says that it was begun anew. Without pieces, all has come.
    """

    run_id: str
    have: Tuple[Have, ...] = ()


class Board(NamedTuple):
    """Show runs in the machine's own TensorBoard until the line ends. The same call again adds what
    has come of them since; it is refused where TensorBoard has ended.

    Attributes:
        runs: the interpreter is that of the last one that the machine knows.
        prefix: the path below which its pages are, `/` first; who does not know it sees nothing.
    """

    runs: Tuple[str, ...]
    prefix: str


class Served(NamedTuple):
    """What the process of TensorBoard tells the agent.

    Attributes:
        trouble: why it has no port; then that is 0.
    """

    port: int
    trouble: str = ""


class Shown(NamedTuple):
    """Attributes:
    port: of the machine's own address 127.0.0.1.
    runs: those that have event files by now.
    """

    port: int
    runs: Tuple[str, ...]


class Cancel(NamedTuple):
    """Ask a run to end. Durable: the run sees it, whatever happens to the line.

    Attributes:
        fallen: the one of its gang that it is ended for.
        why: the reason of its end, if it is one that run folders know; else the user wants it.
    """

    run_id: str
    fallen: Optional[Ended] = None
    why: str = ""


class GiveBack(NamedTuple):
    """Ask a run to end because another host has it from now on, or is to have it. Durable.

    Attributes:
        begun: also if it has begun; else one that does not wait in the queue any more ignores it.
    """

    run_id: str
    begun: bool = False


class Capacity(NamedTuple):
    """How soon could a run begin here? Answered by `Room`.

    Attributes:
        slots: as `RunRequest` has them.
    """

    slots: Optional[int] = None


class Room(NamedTuple):
    """Attributes:
    slots: of GPUs, or the one of the processor where there are none.
    free: how many of them nobody holds or uses.
    waiting: how many of them those who wait in the queue want, together.
    has_gpus: whether the slots are GPUs.
    """

    slots: int
    free: int
    waiting: int
    has_gpus: bool


class Fetch(NamedTuple):
    """An artifact's bytes from `offset` on, as DATA frames; answered by `Done`.

    Attributes:
        size_bytes: how many at most; None for all.
    """

    run_id: str
    path: str
    offset: int = 0
    size_bytes: Optional[int] = None


class Examine(NamedTuple):
    """Look at the machine for `train doctor`; `framework` also imports TensorFlow (slow).

    Attributes:
        requirements: text of the file from which the environment is built; empty for none.
    """

    python: str
    requirements: str = ""
    framework: bool = True


class Examined(NamedTuple):
    """Attributes:
    driver_gpus: as nvidia-smi names them; driver_trouble says why it could not.
    framework: its name and version, empty where it is not installed.
    framework_gpus: as TensorFlow lists them.
    store_writable: what keeps the store from being used, and store_fix what would mend that, as
        in a refusal; both are empty if nothing does, and the second where nobody knows.
    """

    python: str
    driver_gpus: Tuple[str, ...]
    driver_trouble: str
    framework: str
    framework_gpus: Tuple[str, ...]
    framework_trouble: str
    store_writable: str
    store_fix: str = ""


class Survey(NamedTuple):
    """Look at the cluster whose login node this is.

    Attributes:
        gpus: that a run would want.
        with_job: whether a job is tried, which may take as long as the queue does.
    """

    terms: Slurm
    gpus: int = 1
    with_job: bool = False


class Partition(NamedTuple):
    """A part of the cluster as sinfo has it: `up`, 2 nodes, `1-00:00:00` or `infinite`, `gpu:2`."""

    name: str
    state: str
    nodes: str
    limit: str
    gres: str


class Sighting(NamedTuple):
    """What a job on a compute node saw of the store.

    Attributes:
        gpus: that Slurm gave it, as CUDA_VISIBLE_DEVICES.
        is_locked: whether a lock that is held on the login node is so there, too.
    """

    node: str
    gpus: str
    is_locked: bool


class Surveyed(NamedTuple):
    """Attributes:
    trouble: why nothing could be asked.
    refusal: what Slurm says against a run's job; empty where it would take it.
    job_trouble: why the tried job saw nothing.
    """

    version: str = ""
    partitions: Tuple[Partition, ...] = ()
    trouble: str = ""
    refusal: str = ""
    seen: Optional[Sighting] = None
    job_trouble: str = ""


class Tidy(NamedTuple):
    """What the store holds, and what could go: finished runs older than `keep_days` and what only
    they use. With `drop`, it goes.

    Attributes:
        home: ids of runs whose outputs are all on the laptop; the others stay however old they are.
            None for all runs.
    """

    keep_days: float
    drop: bool = False
    home: Optional[Tuple[str, ...]] = None


class Heap(NamedTuple):
    """One kind of thing in the store: how many, and how many bytes, held and droppable."""

    kind: str
    count: int  # type: ignore[assignment]  # nobody misses tuple's method
    size_bytes: int
    droppable: int
    droppable_bytes: int


class Tidied(NamedTuple):
    """Attributes:
    kept: ids of runs that are old enough to go and stay because they are not home.
    """

    heaps: Tuple[Heap, ...]
    kept: Tuple[str, ...] = ()


class Done(NamedTuple):
    """An answer without content."""


class No(NamedTuple):
    """Why the agent refused.

    Attributes:
        code: for programs: `disk-full`, `no-gpu`, `unknown-run`, ...; `bug` brings a trace.
        fix: what the user can do.
    """

    code: str
    message: str
    fix: str = ""
    trace: str = ""


class Keep(NamedTuple):
    """Guard the machine's cost from now on, in place of what was asked before.

    Attributes:
        session: the laptop's id of it.
        ends_in_s: the hard end, which nothing extends; None for none.
        paid_s: so long may it still be paid for; None where no budget is set.
        idle_s: it stops after so long without a run, a login or a laptop; None for never.
        how: how it can stop itself so that its cost ends (`deallocate`, `poweroff`, `command`);
            empty where it cannot.
        options: what that needs; no secret.
    """

    session: str
    ends_in_s: Optional[float] = None
    paid_s: Optional[float] = None
    idle_s: Optional[float] = None
    how: str = ""
    options: Tuple[Tuple[str, str], ...] = ()


class LetGo(NamedTuple):
    """Guard it no longer: the session is over and the laptop has ended the cost itself."""

    session: str


class HowKept(NamedTuple):
    """Ask the guard how it stands."""


class Stop(NamedTuple):
    """The guard stopped the machine, or tried to.

    Attributes:
        at_s: by the machine's clock.
        why: `idle for 20 min`, `the session's end`, ...
        trouble: why it could not; empty where it could.
    """

    session: str
    at_s: float
    why: str
    trouble: str = ""


class Kept(NamedTuple):
    """How the guard stands.

    Attributes:
        session: the one it keeps; empty where it keeps none.
        stops_at_s: when it would stop the machine as things stand, by its clock; None for never.
        why: what for.
        idle_s: how long nothing has extended it.
        on_s: how long the machine was on in this session, over all its boots, as the guard saw it.
        trouble: why it could not stop the machine; empty where it has tried the right and has it.
        fragile: why it would not come back after a reboot; empty where it would.
        stops: what it did, oldest first.
        seen_s: its last sign of life, by the machine's clock; of before the last boot where it
            has not come back since.
    """

    session: str = ""
    stops_at_s: Optional[float] = None
    why: str = ""
    idle_s: float = 0.0
    on_s: float = 0.0
    trouble: str = ""
    fragile: str = ""
    stops: Tuple[Stop, ...] = ()
    seen_s: Optional[float] = None
