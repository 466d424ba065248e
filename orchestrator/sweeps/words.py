"""What a sweep says of itself while it goes on, and where it cannot. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from orchestrator.errors import Interrupted, UsageError
from orchestrator.sweeps.trial import Trial, opened

# So many runs are named to who detaches.
_NAMED = 3


def doing(trials: Sequence[Trial], wanted: int, running: int, queued: int) -> str:
    """`trials: 7 of 40 ended, 2 running, 2 queued`."""
    ended = len(trials) - len(opened(trials))
    words = f"trials: {ended} of {wanted} ended, {running} running"
    return f"{words}, {queued} queued" if queued else words


def detached(runs: Sequence[str], remote: str) -> Interrupted:
    """Args:
    runs: those that go on.
    """
    if not runs:
        return Interrupted("interrupted; the same command goes on from there")
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    return Interrupted(
        f"detached; on {remote} goes on: {', '.join(runs[:_NAMED])}{more}; the same command goes "
        "on with the sweep",
        fix=f"train status\ntrain logs {runs[0]} -f\ntrain cancel {runs[0]}",
    )


def elsewhere(sweep: str, run: str, places: Mapping[str, str], here: str) -> UsageError:
    """Args:
    run: one that cannot be reached by `here`, as the user named the remote.
    places: the remotes of all that go on, by the runs' ids.
    """
    where = places[run]
    others = sorted(set(places.values()))
    fix = f"--remote {where}; --remote {here} once nothing goes on there"
    if len(others) > 1:
        fix = f"--remote with the pool that lists {' and '.join(others)}"
    return UsageError(f"{run} of the sweep {sweep} is on {where}", fix=fix)


def no_such_metric(name: str, run: str, told: Sequence[str]) -> UsageError:
    """Args:
    told: the metrics that the run told instead.
    """
    fix = (
        "let the script train with Keras's fit, with metrics: on in train.yaml, and its command "
        "begin with python, not with an interpreter's path; or let it write its metrics to the "
        "file that TRAINSHED_METRICS names: docs/sweeps.md"
    )
    if told:
        (near,) = difflib.get_close_matches(name, told, n=1, cutoff=0.0)
        fix = f"--metric {near}, for example"
        if name == f"val_{near}":
            fix += "; or let the script give fit a validation_split or validation_data"
    return UsageError(
        f"training told nothing of {name}; the trials that went on were asked to end",
        cause=f"{run} told: {', '.join(told) or 'no metrics at all'}",
        fix=fix,
    )
