"""`train sweep` in a workspace: which study a command means, and what is done with its best."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.costs.fitting import fit
from orchestrator.costs.sessions import per_hour_on
from orchestrator.desk import Desk
from orchestrator.errors import Forbidden, UsageError
from orchestrator.filelock import alone
from orchestrator.grades.settling import Result
from orchestrator.plan import Order
from orchestrator.settings.pool import Pool
from orchestrator.settings.spec import Remote
from orchestrator.source.snapshot import Snapshot, take_snapshot
from orchestrator.sweeps.onmachine import OnMachine
from orchestrator.sweeps.onpool import OnPool
from orchestrator.sweeps.report import Report
from orchestrator.sweeps.site import Site
from orchestrator.sweeps.study import opened_study
from orchestrator.sweeps.sweep import Limits, Sweep
from orchestrator.sweeps.terms import Terms
from orchestrator.sweeps.trial import is_hopeless, is_void
from orchestrator.sweeps.unread import unread

# It names a file.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Attributes:
        order: of one job; with the parameters that every trial gets.
        pool: on whose hosts the trials are run, each ordered on the one that gets it; None where
            they are all run on the order's remote.
    """

    name: str
    order: Order
    pool: Pool | None
    terms: Terms
    limits: Limits


def carry_out(desk: Desk, wish: Wish) -> tuple[Report, Result | None]:
    """Go on with the sweep of this name, or begin it; its best model is graded and placed.

    Returns:
        How the trials went, and the result of the best one; None where none came to its end.

    Raises:
        UsageError: the sweep of that name looks for something else.
        TrainshedError: each step's own; runs that were started go on whatever happens here.
    """
    if not _NAME.fullmatch(wish.name):
        raise UsageError(f"--name {wish.name!r} cannot name a file", fix="--name wide-layers")
    order, trip = wish.order, desk.trip
    machines = (order.remote,) if wish.pool is None else wish.pool.members
    if wish.limits.budget is not None:
        _check_prices(desk, machines)
    file = desk.workspace.state / "sweeps" / f"{wish.name}.sqlite3"
    desk.console.doing("waiting for another command of this sweep")
    with alone(file.with_suffix(".lock")):
        snapshot = take_snapshot(order.workspace, order.jobs, desk.console)
        _make_way(desk, file, wish.terms)
        with opened_study(file, wish.terms) as study:
            if not study.kept.code:
                study.keep(snapshot.code.digest)
            site = _site(desk, wish, snapshot)
            sweep = Sweep(trip, site, study, wish.terms.metric, order, snapshot, wish.limits)
            for remote in machines:
                desk.foresee(replace(order, remote=remote))
            (job,), varied = order.jobs, wish.terms.space.varied
            for name in unread(varied, job, order.workspace.jobs, snapshot.code):
                desk.console.warn(
                    f"no file of {job.name} names PARAM_{name}, by which a script reads "
                    f"--param {name}: the trials may not differ by it"
                )
            stopped = sweep.go_on()
            past = sweep.past()
            report = Report(past, str(file), sweep.priced(), stopped)
            best = sweep.mirror_of(past.best)
            if best is not None and trip.is_home(best):
                for mirror in filter(None, map(sweep.mirror_of, past.trials)):
                    if mirror != best:
                        mirror.note_outdone()
    if best is None:
        return report, None
    return report, trip.settle(order.jobs, [best], best=True)


def _site(desk: Desk, wish: Wish, snapshot: Snapshot) -> Site:
    check = partial(fit, desk.ledger)
    if wish.pool is None:
        return OnMachine(desk.trip, wish.order, snapshot, check)
    return OnPool(desk.trip, wish.pool, wish.order, snapshot, check)


def _check_prices(desk: Desk, machines: Iterable[Remote]) -> None:
    """Raises:
    Forbidden: one is unknown, or they are in several currencies.
    """
    currencies: dict[str, str] = {}
    for remote in machines:
        if per_hour_on(desk.ledger, remote) is None:
            raise Forbidden(
                f"the price of {remote.name} is unknown, so --budget would bind nothing",
                fix=f"train remote set {remote.name} --price 0.50",
            )
        currencies[remote.name] = remote.price.currency if remote.price else ""
    if len(set(currencies.values())) > 1:
        raise Forbidden(
            "--budget is in one currency, and the prices are in several",
            cause=", ".join(f"{name}: {currency}" for name, currency in currencies.items()),
        )


def _make_way(desk: Desk, file: Path, terms: Terms) -> None:
    """Where nothing was learned and nothing goes on, the name is free again: what kept the trials
    from their ends was mended, or the options are others.

    Raises:
        UsageError: the sweep of that name looks for something else.
    """
    if not file.exists():
        return
    with opened_study(file, terms) as study:
        known, trials = study.kept.terms, study.trials()
    differs = _differences(known, terms.words()) if known else []
    if trials and is_void(trials) and (differs or is_hopeless(trials)):
        desk.console.step(
            f"all {len(trials)} trials of the sweep {file.stem} failed; it is begun anew"
        )
        file.unlink()
    elif differs:
        raise UsageError(
            f"the sweep {file.stem} looks for something else",
            cause="; ".join(differs),
            fix="the options it was begun with, or --name NEW for another sweep",
        )


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    names = dict.fromkeys([*old, *new])
    return [
        f"{name} was {old.get(name, 'not there')}, now it is {new.get(name, 'not there')}"
        for name in names
        if old.get(name) != new.get(name)
    ]
