"""Follow runs to their ends: their logs as they grow, over as many connections as it takes."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from orchestrator.connection.hostkeys import Asker
from orchestrator.errors import (
    HOPELESS,
    AgentBroken,
    ConnectionLost,
    Refused,
    TrainshedError,
)
from orchestrator.records.mirror import LOST, UNKNOWN, Mirror, Seen, is_over, opinion
from orchestrator.screen.logview import last_lines
from orchestrator.screen.printable import printable
from orchestrator.screen.tell import Silence, Teller
from orchestrator.size import format_size
from orchestrator.vm.link import Call, Link
from orchestrator.vm.rounds import side_by_side
from remote import clock
from remote.protocol import CHUNK_BYTES, News, Offsets, Piece, RunReport, Watch
from remote.runfolder import RESTART_LIMIT

# Shorter than the limit of silence, so that a quiet run and a dead line are told apart.
_WAIT_S = 2.0
# The first attempts come quickly, for a line that only blinked.
_RETRY_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
# How far back the end of a log is read on the VM.
END_LIMIT_BYTES = 8 * 2**20
# How long to look for a machine that was there before; the runs go on without us.
_RETRY_LIMIT_S = 600.0
# No log of a training is so long; told at this size and whenever it has doubled.
_LONG_LOG_BYTES = 32 * 2**20

# More than these are counted.
_NAMED_AT_MOST = 5

OnEnd = Callable[[Link, Mirror], None]


class Follower:
    """Keeps the mirrors of some runs up to date.

    Args:
        connect: gives a new link when the present one is lost.
        on_end: called once for each run that has ended, with a link that worked just before; when
            it loses the line it is called again.
        is_home: whether nothing is left to do for a run, because another command did it while
            the line was lost.
        beside: called every few seconds, with a link that works.
    """

    def __init__(
        self,
        connect: Callable[[], Link],
        mirrors: Iterable[Mirror],
        tell: Teller,
        on_end: OnEnd,
        sleep: Callable[[float], None] = time.sleep,
        is_home: Callable[[Mirror], bool] = lambda mirror: False,
        beside: Callable[[Link], None] = lambda link: None,
    ) -> None:
        self._connect = connect
        self._mirrors = {mirror.run_id: mirror for mirror in mirrors}
        self._offsets = {run_id: m.offsets() for run_id, m in self._mirrors.items()}
        self._labels = {run_id: m.request.label for run_id, m in self._mirrors.items()}
        seen = {run_id: m.seen for run_id, m in self._mirrors.items()}
        self._stands = {run_id: _standing(one) for run_id, one in seen.items()}
        self._unheard = {run_id for run_id, one in seen.items() if one is None}
        self._tell = tell
        self._on_end = on_end
        self._sleep = sleep
        self._is_home = is_home
        self._beside = beside
        # Runs whose logs are not told yet, and how many lines of each are when all has come.
        self._tails: dict[str, int] = {}

    def replay(self, tail: int | None = None) -> None:
        """Tell what of the logs is here already; following goes on right behind it.

        Args:
            tail: tell only the last so many lines, of what there is now on the VM; that is then
                told when it has come.
        """
        for run_id, mirror in self._mirrors.items():
            if tail is not None:
                self._tails[run_id] = tail
            else:
                self._tell_copy(mirror, 0)

    def _tell_copy(self, mirror: Mirror, start: int) -> None:
        left = self._offsets[mirror.run_id].log - start
        if left > 0:
            with mirror.log.open("rb") as copy:
                copy.seek(start)
                while left and (block := copy.read(min(left, CHUNK_BYTES))):
                    left -= len(block)
                    self._tell.log(self._labels[mirror.run_id], block)

    def _tell_tail(self, mirror: Mirror, count: int) -> None:
        end = self._offsets[mirror.run_id].log
        if end and count:
            with mirror.log.open("rb") as copy:
                start = last_lines(copy, count, end)
            self._tell_copy(mirror, start)

    def follow(self, link: Link) -> Link:
        """Return when all runs have ended; the link returned is the one that works.

        Raises:
            ConnectionLost: there was no way back to the VM for ten minutes.
        """
        while self._mirrors:
            try:
                self._round(link)
                self._beside(link)
            except ConnectionLost as lost:
                link.close()
                try:
                    link = reconnect(self._way_back, lost, self._tell, self._sleep)
                except _AllHome:
                    break
        return link

    def _way_back(self) -> Link:
        """Raises:
        _AllHome: nobody needs it any more.
        """
        for mirror in tuple(self._mirrors.values()):
            if self._is_home(mirror):
                self._tell.step(f"{mirror.run_id} {mirror.verdict}, as another command saw")
                self._leave(mirror.run_id)
        if not self._mirrors:
            raise _AllHome
        return self._connect()

    def catch_up(self, link: Link, wait_s: float = 0.0) -> None:
        """One look: everything there is now, and the ends of those that ended.

        Args:
            wait_s: for something new, where there is nothing.
        """
        while self._round(link, wait_s):
            self._beside(link)
            wait_s = 0.0

    def _round(self, link: Link, wait_s: float = _WAIT_S) -> bool:
        """Take in what is new; whether there is more."""
        asked = tuple(self._offsets[run_id] for run_id in self._mirrors)
        if not asked:
            return False
        news, body = link.call_for_body(Watch(asked, wait_s), News)
        for run_id in self._mirrors.keys() - {*news.missing, *news.left}:
            self._mirrors[run_id].hear()
        unread = self._take_pieces(news.pieces, body)
        unread |= set(news.left) & self._mirrors.keys()
        for run_id in set(news.missing) & self._mirrors.keys():
            self._miss(link, self._mirrors[run_id])
        for run_id in [run_id for run_id in self._tails if run_id not in unread]:
            self._tell_tail(self._mirrors[run_id], self._tails.pop(run_id))
        for report in news.reports:
            self._take_report(link, report, unread)
        self._tell.doing(self._summary())
        has_moved = bool(news.pieces) or len(self._mirrors) < len(asked)
        return bool(unread) and has_moved

    def _take_pieces(self, pieces: Iterable[Piece], body: bytes) -> set[str]:
        """Write them to the mirrors; returns the runs of which not all came."""
        start, unread = 0, set()
        for piece in pieces:
            data = body[start : start + piece.size_bytes]
            start += piece.size_bytes
            expected = self._offsets.get(piece.run_id)
            if expected is None or _offset(expected, piece.name) != piece.offset:
                raise AgentBroken(f"a piece of {piece.run_id[:80]!r} that was not asked for")
            if len(data) != piece.size_bytes or not data:
                raise AgentBroken(f"a piece of {piece.run_id} without its bytes")
            self._mirrors[piece.run_id].add(piece, data)
            self._offsets[piece.run_id] = _moved(expected, piece.name, len(data))
            if piece.name == "log":
                if piece.run_id not in self._tails:
                    self._tell.log(self._labels[piece.run_id], data)
                self._tell_length(piece.run_id, expected.log)
            if len(data) >= CHUNK_BYTES:
                unread.add(piece.run_id)
        return unread

    def _tell_length(self, run_id: str, before_bytes: int) -> None:
        size_bytes = self._offsets[run_id].log
        doublings = [(size // _LONG_LOG_BYTES).bit_length() for size in (before_bytes, size_bytes)]
        if doublings[0] != doublings[1]:
            self._tell.warn(
                f"the log of {run_id} has {format_size(size_bytes)} by now, and all of it is "
                f"copied to {self._mirrors[run_id].log}"
            )

    def _take_report(self, link: Link, report: RunReport, unread: set[str]) -> None:
        mirror = self._mirrors.get(report.run_id)
        if mirror is None:
            raise AgentBroken(f"a report on {report.run_id[:80]!r}, which was not asked for")
        _check_times(report)
        word = opinion(report)
        if report.stamp != self._offsets[report.run_id].seen:
            mirror.see(report, link.hello.boot_id, link.clock_off_s)
            self._stands[report.run_id] = _standing(mirror.seen)
            self._offsets[report.run_id] = self._offsets[report.run_id]._replace(seen=report.stamp)
        if is_over(word) and report.run_id not in unread:
            self._tell.log_ends(self._labels[report.run_id])
            self._on_end(link, mirror)
            self._leave(report.run_id)

    def _miss(self, link: Link, mirror: Mirror) -> None:
        # One that was not heard of may have been submitted since the VM was asked.
        if mirror.run_id not in self._unheard:
            mirror.miss()
        self._tell.log_ends(self._labels[mirror.run_id])
        if mirror.verdict == LOST:
            self._on_end(link, mirror)
        self._leave(mirror.run_id)

    def _leave(self, run_id: str) -> None:
        self._tell_tail(self._mirrors[run_id], self._tails.pop(run_id, 0))
        for table in (self._mirrors, self._offsets, self._labels, self._stands):
            del table[run_id]

    def _summary(self) -> str:
        if len(self._stands) <= _NAMED_AT_MOST:
            return ", ".join(
                f"{self._labels[run_id]} {word}{why}"
                for run_id, (word, why) in self._stands.items()
            )
        counts = Counter(word for word, _ in self._stands.values())
        words = ", ".join(f"{count} {word}" for word, count in counts.items())
        return f"following {len(self._stands)} runs: {words}"


def look(
    link: Link,
    mirrors: Iterable[Mirror],
    tell: Teller,
    on_end: OnEnd | None = None,
    wait_s: float = 0.0,
    beside: Callable[[Link], None] = lambda link: None,
) -> None:
    """Everything there is now, and no more: a line that is lost is not connected again.

    Args:
        wait_s: for something new, where there is nothing.
    """

    def lost() -> Link:
        raise ConnectionLost(f"the connection to {link.name} ended")

    Follower(lost, mirrors, tell, on_end or (lambda link, mirror: None), beside=beside).catch_up(
        link, wait_s
    )


def first_look(mirrors: Iterable[Mirror]) -> Call:
    """What `look` asks first, for those who send it ahead."""
    return Watch(tuple(mirror.offsets() for mirror in mirrors)), b""


def read_end(link: Link, mirror: Mirror, count: int) -> tuple[bytes, bool]:
    """The last `count` lines of a run's log, as the VM has it, and whether these are fewer or not
    whole: no more than the last 8 MiB are read. Nothing is kept of it.
    """
    start, end = _read_log(link, mirror.run_id, [-CHUNK_BYTES])
    size_bytes = CHUNK_BYTES
    while (is_cut := start > 0 and count > end[:-1].count(b"\n")) and size_bytes < END_LIMIT_BYTES:
        # As much again as is here, so that few questions do.
        first, size_bytes = max(0, start - size_bytes), size_bytes * 2
        _, more = _read_log(link, mirror.run_id, range(first, start, CHUNK_BYTES))
        start, end = first, more[: start - first] + end
    return end[last_lines(io.BytesIO(end), count) :], is_cut


def _read_log(link: Link, run_id: str, offsets: Iterable[int]) -> tuple[int, bytes]:
    """Where the first piece begins, and all pieces that begin at these offsets."""
    # Of the other files the least that can be asked for.
    asked = tuple(Offsets(run_id, log=offset, metrics=-1, usage=-1) for offset in offsets)
    news, body = link.call_for_body(Watch(asked), News)
    if run_id in news.missing:
        raise Refused(f"{link.name} does not know {run_id} any more")
    begins, parts, at = [], [], 0
    for piece in news.pieces:
        if piece.name == "log":
            begins.append(piece.offset)
            parts.append(body[at : at + piece.size_bytes])
        at += piece.size_bytes
    return min(begins, default=0), b"".join(parts)


def look_at_all(
    ways: Mapping[str, Callable[[], Link]], mirrors: Mapping[str, Sequence[Mirror]]
) -> dict[str, TrainshedError]:
    """Look at the runs of many remotes side by side; why one could not be asked, by its name.

    One that does not answer keeps none of the others waiting, as long as fewer than 32 are such.
    Ctrl-C waits for none.

    Args:
        ways, mirrors: by the remote's name.
    """

    def trouble_at(name: str, _: Asker | None) -> TrainshedError | None:
        try:
            with ways[name]() as link:
                look(link, mirrors[name], Silence())
        except TrainshedError as trouble:
            return trouble
        return None

    looks = {name: partial(trouble_at, name) for name in ways}
    found = side_by_side(looks, None, Silence())
    return {name: trouble for name, trouble in found if trouble is not None}


def reconnect(
    connect: Callable[[], Link],
    lost: ConnectionLost,
    tell: Teller,
    sleep: Callable[[float], None] = time.sleep,
    limit_s: float | None = None,
) -> Link:
    """A new link to a machine that was there before.

    Raises:
        ConnectionLost: `lost`, when there was no way back within the limit; ten minutes.
        TrainshedError: one of HOPELESS.
    """
    tell.warn(f"{lost}; what runs there goes on, connecting again")
    end = time.monotonic() + (_RETRY_LIMIT_S if limit_s is None else limit_s)
    delays = iter(_RETRY_DELAYS_S)
    delay = 0.0
    while True:
        delay = next(delays, delay)
        tell.doing(f"connecting again in {delay:g} s")
        sleep(delay)
        try:
            link = connect()
        except HOPELESS:
            raise
        except TrainshedError as error:
            if time.monotonic() >= end:
                raise lost from error
            tell.doing(f"not yet: {error}")
        else:
            tell.step(f"connected to {link.name} again")
            return link


def _standing(seen: Seen | None) -> tuple[str, str]:
    """A run's verdict, and why it is so, in brackets."""
    if seen is None:
        return UNKNOWN, ""
    state = seen.report.state
    reason = f" ({printable(state.reason)})" if state and state.reason else ""
    return opinion(seen.report), reason


class _AllHome(Exception):
    """There is nothing left to connect for."""


def _check_times(report: RunReport) -> None:
    """Before they are kept: whoever reads them later relies on them."""
    state = report.state
    if state is None:
        return
    if len(state.earlier) > RESTART_LIMIT:
        raise AgentBroken(f"a report on {report.run_id} with {len(state.earlier)} restarts")
    try:
        earlier = [at for attempt in state.earlier for at in attempt]
        times = (state.queued_at, state.setting_up_at, state.running_at, state.ended_at)
        for at in (*times, *earlier):
            if at is not None:
                clock.parse(at)
    except ValueError as error:
        raise AgentBroken(f"a report on {report.run_id} with a time that is none") from error


def _offset(offsets: Offsets, name: str) -> int | None:
    return {"log": offsets.log, "metrics": offsets.metrics, "usage": offsets.usage}.get(name)


def _moved(offsets: Offsets, name: str, size_bytes: int) -> Offsets:
    match name:
        case "log":
            return offsets._replace(log=offsets.log + size_bytes)
        case "metrics":
            return offsets._replace(metrics=offsets.metrics + size_bytes)
        case _:
            return offsets._replace(usage=offsets.usage + size_bytes)
