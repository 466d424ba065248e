"""What a VM may lie about: one line a lie, with what the user must see of it.

A lie stands between the real agent and the line; it gets each frame, and says others instead.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from remote.protocol import DATA, MAGIC, REFUSAL, RESULT, Frame

Head = dict[str, Any]
Change = Callable[[Frame], Iterable[bytes]]

SHA = "ab" * 32
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\r\x08\x9b2J\u202egpj.exe\ud800"
BOMB_BYTES = 30 * 2**20


@dataclass(frozen=True)
class Lie:
    """Attributes:
    says: stands in what the command says on stderr.
    code: the command's exit code; 0 where the lie does no harm.
    tell: makes what changes the frames, anew for each connection.
    before: what is said before the agent is there.
    """

    says: str
    code: int
    tell: Callable[[], Change]
    before: bytes = b""


def pack(head: object, body: bytes = b"") -> bytes:
    """As `protocol.pack`, but of any head, also of one that is no JSON."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode("ascii")
    return struct.pack(">II", len(text), len(body)) + text + body


def same(frame: Frame) -> bytes:
    return pack({"kind": frame.kind, **frame.head}, frame.body)


def once(is_it: Callable[[Frame], bool], instead: Callable[[Frame], Iterable[bytes]]) -> Change:
    """The first such frame is changed, all others are left as they are."""
    left = [True]

    def change(frame: Frame) -> Iterable[bytes]:
        if left and is_it(frame):
            left.clear()
            return instead(frame)
        return [same(frame)]

    return change


def always(is_it: Callable[[Frame], bool], instead: Callable[[Frame], Iterable[bytes]]) -> Change:
    return lambda frame: instead(frame) if is_it(frame) else [same(frame)]


def is_hello(frame: Frame) -> bool:
    return "clock_s" in frame.head


def is_submitted(frame: Frame) -> bool:
    return "unknown_trees" in frame.head


def is_news(frame: Frame) -> bool:
    return "reports" in frame.head


def is_wanted(frame: Frame) -> bool:
    return "fresh" in frame.head


def is_data(frame: Frame) -> bool:
    return frame.kind == DATA


def is_final(frame: Frame) -> bool:
    return is_news(frame) and any(report["artifacts"] for report in frame.head["reports"])


def hello(**facts: object) -> Callable[[], Change]:
    return lambda: once(is_hello, lambda f: [pack({"kind": RESULT, **f.head, **facts})])


def say(is_it: Callable[[Frame], bool], *blocks: bytes) -> Callable[[], Change]:
    """These bytes in place of the first such frame."""
    return lambda: once(is_it, lambda frame: blocks)


def answer(is_it: Callable[[Frame], bool], **facts: object) -> Callable[[], Change]:
    """Each such answer, with these facts in it."""
    return lambda: always(is_it, lambda f: [pack({"kind": f.kind, **f.head, **facts}, f.body)])


def reports(
    change: Callable[[Head], object], is_it: Callable[[Frame], bool] = is_news
) -> Callable[[], Change]:
    """Each report, after `change` was at it."""

    def instead(frame: Frame) -> Iterable[bytes]:
        for report in frame.head["reports"]:
            change(report)
        return [same(frame)]

    return lambda: always(is_it, instead)


def state(**facts: object) -> Callable[[], Change]:
    """Each state that is told."""
    return reports(lambda report: report["state"] and report["state"].update(facts))


def artifacts(*paths: object, **facts: object) -> Callable[[], Change]:
    """A further output for each path, beside those that are there."""

    def add(report: Head) -> None:
        (first, *_) = report["artifacts"]
        report["artifacts"] += [{**first, **facts, "path": path} for path in paths]

    return reports(add, is_final)


def artifact(**facts: object) -> Callable[[], Change]:
    """What is told of the real output."""
    return reports(lambda report: report["artifacts"][0].update(facts), is_final)


def log(data: bytes, name: str = "log") -> Callable[[], Change]:
    """A further piece of one of the run's files, right behind what it wrote."""
    at: dict[str, int] = {}

    def instead(frame: Frame) -> Iterable[bytes]:
        pieces, body = [], b""
        for piece in frame.head["pieces"]:
            if piece["name"] != name:
                pieces.append(piece)
        for report in frame.head["reports"]:
            begin = at.setdefault(report["run_id"], 0)
            if not begin and data:
                at[report["run_id"]] = len(data)
                piece = {"run_id": report["run_id"], "name": name, "offset": 0}
                # The pieces' bytes lie in their order; only this one is left.
                pieces, body = [{**piece, "size_bytes": len(data)}], data
            else:
                pieces = []
        return [pack({"kind": RESULT, **frame.head, "pieces": pieces}, body)]

    return lambda: always(is_news, instead)


def body(change: Callable[[bytes], bytes]) -> Callable[[], Change]:
    """The bytes of what is pulled."""
    return lambda: always(is_data, lambda f: [same(f._replace(body=change(f.body)))])


def endless(is_it: Callable[[Frame], bool], block: bytes) -> Callable[[], Change]:
    return lambda: once(is_it, lambda frame: itertools.repeat(block))


def drip(frame: Frame) -> Iterator[bytes]:
    """A byte at a time, so that it is never silent for long."""
    yield pack({"kind": RESULT}, b"x" * 10**4)[:9]
    while True:
        time.sleep(1)
        yield b"x"


def nothing_known(frame: Frame) -> Iterable[bytes]:
    ids = [report["run_id"] for report in frame.head["reports"]]
    return [pack({"kind": RESULT, "reports": [], "pieces": [], "missing": ids})]


def repeated() -> Change:
    return lambda frame: [same(frame), same(frame)]


def swapped() -> Change:
    held: list[bytes] = []

    def change(frame: Frame) -> Iterable[bytes]:
        if is_hello(frame) or held:
            return [same(frame), *(held.pop() for _ in held[:])]
        held.append(same(frame))
        return []

    return change


def backwards() -> Change:
    """Each state but the last is told, then the one before the first."""
    told = itertools.count()

    def change(frame: Frame) -> Iterable[bytes]:
        for report in frame.head.get("reports", ()):
            if report["state"] and not report["artifacts"]:
                report["state"]["state"] = ["running", "setting-up", "queued"][next(told) % 3]
                report["stamp"] = str(next(told))
        return [same(frame)]

    return change


def deep(depth: int) -> bytes:
    return pack(b'{"kind": "result", "reports": ' + b"[" * depth + b"]" * depth + b"}")


def many(element: bytes) -> bytes:
    """As large a head as is let through, of the smallest parts."""
    count = BOMB_BYTES // (len(element) + 1)
    return pack(b'{"kind": "result", "x": [' + b",".join([element] * count) + b"]}")


def no(**facts: object) -> Callable[[], Change]:
    refusal = {"kind": REFUSAL, "code": "x", "message": "m", **facts}
    return say(is_submitted, pack(refusal))


NONSENSE, STAYED, CODE_STAYED = "makes no sense", "stayed on the VM", 1

LIES: dict[str, Lie] = {
    # What it is.
    "another version": Lie("speaks another protocol", 5, hello(version=99)),
    "a clock that is no number": Lie(NONSENSE, 5, hello(clock_s=float("nan"))),
    "a clock beyond all years": Lie("", 0, hello(clock_s=1e300)),
    "a clock before all years": Lie("", 0, hello(clock_s=-1e300)),
    "a clock of 2001 digits": Lie(NONSENSE, 5, hello(clock_s=10**2000)),
    "a disk of less than nothing": Lie("", 0, hello(disk_free_bytes=-1, cpus=-(2**63))),
    "escapes in its name": Lie("red", 0, hello(system=ESCAPES, user=ESCAPES, store=ESCAPES)),
    "a name of a megabyte": Lie("xxx", 0, hello(system="x" * 2**20, boot_id="y" * 2**20)),
    # What it asks for.
    "a file of the laptop": Lie(
        "asked for a file that is not part",
        5,
        answer(is_wanted, fresh=[], begun=[{"sha256": SHA, "size_bytes": 9, "have_bytes": 0}]),
    ),
    "contents out of bounds": Lie(
        "asked for a file that is not part",
        5,
        answer(is_wanted, fresh=[{"begin": 0, "end": 2**63}]),
    ),
    "contents from before the first": Lie(
        "asked for a file that is not part", 5, answer(is_wanted, fresh=[{"begin": -5, "end": 1}])
    ),
    "trees for ever": Lie("", 5, answer(is_submitted, unknown_trees=[SHA])),
    "started what it never got": Lie("", 1, answer(is_submitted, unknown_trees=[])),
    # What came of a run.
    "an output above": Lie(STAYED, 2, artifacts("a/../../escaped.h5", "../a/mymodel.h5", "..")),
    "an output from the root": Lie(STAYED, 2, artifacts("/tmp/escaped.h5", "//a/mymodel.h5")),
    "an output with a line feed": Lie(STAYED, 2, artifacts("a/made/x\nerror: no", "a/made/x\r")),
    "an output with escapes": Lie(STAYED, 2, artifacts("a/made/" + ESCAPES, "a/made/\x00")),
    "an output of 4 kB": Lie(STAYED, 2, artifacts("a/made/" + "x" * 4096, "a/made" + "/y" * 2100)),
    "an output of a deep path": Lie("cannot be written", 2, artifacts("a/made" + "/y" * 1990)),
    "an output of a long name": Lie("", 0, artifacts("a/made/" + "y" * 255)),
    "outputs that are twins": Lie(STAYED, 2, artifacts("a/made/curve.txt", "a/made/Curve.TXT")),
    "outputs of one name": Lie(STAYED, 2, artifacts("a/mymodel.h5")),
    "an output and a folder": Lie(STAYED, 2, artifacts("a/mymodel.h5/x", "a/made/b", "a/made")),
    "outputs with dots behind": Lie(STAYED, 2, artifacts("a/made/x.", "a/made/x ", "a/made/. .")),
    "outputs that are devices": Lie(
        STAYED, 2, artifacts("a/made/CON", "a/made/nul.txt", "a/made/C:x")
    ),
    "outputs of no declaration": Lie(STAYED, 2, artifacts("a/job.py", ".bashrc", "train.yaml")),
    "an output of 2^63": Lie(STAYED, 2, artifact(size_bytes=2**63)),
    "an output of -1": Lie(STAYED, 2, artifact(size_bytes=-1)),
    "an output of 2^52": Lie("does not fit", 2, artifact(size_bytes=2**52)),
    "an output of true": Lie(NONSENSE, 5, artifact(size_bytes=True)),
    "an output of infinity": Lie(NONSENSE, 5, artifact(size_bytes=float("inf"))),
    "a digest that is a path": Lie(STAYED, 2, artifact(sha256="../../../escaped")),
    "a digest of other bytes": Lie("is not what the VM hashed", 5, artifact(sha256=SHA)),
    "a digest of nothing": Lie("is not what the VM hashed", 5, artifact(sha256=SHA, size_bytes=0)),
    "other bytes": Lie("is not what the VM hashed", 5, body(lambda data: data[::-1])),
    "fewer bytes": Lie("is not what the VM hashed", 5, body(lambda data: data[:-1] or data)),
    "more bytes": Lie("is not what the VM hashed", 5, body(lambda data: data + b"x")),
    "no bytes": Lie("in empty pieces", 5, body(lambda data: b"")),
    "bytes without end": Lie(
        "sends more than it was asked for", 5, endless(is_data, pack({"kind": DATA}, b"x" * 2**16))
    ),
    "fifty thousand outputs": Lie(
        STAYED, 2, artifacts(*(f"a/elsewhere/{n}" for n in range(50_000)))
    ),
    "another job's run": Lie(
        "which was not asked for", 5, reports(lambda report: report.update(run_id="b-1"))
    ),
    "a run that is a path": Lie(
        "which was not asked for", 5, reports(lambda report: report.update(run_id="../../x"))
    ),
    "a run that nobody knows": Lie("", 0, answer(is_news, missing=["../../x", ESCAPES])),
    "no runs at all": Lie("", 1, lambda: always(is_news, nothing_known)),
    "a state of no name": Lie(NONSENSE, 5, state(state="dancing")),
    "a state that goes back": Lie("", 0, lambda: backwards()),
    "an end in ten thousand years": Lie("", 0, state(ended_at="9999-12-31T23:59:59Z")),
    "a start before all years": Lie("", 0, state(queued_at="0001-01-01T00:00:00Z")),
    "an end before the start": Lie("", 0, state(ended_at="1999-01-01T00:00:00Z")),
    "a time that is none": Lie("a time that is none", 5, state(ended_at="yesterday")),
    "a time of another zone": Lie(
        "a time that is none", 5, state(running_at="2026-01-01T00:00:00+23:59Z")
    ),
    "a reason with escapes": Lie("red", 0, state(reason=ESCAPES)),
    "a reason of a megabyte": Lie("", 0, state(reason="x" * 2**20)),
    "an exit code of 2^70": Lie("", 1, state(exit_code=2**70, state="failed")),
    "a signal that is none": Lie("", 1, state(signal=-(2**70), state="failed")),
    "a log with escapes": Lie("", 0, log(ESCAPES.encode("utf-8", "surrogatepass") + b"\n\xff\xfe")),
    "a line of a megabyte": Lie("", 0, log(b"x" * 2**20)),
    "metrics that are none": Lie("", 0, log(b'{"at": NaN}\n[1]\n{"epoch": "x"}\n\x00', "metrics")),
    "use that is none": Lie(
        "", 0, log(b'{"at": 7}\n[]\n{"at": "9999-12-31T23:59:59Z"}\n', "usage")
    ),
    # How it says it.
    "each frame twice": Lie("", 5, lambda: repeated()),
    "frames out of order": Lie("", 5, lambda: swapped()),
    "a frame of 4 GiB": Lie(NONSENSE, 5, say(is_submitted, struct.pack(">II", 2**32 - 1, 9))),
    "a body of 4 GiB": Lie(NONSENSE, 5, say(is_submitted, struct.pack(">II", 9, 2**32 - 1))),
    "a frame of noise": Lie(NONSENSE, 5, say(is_news, os.urandom(4096))),
    "a frame that is no JSON": Lie(NONSENSE, 5, say(is_submitted, pack(b"{'kind': 1}"))),
    "a frame that is a list": Lie(NONSENSE, 5, say(is_submitted, pack([RESULT]))),
    "a frame of no kind": Lie(NONSENSE, 5, say(is_submitted, pack({"kind": None}))),
    "a frame of another kind": Lie("out of turn", 5, say(is_submitted, pack({"kind": ESCAPES}))),
    "a frame of the wrong types": Lie(
        NONSENSE,
        5,
        say(is_news, pack({"kind": RESULT, "reports": {}, "pieces": 1, "missing": "x"})),
    ),
    "a number of 5000 digits": Lie(
        NONSENSE, 5, say(is_news, pack(b'{"kind": "result", "x": ' + b"9" * 5000 + b"}"))
    ),
    "a deep frame": Lie(NONSENSE, 5, say(is_news, deep(10**5))),
    "a frame of tiny lists": Lie(NONSENSE, 5, lambda: once(is_news, lambda f: [many(b"[]")])),
    "a frame of tiny objects": Lie(
        NONSENSE, 5, lambda: once(is_news, lambda f: [many(b'{"":{}}')])
    ),
    "data where none was asked for": Lie(
        "out of turn", 5, say(is_news, pack({"kind": DATA}, b"x"))
    ),
    "a refusal with escapes": Lie(
        "red", 5, no(message=ESCAPES, code=ESCAPES, fix=ESCAPES, trace=f"{ESCAPES}\n" * 99)
    ),
    "a refusal of a megabyte": Lie("xxx", 5, no(message="x" * 2**20, fix="y" * 2**20)),
    "a refusal that is none": Lie(NONSENSE, 5, no(message=[])),
    "a drip": Lie("comes too slowly", 5, lambda: once(is_news, drip)),
    # What it says before.
    "a greeting of a shell": Lie(
        "", 0, lambda: always(is_data, lambda f: [same(f)]), b"hi\r\n" * 9999
    ),
    "a part of the magic": Lie("", 0, lambda: always(is_data, lambda f: [same(f)]), MAGIC[:-1]),
    "a greeting without end": Lie(
        "says too much", 5, lambda: always(is_data, lambda f: [same(f)]), b"y\n" * 2**20
    ),
}
