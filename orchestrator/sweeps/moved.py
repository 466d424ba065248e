"""Trials whose runs a pool has moved."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.records.mirror import Mirrors
from orchestrator.sweeps.past import Past
from orchestrator.sweeps.trial import Trial


def moved(past: Past, mirrors: Mirrors) -> Past:
    """Each trial with the run that has its work by now; the study knows the first."""

    def now(trial: Trial) -> Trial:
        mirror = mirrors.get(trial.run)
        return trial if mirror is None else replace(trial, run=mirror.last.run_id)

    return replace(past, trials=tuple(map(now, past.trials)))
