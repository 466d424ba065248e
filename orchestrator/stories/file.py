"""A story as a file: in which form, and where."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.errors import UsageError, unwritten
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Workspace
from orchestrator.size import format_size
from orchestrator.source.ignore import Ignore
from orchestrator.stories.page import html_page, markdown_page, story_json
from orchestrator.stories.story import Story
from remote.atomic import replace_file

_FORMS = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


def form_of(said: str | None, target: Path | None) -> str:
    """`html`, `md` or `json`: as was said, else by the file's name, else what can be read here.

    Raises:
        UsageError: the name tells none.
    """
    if said or target is None:
        return said or "md"
    form = _FORMS.get(target.suffix.lower())
    if form is None:
        raise UsageError(
            f"the name {target.name} does not tell the form of the report",
            fix="name it .html, .md or .json; or: --format html",
        )
    return form


def told_as(form: str, story: Story) -> str:
    if form == "html":
        return html_page(story)
    if form == "md":
        return markdown_page(story)
    return json.dumps(story_json(story), allow_nan=False) + "\n"


def write_story(text: str, target: Path, workspace: Workspace | None, tell: Teller) -> str:
    """In the place of what stood there, whole or not at all; what was written, in words.

    Raises:
        UsageError: it cannot be written.
    """
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is no file", fix="-o FILE; without it the report is printed")
    data = text.encode()
    try:
        replace_file(target, data)
    except OSError as error:
        raise unwritten(error, str(target)) from None
    if workspace is not None and _would_be_sent(target.resolve(), workspace):
        inside = target.resolve().relative_to(workspace.root.resolve()).as_posix()
        tell.warn(
            f"{target} lies in the workspace and would be sent from now on; to keep it here, write "
            f"/{inside} into .trainignore"
        )
    return f"{target}, {format_size(len(data))}"


def _would_be_sent(target: Path, workspace: Workspace) -> bool:
    root = workspace.root.resolve()
    if not target.is_relative_to(root):
        return False
    path = target.relative_to(root).as_posix()
    return Ignore(root).verdict_below(path, is_folder=False).is_sent
