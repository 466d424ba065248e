"""The commands about runs and grades: each parses, calls, prints.

Heavy modules are imported where they are used, so that `train --help` answers at once.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.completion import completion_option
from orchestrator.errors import UsageError
from orchestrator.options import (
    InOrder,
    Whole,
    accept_option,
    categories_argument,
    json_option,
    run_argument,
)

if TYPE_CHECKING:
    from orchestrator.desk import Desk
    from orchestrator.plan import Order, Overrides
    from orchestrator.settling import Result
    from orchestrator.spec import Job, Workspace


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    package_name="trainshed", message="%(package)s %(version)s", help="Print the version."
)
@completion_option("--install-completion", help="Install completion for the current shell.")
@completion_option(
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
@click.option("--seed", metavar="N", type=Whole(min=0), help="The problems of exam N.")
@click.option(
    "--online",
    type=click.Choice(["fashion", "hands", "horses"]),
    multiple=True,
    help="This data set from the network, in its category's place.",
)
def init(folder: Path, solutions: bool, seed: int | None, online: tuple[str, ...]) -> None:
    """Make a workspace with the practice pack.

    DIR is where the workspace goes.

    Example: train init exam
    """
    import shlex

    from orchestrator.console import Console
    from orchestrator.init import make_workspace
    from orchestrator.problems import online as named

    instead = tuple(named(word) for word in online)
    with Console() as console:
        made = make_workspace(folder, solutions=solutions, tell=console, seed=seed, instead=instead)
    if made.kept:
        what = "is a workspace already" if "train.yaml" in made.kept else "has files already"
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
@categories_argument
@click.option("--remote", "-r", metavar="NAME", default="", help="The machine.")
@click.option("--detach", "-d", is_flag=True, help="Submit and return; attach later.")
@click.option("--dry-run", is_flag=True, help="List what would go, biggest first; connect nowhere.")
@click.option("--gpus", metavar="N", type=Whole(min=0), help="GPU slots for each run.")
@click.option("--time-limit", metavar="40m", default="", help="For each run; over train.yaml.")
@click.option("--param", "-p", metavar="K=V", multiple=True, help="Given to the script as PARAM_K.")
@click.option("--latest", is_flag=True, help="Put these models into the folders, better or not.")
@click.option("--up", "bring_up", is_flag=True, help="Start the machine; stop it afterwards.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@accept_option
@json_option
def run(
    categories: tuple[str, ...],
    remote: str,
    detach: bool,
    dry_run: bool,
    gpus: int | None,
    time_limit: str,
    param: tuple[str, ...],
    latest: bool,
    bring_up: bool,
    yes: bool,
    accept: str,
    as_json: bool,
) -> None:
    """Sync, queue, follow, pull, grade.

    Example: train category3 --remote azure-k80
    """
    from orchestrator.config import find_jobs, find_remote, load_workspace
    from orchestrator.overdue import until_end
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
    with ExitStack() as stack:
        if bring_up:
            from orchestrator.renting import rented

            stack.enter_context(rented(workspace, target.name, accept, detach=detach))
            target = find_remote(load_workspace(Path.cwd()), remote)
        if not detach:
            stack.enter_context(until_end(workspace, target.name, accept))
        begun = stack.enter_context(HeadStart(target, accept))
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
        print_json([{"path": path, "size_bytes": size} for path, size in files])
    else:
        for block in dry_run_blocks(files, jobs, chosen):
            console.result(block)


def _train(desk: Desk, order: Order, *, as_json: bool) -> None:
    desk.check_budget(order)
    with desk.console:
        result = desk.trip.train(order)
    if order.detach and not as_json:
        ids = [mirror.run_id for mirror in result.mirrors]
        words = (f"train {word} {ids[-1]}" for word in ("attach", "cancel"))
        desk.console.result("\n  ".join([f"submitted: {', '.join(ids)}", "train status", *words]))
    else:
        finish(desk, result, as_json=as_json, judge_runs=not order.detach)


@app.command()
@run_argument
@accept_option
@json_option
def attach(run: str, accept: str, as_json: bool) -> None:
    """Follow a run again, then pull and grade it.

    RUN is a run id, its beginning, or a category's last run.

    Example: train attach category3
    """
    from orchestrator.desk import Desk
    from orchestrator.overdue import until_end

    with Desk.here(accept=accept) as desk:
        mirror = desk.find_run(run)
        with until_end(desk.workspace, desk.ledger.remote_of(mirror.run_id), accept):
            with desk.console:
                result = desk.attach(mirror)
            finish(desk, result, as_json=as_json)


@app.command()
@click.option(
    "--all", "-a", "everything", is_flag=True, help="Ended runs too, not only the last ones."
)
@click.option("--local", is_flag=True, help="What this laptop knows; connect nowhere.")
@accept_option
@json_option
def status(everything: bool, local: bool, accept: str, as_json: bool) -> None:
    """Runs of this workspace and where each stands; below, the sessions that go on.

    Example: train status
    """
    from orchestrator.desk import Desk
    from orchestrator.report import run_json, runs_table

    with Desk.here(accept=accept) as desk:
        with desk.console:
            rows = desk.status(everything=everything, local=local)
        if as_json:
            print_json([run_json(row) for row in rows])
            return
        none = "no runs yet; start one: train --remote NAME"
        desk.console.result(runs_table(rows) if rows else none)
        if tallies := desk.open_sessions():
            from orchestrator.statement import open_line

            for tally in tallies:
                desk.console.result(open_line(tally))


@app.command()
@run_argument
@click.option("--follow", "-f", is_flag=True, help="Until the run ends; over reconnections.")
@click.option("--tail", "-n", metavar="N", type=Whole(min=0), help="Only the last N lines.")
@accept_option
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
@run_argument
@click.option("--forget", is_flag=True, help="Give it up, if its VM is gone.")
@accept_option
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
@accept_option
@json_option
def pull(names: tuple[str, ...], best: bool, accept: str, as_json: bool) -> None:
    """Bring home what has ended, grade it, place the best.

    Example: train pull category3
    """
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        with desk.console:
            result = desk.pull(names, best=best)
        finish(desk, result, as_json=as_json, judge_runs=False)


@app.command()
@categories_argument
@click.option("--again", is_flag=True, help="Also what is unchanged since it was graded.")
@json_option
def grade(categories: tuple[str, ...], again: bool, as_json: bool) -> None:
    """Grade the models in the folders.

    Example: train grade category3
    """
    from orchestrator.desk import Desk

    with Desk.here() as desk:
        with desk.console:
            result = desk.grade(categories, again=again)
        finish(desk, result, as_json=as_json)


@app.command()
@categories_argument
@json_option
def ready(categories: tuple[str, ...], as_json: bool) -> None:
    """What would be submitted; exit 0 only if all of it would be graded.

    Example: train ready
    """
    from orchestrator.desk import Desk
    from orchestrator.judge import refuse_unready
    from orchestrator.report import ready_table, standing_json

    with Desk.here() as desk:
        with desk.console:
            standings = desk.shown(desk.ready(categories))
        if as_json:
            print_json([standing_json(standing) for standing in standings])
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
@json_option
def cost(by: str, since: str, everywhere: bool, as_csv: bool, as_json: bool) -> None:
    """What runs have cost.

    By remote or session also what the machine has cost, whoever used it: paid and idle time, its
    disk while it was off, and what a gained point cost.

    Example: train cost --by run --since 7d
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json are two forms of one result", fix="train cost --csv")
    from orchestrator.bill import bill, bill_csv
    from orchestrator.console import Console
    from orchestrator.report import cost_row_json, cost_table

    found = bill(Path.cwd(), by=by, since=since, everywhere=everywhere)
    if as_json:
        print_json([cost_row_json(row, found.machines.get(row.key)) for row in found.rows])
    elif as_csv:
        print(bill_csv(found), end="")
    elif found.rows:
        Console().result(cost_table(found))
    else:
        none = f"nothing was run within --since {since}; for all there is: train cost"
        Console().result(none if since else "nothing has run yet")


def finish(desk: Desk, result: Result, *, as_json: bool, judge_runs: bool = True) -> None:
    """Print how it went; raise if it did not go well."""
    from orchestrator.judge import judge
    from orchestrator.report import result_blocks, result_json

    shown = desk.shown_of(result)
    if as_json:
        print_json(result_json(shown))
    else:
        for block in result_blocks(shown, desk.ledger):
            desk.console.result(block)
    # Killed before, the same command tells it again.
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    result.told()
    judge(result, runs=judge_runs)


def print_json(value: Any) -> None:  # noqa: ANN401  # whatever JSON can hold
    import json

    print(json.dumps(value, indent=2, ensure_ascii=True))
