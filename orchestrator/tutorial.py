"""The tutorial that comes with the program, as a page for a browser without a network."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.screen.desktop import open_page
from orchestrator.settings.home import data_folder
from remote.atomic import replace_file

FILE = Path(__file__).with_name("tutorial.md")
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Fifteen minutes with Trainshed</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.05rem/1.5 system-ui, sans-serif; max-width: 46rem; }}
body {{ margin: 2rem auto; padding: 0 1rem; }}
pre {{ padding: .8rem 1rem; overflow-x: auto; border: 1px solid #8886; border-radius: .4rem; }}
code {{ font: .9rem ui-monospace, monospace; }}
</style>
<main>
{body}
</main>
</html>
"""


def open_tutorial() -> Path:
    """Show it to a person at a desktop; returns the file that is open there, or could be read."""
    if sys.stdout is None or not sys.stdout.isatty():
        return FILE
    page = data_folder() / "tutorial.html"
    replace_file(page, _page(FILE.read_text("utf-8")).encode())
    return page if open_page(page.as_uri()) else FILE


def _page(text: str) -> str:
    # Not at the top: it takes longer than most commands.
    from markdown_it import MarkdownIt

    return _PAGE.format(body=MarkdownIt("commonmark").render(text))
