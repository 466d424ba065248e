"""Make the VM hold what a submission needs, then submit: only missing contents travel."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from orchestrator.errors import AgentBroken, Refused
from orchestrator.link import Link
from orchestrator.size import format_size
from orchestrator.snapshot import LocalTree, Snapshot, read_contents
from orchestrator.tell import Teller
from remote.protocol import Lacking, Offer, Submit, Submitted, Upload, Wanted
from remote.runfolder import RunRequest
from remote.tree import encode_tree

# Enough for a tree that goes bad on the VM between the upload and the submission.
_TRIES = 3


def submit(link: Link, snapshot: Snapshot, requests: tuple[RunRequest, ...], tell: Teller) -> None:
    """Start the runs, sending first what the VM lacks. Doing it again starts nothing twice.

    The digests go first: when nothing has changed, this is one exchange.

    Raises:
        Refused: the VM cannot run them, or its disk is full.
        ConnectionLost: what had come is kept there.
    """
    for _ in range(_TRIES):
        unknown = link.call(Submit(requests), Submitted).unknown_trees
        if not unknown:
            return
        for tree in snapshot.trees:
            if tree.digest in unknown:
                _send(link, tree, tell)
    raise Refused(
        f"{link.name} keeps losing the files it was sent", fix=f"see: train doctor {link.name}"
    )


def _send(link: Link, tree: LocalTree, tell: Teller) -> None:
    manifest = zlib.compress(encode_tree(tree.tree), 1)
    lacking = link.call(Offer(tree.digest), Wanted, manifest).objects
    name = tree.path or "code"
    if not lacking:
        tell.step(f"synced {name}: nothing to send, all contents are there")
        return
    _check_answer(link, tree, lacking)
    total = sum(wanted.size_bytes - wanted.have_bytes for wanted in lacking)

    def chunks() -> Iterator[bytes]:
        sent = 0
        wanted = ((one.sha256, one.size_bytes, one.have_bytes) for one in lacking)
        for block in read_contents(tree, wanted):
            yield block
            sent += len(block)
            tell.doing(f"sending {name}", sent, total)

    link.upload(Upload(tree.digest, lacking), chunks())
    tell.step(f"synced {name}: sent {len(lacking)} of {len(tree.tree)} files, {format_size(total)}")


def _check_answer(link: Link, tree: LocalTree, lacking: tuple[Lacking, ...]) -> None:
    """Nothing but contents of this tree leaves the laptop, whatever the VM asks for."""
    sizes = {entry.sha256: entry.size_bytes for entry in tree.tree.values() if entry.sha256}
    for wanted in lacking:
        sound = sizes.get(wanted.sha256) == wanted.size_bytes
        if not sound or not 0 <= wanted.have_bytes <= wanted.size_bytes:
            raise AgentBroken(f"{link.name} asked for a file that is not part of the snapshot")
