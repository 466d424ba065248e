"""What the agent does about the guard: gives it terms, asks after it, lets it go, revives it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

from remote import keepalive, selfstop
from remote.atomic import replace_file
from remote.guardfolder import Beat, GuardFolder, Terms, guard_folder, this_moment, was_stopped
from remote.guardrules import Look, advance
from remote.lock import is_held, take
from remote.protocol import Keep, Kept
from remote.record import to_bytes
from remote.runs import Refusal

_START_S = 10.0
_END_S = 5.0
_POLL_S = 0.05
_NO_WAY = "it has no way to stop itself so that its cost ends"


def keep(root: Path, call: Keep, package: bytes) -> Kept:
    """Guard by these terms from now on; what stands in the way is in the answer.

    Raises:
        Refusal: terms that are none.
        OSError: no space, no permission; the old terms then stay.
    """
    folder, at = guard_folder(root), this_moment()
    if any(len(option) != 2 for option in call.options):
        raise Refusal("bad-request", "an option is not a name and a value")
    folder.path.mkdir(mode=0o700, exist_ok=True)
    _bring(folder, package)
    trouble = selfstop.check(call.how, dict(call.options)) if call.how else _NO_WAY
    before_s = on_s(folder, call.session, at)
    terms = Terms(secrets.token_hex(8), call, at, before_s, trouble)
    folder.laptop.touch()
    replace_file(folder.terms, to_bytes(terms))
    fragile = keepalive.install(folder, sys.executable)
    if fragile:
        terms = terms._replace(fragile=fragile)
        replace_file(folder.terms, to_bytes(terms))
    _await_guard(root, terms)
    return how_kept(root)


def on_s(folder: GuardFolder, session: str, at: Look) -> float:
    """For how long the machine was on in the session until then, as far as it was guarded."""
    terms = folder.read_terms()
    if terms is None or terms.keep.session != session:
        return 0.0
    beat = _beat(folder, terms)
    if beat is None:
        return terms.before_s
    counted = advance(beat.counted, at, was_stopped(folder.read_boots(), beat.counted))
    return terms.before_s + counted.on_s


def let_go(root: Path, session: str) -> None:
    """Guard no longer, unless it is another session that is guarded.

    Raises:
        Refusal: it is.
    """
    folder = guard_folder(root)
    terms = folder.read_terms()
    if terms is None:
        return
    if terms.keep.session != session:
        guarded = terms.keep.session
        raise Refusal("other-session", f"the machine is guarded for session {guarded}")
    folder.terms.unlink()
    folder.laptop.unlink(missing_ok=True)
    keepalive.remove(folder)
    end = time.monotonic() + _END_S
    while is_held(folder.lock) and time.monotonic() < end:
        time.sleep(_POLL_S)
    # From now on nobody knows how long the machine is on.
    folder.beat.unlink(missing_ok=True)


def how_kept(root: Path) -> Kept:
    """How the guard stands, by its last sign of life."""
    folder = guard_folder(root)
    terms, stops = folder.read_terms(), folder.read_stops()
    if terms is None:
        return Kept(stops=stops)
    kept = Kept(
        terms.keep.session,
        on_s=terms.before_s,
        trouble=terms.trouble,
        fragile=terms.fragile,
        stops=stops,
    )
    beat = _beat(folder, terms)
    if beat is None:
        return kept
    count, left_s = beat.counted, beat.stops_in_s
    return kept._replace(
        stops_at_s=None if left_s is None else count.wall_s + left_s,
        why=beat.why,
        idle_s=count.idle_s,
        on_s=terms.before_s + count.on_s,
        seen_s=count.wall_s,
    )


def revive(root: Path) -> None:
    """Start the guard where there should be one and is none.

    Raises:
        OSError: no processes, no space.
    """
    folder = guard_folder(root)
    if not folder.terms.exists():
        return
    lock = take(folder.lock)
    if lock is None:
        return
    try:
        with folder.log.open("ab") as log:
            # With the lock in its hands: there is no moment in which a second one is started.
            subprocess.Popen(
                [*keepalive.guard_command(folder, sys.executable), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=str(folder.path),
                pass_fds=(lock,),
                start_new_session=True,
            )
    finally:
        os.close(lock)


def _await_guard(root: Path, terms: Terms) -> None:
    """Until it goes by these terms, or others have taken their place."""
    folder = guard_folder(root)
    end = time.monotonic() + _START_S
    while _beat(folder, terms) is None:
        found = folder.read_terms()
        if found is None or found.asked != terms.asked:
            return
        if time.monotonic() >= end:
            trouble = f"the guard does not start: see {folder.log}"
            replace_file(folder.terms, to_bytes(terms._replace(trouble=trouble)))
            return
        revive(root)
        time.sleep(_POLL_S)


def _beat(folder: GuardFolder, terms: Terms) -> Optional[Beat]:
    beat = folder.read_beat()
    return beat if beat is not None and beat.asked == terms.asked else None


def _bring(folder: GuardFolder, package: bytes) -> None:
    """Put the guard's program there; a guard that runs another one starts anew (`guard.py`)."""
    if not folder.package.exists() or folder.package.read_bytes() != package:
        replace_file(folder.package, package)
