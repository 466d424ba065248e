"""The guard: one process of a store that stops the machine when the terms say so, laptop or not.

Started by the agent, and after a reboot or a crash by what `keepalive` has left, as
`python remote.zip guard FOLDER [LOCK]`. It holds a lock for as long as it lives, so that there is
one, and ends when the terms are gone. What it has counted is on the disk at each tick: killed at
any point, the next one goes on from there. Nothing that fails ends it, neither a full disk nor a
question without an answer.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import List, Optional, Set, Tuple

from remote import clock
from remote.atomic import replace_file
from remote.guardfolder import Beat, GuardFolder, Terms, this_moment, was_stopped
from remote.guardrules import TICK_S, Act, Count, Decision, Look, advance, begin, decide
from remote.keepalive import guard_command
from remote.lock import take
from remote.notices import Notices
from remote.presence import LiveRun, Presence, Runs
from remote.processes import read_processes, send_signal
from remote.protocol import Boot, Stop
from remote.record import to_bytes
from remote.runfolder import STAYS_ON
from remote.selfstop import stop

# How soon new terms are seen.
_NAP_S = 1.0
# A machine that was asked to stop goes within minutes. Asked again too soon, the cloud says no.
_RETRY_S, _LAST_RETRY_S = 60.0, 600.0


class Guard:
    """Looks, counts, decides, does; until there are no terms."""

    count: Count
    presence: Presence
    stopping: Optional[Stop]
    boots: Tuple[Boot, ...] = ()

    def __init__(self, folder: GuardFolder) -> None:
        self.folder = folder
        self.runs = Runs(folder.path.parent / "runs")
        self.woken = threading.Event()
        self.notice = ""
        self.notices: Optional[Notices] = None
        self.blind = ""
        self.made_of = _identity(folder.package)

    def run(self) -> None:
        """Guard until nobody asks for it any more."""
        terms: Optional[Terms] = None
        while True:
            found = self.folder.read_terms()
            if found is None:
                return self.folder.say("nobody asks for the guard any more; it ends")
            if terms is None or found.asked != terms.asked:
                if _identity(self.folder.package) != self.made_of:
                    self._start_anew()
                self._take_up(found)
            terms = found
            try:
                wait_s = self.tick(terms)
            except Exception:  # noqa: BLE001  # without a guard the machine would cost for ever
                self.folder.say(traceback.format_exc())
                wait_s = TICK_S
            self._sleep(wait_s, terms)

    def tick(self, terms: Terms) -> float:
        """One look and what follows from it; returns when to look again, in seconds."""
        look, living = self._look()
        self.count = advance(self.count, look, was_stopped(self.boots, self.count))
        decision = decide(terms.limits, self.count, look)
        self._write_beat(terms, decision)
        if self.notice:
            self._note_notice(terms)
        if decision.act is not Act.WAIT:
            self._warn(living, f"{decision.why}\n{STAYS_ON}" if terms.trouble else decision.why)
        elif self.notice:
            self._warn(living, self.notice)
        if decision.act is Act.STOP:
            for run in living:
                # One that has saved stays until the machine goes: see `warn`.
                if run.needs_s:
                    dismiss(run)
            self._stop(terms, decision.why)
        return decision.look_in_s

    def _start_anew(self) -> None:
        """A laptop has brought another version, which knows what that laptop asks for."""
        self.folder.say("it starts anew with the program that came with the new terms")
        os.execv(sys.executable, guard_command(self.folder, sys.executable))  # noqa: S606

    def _take_up(self, terms: Terms) -> None:
        beat, self.boots = self.folder.read_beat(), self._read_boots()
        if beat is not None and beat.asked == terms.asked:
            self.count, sign = beat.counted, beat.sign
            self.folder.say("the guard goes on from its last sign of life")
        else:
            self.count, sign = begin(terms.at), ""
            self.folder.say(f"it guards session {terms.keep.session}: {terms.limits}")
        # What was seen in another boot says nothing about this one.
        is_same_boot = self.count.boot_id == clock.boot_id()
        self.notice = ""
        self.presence = Presence(self.folder.laptop, sign if is_same_boot else "")
        self.stopping = None
        self.attempts = 0
        self.ask_at = 0.0
        self.warned: Set[Tuple[Path, int]] = set()
        self._listen(terms)

    def _read_boots(self) -> Tuple[Boot, ...]:
        try:
            return self.folder.read_boots()
        except (OSError, ValueError) as error:
            self.folder.say(f"what it noted of earlier boots cannot be read: {error}")
            return ()

    def _listen(self, terms: Terms) -> None:
        if self.notices is not None:
            self.notices.end()
            self.notices = None
        options = dict(terms.keep.options)
        if options.get("spot") and options.get("cloud") in ("azure", "aws", "gcp"):
            self.notices = Notices(options["cloud"], self._hear, self.folder.say)
            self.notices.start()

    def _hear(self, notice: str) -> None:
        self.notice = notice
        self.woken.set()

    def _look(self) -> Tuple[Look, List[LiveRun]]:
        now = this_moment()
        living: List[LiveRun] = []
        active: Optional[bool] = None
        try:
            living = self.runs.living()
            moved = self.presence.moved(max(0.0, now.mono_s - self.count.mono_s))
            active, blind = bool(living) or moved, ""
        except (OSError, ValueError) as error:
            blind = f"it cannot see who is there: {error}"
        if blind != self.blind and blind:
            self.folder.say(blind)
        self.blind = blind
        needs_s = max((run.needs_s for run in living), default=0.0)
        return now._replace(active=active, needs_s=needs_s), living

    def _write_beat(self, terms: Terms, decision: Decision) -> None:
        beat = Beat(
            terms.asked,
            self.count,
            self.presence.sign,
            decision.why,
            decision.left_s,
            self.boots,
        )
        try:
            replace_file(self.folder.beat, to_bytes(beat))
        except OSError as error:
            self.folder.say(f"its sign of life cannot be written: {error}")

    def _warn(self, living: List[LiveRun], why: str) -> None:
        for run in living:
            if run.can_hear and (run.folder.path, run.attempt) not in self.warned:
                self.warned.add((run.folder.path, run.attempt))
                self.folder.say(f"{run.folder.path.name} is warned: {why}")
                warn(run, why)

    def _note_notice(self, terms: Terms) -> None:
        stops = self.folder.read_stops()
        if any(s.why == self.notice and s.session == terms.keep.session for s in stops):
            return
        self.folder.say(self.notice)
        self._record(Stop(terms.keep.session, time.time(), self.notice))

    def _stop(self, terms: Terms, why: str) -> None:
        now = time.monotonic()
        if self.attempts and now < self.ask_at:
            return
        if self.stopping is None:
            self.stopping = Stop(terms.keep.session, time.time(), why)
            self.asked_first = now
        elif not self.stopping.trouble:
            passed_s = now - self.asked_first
            trouble = f"it is still on {passed_s:.0f} s after it was asked to stop"
            self.stopping = self.stopping._replace(trouble=trouble)
        # Before it is asked for, because afterwards there may be nobody to write it.
        self.folder.say(f"it stops the machine: {why}")
        self._record(self.stopping)
        trouble = stop(terms.keep.how, dict(terms.keep.options))
        if trouble:
            self.folder.say(f"the machine could not be stopped: {trouble}")
            self.stopping = self.stopping._replace(trouble=trouble)
            self._record(self.stopping)
        self.ask_at = time.monotonic() + min(_RETRY_S * 2**self.attempts, _LAST_RETRY_S)
        self.attempts = min(self.attempts + 1, 10)

    def _record(self, stopped: Stop) -> None:
        """Once, with what is known of it by now."""
        try:
            others = [
                s
                for s in self.folder.read_stops()
                if (s.session, s.at_s) != (stopped.session, stopped.at_s)
            ]
            self.folder.write_stops((*others, stopped))
        except (OSError, ValueError) as error:
            self.folder.say(f"{stopped}: it cannot be recorded: {error}")

    def _sleep(self, wait_s: float, terms: Terms) -> None:
        """Until it is time, or there is something new."""
        end = time.monotonic() + wait_s
        while (left_s := end - time.monotonic()) > 0:
            if self.woken.wait(min(_NAP_S, left_s)):
                self.woken.clear()
                return
            found = self.folder.read_terms()
            if found is None or found.asked != terms.asked:
                return


def _identity(path: Path) -> Tuple[int, int]:
    """Another after each time that the file is replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def warn(run: LiveRun, why: str) -> None:
    """Tell the run's supervisor that the machine goes: it lets the job save, hashes, and ends it.

    One that may be restarted stays until the machine goes, so that no laptop restarts it before.
    """
    try:
        replace_file(run.folder.notice, f"{why}\n".encode())
    except OSError:
        dismiss(run)  # a full disk; the signal comes through


def dismiss(run: LiveRun) -> None:
    """Have the run's supervisor end at once, as far as it has not."""
    send_signal(_supervisors(run), signal.SIGTERM)


def _supervisors(run: LiveRun) -> List[int]:
    wanted = [bytes(run.folder.package), bytes(run.folder.path)]
    found = []
    for process in read_processes(Path("/proc")):
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if words[1:3] == wanted:
            found.append(process.pid)
    return found


def main(arguments: Tuple[str, ...]) -> None:
    """Guard by the terms in folder `arguments[0]`, unless somebody does.

    Args:
        arguments: and the guard's lock in descriptor `arguments[1]`, where it was taken before.
    """
    folder = GuardFolder(Path(arguments[0]))
    # It outlives the login it was started from.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lock = int(arguments[1]) if arguments[1:] else take(folder.lock)
    if lock is not None:
        os.set_inheritable(lock, False)
        Guard(folder).run()
