"""The commands about machines, as `commands.py` has those about runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.commands import print_json
from orchestrator.errors import UsageError
from orchestrator.options import (
    Days,
    InOrder,
    WholeOrNone,
    accept_option,
    json_option,
    name_argument,
)

if TYPE_CHECKING:
    from orchestrator.remotes import Said

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.command()
@click.argument("name", default="")
@accept_option
@json_option
def doctor(name: str, accept: str, as_json: bool) -> int:
    """Every check with its fix: here, and on a remote.

    NAME is a remote.

    Example: train doctor azure-k80
    """
    from orchestrator.console import Console
    from orchestrator.doctor import Mark
    from orchestrator.machines import Machines
    from orchestrator.report import check_json, checks_table

    with Console() as console:
        checks = Machines.here(console, accept).examine(name)
    if as_json:
        print_json([check_json(check) for check in checks])
    else:
        console.result(checks_table(checks))
    return next((check.exit_code for check in checks if check.mark is Mark.FAIL), 0)


@click.command()
@name_argument
@click.option(
    "--keep-days",
    metavar="DAYS",
    type=Days(min=0),
    default=7.0,
    show_default=True,
    help="Ended runs younger than this stay.",
)
@click.option("--drop", is_flag=True, help="Remove what may go.")
@click.option("--force", is_flag=True, help="Also runs of which it may have the only copy.")
@accept_option
@json_option
def gc(name: str, keep_days: float, drop: bool, force: bool, accept: str, as_json: bool) -> None:
    """What the VM's store holds, and what to drop.

    NAME is a remote. A run goes only when all it made is on this laptop.

    Example: train gc azure-k80 --drop
    """
    from orchestrator.console import Console
    from orchestrator.machines import Machines
    from orchestrator.report import heap_json, heaps_table

    with Console() as console:
        machines = Machines.here(console, accept)
        heaps = machines.tidy(name, keep_days=keep_days, drop=drop, force=force)
    if as_json:
        print_json([heap_json(heap) for heap in heaps])
    else:
        console.result(heaps_table(heaps, dropped=drop))


@click.group(cls=InOrder)
def remote() -> None:
    """The machines: how to reach each, and what it costs.

    Example: train remote list
    """


def _remote_options(*, is_new: bool) -> Callable[[_Command], _Command]:
    """All that can be said of a machine."""
    options = (
        click.option(
            *("--host", "host"),
            metavar="ADDRESS",
            required=is_new,
            help="Address, or an alias of ~/.ssh/config.",
        ),
        click.option("--user", "-u", metavar="USER", help="Else as ~/.ssh/config has it."),
        click.option("--port", metavar="PORT", type=WholeOrNone(1, 65535)),
        click.option("--key", "-i", metavar="FILE", help="A private key file."),
        click.option("--price", metavar="AMOUNT", help="Per hour, such as 0.50."),
        click.option("--currency", metavar="CODE", help="Of the price; else USD."),
        click.option(
            "--gpus", metavar="N", type=WholeOrNone(min=0), help="GPU slots; 0 trains on the CPU."
        ),
        click.option("--python", metavar="PATH", help="The VM's; else python3."),
        click.option(
            "--requirements", metavar="FILE", help="A file of the workspace, installed there."
        ),
    )

    def with_options(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return with_options


def _said(options: dict[str, Any]) -> Said:
    from orchestrator.remotes import Said

    key = options.pop("key")
    return Said(**options, key=str(Path(key).expanduser().absolute()) if key else key)


@remote.command("add")
@name_argument
@_remote_options(is_new=True)
@accept_option
def remote_add(
    name: str,
    accept: str,
    **options: Any,  # noqa: ANN401  # as click has them
) -> None:
    """Add a machine; its host key is shown.

    Example: train remote add k80 --host 1.2.3.4
    """
    from orchestrator.console import Console
    from orchestrator.machines import Machines
    from orchestrator.remotes import changed
    from orchestrator.spec import Remote

    remote = changed(Remote(name, host=""), _said(options))
    with Console() as console:
        kind, fingerprint = Machines.here(console, accept).add(remote)
    console.result(f"{name} added; its {kind} host key is {fingerprint}\nNext: train doctor {name}")


@remote.command("set")
@name_argument
@_remote_options(is_new=False)
@click.option("--force", is_flag=True, help="Even if runs go on at the old address.")
@accept_option
def remote_set(
    name: str,
    force: bool,
    accept: str,
    **options: Any,  # noqa: ANN401  # as click has them
) -> None:
    """Change what is said of a machine.

    What is not named stays. An empty text takes away: --price "". At another address the host key
    is shown again.

    Example: train remote set k80 --host 1.2.3.5 --price 0.60
    """
    from orchestrator.console import Console
    from orchestrator.machines import Machines
    from orchestrator.report import change_text

    with Console() as console:
        change = Machines.here(console, accept).change(name, _said(options), force=force)
    console.result(f"{change_text(change)}\nNext: train doctor {name}")


@remote.command("list")
@json_option
def remote_list(as_json: bool) -> None:
    """The machines that are known here.

    Example: train remote list
    """
    from orchestrator.config import known_remotes, workspace_here
    from orchestrator.console import Console
    from orchestrator.report import remote_json, remotes_table

    console = Console()
    found = known_remotes(workspace_here())
    if as_json:
        print_json([remote_json(remote) for remote in found])
    else:
        console.result(
            remotes_table(found) if found else "none yet; add one: train remote add NAME --host ..."
        )


@remote.command("show")
@name_argument
@json_option
def remote_show(name: str, as_json: bool) -> None:
    """All that is known of one machine, as YAML or JSON.

    Example: train remote show azure-k80
    """
    from orchestrator.config import find_remote, format_remotes, workspace_here
    from orchestrator.report import remote_json

    found = find_remote(workspace_here(), name)
    if as_json:
        print_json(remote_json(found))
    else:
        print(format_remotes((found,)), end="")


@remote.command("remove")
@name_argument
@click.option("--force", is_flag=True, help="Even if runs go on there, as far as is known here.")
def remote_remove(name: str, force: bool) -> None:
    """Forget a machine; the ledger's records stay.

    Example: train remote remove azure-k80
    """
    from orchestrator.console import Console
    from orchestrator.home import remotes_file
    from orchestrator.machines import open_runs
    from orchestrator.remotes import remove_remote

    runs = open_runs(name)
    if runs and not force:
        raise UsageError(
            f"runs may still go on {name}, and cost money: {', '.join(runs)}",
            fix=f"train status, train cancel RUN; or: train remote remove {name} --force",
        )
    remove_remote(remotes_file(), name)
    Console().result(f"{name} removed")
    for run in runs:
        Console().warn(f"{run} may go on there; to give it up: train cancel {run} --forget")
