"""The commands about machines, as `commands.py` has those about runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    any_name_argument,
    json_option,
    name_argument,
)

if TYPE_CHECKING:
    from orchestrator.screen.console import Console
    from orchestrator.settings.pool import Pool
    from orchestrator.settings.remotes import Said
    from orchestrator.vm.check import Check
    from orchestrator.vm.machines import Machines

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.command()
@any_name_argument
@click.option("--job", "with_job", is_flag=True, help="Try a job of a cluster, and look from it.")
@accept_option
@json_option
def doctor(name: str, with_job: bool, accept: str, as_json: bool) -> int:
    """Every check with its fix: here, and on a remote, or on each host of a pool.

    NAME is a remote.

    Example: train doctor azure-k80
    """
    from orchestrator.screen.console import Console
    from orchestrator.screen.machines import check_json, checks_table
    from orchestrator.settings.config import find_pool, workspace_here
    from orchestrator.settings.pool import no_machine
    from orchestrator.vm.check import Mark
    from orchestrator.vm.doctor import check_laptop
    from orchestrator.vm.machines import Machines

    with Console() as console:
        machines = Machines.here(console, accept)
        checks = list(check_laptop())
        pool = find_pool(workspace_here(), name)
        if pool is not None:
            if accept:
                raise no_machine(pool)
            if not as_json:
                console.result(checks_table(checks))
            checks += _check_pool(console, machines, pool, as_json=as_json)
        elif name:
            from orchestrator.costs.checkup import money_checks
            from orchestrator.costs.paydesk import PayDesk

            checks += machines.examine(name, with_job=with_job)
            with PayDesk.here(console, accept) as desk:
                (seen,) = desk.look(name)
                checks += money_checks(seen, desk.budgets(seen.remote), desk.file_of(name))
    if as_json:
        print_json([check_json(check) for check in checks])
    elif pool is None:
        console.result(checks_table(checks))
    return next((check.exit_code for check in checks if check.mark is Mark.FAIL), 0)


def _check_pool(
    console: Console, machines: Machines, pool: Pool, *, as_json: bool
) -> Iterator[Check]:
    """Each host's checks, which are shown as they come unless it is to be JSON."""
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.pools.checkup import check_hosts, ready_line
    from orchestrator.screen.machines import checks_table

    checkups = []
    with PayDesk.here(console) as desk:
        for each in check_hosts(pool, machines, desk):
            checkups.append(each)
            if not as_json:
                console.result(f"\n── {each.host}{', drained' if each.is_drained else ''} ──")
                console.result(checks_table(each.checks))
            yield from (check.on(each.host) for check in each.checks)
    if not as_json:
        console.result(f"\n{ready_line(pool.name, checkups)}")


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
    from orchestrator.screen.console import Console
    from orchestrator.screen.machines import heap_json, heaps_table
    from orchestrator.vm.machines import Machines

    with Console() as console:
        machines = Machines.here(console, accept)
        heaps = machines.tidy(name, keep_days=keep_days, drop=drop, force=force)
    if as_json:
        print_json([heap_json(heap) for heap in heaps])
    else:
        console.result(heaps_table(heaps, dropped=drop))


@click.command()
def docs() -> None:
    """Open the tutorial: fifteen minutes from nothing to a graded model.

    It came with the program and needs no network. Without a browser its file is named.

    Example: train docs
    """
    from orchestrator.tutorial import open_tutorial

    print(open_tutorial())


@click.group(cls=InOrder)
def remote() -> None:
    """The machines: how to reach each, and what it costs.

    Example: train remote list
    """


def _remote_options(command: _Command) -> _Command:
    """All that can be said of a machine."""
    options = (
        click.option(
            *("--host", "host"),
            metavar="ADDRESS",
            help="Address, or an alias of ~/.ssh/config.",
        ),
        click.option(
            "--hosts", metavar="A,B,...", help="Of a pool: addresses, or names of remotes."
        ),
        click.option("--user", "-u", metavar="USER", help="Else as ~/.ssh/config has it."),
        click.option("--port", metavar="PORT", type=WholeOrNone(1, 65535)),
        click.option("--key", "-i", metavar="FILE", help="A private key file."),
        click.option("--price", metavar="AMOUNT", help="Per hour (of a GPU, on a cluster): 0.50."),
        click.option("--currency", metavar="CODE", help="Of the price; else USD."),
        click.option(
            "--gpus", metavar="N", type=WholeOrNone(min=0), help="GPU slots; 0 trains on the CPU."
        ),
        click.option(
            "--engine",
            type=click.Choice(["ssh", "slurm"]),
            help="slurm: a cluster's login node; else ssh.",
        ),
        click.option("--python", metavar="PATH", help="The VM's; else python3."),
        click.option(
            "--requirements", metavar="FILE", help="A file of the workspace, installed there."
        ),
    )

    for option in reversed(options):
        command = option(command)
    return command


def _said(options: dict[str, Any]) -> Said:
    from orchestrator.settings.remotes import Said

    key = options.pop("key")
    return Said(**options, key=str(Path(key).expanduser().absolute()) if key else key)


@remote.command("add")
@click.argument("name")
@_remote_options
@accept_option
def remote_add(
    name: str,
    accept: str,
    **options: Any,  # noqa: ANN401  # as click has them
) -> None:
    """Add a machine, whose host key is shown, or a pool.

    With --hosts, the other options are for all addresses in the list.

    Example: train remote add k80 --host 1.2.3.4
    """
    hosts = options["hosts"]
    if (options["host"] is None) == (hosts is None):
        raise UsageError(
            "missing option '--host', or '--hosts' of a pool"
            if hosts is None
            else "a machine has a --host, a pool has --hosts, and nothing has both",
            fix="train remote add --help",
        )
    if hosts is not None and accept:
        raise UsageError(
            "--accept-host-key is for one machine",
            fix=f"add {name} without it; then, to be asked about each host: train doctor {name}",
        )
    from orchestrator.screen.console import Console
    from orchestrator.settings.home import remotes_file
    from orchestrator.settings.remotes import changed
    from orchestrator.settings.spec import Remote
    from orchestrator.vm.machines import Machines

    remote = changed(Remote(name, host=""), _said(options))
    with Console() as console:
        machines = Machines.here(console, accept)
        if remote.hosts:
            told = f"a pool of {machines.add_pool(remote).names}"
        else:
            kind, fingerprint = machines.add(remote)
            told = f"its {kind} host key is {fingerprint}"
    console.result(f"{name} added to {remotes_file()}; {told}\nNext: train doctor {name}")


class _NamesItsFile(click.Command):
    """Its help ends with where the user's remotes are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from orchestrator.settings.home import remotes_file

        formatter.write_paragraph()
        formatter.write(f"Your remotes: {remotes_file()}\n")


@remote.command("set", cls=_NamesItsFile)
@name_argument
@_remote_options
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
    is shown again. --hosts is a pool's whole new list. Keys without an option (cloud, budget) are
    for your editor, in the file below.

    Example: train remote set k80 --host 1.2.3.5 --price 0.60
    """
    from orchestrator.screen.console import Console
    from orchestrator.screen.machines import change_text
    from orchestrator.vm.machines import Machines

    with Console() as console:
        change = Machines.here(console, accept).change(name, _said(options), force=force)
    console.result(f"{change_text(change)}\nNext: train doctor {name}")


@remote.command("list")
@json_option
def remote_list(as_json: bool) -> None:
    """The machines that are known here.

    Example: train remote list
    """
    from orchestrator.screen.console import Console
    from orchestrator.screen.machines import remote_json, remotes_table
    from orchestrator.settings.config import known_remotes, workspace_here
    from orchestrator.settings.home import remotes_file

    console = Console()
    workspace = workspace_here()
    found = known_remotes(workspace)
    if as_json:
        print_json([remote_json(remote) for remote in found])
    else:
        console.result(
            remotes_table(found) if found else "none yet; add one: train remote add NAME --host ..."
        )
        own = f" and {workspace.root / 'train.yaml'}" if workspace and workspace.remotes else ""
        console.step(f"from {remotes_file()}{own}")


@remote.command("show")
@name_argument
@json_option
def remote_show(name: str, as_json: bool) -> None:
    """All that is known of one machine, as YAML or JSON.

    Example: train remote show azure-k80
    """
    from orchestrator.screen.machines import remote_json
    from orchestrator.settings.config import (
        find_remote,
        format_remotes,
        known_remotes,
        workspace_here,
    )

    workspace = workspace_here()
    said = {remote.name: remote for remote in known_remotes(workspace)}
    # What is said of a pool is more than its machines.
    found = said[name] if name in said else find_remote(workspace, name)
    if as_json:
        print_json(remote_json(found))
    else:
        print(format_remotes((found,)), end="")


@remote.command("drain")
@name_argument
@click.argument("host")
@click.option("--undo", is_flag=True, help="It takes runs again.")
def remote_drain(name: str, host: str, undo: bool) -> None:
    """Send no more runs to a host of a pool.

    HOST is as in the pool's list, or its name. What has begun there ends there.

    Example: train remote drain lab gpu3
    """
    from orchestrator.screen.console import Console
    from orchestrator.settings.home import remotes_file
    from orchestrator.settings.remotes import drain

    entry = drain(remotes_file(), name, host, undo=undo)
    Console().result(f"{entry} takes {'runs again' if undo else 'no more runs'} of {name}")


@remote.command("remove")
@name_argument
@click.option("--force", is_flag=True, help="Even if runs go on there, as far as is known here.")
def remote_remove(name: str, force: bool) -> None:
    """Forget a machine; the ledger's records stay.

    Example: train remote remove azure-k80
    """
    from orchestrator.screen.console import Console
    from orchestrator.settings.config import find_pool
    from orchestrator.settings.home import remotes_file
    from orchestrator.settings.remotes import remove_remote
    from orchestrator.vm.machines import open_runs

    pool = find_pool(None, name)
    names = [member.name for member in pool.members] if pool else [name]
    # Those that are remotes of their own stay.
    gone = [each for each in names if each == name or each.startswith(f"{name}.")]
    runs = [run for each in gone for run in open_runs(each)]
    if runs and not force:
        raise UsageError(
            f"runs may still go on {name}, and cost money: {', '.join(runs)}",
            fix=f"train status, train cancel RUN; or: train remote remove {name} --force",
        )
    remove_remote(remotes_file(), name)
    Console().result(f"{name} removed")
    for run in runs:
        Console().warn(f"{run} may go on there; to give it up: train cancel {run} --forget")
