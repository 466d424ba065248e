"""The command that tells which machine is worth its price."""

from __future__ import annotations

import click

from orchestrator.commands import print_json
from orchestrator.options import accept_option, json_option

# As in workload.py, which a help text need not import.
_WORKLOADS = ("regression", "digits", "photos", "text", "series")


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--only", type=click.Choice(_WORKLOADS), multiple=True, help="This workload; may be repeated."
)
@click.option("--quick", is_flag=True, help="Few samples, a short time: rough figures.")
@click.option("--show", is_flag=True, help="What was measured before; run nothing.")
@accept_option
@json_option
def bench(
    names: tuple[str, ...],
    only: tuple[str, ...],
    quick: bool,
    show: bool,
    accept: str,
    as_json: bool,
) -> None:
    """How fast remotes train, and what that costs, side by side.

    Five workloads like the categories, on made-up data. Without NAME: what was measured before.
    The time to 5/5 is reckoned: the start as measured, and the epochs that the practice pack's
    networks need at the measured rate.

    Example: train bench azure-k80 gcp-t4
    """
    from orchestrator.measuring.report import blocks, kept_json
    from orchestrator.screen.console import Console

    workloads = tuple(name for name in _WORKLOADS if name in only) or _WORKLOADS
    trouble = None
    with Console() as console:
        if show or not names:
            from orchestrator.measuring.workbook import Workbook
            from orchestrator.settings.home import data_folder

            figures = Workbook(data_folder()).last(names, workloads)
        else:
            from orchestrator.measuring.workbench import measure

            figures, trouble = measure(names, workloads, console, quick=quick, accept=accept)
    if as_json:
        print_json([kept_json(kept) for kept in figures])
    elif figures:
        for block in blocks(figures):
            console.result(block)
    elif trouble is None:
        console.result(
            f"nothing is measured yet; to do so: train bench {' '.join(names) or 'NAME'}"
        )
    if trouble is not None:
        raise trouble
