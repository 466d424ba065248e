"""What sbatch is asked for: a run's needs, and the remote's terms. No I/O."""

from __future__ import annotations

import math
from typing import Iterator, Optional

from remote.runfolder import RunRequest, Slurm

# To copy the tree before the command and to hash the outputs after it; to build an environment.
_AROUND_S, _SET_UP_S = 300.0, 1800.0
# After its grace a run still has its outputs to record.
_RECORDING_S = 60.0


def job_options(request: RunRequest) -> Iterator[str]:
    """Options of sbatch. On its command line they go before a user's SBATCH_... and the lines of
    the script.
    """
    terms = request.slurm or Slurm()
    yield "--output=/dev/null"
    yield "--chdir=/"
    nodes = request.gang.size if request.gang else 1
    yield f"--nodes={nodes}"
    yield f"--ntasks={nodes}"
    # Warned is the script, which becomes the run's supervisor; of a gang all that srun has started.
    whom = "" if request.gang else "B:"
    yield f"--signal={whom}TERM@{math.ceil(warning_s(request))}"
    # Slurm starts it again when its node fails; how often, the supervisor counts.
    yield "--requeue" if request.restarts else "--no-requeue"
    if request.gpus and request.slots != 0:
        yield f"--gres={terms.gres or 'gpu'}:{request.gpus}"
    if (time_s := _time_s(request, terms)) is not None:
        yield f"--time={math.ceil(time_s / 60)}"
    said = {
        "partition": terms.partition,
        "account": terms.account,
        "qos": terms.qos,
        "cpus-per-task": terms.cpus,
        "mem": terms.memory,
    }
    yield from (f"--{name}={value}" for name, value in said.items() if value)


def job_script(body: str, terms: Slurm) -> str:
    """For sbatch, with the remote's own lines."""
    lines = "".join(f"#SBATCH {line}\n" for line in terms.lines)
    return f"#!/bin/sh\n{lines}{body}"


def warning_s(request: RunRequest) -> float:
    """How long before the end of its job a run is to be warned."""
    return request.grace_s + _RECORDING_S


def _time_s(request: RunRequest, terms: Slurm) -> Optional[float]:
    """A short one starts sooner; but the run itself keeps its limit, so this is not to be met."""
    if request.time_limit_s is None:
        return terms.time_s
    set_up_s = _SET_UP_S if request.requirements else 0.0
    return request.time_limit_s + request.grace_s + _AROUND_S + set_up_s
