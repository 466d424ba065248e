"""The commands about exams and what was tried, as `commands.py` has those about runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands import print_json
from orchestrator.costs.commands import parse_terms
from orchestrator.errors import GradeBelow, UsageError
from orchestrator.options import (
    InOrder,
    Whole,
    accept_option,
    category_argument,
    json_option,
    offer_categories,
    offer_remotes,
    offer_runs,
)

if TYPE_CHECKING:
    from orchestrator.exams.desk import ExamDesk, ExamReport
    from orchestrator.history import History


@click.group(cls=InOrder)
def exam() -> None:
    """Five hours, five categories, and a grader.

    Example: train exam start my-exam
    """


@exam.command("start")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--hours", metavar="5h", default="5h", show_default=True, help="How long it lasts.")
@click.option(
    "--remote",
    "-r",
    metavar="NAME",
    default="",
    help="Open a session there for it.",
    shell_complete=offer_remotes,
)
@click.option("--budget", metavar="5", default="", help="Stop the remote when so much is spent.")
@click.option("--seed", metavar="N", type=Whole(min=0), help="Draws the problems.")
@click.option("--practice", is_flag=True, help="Show metrics, not only points.")
@accept_option
@json_option
def exam_start(
    folder: Path,
    hours: str,
    remote: str,
    budget: str,
    seed: int | None,
    practice: bool,
    accept: str,
    as_json: bool,
) -> None:
    """Begin an exam in a new folder; its clock runs from then on, also with the laptop closed.

    DIR is a folder that is not there yet, or empty.

    Example: train exam start my-exam --hours 5 --remote azure-k80 --budget 5
    """
    from orchestrator.exams.report import begun_blocks, begun_json
    from orchestrator.exams.start import ExamTerms, start_exam
    from orchestrator.screen.console import Console

    terms = parse_terms("", hours, budget, "", any_price=False)
    _check(terms.budget, remote)
    assert terms.lasts_s is not None
    wanted = ExamTerms(terms.lasts_s, seed, remote, terms.budget, practice)
    with Console() as console:
        begun = start_exam(folder, wanted, console, accept)
    if as_json:
        print_json(begun_json(begun))
        return
    for block in begun_blocks(begun):
        console.prose(block)
    console.result(
        f"Next:\n  cd {shlex.quote(str(folder))}\n  train --remote {begun.remote or 'NAME'}\n"
        "  train submit category1\n  train exam status"
    )


def _check(budget: Decimal | None, remote: str) -> None:
    if budget is not None and not remote:
        raise UsageError("--budget binds a remote, and none was named", fix="--remote NAME")


@exam.command("status")
@json_option
def exam_status(as_json: bool) -> None:
    """The time left, the points, and what is worth doing next.

    Example: train exam status
    """
    _tell(lambda exam: exam.status(), as_json=as_json)


@exam.command("finish")
@json_option
def exam_finish(as_json: bool) -> None:
    """End the exam: passed or not, points, time and money.

    Example: train exam finish
    """
    _tell(lambda exam: exam.finish(), as_json=as_json)


def _tell(do: Callable[[ExamDesk], ExamReport], *, as_json: bool) -> None:
    from orchestrator.desk import Desk
    from orchestrator.exams.desk import ExamDesk
    from orchestrator.exams.report import exam_blocks, exam_json

    with Desk.here() as desk:
        with desk.console:
            report = do(ExamDesk(desk))
        if as_json:
            print_json(exam_json(report))
            return
        for block in exam_blocks(report):
            if isinstance(block, str):
                desk.console.prose(block)
            else:
                desk.console.result(block)


@click.command()
@category_argument
@json_option
def submit(category: str, as_json: bool) -> None:
    """Hand in the model in a category's folder; only in an exam, and it counts. Exit 1 if it is
    invalid.

    Example: train submit category3
    """
    from orchestrator.desk import Desk
    from orchestrator.exams.desk import ExamDesk
    from orchestrator.exams.report import handed_in_json, handed_in_line

    with Desk.here() as desk:
        with desk.console:
            handed = ExamDesk(desk).submit(category)
        if as_json:
            print_json(handed_in_json(handed))
        else:
            desk.console.result(handed_in_line(handed))
        grade = handed.attempt.grade
        if grade is not None and grade.points is None:
            raise GradeBelow(f"{handed.attempt.fact.name} brings no points: it is {grade.outcome}")


@click.command()
@click.argument("names", metavar="[CATEGORY]...", nargs=-1, shell_complete=offer_categories)
@click.option(
    "--diff", is_flag=True, help="What changed in the code between two: an attempt or a run each."
)
@click.option(
    "--restore",
    metavar="RUN|DIGEST",
    default="",
    help="Code into a folder beside, or a model.",
    shell_complete=offer_runs,
)
@click.option("--yes", "-y", is_flag=True, help="Overwrite what was changed there.")
@json_option
def history(names: tuple[str, ...], diff: bool, restore: str, yes: bool, as_json: bool) -> None:
    """Runs and attempts with what they got, what changed between them, and the way back.

    With --diff, one name stands for what was before it in its category.

    Example: train history category3 --diff category3.1 category3.2
    """
    from orchestrator.desk import Desk
    from orchestrator.exams.book import hides_metrics
    from orchestrator.exams.report import entry_json, history_table
    from orchestrator.history import History

    if diff and restore:
        raise UsageError("--diff and --restore are two things", fix="train history --diff A B")
    with Desk.here() as desk:
        past = History(desk)
        if restore:
            _restore(desk.console.result, past, restore, yes=yes, as_json=as_json)
            return
        if diff:
            known = {job.name for job in desk.workspace.jobs}
            # `train history category3 --diff A B` says the category once more.
            chosen = [name for name in names if name not in known] or list(names)
            lines = past.diff(chosen)
            if as_json:
                print_json(lines)
            else:
                desk.console.result("\n".join(lines) or "nothing changed in the code")
            return
        entries = past.entries(names)
        hides = hides_metrics(desk.workspace.root)
        if as_json:
            print_json([entry_json(entry, hides=hides) for entry in entries])
        elif entries:
            desk.console.result(history_table(entries, hides=hides))
        else:
            desk.console.result("nothing was tried yet; to begin: train --remote NAME")


def _restore(
    say: Callable[[str], None], past: History, text: str, *, yes: bool, as_json: bool
) -> None:
    restored = past.restore(text, overwrite=yes)
    if as_json:
        print_json({**vars(restored), "path": str(restored.path)})
    elif restored.model:
        say(
            f"{restored.path} is the model {restored.model[:12]} again; the one before it is kept, "
            "see train history"
        )
    else:
        lacking = f", but for what is not kept: {', '.join(restored.lacking)}"
        say(
            f"the code of {text} is in {restored.path}{lacking if restored.lacking else ''}; "
            "the workspace is as it was"
        )
