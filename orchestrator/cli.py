"""The command line: parses, calls, prints, exits. Heavy modules are imported where they are used,
so that `train --help` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from gc import set_threshold
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from orchestrator.errors import Interrupted, TrainshedError, UsageError

if TYPE_CHECKING:
    from orchestrator.desk import Desk
    from orchestrator.plan import Order, Overrides
    from orchestrator.remotes import Said
    from orchestrator.settling import Result
    from orchestrator.spec import Job, Workspace

EXIT_BUG = 70

_Command = TypeVar("_Command", bound=Callable[..., Any])

# What a write to a file or a terminal that takes nothing more ends with.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _InOrder(click.Group):
    """Its commands are listed as a user needs them, not by the alphabet."""

    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _Whole(click.IntRange):
    # As in "'x' is not a valid whole number".
    name = "whole number"


class _Days(click.FloatRange):
    name = "number of days"

    def convert(
        self,
        value: Any,  # noqa: ANN401  # whatever click has
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        days = float(super().convert(value, param, ctx))
        # No comparison with a range finds it.
        if math.isnan(days):
            self.fail(f"{value!r} is not a valid {self.name}", param, ctx)
        return days


class _WholeOrNone(_Whole):
    """Takes an empty text too, which stays one."""

    def convert(
        self,
        value: Any,  # noqa: ANN401  # whatever click has
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401  # a whole number or ""
        return "" if value == "" else super().convert(value, param, ctx)


# Where a shell looks when it starts, and what it does there. Source: click's "Shell Completion".
_COMPLETION = {
    "bash": (
        ".bashrc",
        'command -v train >/dev/null && eval "$(_TRAIN_COMPLETE=bash_source train)"',
    ),
    "fish": (".config/fish/completions/train.fish", "_TRAIN_COMPLETE=fish_source train | source"),
    "zsh": (".zshrc", 'command -v train >/dev/null && eval "$(_TRAIN_COMPLETE=zsh_source train)"'),
}


def _complete(context: click.Context, option: click.Parameter, chosen: bool) -> None:
    """Print how the user's shell completes what is typed, or have it do so from now on."""
    if not chosen:
        return
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in _COMPLETION:
        raise UsageError(
            f"completion is for {', '.join(_COMPLETION)}, not {shell!r}",
            fix=f"SHELL=/bin/bash train {option.opts[0]}",
        )
    name, line = _COMPLETION[shell]
    if option.name == "show_completion":
        print(line)
    else:
        file = Path.home() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or line not in file.read_text("utf-8", "replace"):
            with file.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{line}\n")
        print(f"{file} has: {line}\nIt takes effect in the next {shell}.")
    context.exit()


_completion_option = partial(
    click.option, is_flag=True, is_eager=True, expose_value=False, callback=_complete
)
_categories = click.argument("categories", metavar="[CATEGORY]...", nargs=-1)
_run = click.argument("run")
_remote_name = click.argument("name")
_as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)
_accept = click.option(
    "--accept-host-key",
    "accept",
    metavar="SHA256:...",
    default="",
    help="Trust this host key without asking; compare it first.",
)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    package_name="trainshed", message="%(package)s %(version)s", help="Print the version."
)
@_completion_option("--install-completion", help="Install completion for the current shell.")
@_completion_option(
    "--show-completion",
    help="Show completion for the current shell, to copy it or customize the installation.",
)
def app() -> None:
    """Train on a GPU machine you reach by SSH: sync, run, pull, grade, say what it cost.

    `train --remote NAME` is `train run --remote NAME`: all categories of this workspace.
    """


@app.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--solutions", is_flag=True, help="With the reference solutions in the scripts.")
def init(folder: Path, solutions: bool) -> None:
    """Make a workspace with the practice pack.

    DIR is where the workspace goes.

    Example: train init exam
    """
    import shlex

    from orchestrator.console import Console
    from orchestrator.init import make_workspace

    with Console() as console:
        made = make_workspace(folder, solutions=solutions, tell=console)
    if made.kept:
        what = "is a workspace already" if "train.yaml" in made.kept else "was begun already"
        console.step(f"{folder} {what}; kept as they were: {len(made.kept)} files")
        console.step(f"added: {', '.join(made.added) or 'nothing, it is complete'}")
    for name in made.own:
        unsolved = ", without the solution" if name in made.unsolved else ""
        console.warn(f"{name} is your own and was left as it is{unsolved}")
    if made.outer:
        console.warn(
            f"{folder} lies inside the workspace {made.outer.parent}: there and below, commands "
            f"see {folder / 'train.yaml'}, not {made.outer}"
        )
    console.result(
        f"{folder} is ready. Next:\n"
        f"  cd {shlex.quote(str(folder))}\n"
        "  train remote add NAME --host ADDRESS --user USER --price 0.50\n"
        "  train --remote NAME"
    )


@app.command()
@_categories
@click.option("--remote", "-r", metavar="NAME", default="", help="The machine.")
@click.option("--detach", "-d", is_flag=True, help="Submit and return; attach later.")
@click.option("--dry-run", is_flag=True, help="List what would go, biggest first; connect nowhere.")
@click.option("--gpus", metavar="N", type=_Whole(min=0), help="GPU slots for each run.")
@click.option("--time-limit", metavar="40m", default="", help="For each run; over train.yaml.")
@click.option("--param", "-p", metavar="K=V", multiple=True, help="Given to the script as PARAM_K.")
@click.option("--latest", is_flag=True, help="Put these models into the folders, better or not.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@_accept
@_as_json
def run(
    categories: tuple[str, ...],
    remote: str,
    detach: bool,
    dry_run: bool,
    gpus: int | None,
    time_limit: str,
    param: tuple[str, ...],
    latest: bool,
    yes: bool,
    accept: str,
    as_json: bool,
) -> None:
    """Sync, queue, follow, pull, grade.

    Example: train category3 --remote azure-k80
    """
    from orchestrator.config import find_jobs, find_remote, load_workspace
    from orchestrator.reach import HeadStart

    workspace = load_workspace(Path.cwd())
    jobs = find_jobs(workspace, categories)
    if dry_run:
        from orchestrator.plan import Overrides

        if remote:
            find_remote(workspace, remote)
        chosen = Overrides.parse(gpus, time_limit, param)
        _list_files(workspace, jobs, chosen, as_json=as_json)
        return
    target = find_remote(workspace, remote, categories)
    with HeadStart(target, accept) as begun:
        # While the line comes up, because importing these takes as long.
        from orchestrator.console import Console
        from orchestrator.desk import Desk
        from orchestrator.plan import Order, Overrides

        chosen = Overrides.parse(gpus, time_limit, param)
        order = Order(workspace, jobs, target, chosen, detach, best=not latest)
        with Desk(workspace, Console(), ask=not yes, accept=accept, begun=begun) as desk:
            _train(desk, order, as_json=as_json)


def _list_files(
    workspace: Workspace, jobs: tuple[Job, ...], chosen: Overrides, *, as_json: bool
) -> None:
    """What would go, biggest first, and what would be executed."""
    from orchestrator.console import Console
    from orchestrator.report import dry_run_blocks
    from orchestrator.snapshot import take_snapshot

    with Console() as console:
        files = tuple(take_snapshot(workspace, jobs, console).biggest())
    if as_json:
        _print_json([{"path": path, "size_bytes": size} for path, size in files])
    else:
        for block in dry_run_blocks(files, jobs, chosen):
            console.result(block)


def _train(desk: Desk, order: Order, *, as_json: bool) -> None:
    with desk.console:
        result = desk.trip.train(order)
    if order.detach and not as_json:
        ids = [mirror.run_id for mirror in result.mirrors]
        words = (f"train {word} {ids[-1]}" for word in ("attach", "cancel"))
        desk.console.result("\n  ".join([f"submitted: {', '.join(ids)}", "train status", *words]))
    else:
        _finish(desk, result, as_json=as_json, judge_runs=not order.detach)


@app.command()
@_run
@_accept
@_as_json
def attach(run: str, accept: str, as_json: bool) -> None:
    """Follow a run again, then pull and grade it.

    RUN is a run id, its beginning, or a category's last run.

    Example: train attach category3
    """
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        mirror = desk.find_run(run)
        with desk.console:
            result = desk.attach(mirror)
        _finish(desk, result, as_json=as_json)


@app.command()
@click.option(
    "--all", "-a", "everything", is_flag=True, help="Ended runs too, not only the last ones."
)
@click.option("--local", is_flag=True, help="What this laptop knows; connect nowhere.")
@_accept
@_as_json
def status(everything: bool, local: bool, accept: str, as_json: bool) -> None:
    """Runs of this workspace and where each stands.

    Example: train status
    """
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
@_run
@click.option("--follow", "-f", is_flag=True, help="Until the run ends; over reconnections.")
@click.option("--tail", "-n", metavar="N", type=_Whole(min=0), help="Only the last N lines.")
@_accept
def logs(run: str, follow: bool, tail: int | None, accept: str) -> None:
    """What a run wrote, also when the VM is gone.

    RUN is a run id, its beginning, or a category's last run.

    Example: train logs category3 -f
    """
    from orchestrator.desk import Desk

    with Desk.here(accept=accept, logs_to_stdout=True) as desk:
        mirror = desk.find_run(run)
        with desk.console:
            desk.show_log(mirror, follow=follow, tail=tail)


@app.command()
@_run
@click.option("--forget", is_flag=True, help="Of a run nobody heard of, whose VM is gone: give up.")
@_accept
def cancel(run: str, forget: bool, accept: str) -> None:
    """End a run; it is warned first and may save.

    RUN is a run id, its beginning, or a category's last run.

    Example: train cancel category3
    """
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        mirror = desk.find_run(run)
        with desk.console:
            ending = desk.cancel(mirror, forget=forget)
        desk.console.result(ending)


@app.command()
@click.argument("names", metavar="[CATEGORY|RUN]...", nargs=-1)
@click.option(
    "--best/--latest", default=True, show_default=True, help="Which model goes into the folder."
)
@_accept
@_as_json
def pull(names: tuple[str, ...], best: bool, accept: str, as_json: bool) -> None:
    """Bring home what has ended, grade it, place the best.

    Example: train pull category3
    """
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        with desk.console:
            result = desk.pull(names, best=best)
        _finish(desk, result, as_json=as_json, judge_runs=False)


@app.command()
@_categories
@click.option("--again", is_flag=True, help="Also what is unchanged since it was graded.")
@_as_json
def grade(categories: tuple[str, ...], again: bool, as_json: bool) -> None:
    """Grade the models in the folders.

    Example: train grade category3
    """
    from orchestrator.desk import Desk

    with Desk.here() as desk:
        with desk.console:
            result = desk.grade(categories, again=again)
        _finish(desk, result, as_json=as_json)


@app.command()
@_categories
@_as_json
def ready(categories: tuple[str, ...], as_json: bool) -> None:
    """What would be submitted; exit 0 only if all of it would be graded.

    Example: train ready
    """
    from orchestrator.desk import Desk
    from orchestrator.judge import refuse_unready
    from orchestrator.report import ready_table, standing_json

    with Desk.here() as desk:
        with desk.console:
            standings = desk.ready(categories)
        if as_json:
            _print_json([standing_json(standing) for standing in standings])
        else:
            desk.console.result(ready_table(standings))
        refuse_unready(standings)


@app.command()
@click.option(
    "--by",
    metavar="WHAT",
    default="category",
    show_default=True,
    help="remote, category, run, workspace or session.",
)
@click.option("--since", metavar="2026-01-31|7d", default="", help="A date, or how long ago.")
@click.option("--all", "-a", "everywhere", is_flag=True, help="All workspaces, not only this one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@_as_json
def cost(by: str, since: str, everywhere: bool, as_csv: bool, as_json: bool) -> None:
    """What runs have cost.

    A session is a period of paid practice or an exam. None can be started yet: all runs are
    outside of any.

    Example: train cost --by run --since 7d
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json are two forms of one result", fix="train cost --csv")
    from orchestrator.bill import bill, bill_csv
    from orchestrator.console import Console
    from orchestrator.report import cost_row_json, cost_table

    rows = bill(Path.cwd(), by=by, since=since, everywhere=everywhere)
    if as_json:
        _print_json([cost_row_json(row) for row in rows])
    elif as_csv:
        print(bill_csv(by, rows), end="")
    else:
        none = f"nothing was run within --since {since}; for all there is: train cost"
        Console().result(cost_table(by, rows) if rows else none if since else "nothing has run yet")


@app.command()
@click.argument("name", default="")
@_accept
@_as_json
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
        _print_json([check_json(check) for check in checks])
    else:
        console.result(checks_table(checks))
    return next((check.exit_code for check in checks if check.mark is Mark.FAIL), 0)


@app.command()
@_remote_name
@click.option(
    "--keep-days",
    metavar="DAYS",
    type=_Days(min=0),
    default=7.0,
    show_default=True,
    help="Ended runs younger than this stay.",
)
@click.option("--drop", is_flag=True, help="Remove what may go.")
@_accept
@_as_json
def gc(name: str, keep_days: float, drop: bool, accept: str, as_json: bool) -> None:
    """What the VM's store holds, and what to drop.

    NAME is a remote.

    Example: train gc azure-k80 --drop
    """
    from orchestrator.console import Console
    from orchestrator.machines import Machines
    from orchestrator.report import heap_json, heaps_table

    with Console() as console:
        heaps = Machines.here(console, accept).tidy(name, keep_days=keep_days, drop=drop)
    if as_json:
        _print_json([heap_json(heap) for heap in heaps])
    else:
        console.result(heaps_table(heaps, dropped=drop))


@app.group()
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
        click.option("--port", metavar="PORT", type=_WholeOrNone(1, 65535)),
        click.option("--key", "-i", metavar="FILE", help="A private key file."),
        click.option("--price", metavar="AMOUNT", help="Per hour, such as 0.50."),
        click.option("--currency", metavar="CODE", help="Of the price; else USD."),
        click.option(
            "--gpus", metavar="N", type=_WholeOrNone(min=0), help="GPU slots; 0 trains on the CPU."
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
@_remote_name
@_remote_options(is_new=True)
@_accept
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
@_remote_name
@_remote_options(is_new=False)
@_accept
def remote_set(
    name: str,
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
        change = Machines.here(console, accept).change(name, _said(options))
    console.result(f"{change_text(change)}\nNext: train doctor {name}")


@remote.command("list")
@_as_json
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
        _print_json([remote_json(remote) for remote in found])
    else:
        console.result(
            remotes_table(found) if found else "none yet; add one: train remote add NAME --host ..."
        )


@remote.command("show")
@_remote_name
@_as_json
def remote_show(name: str, as_json: bool) -> None:
    """All that is known of one machine, as YAML or JSON.

    Example: train remote show azure-k80
    """
    from orchestrator.config import find_remote, format_remotes, workspace_here
    from orchestrator.report import remote_json

    found = find_remote(workspace_here(), name)
    if as_json:
        _print_json(remote_json(found))
    else:
        print(format_remotes((found,)), end="")


@remote.command("remove")
@_remote_name
@click.option("--force", is_flag=True, help="Even if runs go on there, as far as is known here.")
def remote_remove(name: str, force: bool) -> None:
    """Forget a machine; the ledger's records stay.

    Example: train remote remove azure-k80
    """
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
    from orchestrator.judge import judge
    from orchestrator.report import result_blocks, result_json

    if as_json:
        _print_json(result_json(result))
    else:
        for block in result_blocks(result, desk.ledger):
            desk.console.result(block)
    judge(result, runs=judge_runs)


def _print_json(value: Any) -> None:  # noqa: ANN401  # whatever JSON can hold
    import json

    print(json.dumps(value, indent=2, ensure_ascii=True))


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


def main() -> NoReturn:
    """Run one command and exit with its code."""
    # Looking for garbage among what is just being imported takes an eighth of a short command's
    # time, and taking the interpreter apart at its end another: the system frees it all anyway.
    set_threshold(100_000)
    code = run_command()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        pass  # nobody listens any more
    except OSError as error:
        if not code:  # else that has been told
            code = _unwritten(error).exit_code
            sys.stderr.write(_unwritten(error).render() + "\n")
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


def run_command() -> int:
    """The exit code; a traceback is only ever our own fault."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A log may hold what an old terminal's encoding cannot say.
            stream.reconfigure(errors="replace")
    debug = "--debug" in sys.argv
    typed = [word for word in sys.argv[1:] if word != "--debug"]
    arguments = expand(typed, list(app.commands))
    try:
        code = app.main(arguments, prog_name="train", standalone_mode=False)
    except Interrupted as stop:
        return _stopped(str(stop), stop.fix.splitlines())
    except (KeyboardInterrupt, click.Abort):
        return _stopped("interrupted; the same command goes on from there", ())
    except Exception as error:  # noqa: BLE001  # the last place where anything can be said
        told = _told(error)
        if told is None or debug:
            import traceback

            traceback.print_exc()
        if told is None:
            sys.stderr.write(
                "error: this is a bug in trainshed\nfix:   please report it with the lines above\n"
            )
            return EXIT_BUG
        if arguments != typed:
            _hint_command(told, arguments)
        sys.stderr.write(told.render() + "\n")
        return told.exit_code
    return code if isinstance(code, int) else 0


def _stopped(message: str, commands: Sequence[str]) -> int:
    sys.stderr.write("\n".join([message, *(f"  {command}" for command in commands)]) + "\n")
    return Interrupted.exit_code


def _told(error: Exception) -> TrainshedError | None:
    """What the user can be told; None of a bug."""
    if isinstance(error, TrainshedError):
        return error
    if isinstance(error, click.UsageError):
        text = error.format_message()
        if isinstance(error, click.NoSuchOption):
            # Said in another way by every other click.
            near = ", ".join(sorted(error.possibilities or ()))
            hint = f" (Possible options: {near})" if near else ""
            text = f"no such option: {error.option_name}{hint}"
        text = text.strip().rstrip(".")
        path = error.ctx.command_path if error.ctx else "train"
        return UsageError(text[:1].lower() + text[1:], fix=f"{path} --help")
    if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
        return _unwritten(error)
    if isinstance(error, OSError) and error.filename is not None:
        reason = (error.strerror or str(error)).lower()
        told = UsageError(f"{error.filename}: {reason}")
        told.__cause__ = error.__cause__
        return told
    return None


def _unwritten(error: OSError) -> UsageError:
    reason = (error.strerror or str(error)).lower()
    return UsageError(f"the result cannot be written: {reason}", fix="free some space there")


def _hint_command(error: TrainshedError, arguments: Sequence[str]) -> None:
    """`train stauts` was taken for a category; say which command is near."""
    if isinstance(error, UsageError) and str(error).startswith("no category is named"):
        import difflib

        near = difflib.get_close_matches(arguments[1], list(app.commands), n=1, cutoff=0.7)
        error.fix = f"did you mean: train {near[0]}" if near else f"{error.fix}, or see: train -h"


if __name__ == "__main__":
    main()
