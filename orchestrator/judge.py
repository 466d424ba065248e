"""What a command's exit code has to tell of how it went, raised as an error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.errors import ConnectionLost, GradeBelow, RunFailed
from orchestrator.grades.grade import install_command
from orchestrator.grades.verdict import Outcome
from orchestrator.records.mirror import Mirror
from remote.runfolder import chief_id

if TYPE_CHECKING:
    from orchestrator.grades.settling import Result
    from orchestrator.grades.standing import Standing


def judge(result: Result, *, runs: bool = True) -> None:
    """Raise what kept it from going well.

    Args:
        runs: whether a run that did not succeed is such a thing.

    Raises:
        RunFailed, ConnectionLost, GradeBelow, or what kept something from coming home.
    """
    failed = [m for m in result.mirrors if m.verdict != "succeeded"] if runs else []
    unheard = [m for m in failed if not m.ended]
    if failed and failed == unheard:
        ids = ", ".join(m.run_id for m in unheard)
        raise ConnectionLost(
            f"not heard of to the end: {ids}",
            fix="the same command again hears of it; where its host is gone: "
            f"train cancel {unheard[0].run_id} --forget",
        )
    if failed:
        words = ", ".join(f"{m.run_id} {m.verdict}" for m in failed)
        # Of a gang the one that failed first, since the others were ended for it.
        gang = [m for m in failed if chief_id(m.run_id) == chief_id(failed[0].run_id)]
        raise RunFailed(words, fix=f"train logs {min(gang, key=_ended_at).run_id}")
    if result.trouble is not None:
        raise result.trouble
    empty = [m for m in result.mirrors if m.model_is_missing] if runs else []
    if empty:
        raise RunFailed(
            f"{empty[0].run_id} succeeded, but made no model",
            cause=f"train.yaml declares: {', '.join(empty[0].request.outputs)}",
            fix="let the script save the model under that name, beside itself",
        )
    # Also what was graded before: by a command that was cut off, or as another run's same model.
    made = [v for run_id, v in result.made.items() if run_id not in result.old]
    told = {(v.category, v.sha256): v for v in (*made, *result.verdicts)}
    bad = [v for v in told.values() if v.outcome is not Outcome.GRADED]
    if bad:
        raise GradeBelow("; ".join(f"{v.category} {v.outcome.value}: {v.reason}" for v in bad))
    lacking = {one.category for one in result.standings if one.gradable and not one.can_grade}
    ungraded = [
        m.run_id
        for m in result.mirrors
        if m.verdict == "succeeded"
        and m.request.job in lacking
        and m.request.outputs
        and m.run_id not in result.made.keys() | result.old
        and not m.model_is_missing
    ]
    if ungraded:
        raise GradeBelow(
            f"not graded: {', '.join(ungraded)}",
            cause="TensorFlow is not installed here",
            fix=f"{install_command()}; then: train pull",
        )


def _ended_at(mirror: Mirror) -> str:
    state = mirror.seen.report.state if mirror.seen else None
    return (state.ended_at if state else None) or "z"


def refuse_unready(standings: Iterable[Standing]) -> None:
    """Raise GradeBelow unless every model has points to show."""
    bad = [standing for standing in standings if not standing.is_graded]
    gaps: dict[str, list[str]] = {}
    for standing in bad:
        gaps.setdefault(standing.gap, []).append(standing.category)
    if bad:
        raise GradeBelow(
            "not ready: " + "; ".join(f"{', '.join(names)}: {gap}" for gap, names in gaps.items()),
            fix=next((standing.fix for standing in bad if standing.fix), ""),
        )
