"""The commands that show runs in other programs: TensorBoard, MLflow."""

from __future__ import annotations

import click

from orchestrator.options import accept_option, json_option


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--on-remote", is_flag=True, help="The machine's own TensorBoard; nothing is copied.")
@click.option("--no-browser", is_flag=True, help="Only say the address.")
@accept_option
def tensorboard(runs: tuple[str, ...], on_remote: bool, no_browser: bool, accept: str) -> None:
    """Show runs in TensorBoard, also while they go on.

    RUN is a run id, its beginning, or a category's last run; without it, all that wrote event
    files or go on, until Ctrl-C. A job writes them with `tensorboard: on` in train.yaml, or by
    itself.

    Example: train tensorboard category3
    """
    from orchestrator.desk import Desk

    with Desk.here(accept=accept) as desk:
        if on_remote:
            from orchestrator.trackers.remoteboard import show_remote_board

            show_remote_board(desk, runs, browser=not no_browser)
        else:
            from orchestrator.trackers.desk import show_board

            show_board(desk, runs, browser=not no_browser)


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option(
    "--to",
    "uri",
    metavar="URI",
    envvar="MLFLOW_TRACKING_URI",
    default="",
    help="The tracking server; else MLFLOW_TRACKING_URI, else mlflow: in train.yaml.",
)
@json_option
def mlflow(runs: tuple[str, ...], uri: str, as_json: bool) -> None:
    """Write runs to an MLflow server, each once.

    RUN is a run id, its beginning, or a category's last run; without it, all of this workspace.
    Written is what this laptop knows of them: metrics by epoch, parameters, code digest, versions,
    points, cost, the model. Written again, a run gets what is new. The experiment bears the
    workspace's name, or MLFLOW_EXPERIMENT_NAME.

    Example: train mlflow --to http://127.0.0.1:5000
    """
    from orchestrator.commands import print_json
    from orchestrator.desk import Desk
    from orchestrator.errors import UsageError
    from orchestrator.filelock import alone
    from orchestrator.trackers.mlflow import Experiment
    from orchestrator.trackers.tracked import gather

    with Desk.here() as desk:
        uri = uri or desk.workspace.mlflow
        if not uri:
            raise UsageError(
                "no tracking server is named",
                fix="train mlflow --to http://127.0.0.1:5000; or in train.yaml, for all runs as "
                "they end: mlflow: http://127.0.0.1:5000",
            )
        with desk.console, alone(desk.workspace.state / "tracking"):
            desk.console.doing("looking at the runs")
            tracked = gather(desk, runs)
            desk.console.doing("importing MLflow")
            experiment = Experiment(uri, desk.workspace.root.name)
            changed = []
            for number, run in enumerate(tracked, 1):
                desk.console.doing(f"writing {run.run_id}, {number} of {len(tracked)}")
                if experiment.write(run):
                    changed.append(run.run_id)
        if as_json:
            print_json({"experiment": experiment.name, "written": changed, "runs": len(tracked)})
        else:
            others = "" if len(changed) == len(tracked) else ", the others are there already"
            what = f"{len(changed)} of {len(tracked)} runs written to {experiment.where}"
            desk.console.result(what + others)
