"""Draws the report of an invented session: `python -m tests.pictures.report FOLDER`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from orchestrator.records.ledger import Ledger
from orchestrator.stories.chronicle import find_subject, tell_story
from orchestrator.stories.page import html_page
from tests.browsers import chromium
from tests.tales import SESSION, Teller, at

_WIDTH, _HEIGHT = 1280, 1395
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def draw_report(folder: Path) -> None:
    """The first screen of `train report -o report.html`."""
    with tempfile.TemporaryDirectory() as scratch:
        teller = Teller(Path(scratch) / "home")
        teller.tell()
        with Ledger.open(teller.home / "ledger.sqlite3") as ledger:
            story = tell_story(ledger, find_subject(ledger, SESSION, None), at(200))
        file = Path(scratch) / "report.html"
        file.write_text(html_page(story), "utf-8")
        with chromium() as browser:
            for scheme in _SCHEMES:
                page = browser.new_page(
                    viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme=scheme
                )
                page.goto(file.as_uri())
                page.screenshot(path=folder / f"report-{scheme}.png")


def main() -> None:
    # Times are shown as they are where the reader is; a picture is the same wherever it is made.
    os.environ["TZ"] = "UTC"
    time.tzset()
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    draw_report(folder)


if __name__ == "__main__":
    main()
