"""The commands about models that were trained where no remote of ours is."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.commands import finish, print_json
from orchestrator.errors import UsageError
from orchestrator.options import (
    category_argument,
    json_option,
    offer_categories,
    offer_runs,
    param_option,
)


@click.command("import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("category", metavar="[CATEGORY]", default="", shell_complete=offer_categories)
@click.option(
    "--run",
    metavar="RUN",
    default="",
    help="The exported run whose model it is.",
    shell_complete=offer_runs,
)
@click.option("--from", "where", metavar="WORD", default="", help="Where it is from, as colab.")
@click.option("--time", "lasted", metavar="25m", default="", help="How long it trained there.")
@click.option("--cost", metavar="0.40", default="0", help="What it cost; '0.40 EUR'.")
@click.option("--latest", is_flag=True, help="Put this model into the folder, better or not.")
@json_option
def import_(
    file: Path,
    category: str,
    run: str,
    where: str,
    lasted: str,
    cost: str,
    latest: bool,
    as_json: bool,
) -> None:
    """Take in a model from elsewhere: grade, keep, place the best.

    FILE is a .h5 or .keras file, or the result zip of an exported notebook, which itself names its
    CATEGORY.

    Example: train import ~/Downloads/mymodel.h5 category3 --from colab
    """
    from orchestrator.desk import Desk
    from orchestrator.elsewhere.foreign import Paid
    from orchestrator.elsewhere.taking import Origin, take_in

    paid = Paid.parse(cost)
    origin = Origin.parse(run, where, lasted)
    with Desk.here() as desk:
        with desk.console:
            job, mirror = take_in(
                file, category, origin, paid, desk.workspace, desk.ledger, desk.console
            )
            result = desk.trip.settle([job], [mirror], best=not latest)
        finish(desk, result, as_json=as_json)


@click.command("export")
@category_argument
@click.option("--notebook", is_flag=True, help="As one notebook for Colab, Kaggle, Jupyter.")
@click.option("--output", "-o", metavar="FILE", default="", help="Else notebooks/RUN.ipynb.")
@param_option
@click.option("--seed", metavar="N", default="", help="Given to the script as SEED.")
@json_option
def export(
    category: str, notebook: bool, output: str, param: tuple[str, ...], seed: str, as_json: bool
) -> None:
    """Make one file that trains a category elsewhere.

    It holds what would be sent to a machine, no more. What it leaves is taken home by train import.

    Example: train export category3 --notebook
    """
    if not notebook:
        raise UsageError(
            "there is one form so far, a notebook", fix=f"train export {category} --notebook"
        )
    from orchestrator.elsewhere.exporting import export_notebook
    from orchestrator.gangs.refusal import refuse_several_hosts
    from orchestrator.plan import Overrides
    from orchestrator.screen.console import Console
    from orchestrator.settings.config import find_jobs, load_workspace
    from orchestrator.size import format_size

    workspace = load_workspace(Path.cwd())
    (job,) = find_jobs(workspace, [category])
    refuse_several_hosts(job, "a notebook")
    chosen = Overrides.parse(None, "", param)
    with Console() as console:
        target = Path(output).expanduser() if output else None
        made = export_notebook(workspace, job, chosen, seed, target, console)
        size_bytes = made.file.stat().st_size
        if as_json:
            run = made.run_id
            print_json({"run": run, "file": str(made.file), "size_bytes": size_bytes})
        else:
            console.result(
                f"{made.file}, {format_size(size_bytes)}. Open it in Colab, Kaggle or Jupyter, run "
                f"all of it, then:\n  train import result-{made.run_id}.zip"
            )
