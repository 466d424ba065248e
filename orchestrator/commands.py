"""The commands about runs and grades: each parses, calls, prints.

Heavy modules are imported where they are used, so that `train --help` answers at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.completion import completion_option
from orchestrator.errors import UsageError
from orchestrator.options import (
    App,
    Whole,
    accept_option,
    categories_argument,
    json_option,
    offer_categories_and_runs,
    offer_remotes,
    param_option,
    run_argument,
)
from remote.runfolder import GANG_LIMIT, chief_id

if TYPE_CHECKING:
    from orchestrator.desk import Desk
    from orchestrator.grades.settling import Result
    from orchestrator.plan import Order, Overrides
    from orchestrator.settings.pool import Pool
    from orchestrator.settings.spec import Job, Remote, Workspace


# Who waited less for a run is still looking.
_NOTIFY_AFTER_S = 60.0


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"]})
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
    type=click.Choice(["fashion", "hands", "horses", "imdb", "sunspots"]),
    multiple=True,
    help="This data set from the network, in its category's place.",
)
def init(folder: Path, solutions: bool, seed: int | None, online: tuple[str, ...]) -> None:
    """Make a workspace with the practice pack.

    DIR is where the workspace goes.

    Example: train init exam
    """
    import shlex

    from orchestrator.init import make_workspace
    from orchestrator.problems import online as named
    from orchestrator.screen.console import Console
    from orchestrator.settings.config import only_remote

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
    enter = "" if folder.resolve() == Path.cwd() else f"  cd {shlex.quote(str(folder))}\n"
    remote = only_remote(None)
    add = "" if remote else "  train remote add NAME --host ADDRESS --user USER --price 0.50\n"
    console.result(f"{folder} is ready. Next:\n{enter}{add}  train --remote {remote or 'NAME'}")


@app.command()
@categories_argument
@click.option(
    "--remote",
    "-r",
    metavar="NAME",
    default="",
    help="The machine; cheapest or fastest: as train bench has measured.",
    shell_complete=offer_remotes,
)
@click.option("--detach", "-d", is_flag=True, help="Submit and return; attach later.")
@click.option("--dry-run", is_flag=True, help="List what would go, biggest first; connect nowhere.")
@click.option("--gpus", metavar="N", type=Whole(min=0), help="GPU slots for each run.")
@click.option(
    "--nodes",
    metavar="N",
    type=Whole(min=1, max=GANG_LIMIT),
    help="Hosts of a cluster or a pool at once.",
)
@click.option("--time-limit", metavar="40m", default="", help="For each run; over train.yaml.")
@param_option
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
    nodes: int | None,
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
    from orchestrator.costs.overdue import until_end
    from orchestrator.settings.config import find_jobs, find_pool, find_remote, load_workspace
    from orchestrator.settings.pool import no_machine
    from orchestrator.vm.reach import HeadStart

    workspace = load_workspace(Path.cwd())
    jobs = find_jobs(workspace, categories)
    if nodes is not None:
        jobs = tuple(replace(job, nodes=nodes) for job in jobs)
    if remote in ("cheapest", "fastest"):
        from orchestrator.measuring.picking import choose_remote
        from orchestrator.screen.console import Console

        remote = choose_remote(workspace, remote, [job.name for job in jobs], Console())
    pool = find_pool(workspace, remote)
    if dry_run:
        from orchestrator.plan import Overrides

        _check_hosts(workspace, jobs, pool or (find_remote(workspace, remote) if remote else None))
        chosen = Overrides.parse(gpus, time_limit, param)
        _list_files(workspace, jobs, chosen, as_json=as_json)
        return
    if pool is not None:
        if bring_up or accept:
            raise no_machine(pool)
        _check_hosts(workspace, jobs, pool)
        from orchestrator.desk import Desk
        from orchestrator.plan import Order, Overrides
        from orchestrator.pools.pooltrip import PoolTrip
        from orchestrator.screen.console import Console

        chosen = Overrides.parse(gpus, time_limit, param)
        # Each of its runs is ordered on the member that gets it.
        order = Order(workspace, jobs, pool.members[0], chosen, detach, best=not latest)
        # Its hosts are dialled side by side, each in a thread of its own: no place for questions.
        with Desk(workspace, Console(), ask=False) as desk:
            trip = PoolTrip(desk.trip, pool, order, desk.check)
            _train(desk, order, trip.train, as_json=as_json)
        return
    target = find_remote(workspace, remote, categories)
    _check_hosts(workspace, jobs, target)
    stops = False
    with ExitStack() as stack:
        if bring_up:
            from orchestrator.costs.renting import rented
            from orchestrator.desk import Desk
            from orchestrator.plan import Order, Overrides

            chosen = Overrides.parse(gpus, time_limit, param)
            Desk.foresee_here(Order(workspace, jobs, target, chosen))
            stops = stack.enter_context(rented(workspace, target.name, accept, detach=detach))
            target = find_remote(load_workspace(Path.cwd()), remote)
        if not detach:
            stack.enter_context(until_end(workspace, target.name, accept))
        begun = stack.enter_context(HeadStart(target, accept))
        # While the line comes up, because importing these takes as long.
        from orchestrator.desk import Desk
        from orchestrator.plan import Order, Overrides
        from orchestrator.screen.console import Console

        chosen = Overrides.parse(gpus, time_limit, param)
        order = Order(workspace, jobs, target, chosen, detach, best=not latest)
        with Desk(workspace, Console(), ask=not yes, accept=accept, begun=begun) as desk:
            desk.stops_after = target.name if stops else ""
            if not bring_up:
                desk.foresee(order)
            desk.check_budget(order)
            _train(desk, order, lambda: desk.trip.train(order), as_json=as_json)


def _check_hosts(workspace: Workspace, jobs: tuple[Job, ...], remote: Remote | Pool | None) -> None:
    if any(job.nodes > 1 for job in jobs):
        from orchestrator.gangs.refusal import refuse_gangs

        refuse_gangs(workspace, jobs, remote)


def _list_files(
    workspace: Workspace, jobs: tuple[Job, ...], chosen: Overrides, *, as_json: bool
) -> None:
    """What would go, biggest first, and what would be executed."""
    from orchestrator.screen.console import Console
    from orchestrator.screen.runs import dry_run_blocks
    from orchestrator.source.snapshot import take_snapshot

    with Console() as console:
        files = tuple(take_snapshot(workspace, jobs, console).biggest())
    if as_json:
        print_json([{"path": path, "size_bytes": size} for path, size in files])
    else:
        for block in dry_run_blocks(files, jobs, chosen):
            console.result(block)


def _train(desk: Desk, order: Order, train: Callable[[], Result], *, as_json: bool) -> None:
    begun = time.monotonic()
    with desk.console:
        result = train()
    if order.detach and not as_json:
        ids = dict.fromkeys(chief_id(mirror.run_id) for mirror in result.mirrors)
        open_ones = {chief_id(mirror.run_id) for mirror in result.mirrors if not mirror.ended}
        if over := [run_id for run_id in ids if run_id not in open_ones]:
            desk.console.result(f"ended before, not begun anew: {', '.join(over)}\n  train pull")
        if going := [run_id for run_id in ids if run_id in open_ones]:
            words = (f"train {word} {going[-1]}" for word in ("attach", "cancel"))
            lines = [f"submitted: {', '.join(going)}", "train status", *words]
            desk.console.result("\n  ".join(lines))
    else:
        finish(desk, result, as_json=as_json, judge_runs=not order.detach, begun=begun)


@app.command()
@run_argument
@accept_option
@json_option
def attach(run: str, accept: str, as_json: bool) -> None:
    """Follow a run again, then pull and grade it.

    RUN is a run id, its beginning, or a category's last run.

    Example: train attach category3
    """
    from orchestrator.costs.overdue import until_end
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        mirror = desk.find_run(run)
        with until_end(desk.workspace, desk.ledger.remote_of(mirror.run_id), accept):
            begun = time.monotonic()
            with desk.console:
                result = desk.attach(mirror)
            finish(desk, result, as_json=as_json, begun=begun)


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
    from orchestrator.screen.runs import fold_gangs, run_json, runs_table

    with Desk.here(accept=accept) as desk:
        with desk.console:
            rows = desk.status(everything=everything, local=local)
        if as_json:
            print_json([run_json(row) for row in rows])
            return
        none = "no runs yet; start one: train --remote NAME"
        desk.console.result(runs_table(fold_gangs(rows)) if rows else none)
        if tallies := desk.open_sessions():
            from orchestrator.costs.statement import open_line

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
        mirror = desk.find_run(run, itself=forget)
        with desk.console:
            ending = desk.cancel(mirror, forget=forget)
        desk.console.result(ending)


@app.command()
@click.argument(
    "names", metavar="[CATEGORY|RUN]...", nargs=-1, shell_complete=offer_categories_and_runs
)
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
    from orchestrator.screen.grades import loading_lines, ready_table, standing_json

    with Desk.here() as desk:
        with desk.console:
            standings = desk.shown(desk.ready(categories))
        if as_json:
            print_json([standing_json(standing) for standing in standings])
        else:
            desk.console.result(ready_table(standings))
            for line in loading_lines(standings):
                desk.console.result(line)
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
    from orchestrator.costs.bill import bill, bill_csv
    from orchestrator.screen.console import Console
    from orchestrator.screen.costs import cost_row_json, cost_table

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


def finish(
    desk: Desk,
    result: Result,
    *,
    as_json: bool,
    judge_runs: bool = True,
    begun: float | None = None,
    as_told: Callable[[Result], Any] | None = None,
) -> None:
    """Print how it went, and notify; raise if it did not go well.

    Args:
        as_told: what of it is JSON; else the result itself.
        begun: since when the runs were followed, by the monotonic clock; None if they were not.
    """
    from orchestrator.judge import judge
    from orchestrator.screen.outcome import result_blocks, result_json

    shown = desk.shown_of(result)
    if as_json:
        print_json((as_told or result_json)(shown))
    else:
        for block in result_blocks(shown, desk.ledger):
            desk.console.result(block)
    # Killed before, the same command tells it again.
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    result.told()
    if begun is not None and time.monotonic() - begun >= _NOTIFY_AFTER_S:
        from orchestrator.notify import notify

        notify(desk.workspace, shown, desk.console)
    if desk.workspace.mlflow:
        from orchestrator.trackers.afterwards import write_afterwards

        with desk.console:
            write_afterwards(desk.workspace, result, desk.console)
    judge(result, runs=judge_runs)


def print_json(value: Any) -> None:  # noqa: ANN401  # whatever JSON can hold
    import json

    # JSON has no infinity, and no NaN: a metric may be either.
    plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
    print(json.dumps(plain, indent=2, allow_nan=False))
