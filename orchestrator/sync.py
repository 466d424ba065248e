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
        sent: what to tell if nothing is lacking.

    Raises:
        Refused: the VM cannot run them, or its disk is full.
        ConnectionLost: what had come is kept there.
    """
    for _ in range(_TRIES):
        unknown = link.call(Submit(requests), Submitted).unknown_trees
        if not unknown:
            if sent:
                tell.step(sent)
            return
        sent = ""
        for tree in snapshot.trees:
            if tree.digest in unknown:
                _send(link, tree, tell)
    raise Refused(
        f"{link.name} keeps losing the files it was sent", fix=f"see: train doctor {link.name}"
    )


def _send(link: Link, tree: LocalTree, tell: Teller) -> None:
    lacking = _offer(link, tree)
    name = tree.path or "code"
    if not lacking:
        tell.step(f"synced {name}: nothing to send, all contents are there")
        return
    total = sum(span.end - span.begin for wanted in lacking for span in _missing(wanted))
    told = _Told(tell, f"sending {name}", total)
    if _send_parts(link, tree, lacking, told):
        lacking = _offer(link, tree)
    link.upload(Upload(tree.digest, lacking), map(told.sent, read_contents(tree, lacking)))
    tell.step(f"synced {name}: sent {len(lacking)} of {len(tree.tree)} files, {format_size(total)}")


def _offer(link: Link, tree: LocalTree) -> tuple[Lacking, ...]:
    manifest = zlib.compress(encode_tree(tree.tree), 1)
    lacking = link.call(Offer(tree.digest), Wanted, manifest).objects
    _check_answer(link, tree, lacking)
    return lacking


def _send_parts(link: Link, tree: LocalTree, lacking: tuple[Lacking, ...], told: _Told) -> bool:
    """Send what is large over several connections, where that is faster; whether it was."""
    paths = {entry.sha256: tree.folder / path for path, entry in tree.tree.items()}

    def send(lane: Link, piece: Piece) -> None:
        call = Part(piece.name, Span(piece.begin, piece.end))
        blocks = read_span(paths[piece.name], piece.begin, piece.end)
        lane.begin_upload(call, map(told.sent, blocks))

    def settle(lane: Link, piece: Piece) -> None:
        lane.end_upload()
        piece.begin = piece.end

    spans = [(w.sha256, span) for w in lacking if _is_large(w) for span in _missing(w)]
    work = Work(spans, send, settle)
    if work.lanes(link) == 1:
        return False
    work.share(link)
    return True


def _is_large(wanted: Lacking) -> bool:
    return wanted.size_bytes - wanted.have_bytes >= _LARGE_BYTES


def _missing(wanted: Lacking) -> tuple[Span, ...]:
    return gaps(wanted.parts, wanted.have_bytes, wanted.size_bytes)


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
