"""From jobs to run requests: what will be asked of the VM. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.snapshot import Snapshot
from orchestrator.spec import EnvSpec, Job, Remote
from remote.runfolder import DataFolder, RunRequest


@dataclass(frozen=True)
class Overrides:
    """What the command line says over train.yaml; None leaves what is there."""

    gpus: int | None = None
    time_limit_s: float | None = None
    params: Mapping[str, str] | None = None


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
        gpus=job.gpus if overrides.gpus is None else overrides.gpus,
        slots=remote.gpus,
        time_limit_s=(
            job.time_limit_s if overrides.time_limit_s is None else overrides.time_limit_s
        ),
        python=env.python or remote.python,
        requirements=env.requirements or "",
        params=dict(overrides.params or {}),
        metrics=job.metrics,
    )


def same_work(one: RunRequest, other: RunRequest) -> bool:
    """Whether two requests ask for the same, apart from their ids."""
    return one._replace(run_id="") == other._replace(run_id="")


def make_run_id(job: str, now: datetime, token: str) -> str:
    """Readable, sortable within a category, and unique by the random `token`."""
    return f"{job}-{now:%Y%m%d-%H%M%S}-{token}"
