"""A story as one HTML page that needs nothing else, as Markdown, and as plain values for JSON.

What users and VMs called things, and what they wrote, is made printable and escaped at one place,
where the templates put it in. The page has no script and fetches nothing, and its policy forbids
both, should something ever come through.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.costs.billing import Paid
from orchestrator.screen.printable import printable
from orchestrator.stories import plot, sweepplots
from orchestrator.stories import plots as storyplots
from orchestrator.stories import words as storywords
from orchestrator.stories.story import Story
from orchestrator.sweeps.past import Past

_FOLDER = Path(__file__).parent
_WORDS = (
    *("title", "period", "cards", "when", "money", "total", "duration", "digest", "course"),
    *("metric", "time", "cost", "change_size", "machine_facts", "trial_facts", "curve_rows"),
    *("sweep_title", "sweep_counts", "sweep_rows"),
)
# What may begin something within a line of Markdown; within a word `_` does not.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])")
# Fields of names and what they stand for.
_BY_NAME = {"params", "versions", "curves", "by_currency", "varied", "importances"}


class _Verbatim(str):
    """A line of an indented block, where Markdown means nothing."""


def html_page(story: Story) -> str:
    style = (_FOLDER / "story.css").read_text("utf-8")
    own = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    templates = _templates(autoescape=True, finalize=_harmless)
    templates.filters |= {
        "points_figures": _points_figures,
        "use_figure": storyplots.machine_use,
        "curves": storyplots.run_curves,
        "sweep_figures": _sweep_figures,
        "line_style": _line_style,
    }
    numbers = count(1)
    return templates.get_template("story.html").render(
        story=story,
        style=Markup(style),  # noqa: S704  # our own file
        policy=f"default-src 'none'; style-src 'sha256-{own}'; base-uri 'none'; form-action 'none'",
        version=version("trainshed"),
        frame=plot,
        next_id=lambda: f"p{next(numbers)}",
    )


def markdown_page(story: Story) -> str:
    templates = _templates(autoescape=False, finalize=_in_markdown)
    templates.filters["indented"] = lambda line: _Verbatim(f"    {printable(line)}")
    return templates.get_template("story.md").render(story=story, version=version("trainshed"))


def story_json(story: Story) -> dict[str, Any]:
    found = _plain(story)
    assert isinstance(found, dict)
    return {**found, "points": story.points}


def _templates(*, autoescape: bool, finalize: Callable[[object], object]) -> Environment:
    made = Environment(
        # Where it is off, `finalize` escapes what means something in Markdown.
        autoescape=autoescape,  # noqa: S701
        finalize=finalize,
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters |= {name: getattr(storywords, name) for name in _WORDS}
    return made


def _harmless(value: object) -> object:
    """Without marks that reorder text; what HTML means is escaped after this."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def _in_markdown(value: object) -> object:
    if isinstance(value, _Verbatim) or not isinstance(value, str):
        return value
    return _MARKDOWN.sub(r"\\\g<0>", printable(value))


def _points_figures(story: Story) -> list[plot.Plot]:
    found = (storyplots.points_over_time(story), storyplots.points_over_money(story))
    return [one for one in found if one is not None]


def _sweep_figures(past: Past) -> list[plot.Plot]:
    found = (sweepplots.parallel_coordinates(past), sweepplots.importance_bars(past))
    return [one for one in found if one is not None]


def _line_style(line: str) -> str:
    """Of a line of a diff."""
    if line.startswith(("+++ ", "--- ", "@@")):
        return "place"
    return {"+": "add", "-": "remove"}.get(line[:1], "same")


def _plain(value: object) -> object:
    """Times as ISO 8601, money as a decimal in a text, durations in seconds."""
    if isinstance(value, Paid):
        spans = {"paid": value.time, "used": value.used, "setup": value.setup, "idle": value.idle}
        return {
            **{f"{name}_s": span.total_seconds() for name, span in spans.items()},
            "amount": _plain(value.amount),
            "estimated": value.is_estimated,
        }
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple):
        # Also a point of a curve: epoch and value.
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: _field(name, getattr(value, name)) for name in names}
    return value


def _field(name: str, value: Any) -> object:  # noqa: ANN401  # of any of them
    if name in _BY_NAME:
        return {key: _plain(item) for key, item in dict(value).items()}
    return _plain(value)
