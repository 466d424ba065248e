"""Where an exam's time went, by what is recorded of its runs, its attempts and its machine."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.costs.account import stints
from orchestrator.costs.cost import PricedRun
from orchestrator.exams.book import Attempt
from orchestrator.exams.exam import Span, Spent, spend
from orchestrator.records.ledger import Ledger
from remote.runfolder import State


def time_spent(
    ledger: Ledger,
    runs: Iterable[PricedRun],
    attempts: Iterable[Attempt],
    remote: str,
    window: Span,
    passed_s: float,
) -> Spent:
    """Args:
    remote: the exam's; empty for none.
    """
    training: list[Span] = []
    waiting: list[Span] = []
    for run in runs:
        at = {event.state: event.at for event in ledger.events(run.usage.run_id)}
        ended = run.usage.ended_at or window[1]
        running = at.get(State.RUNNING.value)
        queued = at.get(State.QUEUED.value, run.usage.started_at or ended)
        waiting.append((queued, running or ended))
        if running is not None:
            training.append((running, ended))
    for attempt in attempts:
        if attempt.grade is not None:
            waiting.append((attempt.fact.at, attempt.grade.graded_at))
    idle = [
        (stint.started_at, stint.ended_at)
        for stint in (stints(ledger, remote, window[1]) if remote else ())
    ]
    return spend(window, passed_s, training, waiting, idle)
