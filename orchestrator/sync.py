"""Make the VM hold what a submission needs, then submit: only missing contents travel."""

from __future__ import annotations

import threading
import zlib

from orchestrator.errors import AgentBroken, Refused
from orchestrator.lanes import Piece, Work
from orchestrator.link import Link
from orchestrator.size import format_size
from orchestrator.snapshot import LocalTree, Snapshot, read_contents, read_span
from orchestrator.tell import Teller
from remote.parts import gaps
from remote.protocol import Lacking, Offer, Part, Span, Submit, Submitted, Upload, Wanted
from remote.runfolder import RunRequest
from remote.tree import encode_tree

# Enough for a tree that goes bad on the VM between the upload and the submission.
_TRIES = 3

# Smaller files go together, in one stream.
_LARGE_BYTES = 2 * 2**20


def submit(
    link: Link,
    snapshot: Snapshot,
    requests: tuple[RunRequest, ...],
    tell: Teller,
    sent: str = "",
) -> None:
    """Start the runs, sending first what the VM lacks. Doing it again starts nothing twice.

    The digests go first: when nothing has changed, this is one exchange.

    Args:
        sent: what to tell if nothing is lacking, because it was sent ahead.

    Raises:
        Refused: the VM cannot run them, or its disk is full.
        ConnectionLost: what had come is kept there.
    """
    unknown = link.call(Submit(requests), Submitted).unknown_trees
    for _ in range(_TRIES):
        if not unknown:
            if sent and not link.is_ahead_refused:
                tell.step(sent)
            return
        sent = ""
        trees = tuple(tree for tree in snapshot.trees if tree.digest in unknown)
        loads = [_Load(link, *each, tell) for each in zip(trees, _offer(link, trees), strict=True)]
        for load in loads:
            load.send_parts()
        # None waits for what the VM says to the one before.
        for load in loads:
            load.begin()
        link.begin_call(Submit(requests))
        refused = [no for load in loads if (no := load.end()) is not None]
        unknown = link.end_call(Submitted).unknown_trees
        # Another laptop may have sent the same at the same time, and taken away what it had whole.
        if refused and any(no.code != "damaged" for no in refused):
            raise refused[0]
    raise Refused(
        f"{link.name} keeps losing the files it was sent", fix=f"see: train doctor {link.name}"
    )


def _offer(link: Link, trees: tuple[LocalTree, ...]) -> tuple[tuple[Lacking, ...], ...]:
    """What the VM lacks of each; what several need is only named with the first."""
    for tree in trees:
        link.begin_call(Offer(tree.digest), zlib.compress(encode_tree(tree.tree), 1))
    answers = [link.end_call(Wanted).objects for _ in trees]
    named: set[str] = set()
    lacking = []
    for tree, wanted in zip(trees, answers, strict=True):
        _check_answer(link, tree, wanted)
        lacking.append(tuple(one for one in wanted if one.sha256 not in named))
        named |= {one.sha256 for one in wanted}
    return tuple(lacking)


class _Load:
    """What a tree lacks, on its way."""

    def __init__(
        self, link: Link, tree: LocalTree, lacking: tuple[Lacking, ...], tell: Teller
    ) -> None:
        self._link, self._tree, self._lacking, self._tell = link, tree, lacking, tell
        self._name = tree.path or "code"
        self._size_bytes = sum(s.end - s.begin for wanted in lacking for s in _missing(wanted))
        self._told = _Told(tell, f"sending {self._name}", self._size_bytes)

    def send_parts(self) -> None:
        """Send what is large over several connections, where that is faster."""
        paths = {entry.sha256: self._tree.folder / path for path, entry in self._tree.tree.items()}

        def send(lane: Link, piece: Piece) -> None:
            call = Part(piece.name, Span(piece.begin, piece.end))
            blocks = read_span(paths[piece.name], piece.begin, piece.end)
            lane.begin_upload(call, map(self._told.sent, blocks))

        def settle(lane: Link, piece: Piece) -> None:
            lane.end_upload()
            piece.begin = piece.end

        work = Work(
            [(w.sha256, span) for w in self._lacking if _is_large(w) for span in _missing(w)],
            send,
            settle,
        )
        if work.lanes(self._link) > 1:
            work.share(self._link)
            self._lacking = tuple(_in_parts(w) if _is_large(w) else w for w in self._lacking)

    def begin(self) -> None:
        """Send the rest."""
        if self._lacking:
            contents = read_contents(self._tree, self._lacking)
            call = Upload(self._tree.digest, self._lacking)
            self._link.begin_upload(call, map(self._told.sent, contents))

    def end(self) -> Refused | None:
        """Wait until it has arrived; returns what is to be raised when all answers are read."""
        if self._lacking:
            try:
                self._link.end_upload()
            except Refused as no:
                return no
            sent = f"{len(self._lacking)} of {len(self._tree.tree)} files"
            self._tell.step(f"synced {self._name}: sent {sent}, {format_size(self._size_bytes)}")
        else:
            self._tell.step(f"synced {self._name}: nothing to send, all contents are there")
        return None


def _is_large(wanted: Lacking) -> bool:
    return wanted.size_bytes - wanted.have_bytes >= _LARGE_BYTES


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


def _check_answer(link: Link, tree: LocalTree, lacking: tuple[Lacking, ...]) -> None:
    """Nothing but contents of this tree leaves the laptop, whatever the VM asks for."""
    sizes = {entry.sha256: entry.size_bytes for entry in tree.tree.values() if entry.sha256}
    for wanted in lacking:
        sound = sizes.get(wanted.sha256) == wanted.size_bytes
        bounds = [0, wanted.have_bytes]
        for span in wanted.parts:
            bounds += (span.begin, span.end)
        if not sound or sorted(bounds) != bounds or bounds[-1] > wanted.size_bytes:
            raise AgentBroken(f"{link.name} asked for a file that is not part of the snapshot")
