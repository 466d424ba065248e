"""Make the VM hold what a submission needs, then submit: only missing contents travel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from orchestrator.errors import AgentBroken, Refused
from orchestrator.screen.headway import took
from orchestrator.screen.tell import Teller
from orchestrator.size import format_size
from orchestrator.source.snapshot import (
    LocalTree,
    Snapshot,
    content_paths,
    read_contents,
    read_span,
)
from orchestrator.vm.ahead import Ahead, offer
from orchestrator.vm.lanes import LEAST_BYTES, Piece, Work
from orchestrator.vm.link import Link
from orchestrator.vm.pace import Pace
from remote.parts import gaps
from remote.protocol import (
    Complete,
    Done,
    Lacking,
    Part,
    Span,
    Submit,
    Submitted,
    Upload,
    Wanted,
)
from remote.runfolder import RunRequest
from remote.tree import content_sizes
from remote.wanted import unpack_wanted

_NOTHING = Ahead()

# Enough for a tree that goes bad on the VM between the upload and the submission.
_TRIES = 3


def submit(
    link: Link,
    snapshot: Snapshot,
    requests: tuple[RunRequest, ...],
    tell: Teller,
    ahead: Ahead = _NOTHING,
) -> None:
    """Start the runs, sending first what the VM lacks. Doing it again starts nothing twice.

    The digests go first: when nothing has changed, this is one exchange.

    Args:
        ahead: what the link was opened with.

    Raises:
        Refused: the VM cannot run them, or its disk is full.
        ConnectionLost: what had come is kept there.
    """
    wanted: dict[str, Wanted] = {}
    unknown = _submit_first(link, snapshot, requests, ahead, wanted)
    if not unknown:
        if ahead.told and not link.is_ahead_refused:
            tell.step(ahead.told)
        return
    for _ in range(_TRIES):
        trees = tuple(tree for tree in snapshot.trees if tree.digest in unknown)
        _ask(link, (tree for tree in trees if tree.digest not in wanted), wanted)
        lacking = tuple(_share(link, trees, wanted))
        wanted.clear()
        loads = [_Load(link, tree, *each, tell) for tree, each in zip(trees, lacking, strict=True)]
        for load in loads:
            load.spread()
        # None waits for what the VM says to the one before.
        for load in loads:
            load.begin()
        link.begin_call(Submit(requests))
        refusals = [no for load in loads for no in load.end()]
        unknown = link.end_call(Submitted).unknown_trees
        if not unknown:
            return
        # Another laptop may have sent the same at the same time, and taken away what it had whole.
        for no in refusals:
            if no.code != "damaged":
                raise no
    raise Refused(
        f"{link.name} keeps losing the files it was sent", fix=f"see: train doctor {link.name}"
    )


def _submit_first(
    link: Link,
    snapshot: Snapshot,
    requests: tuple[RunRequest, ...],
    ahead: Ahead,
    wanted: dict[str, Wanted],
) -> tuple[str, ...]:
    """Submit, and take the answer to the question that went before; returns the unknown trees."""
    refusal = None
    if ahead.is_offered:
        link.begin_call(*ahead.calls[0])
    link.begin_call(Submit(requests))
    if ahead.is_offered:
        try:
            wanted[snapshot.code.digest] = link.end_call(Wanted)
        except AgentBroken:
            raise
        except Refused as no:
            refusal = no
    unknown = link.end_call(Submitted).unknown_trees
    if unknown and refusal is not None:
        raise refusal
    return unknown


def _ask(link: Link, trees: Iterable[LocalTree], wanted: dict[str, Wanted]) -> None:
    """What the VM lacks of each, by the tree's digest."""
    trees = tuple(trees)
    for tree in trees:
        link.begin_call(*offer(tree))
    for tree in trees:
        wanted[tree.digest] = link.end_call(Wanted)


def _share(
    link: Link, trees: Iterable[LocalTree], wanted: Mapping[str, Wanted]
) -> Iterator[tuple[tuple[Lacking, ...], bool]]:
    """What is to be sent for each, and whether it lacks anything; what several lack is only sent
    for the first.

    Nothing but contents of these trees leaves the laptop, whatever the VM asks for.
    """
    named: set[str] = set()
    for tree in trees:
        try:
            lacking = unpack_wanted(wanted[tree.digest], content_sizes(tree.tree))
        except ValueError as error:
            raise AgentBroken(
                f"{link.name} asked for a file that is not part of the snapshot"
            ) from error
        yield tuple(one for one in lacking if one.sha256 not in named), bool(lacking)
        named |= {one.sha256 for one in lacking}


class _Load:
    """What a tree lacks, on its way."""

    def __init__(
        self,
        link: Link,
        tree: LocalTree,
        lacking: tuple[Lacking, ...],
        is_incomplete: bool,  # as `_share` gives it
        tell: Teller,
    ) -> None:
        self._link, self._tree, self._lacking, self._tell = link, tree, lacking, tell
        self._is_incomplete = is_incomplete
        self._name = tree.path or "code"
        self._paths = content_paths(tree)
        self._size_bytes = sum(map(_missing_bytes, lacking))
        self._pace = Pace(is_bound=link.is_near)
        self._told = _Told(tell, f"sending {self._name}", self._size_bytes)
        self._since = time.monotonic()
        # What is to go over the first connection, and what is wrong with what went over others.
        self._rest = lacking
        self._refused: list[Refused] = []
        self._owed = 0

    def spread(self) -> None:
        """Send what there is over several connections, where that is faster."""
        large = [wanted for wanted in self._lacking if _missing_bytes(wanted) >= LEAST_BYTES]
        small = [wanted for wanted in self._lacking if 0 < _missing_bytes(wanted) < LEAST_BYTES]
        batches = {f"batch {n}": batch for n, batch in enumerate(_batches(small))}

        def send(lane: Link, piece: Piece) -> None:
            if batch := batches.get(piece.name):
                self._upload(lane, batch)
                return
            call = Part(piece.name, Span(piece.begin, piece.end))
            blocks = read_span(self._paths[piece.name], piece.begin, piece.end)
            lane.begin_upload(call, map(self._told.sent, blocks), self._pace)

        def settle(lane: Link, piece: Piece) -> None:
            lane.end_call(Done)
            piece.begin = piece.end

        spans = [(wanted.sha256, span) for wanted in large for span in _missing(wanted)]
        spans += [(name, Span(0, sum(map(_missing_bytes, b)))) for name, b in batches.items()]
        work = Work(spans, send, settle)
        if work.lanes(self._link) > 1:
            try:
                work.share(self._link)
            except AgentBroken:
                raise
            except Refused as no:
                self._refused.append(no)
            sent = {wanted.sha256 for wanted in small}
            joined = {wanted.sha256: _in_parts(wanted) for wanted in large}
            rest = (wanted for wanted in self._lacking if wanted.sha256 not in sent)
            self._rest = tuple(joined.get(wanted.sha256, wanted) for wanted in rest)

    def begin(self) -> None:
        """Send the rest."""
        if self._rest and not self._refused:
            self._upload(self._link, self._rest)
            self._owed += 1
        if self._is_incomplete:
            self._link.begin_call(Complete(self._tree.digest))
            self._owed += 1

    def end(self) -> list[Refused]:
        """Wait until it has arrived; returns what is to be raised when all answers are read."""
        for _ in range(self._owed):
            try:
                self._link.end_call(Done)
            except AgentBroken:
                raise
            except Refused as no:
                self._refused.append(no)
        if not self._refused:
            if self._lacking:
                files = f"{len(self._lacking)} of {len(self._tree.tree)} files"
                pace = took(self._size_bytes, time.monotonic() - self._since)
                said = f"sent {files}, {format_size(self._size_bytes)}{pace}"
            else:
                said = "nothing more to send, all contents are there"
            self._tell.step(f"synced {self._name}: {said}")
        return self._refused

    def _upload(self, lane: Link, objects: tuple[Lacking, ...]) -> None:
        contents = read_contents(self._paths, objects)
        lane.begin_upload(Upload(objects), map(self._told.sent, contents), self._pace)


def _batches(small: Iterable[Lacking]) -> Iterator[tuple[Lacking, ...]]:
    """As many at a time as fit into LEAST_BYTES."""
    batch: list[Lacking] = []
    size_bytes = 0
    for wanted in small:
        size_bytes += _missing_bytes(wanted)
        if size_bytes > LEAST_BYTES:
            yield tuple(batch)
            batch, size_bytes = [], _missing_bytes(wanted)
        batch.append(wanted)
    if batch:
        yield tuple(batch)


def _missing_bytes(wanted: Lacking) -> int:
    if not wanted.parts:
        return wanted.size_bytes - wanted.have_bytes
    return sum(span.end - span.begin for span in _missing(wanted))


def _missing(wanted: Lacking) -> tuple[Span, ...]:
    return gaps(wanted.parts, wanted.have_bytes, wanted.size_bytes)


def _in_parts(wanted: Lacking) -> Lacking:
    """As it is when all that was missing has come in parts."""
    return wanted._replace(parts=(Span(wanted.have_bytes, wanted.size_bytes),))


class _Told:
    """Counts what was sent, from several threads."""

    def __init__(self, tell: Teller, text: str, total: int) -> None:
        self._tell, self._text, self._total = tell, text, total
        self._lock = threading.Lock()
        self._sent = 0

    def sent(self, block: bytes) -> bytes:
        with self._lock:
            self._sent = min(self._sent + len(block), self._total)
            self._tell.doing(self._text, self._sent, self._total)
        return block
