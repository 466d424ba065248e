"""What the config says, once parsed: remotes, jobs and the workspace. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath

from remote.runfolder import MODEL_SUFFIXES, Slurm


@dataclass(frozen=True)
class Price:
    """What a remote costs while it is on.

    Attributes:
        per_hour: in `currency`; of a cluster, for each GPU that a run has.
        currency: ISO 4217 code, three capitals.
        disk_per_hour: what the disk costs even when the machine is off, where the user said it.
    """

    per_hour: Decimal
    currency: str = "USD"
    disk_per_hour: Decimal | None = None


@dataclass(frozen=True)
class EnvSpec:
    """Which Python runs the jobs, and with what.

    Attributes:
        python: an interpreter on the VM, by name or path.
        requirements: a file of the workspace; a virtual environment is built from it, cached by
            its digest. Without it jobs run with `python` as it is.

    What is None here is left to the remote's, and in the end to `python3` as it is.
    """

    python: str | None = None
    requirements: str | None = None

    def over(self, other: EnvSpec) -> EnvSpec:
        """This one, with what it leaves open taken from `other`."""
        return EnvSpec(self.python or other.python, self.requirements or other.requirements)


@dataclass(frozen=True)
class Limits:
    """What may be spent on a remote, in its price's currency; None for no limit.

    Attributes:
        session: by each session that names no budget of its own.
        month: in a calendar month, by all of its sessions.
    """

    session: Decimal | None = None
    month: Decimal | None = None


@dataclass(frozen=True)
class MonthLimit:
    """What all remotes together may cost in a calendar month."""

    amount: Decimal
    currency: str = "USD"


@dataclass(frozen=True)
class CloudSpec:
    """Where the machine is rented; kept for starting and stopping it.

    Attributes:
        provider: the cloud's name, `azure` for one.
        options: the provider's own keys, sorted by key.
    """

    provider: str
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Remote:
    """A named machine: how to reach it and what it costs.

    Attributes:
        host: an address, or an alias of ~/.ssh/config.
        user, port, key: override what ~/.ssh/config says; None leaves it to that.
        gpus: how many GPU slots it has; None asks the driver; 0 trains on the CPU.
        price: None when the user did not say; then every cost is `unknown`.
        slurm: set where it is the login node of a cluster: what its jobs ask for.
        queued: how many of the user's runs may wait or go on there at once; None for no limit.
        hosts: of a pool, which has no host of its own: names of remotes, and addresses.
        drained: those of `hosts` that take no more runs.
    """

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    key: str | None = None
    gpus: int | None = None
    price: Price | None = None
    env: EnvSpec = EnvSpec()
    cloud: CloudSpec | None = None
    budget: Limits = Limits()
    slurm: Slurm | None = None
    queued: int | None = None
    hosts: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()

    @property
    def is_rented(self) -> bool:
        """Whether there is somebody to ask to start and stop it."""
        return self.cloud is not None and self.cloud.provider != "none"

    @property
    def python(self) -> str:
        """The interpreter that the agent runs with, and jobs that name no other."""
        return self.env.python or "python3"


@dataclass(frozen=True)
class Job:
    """What to run, and what must come back.

    Attributes:
        name: the category's name, also what the user types.
        command: one line for /bin/sh, executed in the workspace's root on the VM.
        outputs: paths or globs below the workspace's root.
        data: folders that are sent once and shared read-only between runs.
        gpus: GPU slots the job needs; ignored on a remote with `gpus: 0`.
        time_limit_s: None for no limit.
        metrics: whether the Keras callback is added.
        env: goes before the remote's, in what it says.
        restarts: how often a run may be started again after it was interrupted.
        check: whether the VM looks, at the end, if the models can be loaded.
        tensorboard: whether runs write event files, and these come home with the model.
        nodes: how many hosts it is to run on at the same time, as one gang.
    """

    name: str
    command: str
    outputs: tuple[str, ...]
    data: tuple[str, ...] = ()
    gpus: int = 1
    time_limit_s: float | None = None
    metrics: bool = True
    env: EnvSpec | None = None
    restarts: int = 0
    check: bool = False
    tensorboard: bool = False
    nodes: int = 1

    @property
    def model(self) -> PurePosixPath | None:
        """The output that is the model to be graded: the first with a Keras suffix."""
        model = find_model(self.outputs)
        return PurePosixPath(model) if model is not None else None

    @property
    def folder(self) -> PurePosixPath:
        """The category's folder: the model's, else one with the job's name."""
        model = self.model
        return model.parent if model is not None else PurePosixPath(self.name)


def find_model(outputs: Iterable[str]) -> str | None:
    """The first output that is a path with a Keras suffix; a pattern could mean any file."""
    for output in outputs:
        if output.endswith(MODEL_SUFFIXES) and not set("*?[") & set(output):
            return output
    return None


@dataclass(frozen=True)
class Workspace:
    """A folder with a `train.yaml`.

    Attributes:
        exam_tensorflow: the version that judges the models in the end, such as `2.5`; "" where
            that is not said.
        notify: who is told of a run's end: `desktop`, `off`, or a command; "" leaves it to the
            user's config.
        mlflow: the tracking server that runs are written to when they have ended; "" for none.
    """

    root: Path
    jobs: tuple[Job, ...] = ()
    remotes: tuple[Remote, ...] = field(default=())
    exam_tensorflow: str = ""
    notify: str = ""
    mlflow: str = ""

    @property
    def state(self) -> Path:
        """Where the tool keeps what it knows of this workspace; never synced."""
        return self.root / ".train"
