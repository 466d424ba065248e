"""What a cluster said to the doctor, judged. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.screen.printable import printable
from orchestrator.settings.node import nearest
from orchestrator.settings.spec import Remote
from orchestrator.vm.check import Check, Mark
from remote.protocol import Sighting, Surveyed
from remote.runfolder import Slurm


def check_cluster(remote: Remote, terms: Slurm, surveyed: Surveyed) -> Iterator[Check]:
    """From Slurm's commands to the files that a compute node sees. Stops where it cannot go on."""
    if surveyed.trouble:
        fix = f"is {remote.host} the cluster's login node? see there: sinfo"
        yield Check("slurm", Mark.FAIL, printable(surveyed.trouble), fix)
        return
    yield Check("slurm", Mark.OK, printable(surveyed.version))
    yield _check_partition(terms, surveyed)
    if surveyed.refusal:
        found = f"a run's job would be refused: {printable(surveyed.refusal)}"
        fix = f"change what it asks for, under remotes: {remote.name}: slurm:"
        yield Check("a run's job", Mark.FAIL, found, fix)
        return
    yield Check("a run's job", Mark.OK, "Slurm would take it")
    if surveyed.job_trouble:
        fix = "see there: squeue, sinfo; compute nodes have to share the login node's home folder"
        yield Check("compute node", Mark.FAIL, printable(surveyed.job_trouble), fix)
    elif surveyed.seen is None:
        yield Check(
            "compute node", Mark.OK, f"not asked; to try a job: train doctor {remote.name} --job"
        )
    else:
        yield from _check_sighting(surveyed.seen)


def _check_partition(terms: Slurm, surveyed: Surveyed) -> Check:
    known = {printable(partition.name) for partition in surveyed.partitions}
    names = ", ".join(sorted(known)) or "none"
    if terms.partition and terms.partition not in known:
        near = nearest(terms.partition, known)
        fix = f"did you mean {near}?" if near else "name one of those, or leave it to the cluster"
        return Check(
            "partition", Mark.FAIL, f"there is no {terms.partition}; there is {names}", fix
        )
    told = "; ".join(
        printable(f"{each.name}: {each.nodes} nodes with {each.gres}, {each.state}")
        for each in surveyed.partitions
        if terms.partition in ("", each.name)
    )
    return Check("partition", Mark.OK, told)


def _check_sighting(seen: Sighting) -> Iterator[Check]:
    gpus = f", GPUs {printable(seen.gpus)}" if seen.gpus else ""
    yield Check("compute node", Mark.OK, f"{printable(seen.node)} shares these files{gpus}")
    if seen.is_locked:
        yield Check("locks", Mark.OK, "one that is held here is held there")
    else:
        yield Check(
            "locks",
            Mark.FAIL,
            "a lock (flock) that is held on the login node is free on the compute node",
            "let the file system be mounted with flock (Lustre: -o flock), or put ~/.trainshed on "
            "one that is",
        )
