"""What `train tensorboard` does: event files brought home while their runs go on, and shown."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from orchestrator.asking import Asking
from orchestrator.desk import Desk
from orchestrator.errors import Refused, TrainshedError
from orchestrator.records.mirror import Mirror, Mirrors, readable
from orchestrator.screen.desktop import open_page
from orchestrator.screen.tell import Silence, Teller
from orchestrator.trackers.eventfiles import copy_events, has_events
from orchestrator.trackers.tensorboard import Shown, no_events, serve_here
from orchestrator.vm.follow import Follower
from orchestrator.vm.link import Link

# TensorBoard looks as often.
_LOOK_S = 2.0
# Where a tree has so many files that a look takes long, there are fewer of them: the machine is
# there to train.
_SHARE = 0.02


def show_board(desk: Desk, names: Sequence[str], *, browser: bool) -> None:
    """Return when the user ends it, by Ctrl-C.

    Args:
        names: the runs, as `find_run` takes them; without, all that have event files or go on.

    Raises:
        UsageError: there is nothing to show, or nothing to show it with.
    """
    chosen = _choose(desk, names)
    asked = [m for m in chosen if m.goes_on or (m.was_heard_of and not has_events(m))]
    with tempfile.TemporaryDirectory(prefix="trainshed-board-") as folder:
        shown = Shown(Path(folder))
        shown.show(chosen)
        if not (shown.any or asked):
            raise no_events()
        with desk.console:
            desk.console.doing("starting TensorBoard")
            address = serve_here(shown.folder)
        desk.console.result(address)
        if browser:
            open_page(address)
        with desk.console:
            desk.console.step("TensorBoard is open until Ctrl-C; runs go on after that")
            if not shown.any:
                desk.console.step("no event files yet; a job's `tensorboard: on` writes them")
            desk.console.doing("showing event files")
            threads = _bring(desk, asked)
            try:
                while shown.any or any(thread.is_alive() for thread in threads):
                    shown.show(chosen)
                    time.sleep(_LOOK_S / 2)
            except KeyboardInterrupt:
                return
    raise no_events()


def _choose(desk: Desk, names: Sequence[str]) -> Sequence[Mirror]:
    if names:
        return [desk.find_run(name) for name in names]
    runs = readable(Mirrors(desk.workspace.state).all(), desk.console)
    return [mirror for mirror in runs if has_events(mirror) or mirror.goes_on]


def _bring(desk: Desk, mirrors: Sequence[Mirror]) -> list[threading.Thread]:
    """Bring home the event files of these runs until they end, each remote's in a thread."""
    asking = Asking(desk.workspace, desk.ledger, mirrors)
    threads = []
    for name, remote in asking.remotes.items():
        mine = [m for m in mirrors if desk.ledger.remote_of(m.run_id) == name]
        bringing = Bringing(partial(desk.link, remote), mine, desk.console)
        threads.append(threading.Thread(target=bringing.run, daemon=True))
        threads[-1].start()
    return threads


class Bringing:
    """The runs of one remote.

    Args:
        connect: gives a link to it.
    """

    def __init__(
        self, connect: Callable[[], Link], mirrors: Sequence[Mirror], tell: Teller
    ) -> None:
        self._connect = connect
        self._mirrors = mirrors
        self._tell = tell
        self._next_look_s = 0.0

    def run(self) -> None:
        """Until all have ended. What goes wrong is told: what is here already can be shown."""
        try:
            link = self._connect()
            follower = Follower(
                self._connect, self._mirrors, Silence(), self._copy, beside=self._look
            )
            # Not held any longer: a guard takes it for somebody who uses the machine.
            follower.follow(link).close()
            self._tell.doing("showing event files; nothing more comes")
        except TrainshedError as error:
            self._tell.warn(f"what is here is shown, but nothing new: {error}")

    def _look(self, link: Link) -> None:
        """Now and then: the follower comes by whenever a run has written a line."""
        began_s = time.monotonic()
        if began_s < self._next_look_s:
            return
        going = [mirror for mirror in self._mirrors if not mirror.ended]
        for mirror in going:
            self._copy(link, mirror)
        self._tell.doing(f"looking for event files of {', '.join(m.run_id for m in going)}")
        now_s = time.monotonic()
        self._next_look_s = now_s + max(_LOOK_S, (now_s - began_s) / _SHARE)

    def _copy(self, link: Link, mirror: Mirror) -> None:
        try:
            copy_events(link, mirror, self._tell)
        except Refused as no:
            self._tell.warn(f"{mirror.run_id}: {no}")
