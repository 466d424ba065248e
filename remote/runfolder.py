"""A run on the VM: the records in its folder, the names of its files, and who may write each."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple

# More than anybody asks for; a run's states stay small.
RESTART_LIMIT = 100

# Each worker is a run of its own, watched and told of.
GANG_LIMIT = 64

# Of what Keras saves as one file with which a model can be made again.
MODEL_SUFFIXES = (".h5", ".hdf5", ".keras")

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A run's own id ends in a dash and a token.
_WORKER = re.compile(r"\.w[1-9][0-9]*\Z")

STAYS_ON = "stays on"

# Why a run is `cancelled`: what stands in `reason`.
BY_USER = "cancelled by the user"
# It was given back before it began, or ended for one elsewhere.
GIVEN_BACK = "given to another host"
BY_SWEEP = "ended by its sweep"
SESSION_OVER = "its session was over"


class State(enum.Enum):
    """A run's states, in the order in which they can come; written by its supervisor only."""

    QUEUED = "queued"
    SETTING_UP = "setting-up"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"
    SETUP_FAILED = "setup-failed"

    @property
    def final(self) -> bool:
        return self not in (State.QUEUED, State.SETTING_UP, State.RUNNING)


class DataFolder(NamedTuple):
    """A folder shared read-only between runs: where it stands in the tree, and its digest."""

    path: str
    digest: str


class Slurm(NamedTuple):
    """The terms on which a cluster is asked for a run's job; what is empty is left to the cluster.

    Attributes:
        gres: the kind of GPU, as `gpu:a100`; how many of it, the run says.
        memory: with its unit, as `16G`.
        time_s: asked for where the run has no time limit.
        lines: further options of sbatch, as `--constraint=volta`.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = ""
    cpus: int = 0
    memory: str = ""
    time_s: Optional[float] = None
    lines: Tuple[str, ...] = ()


class Gang(NamedTuple):
    """A run's place among those that start together, work on one thing, and end when one fails.

    Attributes:
        rank: 0 is the chief, the only one with outputs.
        addresses: `host:port` of each, in order; empty where a cluster says in the job what they
            are. With them, each has a machine and a store of its own.
    """

    rank: int
    size: int
    addresses: Tuple[str, ...] = ()


class Ended(NamedTuple):
    """Another run of a gang, and how it ended.

    Attributes:
        who: what users call it.
    """

    who: str
    state: State


class RunRequest(NamedTuple):
    """What to execute. Written once by the agent, before the supervisor starts.

    Attributes:
        tree: digest of the snapshot.
        command: for /bin/sh, with the tree as working directory.
        outputs: paths or globs in the tree.
        gpus: slots it needs.
        slots: GPU slots the machine has, as the user declared; None asks the driver.
        grace_s: between the warning signal and the kill.
        python: the interpreter `python` means for the command, or the base of its environment.
        requirements: a file of the tree to build an environment from; empty for none.
        restarts: how often it may be started again after it was interrupted.
        check: whether the models among the outputs are loaded at the end.
        tensorboard: whether fits write event files, where the script does not.
        slurm: set where the machine is the login node of a cluster, which gives the run its place.
        gang: set where it is one of several that start together.
    """

    run_id: str
    job: str
    tree: str
    command: str
    outputs: Tuple[str, ...] = ()
    data: Tuple[DataFolder, ...] = ()
    gpus: int = 1
    slots: Optional[int] = None
    time_limit_s: Optional[float] = None
    grace_s: float = 30.0
    python: str = "python3"
    requirements: str = ""
    params: Dict[str, str] = {}  # noqa: RUF012  # nobody writes to it
    metrics: bool = True
    restarts: int = 0
    check: bool = False
    tensorboard: bool = False
    slurm: Optional[Slurm] = None
    gang: Optional[Gang] = None

    @property
    def label(self) -> str:
        """Whose lines these are, where several runs are told of at once."""
        return worker_id(self.job, self.gang.rank if self.gang else 0)


class Attempt(NamedTuple):
    """What a run had done when it was interrupted. Times as in `RunState`.

    Attributes:
        ended_at: of its last sign of life.
    """

    ended_at: str
    setting_up_at: Optional[str] = None
    running_at: Optional[str] = None


class Loading(NamedTuple):
    """What came of loading a model where it was made.

    Attributes:
        versions: of the framework; empty where there was none.
        inputs, outputs: their shapes, as `(any, 28, 28, 1)`.
        trouble: why it does not load; empty if it does.
    """

    path: str
    versions: str = ""
    inputs: Tuple[str, ...] = ()
    outputs: Tuple[str, ...] = ()
    trouble: str = ""


class RunState(NamedTuple):
    """Where a run stands. Times are ISO 8601 UTC, of the VM's clock.

    Attributes:
        boot_id: of the boot in which it was written; another one now means the VM restarted.
        exit_code: of the command; None if it did not run or a signal ended it.
        signal: that ended the command.
        reason: one line for the user, when there is more to say.
        restarts: how often it was started again.
        earlier: what it did before, in order; the times above are those of the last attempt, but
            `queued_at`, which stays the first's.
        loadings: of its models, where that was asked for and it succeeded.
    """

    state: State
    queued_at: str
    boot_id: str = ""
    setting_up_at: Optional[str] = None
    running_at: Optional[str] = None
    ended_at: Optional[str] = None
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reason: str = ""
    restarts: int = 0
    earlier: Tuple[Attempt, ...] = ()
    loadings: Tuple[Loading, ...] = ()


class Artifact(NamedTuple):
    """An output file, as the VM hashed it after the run's end."""

    path: str
    size_bytes: int
    sha256: str


class Artifacts(NamedTuple):
    files: Tuple[Artifact, ...]


class RunFolder(NamedTuple):
    """The files of one run. The agent makes the folder by rename, with `request` and an empty `log`
    in it; all else is the supervisor's, but `cancel`, `give_back`, `restarts` and `job`, which the
    agent adds, and `notice`.
    """

    path: Path

    @property
    def request(self) -> Path:
        return self.path / "request.json"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def usage(self) -> Path:
        return self.path / "usage.jsonl"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts.json"

    @property
    def tree(self) -> Path:
        return self.path / "tree"

    @property
    def lock(self) -> Path:
        """Held (flock) by the supervisor for as long as it lives."""
        return self.path / "lock"

    @property
    def cancel(self) -> Path:
        """It is to end; in it stands GIVEN_BACK, BY_SWEEP or SESSION_OVER where that is why, or the
        `Ended` of its gang that it ends for; nothing where the user wants it.
        """
        return self.path / "cancel"

    @property
    def give_back(self) -> Path:
        """It is to end if it has not begun: its supervisor looks only while it waits for slots."""
        return self.path / "give-back"

    @property
    def notice(self) -> Path:
        """Left by whoever learns that the machine is about to be taken away (a spot eviction): the
        run is warned, saves, and is interrupted. With a second line, STAYS_ON, by the guard of a
        machine that cannot stop itself: no reboot is to come, so the run ends for good.
        """
        return self.path / "notice"

    @property
    def restarts(self) -> Path:
        """How often it was restarted; written under `lock`, before the supervisor starts."""
        return self.path / "restarts"

    @property
    def job(self) -> Path:
        """Which job of the cluster it is; the agent's, written before the job is handed in."""
        return self.path / "job.json"

    @property
    def stop(self) -> Path:
        """The warning to the job: save what you have."""
        return self.path / "stop"

    @property
    def checkpoints(self) -> Path:
        """What the job keeps for the time after a restart."""
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        """TensorBoard's event files of the fits that were given our callback."""
        return self.path / "events"

    @property
    def package(self) -> Path:
        """The `remote` package this run's supervisor and launcher are made of."""
        return self.path / "remote.zip"


def why_lost(state: RunState, boot_id: str) -> str:
    """What became of a run that has no supervisor and no end, seen in the boot `boot_id`."""
    where = f"while it was {state.state.value}"
    if state.boot_id and boot_id and state.boot_id != boot_id:
        return f"the VM restarted {where}"
    # A queued run's reason is what it waits for; past the queue there is one only at a warning.
    if state.reason and state.state is not State.QUEUED:
        return f"{state.reason} {where}"
    return f"its supervisor was killed {where}"


def why_cancelled(run: RunFolder) -> str:
    """What the file `cancel` says, as far as it is one of the reasons above."""
    try:
        why = run.cancel.read_bytes()
    except OSError:
        return BY_USER
    known = {word.encode("ascii"): word for word in (GIVEN_BACK, BY_SWEEP, SESSION_OVER)}
    return known.get(why, BY_USER)


def worker_id(chief: str, rank: int) -> str:
    """The id of a run in the gang of the run `chief`, which is the first of it."""
    return f"{chief}.w{rank}" if rank else chief


def worker_name(rank: int) -> str:
    """What users call it."""
    return f"worker {rank}" if rank else "the chief"


def chief_id(run_id: str) -> str:
    """The id of its gang's first run; of a run without a gang, its own."""
    return _WORKER.sub("", run_id)


def gang_ids(request: RunRequest) -> Tuple[str, ...]:
    """Of all in a run's gang, the chief's first; of a run without a gang, its own."""
    size = request.gang.size if request.gang else 1
    return tuple(worker_id(chief_id(request.run_id), rank) for rank in range(size))


def gang_folders(run: RunFolder, request: RunRequest) -> Tuple[RunFolder, ...]:
    """Those of `gang_ids`, which are there only where one store has them all."""
    return tuple(RunFolder(run.path.with_name(run_id)) for run_id in gang_ids(request))


def is_run_id(text: str) -> bool:
    """Whether `text` can name a run, and so a folder."""
    return _RUN_ID.fullmatch(text) is not None
