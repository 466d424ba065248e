"""The remote that `--remote cheapest` or `fastest` means."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.measuring.choosing import Aim, choose, counting
from orchestrator.measuring.workbook import Workbook
from orchestrator.screen.tell import Teller
from orchestrator.settings.config import known_machines
from orchestrator.settings.home import data_folder
from orchestrator.settings.spec import Workspace


def choose_remote(workspace: Workspace, word: str, categories: Iterable[str], tell: Teller) -> str:
    """Its name; which one it is, and why, is told.

    A remote that bears the word for its name is meant, as every other name means its remote.

    Raises:
        UsageError: nothing is known to choose by.
    """
    remotes = known_machines(workspace)
    if any(remote.name == word for remote in remotes):
        return word
    workloads = counting(categories)
    choice = choose(Aim(word), Workbook(data_folder()).all(), remotes, workloads)
    best, *others = choice.offers
    beaten = "".join(f"; {offer}" for offer in others)
    tell.step(
        f"{word} to 5/5 by {', '.join(workloads)}: {best}{beaten} "
        f"(train bench of {best.since:%Y-%m-%d})"
    )
    for line in choice.lacking:
        tell.step(f"not compared: {line}")
    return best.remote
