"""The command line: parses, calls, prints, exits. Heavy modules are imported where they are used,
so that `train --help` answers at once.
"""

from __future__ import annotations

import difflib
import io
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.errors import Interrupted, TrainshedError, UsageError

if TYPE_CHECKING:
    from orchestrator.desk import Desk
    from orchestrator.roundtrip import Result

EXIT_BUG = 70

app = typer.Typer(
    name="train",
    help="Train on a GPU machine you reach by SSH: sync, run, pull, grade, say what it cost.\n\n"
    "`train --remote NAME` is `train run --remote NAME`: all categories of this workspace.",
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
remote_app = typer.Typer(
    help="The machines: how to reach each, and what it costs. Example: train remote list"
)
app.add_typer(remote_app, name="remote")

Categories = Annotated[list[str] | None, typer.Argument(metavar="CATEGORY")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
RemoteName = Annotated[str, typer.Option("--remote", "-r", metavar="NAME", help="The machine.")]
Accept = Annotated[
    str,
    typer.Option(
        "--accept-host-key",
        metavar="SHA256:...",
        help="Trust this host key without asking; compare it first.",
    ),
]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="A run id, its beginning, or a category's last run.")
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the workspace goes.")],
    solutions: Annotated[
        bool, typer.Option("--solutions", help="With the reference solutions in the scripts.")
    ] = False,
) -> None:
    """Make a workspace with the practice pack. Example: train init exam"""
    from orchestrator.console import Console
    from orchestrator.init import make_workspace

    with Console() as console:
        kept = make_workspace(folder, solutions=solutions, tell=console)
    for script in kept:
        console.warn(f"{script} is your own and was left as it is")
    console.result(
        f"{folder} is ready. Next:\n"
        f"  cd {folder}\n"
        "  train remote add NAME --host ADDRESS --user USER --price 0.50\n"
        "  train --remote NAME"
    )


@app.command()
def run(
    categories: Categories = None,
    remote: RemoteName = "",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Submit and return; attach later.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go, biggest first; connect nowhere.")
    ] = False,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPU slots for each run.")
    ] = None,
    time_limit: Annotated[
        str, typer.Option("--time-limit", metavar="40m", help="For each run; over train.yaml.")
    ] = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="K=V", help="Given to the script as PARAM_K."),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Put these models into the folders, better or not.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Sync, queue, follow, pull, grade. Example: train category3 --remote azure-k80"""
    from orchestrator.desk import Desk, overrides
    from orchestrator.report import files_table
    from orchestrator.roundtrip import Order
    from orchestrator.standing import find_jobs

    with Desk.here(ask=not yes, accept=accept) as desk:
        jobs = find_jobs(desk.workspace, categories or ())
        chosen = overrides(gpus, time_limit, param or ())
        if dry_run:
            with desk.console:
                files = tuple(desk.snapshot(jobs).biggest())
            if as_json:
                _print_json([{"path": path, "size_bytes": size} for path, size in files])
            else:
                desk.console.result(files_table(files))
            return
        order = Order(desk.workspace, jobs, desk.remote(remote), chosen, detach, best=not latest)
        with desk.console:
            result = desk.trip.train(order)
        if detach and not as_json:
            ids = [mirror.run_id for mirror in result.mirrors]
            words = (f"train {word} {ids[-1]}" for word in ("attach", "cancel"))
            desk.console.result(
                "\n  ".join([f"submitted: {', '.join(ids)}", "train status", *words])
            )
        else:
            _finish(desk, result, as_json=as_json, judge_runs=not detach)


@app.command()
def attach(run: RunName, accept: Accept = "", as_json: AsJson = False) -> None:
    """Follow a run again, then pull and grade it. Example: train attach category3"""
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        mirror = desk.find_run(run)
        with desk.console:
            result = desk.attach(mirror)
        _finish(desk, result, as_json=as_json)


@app.command()
def status(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Ended runs too, not only the last ones.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="What this laptop knows; connect nowhere.")
    ] = False,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Runs of this workspace and where each stands. Example: train status"""
    from orchestrator.desk import Desk
    from orchestrator.report import run_json, runs_table

    with Desk.here(accept=accept) as desk:
        with desk.console:
            rows = desk.status(everything=everything, local=local)
        if as_json:
            _print_json([run_json(row) for row in rows])
        elif rows:
            desk.console.result(runs_table(rows))
        else:
            desk.console.result("no runs yet; start one: train --remote NAME")


@app.command()
def logs(
    run: RunName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until the run ends; over reconnections.")
    ] = False,
    accept: Accept = "",
) -> None:
    """What a run wrote, also when the VM is gone. Example: train logs category3 -f"""
    from orchestrator.desk import Desk

    with Desk.here(accept=accept, logs_to_stdout=True) as desk:
        mirror = desk.find_run(run)
        with desk.console:
            desk.show_log(mirror, follow=follow)


@app.command()
def cancel(run: RunName, accept: Accept = "") -> None:
    """End a run; it is warned first and may save. Example: train cancel category3"""
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        mirror = desk.find_run(run)
        with desk.console:
            ending = desk.cancel(mirror)
        desk.console.result(ending)


@app.command()
def pull(
    names: Annotated[list[str] | None, typer.Argument(metavar="CATEGORY|RUN")] = None,
    best: Annotated[
        bool, typer.Option("--best/--latest", help="Which model goes into the folder.")
    ] = True,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Bring home what has ended, grade it, place the best. Example: train pull category3"""
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        with desk.console:
            result = desk.pull(names or (), best=best)
        _finish(desk, result, as_json=as_json, judge_runs=False)


@app.command()
def grade(categories: Categories = None, as_json: AsJson = False) -> None:
    """Grade the models in the folders. Example: train grade category3"""
    from orchestrator.desk import Desk

    with Desk.here() as desk:
        with desk.console:
            result = desk.grade(categories or ())
        _finish(desk, result, as_json=as_json)


@app.command()
def ready(categories: Categories = None, as_json: AsJson = False) -> None:
    """What would be submitted; exit 0 only if all of it would be graded. Example: train ready"""
    from orchestrator.desk import Desk, refuse_unready
    from orchestrator.report import ready_table, standing_json

    with Desk.here() as desk:
        with desk.console:
            standings = desk.ready(categories or ())
        if as_json:
            _print_json([standing_json(standing) for standing in standings])
        else:
            desk.console.result(ready_table(standings))
        refuse_unready(standings)


@app.command()
def cost(
    by: Annotated[
        str, typer.Option("--by", help="remote, category, run, workspace or session.")
    ] = "category",
    since: Annotated[
        str, typer.Option("--since", metavar="2026-01-31|7d", help="A date, or how long ago.")
    ] = "",
    everywhere: Annotated[
        bool, typer.Option("--all", "-a", help="All workspaces, not only this one.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    as_json: AsJson = False,
) -> None:
    """What runs have cost. Example: train cost --by run --since 7d"""
    from orchestrator.bill import bill, bill_csv
    from orchestrator.console import Console
    from orchestrator.report import cost_row_json, cost_table

    rows = bill(Path.cwd(), by=by, since=since, everywhere=everywhere)
    if as_json:
        _print_json([cost_row_json(row) for row in rows])
    elif as_csv:
        print(bill_csv(by, rows), end="")
    else:
        Console().result(cost_table(by, rows) if rows else "nothing has run yet")


@app.command()
def doctor(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A remote.")] = "",
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Every check with its fix: here, and on a remote. Example: train doctor azure-k80"""
    from orchestrator.console import Console
    from orchestrator.doctor import Mark
    from orchestrator.machines import Machines
    from orchestrator.report import check_json, checks_table

    with Console() as console:
        checks = Machines.here(console, accept).examine(name)
    if as_json:
        _print_json([check_json(check) for check in checks])
    else:
        console.result(checks_table(checks))
    for check in checks:
        if check.mark is Mark.FAIL:
            raise typer.Exit(check.exit_code)


@app.command()
def gc(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A remote.")],
    keep_days: Annotated[
        float, typer.Option("--keep-days", min=0, help="Ended runs younger than this stay.")
    ] = 7.0,
    drop: Annotated[bool, typer.Option("--drop", help="Remove what may go.")] = False,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """What the VM's store holds, and what to drop. Example: train gc azure-k80 --drop"""
    from orchestrator.console import Console
    from orchestrator.machines import Machines
    from orchestrator.report import heap_json, heaps_table

    with Console() as console:
        heaps = Machines.here(console, accept).tidy(name, keep_days=keep_days, drop=drop)
    if as_json:
        _print_json([heap_json(heap) for heap in heaps])
    else:
        console.result(heaps_table(heaps, dropped=drop))


@remote_app.command("add")
def remote_add(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    host: Annotated[str, typer.Option("--host", help="Address, or an alias of ~/.ssh/config.")],
    user: Annotated[str, typer.Option("--user", "-u")] = "",
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535)] = None,
    key: Annotated[str, typer.Option("--key", "-i", help="A private key file.")] = "",
    price: Annotated[str, typer.Option("--price", help="Per hour, such as 0.50.")] = "",
    currency: Annotated[str, typer.Option("--currency")] = "USD",
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPU slots; 0 trains on the CPU.")
    ] = None,
    python: Annotated[str, typer.Option("--python", help="The VM's; else python3.")] = "",
    requirements: Annotated[
        str, typer.Option("--requirements", help="A file of the workspace, installed there.")
    ] = "",
    accept: Accept = "",
) -> None:
    """Add a machine; its host key is shown. Example: train remote add k80 --host 1.2.3.4"""
    from orchestrator.console import Console
    from orchestrator.machines import Machines, parse_price
    from orchestrator.spec import EnvSpec, Remote

    remote = Remote(
        name=name,
        host=host,
        user=user or None,
        port=port,
        key=str(Path(key).expanduser().absolute()) if key else None,
        gpus=gpus,
        price=parse_price(price, currency),
        env=EnvSpec(python or None, requirements or None),
    )
    with Console() as console:
        kind, fingerprint = Machines.here(console, accept).add(remote)
    console.result(f"{name} added; its {kind} host key is {fingerprint}\nNext: train doctor {name}")


@remote_app.command("list")
def remote_list(as_json: AsJson = False) -> None:
    """The machines that are known here. Example: train remote list"""
    from orchestrator.console import Console
    from orchestrator.machines import Machines
    from orchestrator.report import remote_json, remotes_table

    console = Console()
    found = Machines.here(console).all()
    if as_json:
        _print_json([remote_json(remote) for remote in found])
    else:
        console.result(
            remotes_table(found) if found else "none yet; add one: train remote add NAME --host ..."
        )


@remote_app.command("show")
def remote_show(
    name: Annotated[str, typer.Argument(metavar="NAME")], as_json: AsJson = False
) -> None:
    """All that is known of one machine, as YAML or JSON. Example: train remote show azure-k80"""
    from orchestrator.config import format_remotes
    from orchestrator.console import Console
    from orchestrator.machines import Machines
    from orchestrator.report import remote_json

    found = Machines.here(Console()).find(name)
    if as_json:
        _print_json(remote_json(found))
    else:
        print(format_remotes((found,)), end="")


@remote_app.command("remove")
def remote_remove(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    force: Annotated[
        bool, typer.Option("--force", help="Even if runs go on there, as far as is known here.")
    ] = False,
) -> None:
    """Forget a machine; the ledger's records stay. Example: train remote remove azure-k80"""
    from orchestrator.console import Console
    from orchestrator.home import remotes_file
    from orchestrator.machines import open_runs
    from orchestrator.remotes import remove_remote

    if not force and (runs := open_runs(name)):
        raise UsageError(
            f"runs may still go on {name}, and cost money: {', '.join(runs)}",
            fix=f"train status, train cancel RUN; or: train remote remove {name} --force",
        )
    remove_remote(remotes_file(), name)
    Console().result(f"{name} removed")


def _finish(desk: Desk, result: Result, *, as_json: bool, judge_runs: bool = True) -> None:
    """Print how it went; raise if it did not go well."""
    from orchestrator.desk import judge
    from orchestrator.report import result_blocks, result_json

    if as_json:
        _print_json(result_json(result))
    else:
        for block in result_blocks(result, desk.ledger):
            desk.console.result(block)
    judge(result, runs=judge_runs)


def _print_json(value: Any) -> None:  # noqa: ANN401  # whatever JSON can hold
    print(json.dumps(value, indent=2, ensure_ascii=True))


def _version(value: bool) -> None:
    if value:
        import importlib.metadata

        print(f"trainshed {importlib.metadata.version('trainshed')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def expand(arguments: Sequence[str], commands: Sequence[str]) -> list[str]:
    """The arguments with what may be left out: `run` in `train --remote X` and `train category3`,
    and `--help` where nothing else makes sense.
    """
    own = {"-h", "--help", "--version", "--install-completion", "--show-completion"}
    if list(arguments) in ([], ["remote"]):
        return [*arguments, "--help"]
    if arguments[0] in own or arguments[0] in commands:
        return list(arguments)
    return ["run", *arguments]


def _commands() -> list[str]:
    names = [
        info.name or info.callback.__name__ for info in app.registered_commands if info.callback
    ]
    return names + [str(group.name) for group in app.registered_groups]


def main() -> None:
    """Run one command and exit with its code; a traceback is only ever our own fault."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A log may hold what an old terminal's encoding cannot say.
            stream.reconfigure(errors="replace")
    debug = "--debug" in sys.argv
    typed = [word for word in sys.argv[1:] if word != "--debug"]
    arguments = expand(typed, _commands())
    try:
        code = app(args=arguments, prog_name="train", standalone_mode=False)
    except Interrupted as stop:
        sys.exit(_stopped(str(stop), stop.fix.splitlines()))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_stopped("interrupted; the same command goes on from there", ()))
    except Exception as error:  # noqa: BLE001  # the last place where anything can be said
        told = _told(error)
        if told is None or debug:
            traceback.print_exc()
        if told is None:
            sys.stderr.write(
                "error: this is a bug in trainshed\nfix:   please report it with the lines above\n"
            )
            sys.exit(EXIT_BUG)
        if arguments != typed:
            _hint_command(told, arguments)
        sys.stderr.write(told.render() + "\n")
        sys.exit(told.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _stopped(message: str, commands: Sequence[str]) -> int:
    sys.stderr.write("\n".join([message, *(f"  {command}" for command in commands)]) + "\n")
    return Interrupted.exit_code


def _told(error: Exception) -> TrainshedError | None:
    """What the user can be told; None of a bug."""
    if isinstance(error, TrainshedError):
        return error
    # Typer's own, about options; it exports no class of theirs.
    say, context = getattr(error, "format_message", None), getattr(error, "ctx", None)
    if callable(say):
        text = str(say()).strip().rstrip(".")
        path = context.command_path if context else "train"
        return UsageError(text[:1].lower() + text[1:], fix=f"{path} --help")
    if isinstance(error, OSError) and error.filename is not None:
        reason = (error.strerror or str(error)).lower()
        told = UsageError(f"{error.filename}: {reason}")
        told.__cause__ = error.__cause__
        return told
    return None


def _hint_command(error: TrainshedError, arguments: Sequence[str]) -> None:
    """`train stauts` was taken for a category; say which command is near."""
    if isinstance(error, UsageError) and str(error).startswith("no category is named"):
        near = difflib.get_close_matches(arguments[1], _commands(), n=1, cutoff=0.7)
        error.fix = f"did you mean: train {near[0]}" if near else f"{error.fix}, or see: train -h"


if __name__ == "__main__":
    main()
