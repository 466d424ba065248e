"""What `train tensorboard --on-remote` does: the VM's own TensorBoard, through our connection."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import partial

from orchestrator.asking import Asking, remote_of
from orchestrator.connection.forward import forwarded
from orchestrator.desk import Desk
from orchestrator.errors import AgentBroken, UsageError
from orchestrator.records.mirror import Mirror, Mirrors, readable
from orchestrator.screen.desktop import open_page
from orchestrator.settings.spec import Remote
from orchestrator.trackers.tensorboard import no_events
from orchestrator.vm.link import Link
from remote.boardserver import RELOAD_S
from remote.protocol import Board, Shown

# Of the VM's processor, for its looks at what there is: it is there to train.
_SHARE = 0.02


def show_remote_board(desk: Desk, names: Sequence[str], *, browser: bool) -> None:
    """Return when the user ends it, by Ctrl-C; TensorBoard ends with the connection.

    Args:
        names: the runs, as `find_run` takes them; without, all that were sent to that machine.

    Raises:
        UsageError: there is nothing to show, or it is on several machines.
        Refused: TensorBoard is not installed there, or has ended.
        ConnectError: the machine forwards no ports.
        ConnectionLost: the line is gone, and with it TensorBoard.
    """
    remote, chosen = _choose(desk, names)
    # 128 bits: nobody guesses it, and the VM's other users can do no more than guess.
    board = Board(tuple(mirror.run_id for mirror in chosen), f"/{secrets.token_hex(16)}")
    with desk.console:
        link = desk.link(remote)
    with link:
        with desk.console:
            desk.console.doing(f"starting TensorBoard on {remote.name}")
            shown = _ask(link, board)
            if not shown.runs and all(mirror.ended for mirror in chosen):
                raise no_events()
            # Whether it can be reached at all.
            link.open_port(shown.port).close()
        with forwarded(partial(link.open_port, shown.port)) as port:
            address = f"http://127.0.0.1:{port}{board.prefix}/"
            desk.console.result(address)
            if browser:
                open_page(address)
            try:
                with desk.console:
                    _stay(desk, link, board)
            except KeyboardInterrupt:
                return
            finally:
                # First, so that nobody waits for the way on any more.
                link.close()


def _stay(desk: Desk, link: Link, board: Board) -> None:
    """Until Ctrl-C or the line's end."""
    desk.console.step(
        f"TensorBoard of {link.name} is open until Ctrl-C; the machine counts as in use so long"
    )
    while True:
        began_s = time.monotonic()
        runs = len(_ask(link, board).runs)
        desk.console.doing(f"showing {runs} of {len(board.runs)} runs on {link.name}")
        time.sleep(max(RELOAD_S, (time.monotonic() - began_s) / _SHARE))


def _ask(link: Link, board: Board) -> Shown:
    shown = link.call(board, Shown)
    if not 0 < shown.port < 2**16:
        raise AgentBroken(f"{link.name} shows TensorBoard on no port")
    return shown


def _choose(desk: Desk, names: Sequence[str]) -> tuple[Remote, Sequence[Mirror]]:
    """The machine, and its runs as they were made."""
    every = () if names else readable(Mirrors(desk.workspace.state).all(), desk.console)
    found = [desk.find_run(name) for name in names] or every
    sent = sorted((mirror for mirror in found if mirror.was_heard_of), key=Mirror.made_at)
    if not sent:
        raise no_events()
    remotes = Asking(desk.workspace, desk.ledger, sent).remotes
    if len(remotes) > 1:
        raise UsageError(
            f"the runs are on several machines: {', '.join(sorted(remotes))}",
            cause="a machine shows its own runs only",
            fix="name runs of one: train tensorboard RUN --on-remote",
        )
    # Of runs that are nowhere to be asked, it says why.
    remote = next(iter(remotes.values()), None) or remote_of(desk.workspace, desk.ledger, sent[-1])
    return remote, [m for m in sent if desk.ledger.remote_of(m.run_id) == remote.name]
