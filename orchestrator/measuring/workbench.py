"""`train bench`: the workloads as ordinary runs, in a workspace of their own beside the ledger.

One run a remote trains them one after the other, each in a process of its own. Nothing of the
user's workspace is sent or changed, but for the file that a remote's environment is built from.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from orchestrator.costs.overdue import until_end
from orchestrator.desk import Desk
from orchestrator.errors import Interrupted, RunFailed, TrainshedError, UsageError
from orchestrator.grades.settling import Result
from orchestrator.measuring.workbook import Workbook
from orchestrator.measuring.workload import WORKLOADS, Kept, Workload, is_sound
from orchestrator.plan import Order
from orchestrator.records.ledger import Ledger
from orchestrator.screen.console import Console
from orchestrator.settings.config import find_remote, workspace_here
from orchestrator.settings.home import data_folder
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.vm.package import load_sources
from remote.atomic import replace_file
from remote.measured import Measured
from remote.record import Malformed, from_bytes

JOB = "bench"
# What the scripts need of ours: the reading of nvidia-smi, and the form of the result.
_KERNEL = (
    "remote",
    "remote.clock",
    "remote.gpu",
    "remote.measured",
    "remote.record",
    "remote.usage",
)
_CONFIG = "# Where `train bench` works; written anew by each.\njobs: {}\n"
_FIGURES_LIMIT_BYTES = 64_000


@dataclass(frozen=True)
class Effort:
    """Attributes:
    seconds: a repeat takes, at least.
    steps: an epoch's, at most; None for as many as the category has.
    time_limit_s: for all of a remote's workloads.
    """

    seconds: float
    steps: int | None
    time_limit_s: float

    def samples(self, workload: Workload) -> int:
        return min(workload.samples, (self.steps or workload.samples) * workload.batch)


FULL = Effort(seconds=4.0, steps=None, time_limit_s=1800.0)
QUICK = Effort(seconds=0.5, steps=4, time_limit_s=600.0)


def measure(
    names: Sequence[str], workloads: Sequence[str], console: Console, *, quick: bool, accept: str
) -> tuple[tuple[Kept, ...], TrainshedError | None]:
    """Measure on all of these remotes at once; what is found goes into the book.

    After an interruption at any point the same command goes on with the same runs.

    Returns:
        The figures, and the first thing that kept others from being there.

    Raises:
        UsageError: there is no such remote; nothing was sent.
        Interrupted: the runs go on.
    """
    here = workspace_here()
    remotes = tuple(find_remote(here, name) for name in dict.fromkeys(names))
    if accept and len(remotes) > 1:
        raise UsageError(
            f"--accept-host-key is for one machine, not for {len(remotes)}",
            fix=f"train doctor {remotes[0].name} --accept-host-key {accept}",
        )
    folder = data_folder() / "workbench"
    lay_out(folder, here, remotes)
    job = make_job([WORKLOADS[name] for name in workloads], QUICK if quick else FULL)
    orders = [Order(Workspace(folder, (job,), remotes), (job,), remote) for remote in remotes]
    figures: list[Kept] = []
    troubles: dict[str, TrainshedError] = {}
    with Desk(orders[0].workspace, console, accept=accept) as desk:
        for order in orders:
            with _noting(troubles, order, console):
                desk.check_budget(order)
                if len(orders) > 1:
                    desk.trip.train(replace(order, detach=True))
        for order in orders:
            name = order.remote.name
            if name not in troubles:
                with (
                    _noting(troubles, order, console),
                    until_end(order.workspace, name, accept),
                ):
                    result = desk.trip.train(order)
                    kept, trouble = read_figures(desk.ledger, name, result, quick=quick)
                    Workbook(data_folder()).add(*kept)
                    figures += kept
                    result.told()
                    if trouble is not None:
                        raise trouble
    return tuple(figures), next(iter(troubles.values()), None)


def lay_out(folder: Path, here: Workspace | None, remotes: Iterable[Remote]) -> None:
    """Write what the runs need into `folder`; what is the same already is not touched.

    Raises:
        UsageError: the file of a remote's environment is not to be had.
    """
    scripts = resources.files("jobs").joinpath("workbench")
    files = {one.name: one.read_bytes() for one in scripts.iterdir() if one.name.endswith(".py")}
    files["train.yaml"] = _CONFIG.encode()
    sources = load_sources()
    for module in _KERNEL:
        leaf = module.partition(".")[2] or "__init__"
        files[f"remote/{leaf}.py"] = sources[module].encode()
    for remote in remotes:
        if remote.env.requirements is not None:
            files[remote.env.requirements] = _requirements(remote, here)
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)


def _requirements(remote: Remote, here: Workspace | None) -> bytes:
    assert remote.env.requirements is not None
    try:
        if here is not None:
            return (here.root / remote.env.requirements).read_bytes()
    except OSError:
        pass
    raise UsageError(
        f"{remote.name} has {remote.env.requirements} installed, a file of a workspace",
        cause=f"there is none in {here.root}" if here else "this folder is in no workspace",
        fix="give the command in the workspace that has it",
    )


def make_job(workloads: Sequence[Workload], effort: Effort) -> Job:
    """One that fails does not keep the others from being measured."""
    sizes = [(one.name, effort.samples(one), one.batch, effort.seconds) for one in workloads]
    steps = ["python measure.py {} {} {} {:g} || bad=1".format(*size) for size in sizes]
    return Job(
        JOB,
        command="; ".join([*steps, "exit ${bad:-0}"]),
        outputs=tuple(f"{one.name}.json" for one in workloads),
        time_limit_s=effort.time_limit_s,
        # The callback would be timed, too.
        metrics=False,
    )


def read_figures(
    ledger: Ledger, remote: str, result: Result, *, quick: bool
) -> tuple[list[Kept], TrainshedError | None]:
    """What a run has brought home, and what is wrong with it or the run."""
    kept: list[Kept] = []
    trouble = result.trouble
    for mirror in result.mirrors:
        fact = ledger.run(mirror.run_id)
        assert fact is not None
        price = "" if fact.price_per_hour is None else str(fact.price_per_hour)
        if mirror.verdict != "succeeded":
            words = f"{mirror.run_id} {mirror.verdict}"
            fix = f"train doctor {remote}; what the run wrote: {mirror.log}"
            trouble = RunFailed(words, fix=fix)
        for name in mirror.request.outputs:
            file = mirror.folder / "outputs" / name
            try:
                measured = _read(file)
            except FileNotFoundError:
                continue  # its process failed, and so did the run
            except Malformed as error:
                trouble = RunFailed(f"{file} holds no figures", cause=str(error))
            else:
                kept.append(Kept(remote, mirror.run_id, quick, price, fact.currency, measured))
    return kept, trouble


def _read(file: Path) -> Measured:
    """Raises:
    FileNotFoundError: there is none.
    Malformed: the VM wrote something else.
    """
    with file.open("rb") as stream:
        measured = from_bytes(Measured, stream.read(_FIGURES_LIMIT_BYTES))
    if not is_sound(measured) or file.name != f"{measured.workload}.json":
        raise Malformed("no machine measures that")
    return measured


@contextmanager
def _noting(troubles: dict[str, TrainshedError], order: Order, console: Console) -> Iterator[None]:
    """What befalls one remote keeps nobody from the others; who detaches leaves all."""
    try:
        yield
    except Interrupted as stop:
        folder = shlex.quote(str(order.workspace.root))
        # Attached to, it would be taken for settled without being in the book.
        lines = [line for line in stop.fix.splitlines() if not line.startswith("train attach")]
        fix = "\n".join(f"(cd {folder} && {line})" for line in lines)
        raise Interrupted(f"{stop}; the same command goes on with it", fix=fix) from None
    except TrainshedError as error:
        troubles[order.remote.name] = error
        if len(order.workspace.remotes) > 1:
            console.warn(f"{order.remote.name}: {error}")
