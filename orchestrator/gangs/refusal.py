"""What of several hosts cannot work, said before anything is sent or any machine is started."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.gangs.replicas import LEGACY, unfit_line
from orchestrator.settings.pool import Pool
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.source.scripts import scripts_of

_ONE_HOST = "give it `nodes: 1` in train.yaml, or leave that out"


def refuse_gangs(workspace: Workspace, jobs: Iterable[Job], remote: Remote | Pool | None) -> None:
    """Args:
        remote: None where nobody has said which.

    Raises:
        UsageError: the remote is one host, or a pool of too few, or a script would fail on several.
    """
    for job in jobs:
        if job.nodes == 1:
            continue
        wants = f"{job.name} is to run on {job.nodes} hosts"
        if isinstance(remote, Pool) and job.nodes > len(remote.members):
            raise UsageError(
                f"{wants}, and {remote.name} has {len(remote.members)}",
                cause=f"they are {remote.names}",
                fix=f"--nodes {len(remote.members)}; or list more under {remote.name}: hosts:",
            )
        if isinstance(remote, Remote) and remote.slurm is None:
            raise UsageError(
                f"{wants}, and {remote.name} is one",
                cause="only a cluster (engine: slurm) or a pool (hosts: ...) gives a run several",
                fix=f"--nodes 1; or {_ONE_HOST}",
            )
        # Whatever it is set to, the user has thought of it.
        if not re.search(rf"\b{LEGACY}=", job.command):
            for script in scripts_of(workspace.root, job.command):
                _refuse_script(workspace.root, script, job)


def refuse_several_hosts(job: Job, what: str) -> None:
    """Args:
        what: that has one host, as `a notebook`.

    Raises:
        UsageError: the job asks for more.
    """
    if job.nodes > 1:
        raise UsageError(
            f"{job.name} is to run on {job.nodes} hosts, and {what} has one", fix=_ONE_HOST
        )


def _refuse_script(root: Path, script: Path, job: Job) -> None:
    line = unfit_line(script.read_text("utf-8", "replace"))
    if line is None:
        return
    raise UsageError(
        f"{script.relative_to(root)}, line {line}: fit of Keras 3 fails on several hosts",
        cause="under MultiWorkerMirroredStrategy: unsupported type PerReplica (keras #20585)",
        fix="one of these, which docs/gangs.md shows:\n"
        f"Keras 2: pip install tf_keras; and the command: {LEGACY}=1 {job.command}\n"
        "a loop of your own around strategy.run, with a model of Keras 3\n"
        f"if it is another fit than Keras's: {LEGACY}=0 {job.command}",
    )
