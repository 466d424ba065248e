"""What a run's VM found when it loaded the models, in words for people and values for programs."""

from __future__ import annotations

from typing import Any

from orchestrator.screen.printable import printable
from remote.record import encode
from remote.runfolder import Loading, RunState


def loading_text(loading: Loading) -> str:
    """One line, such as `a/mymodel.h5 loads there with tensorflow 2.12.0: (any, 4) -> (any, 1)`."""
    by = f" with {loading.versions}" if loading.versions else ""
    if loading.trouble:
        return printable(f"{loading.path} does not load there{by}: {loading.trouble}")
    shapes = f"{' and '.join(loading.inputs)} -> {' and '.join(loading.outputs)}"
    return printable(f"{loading.path} loads there{by}: {shapes}")


def loadings_text(state: RunState | None) -> str:
    """Those that do not load, else all; empty where nobody looked."""
    loadings = state.loadings if state is not None else ()
    bad = [loading for loading in loadings if loading.trouble]
    return "; ".join(map(loading_text, bad or loadings))


def loadings_json(state: RunState | None) -> list[dict[str, Any]]:
    return [encode(loading) for loading in (state.loadings if state is not None else ())]
