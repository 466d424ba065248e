"""Runs as jobs of a cluster: which job each is, and what Slurm says of it.

The truth about a run is its own state file, which its supervisor writes on the compute node. Slurm
is asked for what that cannot know: why a job waits, and what became of one that left no end.
"""

from __future__ import annotations

import time
from typing import Dict, Iterable, NamedTuple, Optional

from remote import slurm
from remote.atomic import replace_file
from remote.listing import by_name, endings, look
from remote.record import Malformed, from_bytes, to_bytes
from remote.restart import read_state
from remote.runfolder import RunFolder, RunRequest
from remote.slurm import Place
from remote.store import Store

# A server of files may tell a login node of a file a minute after it was written; and what Slurm
# queues again by itself may be shown as ended before.
_LAG_S = 120.0
# A database that is restarted is back by then. The run is over in any case; this is for the word.
_SILENCE_S = 600.0


class Job(NamedTuple):
    """Which job a run is.

    Attributes:
        name: no other submission's job bears it; a run in an array is found by name and task.
        task: its place in an array; empty for a job of its own.
        number: as Slurm calls it; empty until it has said so.
        word, seen_s: in which state of Slurm's it ended, where the run itself did not say, and
            when that was noticed.
        refusal: Slurm's words, where it took no job.
    """

    name: str
    task: str = ""
    number: str = ""
    word: str = ""
    seen_s: float = 0.0
    refusal: str = ""


class Word(NamedTuple):
    """What Slurm says of a run that has neither a supervisor nor an end.

    Attributes:
        waits: for what; empty where nothing more is to come.
        lost: what became of it, where nothing more is to come.
    """

    waits: str = ""
    lost: str = ""


def ask(store: Store, runs: Iterable[RunFolder]) -> Dict[str, Word]:
    """What Slurm says of those of the runs that it was given and that have no end, by run id."""
    # Before the listing: who hands in a job removes that first, and writes the note then.
    jobs = [(run, job) for run in runs if (job := read_job(run)) is not None and not _has_end(run)]
    if not jobs:
        return {}
    listing = look(store)
    if listing.trouble:
        word = Word(f"Slurm does not answer: {listing.trouble}")
        return {run.path.name: word for run, _ in jobs}
    known = by_name(listing.places)
    found = [(run, job, known.get((job.name, job.task))) for run, job in jobs]
    gone = [job.number for _, job, place in found if place is None and job.number and not job.word]
    ends = endings(store, gone) if gone else {}
    return {
        run.path.name: _word(run, job, place, ends.get(job.number, "")) for run, job, place in found
    }


def _has_end(run: RunFolder) -> bool:
    state = read_state(run)
    return state is not None and state.state.final


def _word(run: RunFolder, job: Job, place: Optional[Place], end: str) -> Word:
    """Args:
    place: in Slurm's queue.
    end: by Slurm's accounts, where it is no longer in the queue; empty where they did not say.
    """
    if place is not None and not place.ended:
        note_alive(run, job, place)
        return Word(_waits(place))
    if place is not None and not job.number:
        job = job._replace(number=place.number)
    if not job.number:
        refused = f"Slurm took no job of it: {job.refusal}"
        return Word(lost=refused if job.refusal else "it was accepted but never handed in to Slurm")
    return _ended(run, job, place.word if place else end)


def note_alive(run: RunFolder, job: Job, place: Place) -> None:
    """Whoever handed it in may have been killed before it had noted the number; and of a job that
    Slurm has queued again, it is to be forgotten how it ended before.
    """
    found = Job(job.name, job.task, place.number)
    if found != job:
        note(run, found)


def _waits(place: Place) -> str:
    if place.word != "PENDING":
        return f"job {place.number} is {place.word.lower()} in Slurm"
    reason = "" if place.reason == "None" else f" for {place.reason}"
    text = f"job {place.number} waits in Slurm{reason}"
    left_s = (place.starts_s or 0.0) - time.time()
    if left_s > 0:
        at = time.strftime("%H:%M" if left_s < 86400 else "%Y-%m-%d", time.gmtime(place.starts_s))
        text += f", until about {at} UTC"
    return text


def _ended(run: RunFolder, job: Job, word: str) -> Word:
    """The job is over, and nothing of the run's own is known to be its end."""
    if not job.word and (word or not job.seen_s):
        job = job._replace(word=word, seen_s=time.time())
        note(run, job)
    if not job.word:
        silent = f"job {job.number} has left Slurm's queue, and sacct does not say how it ended"
        is_new = 0 <= time.time() - job.seen_s < _SILENCE_S
        return Word(silent) if is_new else Word(lost=silent)
    if 0 <= time.time() - job.seen_s < _LAG_S:
        if job.word == "COMPLETED":
            return Word(f"job {job.number} has ended, and its result is not to be seen here yet")
        if job.word in slurm.REQUEUED and from_bytes(RunRequest, run.request.read_bytes()).restarts:
            why = slurm.said_of(job.word)
            return Word(f"{why}; Slurm may queue job {job.number} again by itself")
    if job.word == slurm.UNKNOWN:
        return Word(lost=f"Slurm knows nothing of its job {job.number} any more")
    said = slurm.said_of(job.word)
    # Of a supervisor that never came up; where it did, the run's log tells.
    if job.word == "FAILED" and read_state(run) is None and (line := _last_line(run)):
        said += f": {line}"
    return Word(lost=said)


def _last_line(run: RunFolder) -> str:
    try:
        text = (run.path / "supervisor.log").read_bytes()[-2000:].decode("utf-8", "replace")
    except FileNotFoundError:
        return f"there is no {run.path} on the compute node"
    return text.strip().rpartition("\n")[2][:200]


def read_job(run: RunFolder) -> Optional[Job]:
    """Which job it is; None where it was never handed in."""
    try:
        return from_bytes(Job, run.job.read_bytes())
    except (FileNotFoundError, Malformed):
        return None


def note(run: RunFolder, job: Job) -> None:
    replace_file(run.job, to_bytes(job))
