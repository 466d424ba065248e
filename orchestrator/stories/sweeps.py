"""The sweeps that a story's runs were trials of, as their studies tell them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.records.ledger import RunFact
from orchestrator.records.mirror import Mirrors
from orchestrator.sweeps.moved import moved
from orchestrator.sweeps.past import Past


def told_sweeps(facts: Iterable[RunFact], label: Callable[[str, str], str]) -> Iterator[Past | str]:
    """Those with a trial among these runs, with all their trials; or why one cannot be read.

    Args:
        label: of a workspace's category.
    """
    trials: dict[str, set[str]] = {}
    for fact in facts:
        mirror = Mirrors(Path(fact.workspace) / ".train").get(fact.run_id)
        if mirror is not None and mirror.is_trial:
            trials.setdefault(fact.workspace, set()).add(fact.run_id)
    if trials and find_spec("optuna") is None:
        yield "sweeps are told where Optuna is installed: pip install 'trainshed[sweep]'"
        return
    for workspace, runs in sorted(trials.items()):
        # Optuna and SQLAlchemy are imported for who has made a sweep.
        from orchestrator.sweeps.study import read_past

        for file in sorted((Path(workspace) / ".train" / "sweeps").glob("*.sqlite3")):
            try:
                past = moved(read_past(file), Mirrors(Path(workspace) / ".train"))
            except UsageError:
                # Its words name the user's folders, and a report may be sent to somebody.
                yield f"the sweep {file.stem} cannot be told: its study cannot be read"
                continue
            if any(trial.run in runs for trial in past.trials):
                yield replace(past, category=label(workspace, past.category))
