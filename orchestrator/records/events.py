"""From what a VM reported of a run to the facts of the ledger, on this laptop's clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from orchestrator.costs.cost import INTERRUPTED, RESUMED
from orchestrator.records.ledger import Reporter, RunEvent
from orchestrator.records.mirror import LOST, Seen, is_final, opinion, why_lost
from orchestrator.screen.printable import printable
from remote import clock
from remote.runfolder import RunState, State

# Half a round trip and the drift between two reports; a clock that is further off is put right.
_CLOCK_TOLERANCE_S = 2.0


def run_events(
    run_id: str, seen: Seen, submitted_at: datetime, last_use_at: str | None
) -> list[RunEvent]:
    """The states that the run has come into.

    A VM's clock that is off is put right by how far it was off, and no time it tells may be before
    the submission or after the report: it cannot make a run cost what it did not last,
    unless the laptop's own clock was put back between the two.

    Args:
        last_use_at: the last sample of a run's use, by the VM's clock; the best guess at the end
            of a lost one.
    """
    reported_at = clock.parse(seen.at)
    off_s = seen.clock_off_s if abs(seen.clock_off_s) > _CLOCK_TOLERANCE_S else 0.0
    state = seen.report.state
    if state is not None and reported_at < submitted_at:
        # This laptop's clock was put back since it sent the run; the VM's alone tells how long the
        # run lasted, and it began when it was sent.
        off_s = (clock.parse(state.queued_at) - submitted_at).total_seconds()
        with suppress(OverflowError):
            reported_at += timedelta(seconds=seen.clock_off_s - off_s)

    def moment(text: str) -> datetime:
        try:
            at = clock.parse(text) - timedelta(seconds=off_s)
        except OverflowError:
            return reported_at
        return min(max(at, submitted_at), max(reported_at, submitted_at))

    events = []
    if state is not None:
        events += [
            RunEvent(
                run_id,
                name,
                moment(at),
                Reporter.VM,
                exit_code=state.exit_code if is_final(name) else None,
                signal=state.signal if is_final(name) else None,
                reason=printable(state.reason) if is_final(name) else "",
            )
            for name, at in _moments(state)
            if at is not None
        ]
    if opinion(seen.report) == LOST:
        # When the report came is told by this laptop's clock, which is not to be put right.
        ended_at = moment(last_use_at) if last_use_at else max(reported_at, submitted_at)
        events.append(RunEvent(run_id, LOST, ended_at, Reporter.LAPTOP, reason=why_lost(seen)))
    return events


def _moments(state: RunState) -> list[tuple[str, str | None]]:
    """Also those of earlier attempts, of which the first counts as the run's beginning."""
    attempts = [(each.setting_up_at, each.running_at) for each in state.earlier]
    attempts.append((state.setting_up_at, state.running_at))
    return [
        (State.QUEUED.value, state.queued_at),
        (State.SETTING_UP.value, next((at for at, _ in attempts if at), None)),
        (State.RUNNING.value, next((at for _, at in attempts if at), None)),
        *_interruptions(state),
        (state.state.value, state.ended_at if state.state.final else None),
    ]


def _interruptions(state: RunState) -> Iterator[tuple[str, str]]:
    """When it stood still and when it went on. An attempt that only waited for its turn is none."""
    starts = [*(attempt.setting_up_at for attempt in state.earlier), state.setting_up_at][1:]
    stopped = 0
    for number, (attempt, following) in enumerate(zip(state.earlier, starts, strict=True), 1):
        if attempt.setting_up_at is not None:
            yield f"{INTERRUPTED}{number}", attempt.ended_at
            stopped = number
        if stopped and following is not None:
            yield f"{RESUMED}{stopped}", following
            stopped = 0
