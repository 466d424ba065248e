"""A run on the VM: the records in its folder, the names of its files, and who may write each."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple

# More than anybody asks for; a run's states stay small.
RESTART_LIMIT = 100

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


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


class Attempt(NamedTuple):
    """What a run had done when it was interrupted. Times as in `RunState`.

    Attributes:
        ended_at: of its last sign of life.
    """

    ended_at: str
    setting_up_at: Optional[str] = None
    running_at: Optional[str] = None


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


class Artifact(NamedTuple):
    """An output file, as the VM hashed it after the run's end."""

    path: str
    size_bytes: int
    sha256: str


class Artifacts(NamedTuple):
    files: Tuple[Artifact, ...]


class RunFolder(NamedTuple):
    """The files of one run. The agent makes the folder by rename, with `request` in it; all else
    is the supervisor's, but `cancel` and `restarts`, which the agent adds, and `notice`.
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
        return self.path / "cancel"

    @property
    def notice(self) -> Path:
        """Left by whoever learns that the machine is about to be taken away (a spot eviction): the
        run is warned, saves, and is interrupted.
        """
        return self.path / "notice"

    @property
    def restarts(self) -> Path:
        """How often it was restarted; written under `lock`, before the supervisor starts."""
        return self.path / "restarts"

    @property
    def stop(self) -> Path:
        """The warning to the job: save what you have."""
        return self.path / "stop"

    @property
    def checkpoints(self) -> Path:
        """What the job keeps for the time after a restart."""
        return self.path / "checkpoints"

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


def is_run_id(text: str) -> bool:
    """Whether `text` can name a run, and so a folder."""
    return _RUN_ID.fullmatch(text) is not None
