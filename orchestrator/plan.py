"""From what the user typed to run requests: what will be asked of the VM. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.duration import parse_duration
from orchestrator.errors import UsageError
from orchestrator.settings.spec import EnvSpec, Job, Remote, Workspace
from orchestrator.source.snapshot import Snapshot
from remote.runfolder import DataFolder, Gang, RunRequest, worker_id


@dataclass(frozen=True)
class Overrides:
    """What the command line says over train.yaml; None leaves what is there."""

    gpus: int | None = None
    time_limit_s: float | None = None
    params: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, gpus: int | None, time_limit: str, params: Sequence[str]) -> Overrides:
        """Raises:
        UsageError: not a duration, or not K=V.
        """
        limit_s = None
        if time_limit:
            try:
                limit_s = parse_duration(time_limit)
            except ValueError as error:
                raise UsageError(f"--time-limit: {error}", fix="--time-limit 40m") from None
        given = {}
        for param in params:
            name, equals, value = param.partition("=")
            if not equals or not name.isidentifier():
                raise UsageError(f"--param takes NAME=VALUE, not {param!r}", fix="--param lr=0.001")
            given[name] = value
        return cls(gpus, limit_s, given)

    def gpus_of(self, job: Job) -> int:
        return job.gpus if self.gpus is None else self.gpus

    def time_limit_of(self, job: Job) -> float | None:
        """In seconds; None for no limit."""
        return job.time_limit_s if self.time_limit_s is None else self.time_limit_s


@dataclass(frozen=True)
class Order:
    """What the user asked for.

    Attributes:
        best: whether the best model or this run's goes into the folder.
    """

    workspace: Workspace
    jobs: tuple[Job, ...]
    remote: Remote
    overrides: Overrides = field(default_factory=Overrides)
    detach: bool = False
    best: bool = True


def make_request(
    job: Job, remote: Remote, snapshot: Snapshot, overrides: Overrides, run_id: str = ""
) -> RunRequest:
    """The request of one run. Two requests that differ in nothing but the id ask for the same."""
    env = (job.env or EnvSpec()).over(remote.env)
    return RunRequest(
        run_id=run_id,
        job=job.name,
        tree=snapshot.code.digest,
        command=job.command,
        outputs=job.outputs,
        data=tuple(DataFolder(path, snapshot.data[path].digest) for path in job.data),
        gpus=overrides.gpus_of(job),
        slots=remote.gpus,
        time_limit_s=overrides.time_limit_of(job),
        python=env.python or remote.python,
        requirements=env.requirements or "",
        params=dict(overrides.params or {}),
        metrics=job.metrics,
        restarts=job.restarts,
        check=job.check,
        tensorboard=job.tensorboard,
        slurm=remote.slurm,
    )


def make_gang(chief: RunRequest, nodes: int) -> tuple[RunRequest, ...]:
    """The requests of a job's runs: one for each host, the chief's first. The others make nothing
    that is pulled.

    Args:
        chief: as for one host, with or without an id.
    """
    if nodes == 1:
        return (chief,)
    return tuple(in_gang(chief, Gang(rank, nodes)) for rank in range(nodes))


def in_gang(chief: RunRequest, place: Gang) -> RunRequest:
    """The request of one of a gang, from what would be its chief's on the same host."""
    return chief._replace(
        run_id=worker_id(chief.run_id, place.rank),
        outputs=() if place.rank else chief.outputs,
        gang=place,
    )


def same_work(one: RunRequest, other: RunRequest) -> bool:
    """Whether two requests ask for the same, apart from their ids and their gangs' addresses."""
    return _work(one) == _work(other)


def _work(request: RunRequest) -> RunRequest:
    gang = request.gang and request.gang._replace(addresses=())
    return request._replace(run_id="", gang=gang)


def make_run_id(job: str, now: datetime, token: str) -> str:
    """Readable, sortable within a category, and unique by the random `token`."""
    return f"{job}-{now:%Y%m%d-%H%M%S}-{token}"
