"""What a command's exit code has to tell of how it went, raised as an error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.errors import GradeBelow, RunFailed
from orchestrator.grade import install_command
from orchestrator.verdict import Outcome

if TYPE_CHECKING:
    from orchestrator.settling import Result
    from orchestrator.standing import Standing


def judge(result: Result, *, runs: bool = True) -> None:
    """Raise what kept it from going well.

    Args:
        runs: whether a run that did not succeed is such a thing.

    Raises:
        RunFailed, GradeBelow, or what kept something from coming home.
    """
    failed = [m for m in result.mirrors if m.verdict != "succeeded"] if runs else []
    if failed:
        words = ", ".join(f"{m.run_id} {m.verdict}" for m in failed)
        raise RunFailed(words, fix=f"train logs {failed[0].run_id}")
    if result.trouble is not None:
        raise result.trouble
    empty = [m for m in result.mirrors if m.model_is_missing] if runs else []
    if empty:
        raise RunFailed(
            f"{empty[0].run_id} succeeded, but made no model",
            cause=f"train.yaml declares: {', '.join(empty[0].request.outputs)}",
            fix="let the script save the model under that name, beside itself",
        )
    bad = [v for v in result.verdicts if v.outcome is not Outcome.GRADED]
    if bad:
        raise GradeBelow("; ".join(f"{v.category} {v.outcome.value}: {v.reason}" for v in bad))
    lacking = {one.category for one in result.standings if one.gradable and not one.can_grade}
    ungraded = [
        m.run_id
        for m in result.mirrors
        if m.verdict == "succeeded"
        and m.request.job in lacking
        and m.run_id not in result.made.keys() | result.old
        and not m.model_is_missing
    ]
    if ungraded:
        raise GradeBelow(
            f"not graded: {', '.join(ungraded)}",
            cause="TensorFlow is not installed here",
            fix=f"{install_command()}; then: train pull",
        )


def refuse_unready(standings: Iterable[Standing]) -> None:
    """Raise GradeBelow unless every model has points to show."""
    bad = [standing for standing in standings if not standing.is_graded]
    if bad:
        raise GradeBelow(
            "not ready: " + "; ".join(f"{standing.category}: {standing.gap}" for standing in bad),
            fix=next((standing.fix for standing in bad if standing.fix), ""),
        )
