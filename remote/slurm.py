"""Slurm's commands on a login node or in a job: what is asked of them, and what they say.

Fixed formats only, never --json: its fields change with each release, and not every build has it.
Source: sbatch(1), squeue(1), sacct(1), scancel(1); tried with Slurm 22.05.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from remote.runfolder import GANG_LIMIT
from remote.trouble import SlurmTrouble

# A controller under load answers late; one that is gone, Slurm's own commands give up on.
_LIMIT_S = 90.0
# Where a job waits for the answer that is to be ended.
_BRIEF_LIMIT_S = 3.0
_POLL_S = 0.02
# Below the ports that systems give to programs. Two gangs that share a node have different ones,
# unless the numbers of their jobs differ by a multiple of 256.
_PORTS_FROM, _PORT_BLOCKS = 16384, 256
# With these a user changes what the commands say, or whether sbatch returns.
_OWN_TASTE = (
    "SACCT_",
    "SCANCEL_",
    "SQUEUE_",
    "SBATCH_ARRAY",
    "SBATCH_WAIT",
    "SINFO_",
    "SLURM_TIME",
)
_FIELDS = "%F|%K|%T|%S|%r|%j"
# What no node could ever do, Slurm refuses with a job that has failed, and this as its reason.
_IMPOSSIBLE = "BadConstraints"
_ENDED = {
    _IMPOSSIBLE: "no node has what its job asks for",
    "BOOT_FAIL": "its node did not come up",
    "CANCELLED": "its job was cancelled in Slurm",
    "COMPLETED": "its job ended",
    "DEADLINE": "its job was past its deadline",
    "FAILED": "its job failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "its job used more memory than it had asked for",
    "PREEMPTED": "its job had to make room for another",
    "REVOKED": "its job went to another cluster",
    "TIMEOUT": "its job reached its time limit in Slurm",
}

# How a job ended that nobody knows of any more.
UNKNOWN = "?"
# Ten thousand numbers are longer than Linux lets an argument be (128 KiB).
_ASKED_AT_ONCE = 1000
# What sacct says where there is no accounting_storage.
_NO_ACCOUNTS = "accounting storage is disabled"

# Jobs that ended so it queues again itself, if they were handed in with --requeue.
REQUEUED = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED")

Tick = Callable[[], None]


class Place(NamedTuple):
    """Where a job stands in Slurm.

    Attributes:
        name: as it was handed in.
        task: its place in an array; empty where it is in none.
        number: as scancel takes it, `12`, or `12_3` in an array.
        word: its state, as `PENDING`.
        reason: why it waits, as `Resources`.
        starts_s: when it is expected to start, seconds since 1970 UTC; None where nobody knows.
    """

    name: str
    task: str
    number: str
    word: str
    reason: str = ""
    starts_s: Optional[float] = None

    @property
    def ended(self) -> bool:
        return self.word in _ENDED


def hand_in(options: Sequence[str], script: str, tick: Tick) -> str:
    """The number of a new job.

    Raises:
        SlurmTrouble: it was refused, or nobody knows whether it was taken.
    """
    said = ask(["sbatch", "--parsable", *options], tick, script)
    return said.strip().rpartition("\n")[2].partition(";")[0]


def places(tick: Tick) -> Tuple[Place, ...]:
    """This user's jobs, those that ended a few minutes ago included; in one question.

    Raises:
        SlurmTrouble: there is no answer.
    """
    words = ["squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", _FIELDS]
    found: List[Place] = []
    for line in ask(words, tick).splitlines():
        fields = line.split("|", 5)
        if len(fields) < 6:
            continue
        number, task, word, starts, reason, name = fields
        task = "" if task == "N/A" else task
        word = _IMPOSSIBLE if (word, reason) == ("FAILED", _IMPOSSIBLE) else word
        number = f"{number}_{task}" if task else number
        found.append(Place(name, task, number, word, reason, _moment(starts)))
    return tuple(found)


def endings(numbers: Sequence[str], tick: Tick) -> Dict[str, str]:
    """How jobs ended of which squeue does not know any more: the word, or `UNKNOWN` for good, where
    no accounts are kept or they lack the job. What the accounts do not say yet is left out: they
    are kept by a daemon of their own, which may be away, or behind.
    """
    found: Dict[str, str] = {}
    for first in range(0, len(numbers), _ASKED_AT_ONCE):
        asked = numbers[first : first + _ASKED_AT_ONCE]
        words = ["sacct", "-X", "-P", "-n", "-o", "JobID,State", "-j", ",".join(asked)]
        try:
            lines = ask(words, tick).splitlines()
        except SlurmTrouble as trouble:
            has_none = isinstance(trouble.__cause__, FileNotFoundError)
            if not has_none and _NO_ACCOUNTS not in str(trouble):
                break
            lines = []
        pairs = (line.split("|", 1) for line in lines if "|" in line)
        # `CANCELLED by 1000`
        states = {number: state.split(" ", 1)[0] for number, state in pairs}
        words_of = {number: states.get(number, UNKNOWN) for number in asked}
        found.update((n, word) for n, word in words_of.items() if word in (*_ENDED, UNKNOWN))
    return found


def withdraw(number: str, tick: Tick) -> None:
    """Take a job out of the queue, or end it.

    Raises:
        SlurmTrouble: there is no answer.
    """
    ask(["scancel", number], tick)


def time_left() -> Optional[float]:
    """Seconds until the time limit of the job that this process is in; None for no limit, or where
    Slurm does not say so within seconds: the job is not warned before.
    """
    number = os.environ.get("SLURM_JOB_ID", "")
    try:
        words = ["squeue", "-h", "-j", number, "-o", "%L"]
        return _seconds(ask(words, lambda: None, limit_s=_BRIEF_LIMIT_S).strip())
    except SlurmTrouble:
        return None


def addresses(tick: Tick) -> Tuple[str, ...]:
    """Where each task of the job that this process is in may listen, as `host:port`, the tasks in
    order: one to a node, all with the same answer.

    Raises:
        SlurmTrouble: there is no answer.
    """
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    names = ask(["scontrol", "show", "hostnames", nodes], tick).split()
    # A node's name is Slurm's own, and need not be known elsewhere.
    lines = ask(["sinfo", "-h", "-N", "-n", nodes, "-o", "%N|%o"], tick).splitlines()
    hosts = dict(line.strip().split("|", 1) for line in lines if "|" in line)
    block = int(os.environ.get("SLURM_JOB_ID", "0")) % _PORT_BLOCKS
    first = _PORTS_FROM + block * GANG_LIMIT
    return tuple(f"{hosts.get(name, name)}:{first + index}" for index, name in enumerate(names))


def said_of(word: str) -> str:
    """What became of a job that ended in this state, for people."""
    return f"{_ENDED.get(word, 'Slurm ended its job')} ({word})"


def ask(words: Sequence[str], tick: Tick, text: str = "", *, limit_s: float = _LIMIT_S) -> str:
    """What one of Slurm's commands prints.

    Args:
        text: what it reads.

    Raises:
        SlurmTrouble: it is not there, does not answer or says no.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_OWN_TASTE)}
    # As seconds since 1970, whatever the time zone here.
    environment["SLURM_TIME_FORMAT"] = "%s"
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, (
        tempfile.TemporaryFile()
    ) as err:
        source.write(text.encode())
        source.seek(0)
        try:
            process = subprocess.Popen(
                list(words), stdin=source, stdout=out, stderr=err, env=environment
            )
        except OSError as error:
            raise SlurmTrouble(f"there is no {words[0]} on this machine") from error
        end = time.monotonic() + limit_s
        while process.poll() is None:
            if time.monotonic() > end:
                process.kill()
                process.wait()
                raise SlurmTrouble(f"{words[0]} did not answer within {limit_s:g} s")
            tick()
            time.sleep(_POLL_S)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            said = err.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            said = said.rpartition("error: ")[2]
            raise SlurmTrouble(said[:300] or f"{words[0]} ended with {process.returncode}")
        return out.read().decode("utf-8", "replace")


def _moment(text: str) -> Optional[float]:
    # More digits are a year that no calendar here has.
    return float(text) if re.fullmatch("[0-9]{1,10}", text) else None


def _seconds(text: str) -> Optional[float]:
    """Of `1-02:03:04`, `2:03:04` or `3:04`."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
