"""Which of the ledger's grades count: those of the grader that stands beside the script now."""

from __future__ import annotations

from pathlib import Path

from orchestrator.records.ledger import Ledger, VerdictFact
from orchestrator.records.shelf import file_sha256
from orchestrator.settings.spec import Job, Workspace


def grader_of(workspace: Workspace, job: Job) -> Path | None:
    """The category's grader, if it has one."""
    path = workspace.root / job.folder / "grader.py"
    return path if job.model is not None and path.is_file() else None


def present_grades(workspace: Workspace, ledger: Ledger, job: Job) -> list[VerdictFact]:
    """In the order in which they were given; grades of two graders do not compare."""
    path = grader_of(workspace, job)
    grader = (file_sha256(path) or "") if path is not None else ""
    facts = ledger.verdicts(str(workspace.root), job.name)
    return [fact for fact in facts if dict(fact.versions).get("grader", grader) == grader]
