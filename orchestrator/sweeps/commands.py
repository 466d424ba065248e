"""The command that looks for parameters."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.commands import finish, print_json
from orchestrator.costs.commands import parse_amount
from orchestrator.errors import RunFailed, UsageError
from orchestrator.options import (
    Whole,
    accept_option,
    category_argument,
    json_option,
    offer_remotes,
)

_TRIALS = 20


@click.command()
@category_argument
@click.option("--remote", "-r", metavar="NAME", default="", shell_complete=offer_remotes)
@click.option(
    "--param",
    "-p",
    metavar="K=VALUES",
    multiple=True,
    help="1e-4..1e-2:log, 1..4 or 32,64,128; one value is for all trials.",
)
@click.option(
    "--metric",
    metavar="NAME[:min|max]",
    default="val_loss",
    show_default=True,
    help="What training tells of itself, as it is at a trial's end.",
)
@click.option(
    "--trials", metavar="N", type=Whole(min=1, max=10_000), help="Else 20, or all of a grid."
)
@click.option(
    "--parallel",
    metavar="N",
    type=Whole(min=1, max=1000),
    default=1,
    show_default=True,
    help="Trials at work at once, where the machine or pool has so many slots.",
)
@click.option(
    "--ahead",
    metavar="N",
    type=Whole(min=0, max=1000),
    help="Queued behind them, for the time in which the laptop is closed; else as many.",
)
@click.option("--budget", metavar="3", default="", help="For all trials, in the price's currency.")
@click.option(
    "--sampler", type=click.Choice(["tpe", "grid", "random"]), default="tpe", show_default=True
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    default="median",
    show_default=True,
    help="Ends trials whose curve is poor.",
)
@click.option("--name", metavar="NAME", default="", help="Of the sweep; else the category's.")
@click.option("--gpus", metavar="N", type=Whole(min=0), help="GPU slots for each trial.")
@click.option("--time-limit", metavar="40m", default="", help="For each trial; over train.yaml.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@accept_option
@json_option
def sweep(
    category: str,
    remote: str,
    param: tuple[str, ...],
    metric: str,
    trials: int | None,
    parallel: int,
    ahead: int | None,
    budget: str,
    sampler: str,
    pruner: str,
    name: str,
    gpus: int | None,
    time_limit: str,
    yes: bool,
    accept: str,
    as_json: bool,
) -> None:
    """Look for a category's best parameters: many runs, each with others.

    The same command goes on with the sweep after any interruption, and with more --trials adds to
    it. The best trial's model is pulled, graded and placed; the others' stay on the machine:
    train pull RUN.

    Example: train sweep category3 --remote azure-k80 -p lr=1e-4..1e-2:log -p units=32,64,128
    --metric val_accuracy --trials 40 --parallel 4
    """
    import time
    from contextlib import nullcontext
    from dataclasses import replace
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise UsageError(
            "Optuna is not installed here, which looks for parameters",
            fix="pip install 'trainshed[sweep]'",
        )
    from orchestrator.costs.overdue import until_end
    from orchestrator.desk import Desk
    from orchestrator.gangs.refusal import refuse_several_hosts
    from orchestrator.plan import Order, Overrides
    from orchestrator.screen.console import Console
    from orchestrator.screen.outcome import result_json
    from orchestrator.settings.config import find_jobs, find_pool, find_remote, load_workspace
    from orchestrator.settings.pool import no_machine
    from orchestrator.sweeps.metric import Metric
    from orchestrator.sweeps.report import blocks, sweep_json
    from orchestrator.sweeps.space import Space
    from orchestrator.sweeps.sweep import Limits
    from orchestrator.sweeps.sweeping import Wish, carry_out
    from orchestrator.sweeps.terms import Terms

    workspace = load_workspace(Path.cwd())
    jobs = find_jobs(workspace, [category])
    refuse_several_hosts(jobs[0], "a sweep's trial")
    pool = find_pool(workspace, remote)
    if pool is not None and accept:
        raise no_machine(pool)
    target = find_remote(workspace, remote, [category]) if pool is None else pool.members[0]
    chosen = Overrides.parse(gpus, time_limit, param)
    space = Space.parse(chosen.params or {})
    chosen_for_all = replace(chosen, params=space.fixed)
    most = space.grid_size() if sampler == "grid" else trials or _TRIALS
    wish = Wish(
        name or category,
        Order(workspace, jobs, target, chosen_for_all),
        pool,
        Terms(category, space, Metric.parse(metric), sampler, pruner),
        Limits(
            trials=min(trials or most, most),
            parallel=parallel,
            ahead=parallel if ahead is None else ahead,
            budget=parse_amount(budget),
        ),
    )
    begun = time.monotonic()
    # A pool's hosts are dialled side by side, each in a thread of its own: no place for questions.
    may_ask = pool is None and not yes
    with (
        until_end(workspace, target.name, accept) if pool is None else nullcontext(),
        Desk(workspace, Console(), ask=may_ask, accept=accept) as desk,
    ):
        with desk.console:
            report, result = carry_out(desk, wish)
        if not as_json:
            for block in blocks(report):
                desk.console.result(block)
        elif result is None:
            print_json(sweep_json(report, None))
        if result is None:
            raise report.stopped or RunFailed(
                "no trial came to an end with a value",
                fix=f"train logs {report.past.trials[-1].run}",
            )
        finish(
            desk,
            result,
            as_json=as_json,
            begun=begun,
            as_told=lambda shown: sweep_json(report, result_json(shown)),
        )
