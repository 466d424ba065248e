"""What the trials of one sweep may cost, and have cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from orchestrator.costs.cost import PricedRun, gang_cost
from orchestrator.costs.fitting import fit_into
from orchestrator.costs.money import priced_runs
from orchestrator.costs.purse import Budget
from orchestrator.plan import Order
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirrors
from orchestrator.settings.spec import Remote
from orchestrator.sweeps.trial import Trial


@dataclass(frozen=True)
class Allowance:
    """Attributes:
    order: of one trial.
    limit: for all of them, in the currency of the remote's price; None for none.
    """

    sweep: str
    ledger: Ledger
    mirrors: Mirrors
    order: Order
    limit: Decimal | None

    def priced(self, trials: Sequence[Trial]) -> dict[str, PricedRun]:
        """What they cost by now, by the id of the run that has each one's work: with what those
        before it cost, that a pool has moved.
        """
        lines = [self._line(trial) for trial in trials]
        runs = priced_runs(self.ledger, {run_id for line in lines for run_id in line})
        by_id = {run.usage.run_id: run for run in runs}
        told = {}
        for *before, last in lines:
            if (run := by_id.get(last)) is not None:
                moved = [by_id[run_id] for run_id in before if run_id in by_id]
                costs = [run.cost for run in moved if run.usage.started_at is not None]
                told[last] = replace(run, cost=gang_cost([run.cost, *costs]))
        return told

    def _line(self, trial: Trial) -> list[str]:
        mirror = self.mirrors.get(trial.run)
        return [trial.run] if mirror is None else [one.run_id for one in mirror.line]

    def is_used_up(self, trials: Sequence[Trial]) -> bool:
        budget = self._budget(trials)
        return budget is not None and budget.left <= 0

    def check(self, trials: Sequence[Trial], going: int, machines: Iterable[Remote]) -> None:
        """Args:
        going: how many are to be open from now on.
        machines: on any of which they may come to be.

        Raises:
            Forbidden: so many runs do not fit, or would not on one of these.
        """
        budget = self._budget(trials)
        if budget is None:
            return
        for remote in machines:
            order = replace(self.order, remote=remote, jobs=self.order.jobs * going)
            fit_into(budget, self.ledger, order)

    def _budget(self, trials: Sequence[Trial]) -> Budget | None:
        if self.limit is None:
            return None
        amounts = [run.cost.amount for run in self.priced(trials).values()]
        spent = sum((amount for amount in amounts if amount is not None), Decimal(0))
        price = self.order.remote.price
        currency = price.currency if price else ""
        return Budget(f"the sweep {self.sweep}", self.limit, spent, currency)
