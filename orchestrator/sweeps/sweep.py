"""A sweep, as one command goes on with it: it asks the study what to try, and tells it what came.

The study's file and the runs' folders say all there is to know, so this command may be killed
anywhere: the next one finds each trial by the id of its run, which was written down first.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from orchestrator.costs.cost import PricedRun
from orchestrator.errors import (
    Forbidden,
    Interrupted,
    RunFailed,
    TrainshedError,
    UsageError,
)
from orchestrator.plan import Order, make_run_id
from orchestrator.records.curves import read_epochs, series
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.source.snapshot import Snapshot
from orchestrator.sweeps.allowance import Allowance
from orchestrator.sweeps.metric import Metric
from orchestrator.sweeps.moved import moved
from orchestrator.sweeps.past import Past
from orchestrator.sweeps.site import Site
from orchestrator.sweeps.study import Study
from orchestrator.sweeps.trial import (
    HOPELESS,
    Fate,
    Trial,
    best_of,
    fate_of,
    is_hopeless,
    last_value,
    opened,
    short,
)
from orchestrator.sweeps.words import detached, doing, elsewhere, no_such_metric
from remote.runfolder import State


@dataclass(frozen=True)
class Limits:
    """Attributes:
    trials: of all, whatever becomes of them.
    parallel: at work at once, where the site has so many slots.
    ahead: queued behind them, for the time in which nobody follows.
    budget: of all trials together, in the currency of the remote's price; None for none.
    """

    trials: int
    parallel: int
    ahead: int
    budget: Decimal | None = None


class Sweep:
    """Args:
    order: of the one job; its parameters are those that every trial gets.
    """

    def __init__(
        self,
        trip: RoundTrip,
        site: Site,
        study: Study,
        metric: Metric,
        order: Order,
        snapshot: Snapshot,
        limits: Limits,
    ) -> None:
        self._trip = trip
        self._site = site
        self._tell = trip.tell
        self._study = study
        self._metric = metric
        self._order = order
        self._snapshot = snapshot
        self._limits = limits
        self._allowance = Allowance(study.name, trip.ledger, trip.mirrors, order, limits.budget)

    def _best_of(self, trials: Sequence[Trial]) -> Trial | None:
        return best_of(trials, higher_is_better=self._metric.higher_is_better)

    def mirror_of(self, trial: Trial | None) -> Mirror | None:
        """The run that has its work by now; None where there is none yet."""
        first = self._trip.mirrors.get(trial.run) if trial is not None else None
        return None if first is None else first.last

    def priced(self) -> dict[str, PricedRun]:
        """What the trials cost, by the id of the run that has each one's work."""
        return self._allowance.priced(self._study.trials())

    def past(self) -> Past:
        """With the run that has each trial's work by now."""
        return moved(self._study.past(), self._trip.mirrors)

    def go_on(self) -> TrainshedError | None:
        """Until all trials have ended and the best one's outputs are here.

        Returns:
            Why there are not as many trials as were asked for; None where there are.

        Raises:
            UsageError: training tells no such metric, and what went on was asked to end; or what
                goes on does so on another remote.
            Interrupted: the user pressed Ctrl-C; the runs go on.
            TrainshedError: there is no line, or the VM refuses.
        """
        try:
            with self._site:
                return self._go_on()
        except KeyboardInterrupt:
            raise self._detached() from None

    def _go_on(self) -> TrainshedError | None:
        trials = self._study.trials()
        is_wanted = self._is_wanted(trials)
        stopped = self._obstacle(trials) if is_wanted else None
        if not opened(trials) and (stopped or not is_wanted) and self._is_best_home(trials):
            return stopped
        self._check_places(trials)
        while True:
            self._watch()
            stopped = self._begin()
            trials = self._study.trials()
            if not opened(trials):
                best = self.mirror_of(self._best_of(trials))
                if best is not None and not self._trip.is_home(best):
                    self._site.take_home(best)
                return stopped

    def _check_places(self, trials: Sequence[Trial]) -> None:
        """Elsewhere, a run of another machine would be taken for lost."""
        best = self._best_of(trials)
        away = () if best is None or self._is_best_home(trials) else (best,)
        runs = [self.mirror_of(trial) for trial in (*opened(trials), *away)]
        places = {run.run_id: self._trip.ledger.remote_of(run.run_id) for run in runs if run}
        for run_id, where in places.items():
            if where and not self._site.reaches(where):
                raise elsewhere(self._study.name, run_id, places, self._site.name)

    def _watch(self) -> None:
        """Learn what is new, and tell the study."""
        trials = self._study.trials()
        found = [(trial, self.mirror_of(trial)) for trial in opened(trials)]
        known = [(trial, mirror) for trial, mirror in found if mirror is not None]
        followed = [mirror for _, mirror in known]
        self._site.look(followed)
        is_too_dear = self._allowance.is_used_up(trials)
        for trial, mirror in known:
            if mirror.was_heard_of:
                self._take_in(trial, mirror, is_too_dear=is_too_dear)
        self._tell_doing([mirror for mirror in followed if not mirror.ended])

    def _take_in(self, trial: Trial, mirror: Mirror, *, is_too_dear: bool) -> None:
        """What a run has told so far, or what it came to."""
        # First, since a pool's runs go on telling meanwhile.
        may_move = not (trial.given_up or mirror.settled or self._is_other_code)
        has_ended = self._site.has_ended(mirror, may_move=may_move)
        epochs = read_epochs(mirror.metrics)
        curves = series(epochs)
        name = self._metric.name
        # What is measured by validation may come with every few epochs only.
        is_due = mirror.verdict == "succeeded" or (curves and not name.startswith("val_"))
        if is_due and name not in curves and not any(one.told for one in self._study.trials()):
            raise self._no_such_metric(mirror, tuple(curves))
        is_poor = self._study.report(trial, curves.get(name, ()))
        if has_ended:
            value = last_value(epochs, name)
            self._end(trial, mirror, fate_of(mirror.verdict, value, given_up=trial.given_up), value)
        elif trial.given_up or is_poor or is_too_dear:
            self._ask_to_end(trial, mirror, "its curve" if is_poor else "the budget")

    def _end(self, trial: Trial, mirror: Mirror, fate: Fate, value: float | None) -> None:
        # First, because a trial that is over is not looked at again.
        mirror.settle()
        self._study.end(trial, fate, value if fate is Fate.COMPLETE else None)
        told = f"{self._metric.name} {value:.4g}" if value is not None else mirror.verdict
        tried = ", ".join(f"{name}={short(text)}" for name, text in trial.params.items())
        say = self._tell.warn if fate is Fate.FAILED else self._tell.step
        say(f"trial {trial.number} {fate}: {told} ({tried}), {mirror.run_id}")

    def _ask_to_end(self, trial: Trial, mirror: Mirror, why: str) -> None:
        if not trial.given_up:
            # First: else a kill right here would make it a trial that failed.
            self._study.give_up(trial)
            self._tell.step(f"trial {trial.number} is given up for {why}")
        self._site.end(mirror)

    def _no_such_metric(self, mirror: Mirror, names: tuple[str, ...]) -> UsageError:
        """Ends what goes on: nothing of it could be compared."""
        for trial in opened(self._study.trials()):
            one = self.mirror_of(trial)
            if one is not None and one.ended:
                one.settle()
            elif one is not None:
                self._site.end(one)
            self._study.end(trial, Fate.FAILED, None)
        return no_such_metric(self._metric.name, mirror.run_id, names)

    def _begin(self) -> TrainshedError | None:
        """Start what is asked for and was not heard of, and as much more as may be.

        Returns:
            What is in the way of more; None where nothing is, or no more is wanted now.
        """
        obstacle = None
        while obstacle is None and self._is_wanted(trials := self._study.trials()):
            obstacle = self._obstacle(trials)
            if obstacle is None:
                self._study.ask()
        wanted = {}
        has_new = False
        for trial in opened(self._study.trials()):
            mirror = self.mirror_of(trial)
            is_new = mirror is None or not mirror.was_heard_of
            # Its code is not here any more, or the user gave it up before a VM had it.
            if is_new and (self._is_other_code or (mirror is not None and mirror.settled)):
                self._study.end(trial, Fate.FAILED, None)
                if mirror is not None:
                    mirror.settle()
            elif not (self._is_other_code or trial.given_up):
                bound = self._bound(trial)
                wanted[bound.run] = self._order_of(bound)
                has_new |= is_new
        self._site.keep_going(wanted)
        if has_new:
            self._trip.keep_code(self._snapshot)
        return obstacle

    def _bound(self, trial: Trial) -> Trial:
        """With the id of its run."""
        if trial.run:
            return trial
        # Longer than that of a plain run, because many may begin in one second.
        token = secrets.token_hex(4)
        run_id = make_run_id(self._order.jobs[0].name, datetime.now(UTC), token)
        return self._study.bind(trial, run_id)

    def _order_of(self, trial: Trial) -> Order:
        given = self._order.overrides
        params = {**(given.params or {}), **trial.params}
        return replace(self._order, overrides=replace(given, params=params))

    def _is_wanted(self, trials: Sequence[Trial]) -> bool:
        """Whether one more trial is wanted by now."""
        limits = self._limits
        has_room = len(opened(trials)) < limits.parallel + limits.ahead
        return has_room and len(trials) < limits.trials

    def _obstacle(self, trials: Sequence[Trial]) -> TrainshedError | None:
        """What is in the way of one more trial."""
        if is_hopeless(trials):
            return RunFailed(
                f"the first {HOPELESS} trials failed, so no more are begun",
                fix=f"train logs {trials[-1].run}; then the same command begins anew",
            )
        if self._is_other_code:
            return UsageError(
                f"the code has changed since the sweep {self._study.name} began, and its trials "
                "could not be compared with new ones",
                fix="the same command with --name NEW begins a sweep of this code",
            )
        going = len(opened(trials)) + 1
        try:
            self._allowance.check(trials, going, self._site.machines)
        except Forbidden as no:
            return no
        return self._site.obstacle(going)

    @property
    def _is_other_code(self) -> bool:
        return self._study.kept.code != self._snapshot.code.digest

    def _is_best_home(self, trials: Sequence[Trial]) -> bool:
        best = self.mirror_of(self._best_of(trials))
        return best is None or self._trip.is_home(best)

    def _tell_doing(self, going: Sequence[Mirror]) -> None:
        trials = self._study.trials()
        running = sum(mirror.verdict == State.RUNNING.value for mirror in going)
        words = doing(trials, self._limits.trials, running, len(going) - running)
        if (best := self._best_of(trials)) is not None:
            words += f"; best {self._metric.name} {best.value:.4g}"
        self._tell.doing(words)

    def _detached(self) -> Interrupted:
        found = map(self.mirror_of, opened(self._study.trials()))
        runs = [mirror.run_id for mirror in found if mirror is not None and mirror.goes_on]
        return detached(runs, self._site.name)
