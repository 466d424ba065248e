"""The command that tells the story of a session or a workspace."""

from __future__ import annotations

import click


@click.command()
@click.argument("session", metavar="[SESSION|.]", default="")
@click.option("--output", "-o", metavar="FILE", default="", help="Else it is printed.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "json"]),
    help="Else by the file's name; md without one.",
)
@click.option("--json", "form", flag_value="json", help="As --format json.")
def report(session: str, output: str, form: str | None) -> None:
    """Tell the story of a session: points, curves, cost, each attempt.

    SESSION is a session's name or id, else the last one. `.` is this workspace, whatever the
    session. FILE.html is one page that works without a network.

    Example: train report -o report.html
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from orchestrator.records.ledger import Ledger
    from orchestrator.screen.console import Console
    from orchestrator.settings.config import workspace_here
    from orchestrator.settings.home import ledger_file
    from orchestrator.stories.chronicle import find_subject, tell_story
    from orchestrator.stories.file import form_of, told_as, write_story

    target = Path(output).expanduser() if output else None
    wanted = form_of(form, target)
    workspace = workspace_here()
    with Ledger.open(ledger_file()) as ledger:
        subject = find_subject(ledger, session, workspace.root if workspace else None)
        text = told_as(wanted, tell_story(ledger, subject, datetime.now(UTC)))
    if target is None:
        click.echo(text, nl=False)
        return
    console = Console()
    written = write_story(text, target, workspace, console)
    console.result(written)
