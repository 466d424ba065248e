"""An exam begins: a fresh workspace, a session, a clock that runs."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from orchestrator.costs.paydesk import PayDesk, Terms
from orchestrator.costs.sessions import open_session
from orchestrator.errors import UsageError
from orchestrator.exams.book import ExamBook, read_instant
from orchestrator.exams.exam import CATEGORIES, PASS_POINTS, Instant
from orchestrator.exams.places import usual_remote
from orchestrator.init import make_workspace
from orchestrator.records.ledger import ExamFact, ExamMark, Ledger, SessionFact, SessionTerms
from orchestrator.screen.console import Console
from orchestrator.screen.tell import Teller
from orchestrator.settings.config import find_remote, load_workspace, workspace_here
from orchestrator.settings.home import ledger_file

Clock = Callable[[], Instant]

# What is drawn can be typed again.
_SEEDS = 10**6


@dataclass(frozen=True)
class ExamTerms:
    """Attributes:
    seed: None for any.
    remote: empty for none.
    budget: of the session on the remote; None for none.
    practice: whether metrics are shown.
    """

    lasts_s: float
    seed: int | None
    remote: str = ""
    budget: Decimal | None = None
    practice: bool = False


@dataclass(frozen=True)
class Begun:
    """Attributes:
    briefs: by category.
    remote: where to train; empty where there are several.
    """

    exam: ExamFact
    root: Path
    ends_at: datetime
    briefs: dict[str, str]
    remote: str


def make_problems(folder: Path, seed: int, tell: Teller) -> None:
    """A workspace with the problems that a seed draws."""
    make_workspace(folder, solutions=False, seed=seed, tell=tell)


def start_exam(
    folder: Path, terms: ExamTerms, console: Console, accept: str = "", now: Clock = read_instant
) -> Begun:
    """Make a workspace and let its clock run; cut off anywhere before that, it can be done again.

    Raises:
        UsageError: the folder has something else in it or lies in a workspace, or a session is open
            on the remote.
    """
    root = folder.resolve()
    with Ledger.open(ledger_file()) as ledger:
        book = _fresh(root, ledger)
        if terms.remote:
            find_remote(workspace_here(), terms.remote)
            if session := open_session(ledger, terms.remote):
                raise UsageError(
                    f"the session {session.name} goes on on {terms.remote}",
                    cause="an exam is a session of its own",
                    fix=f"train session stop {terms.remote}; the machine stays on",
                )
        seed = _seed(book, terms)
        book.begin(seed)
        make_problems(root, seed, console)
        if terms.remote:
            opened = _open_there(root, terms, console, accept)
            instant = now()
        else:
            instant = now()
            opened = _open_here(terms, instant)
        exam = ExamFact(opened[0].id, str(root), seed, terms.lasts_s, terms.practice, PASS_POINTS)
        mark = ExamMark(exam.session_id, instant.at, instant.boot, instant.up_s, 0.0)
        book.keep(*opened, exam, mark)
        remote = terms.remote or usual_remote(load_workspace(root), ledger)
    briefs = {name: (root / name / "brief.md").read_text("utf-8") for name in CATEGORIES}
    return Begun(exam, root, instant.at + timedelta(seconds=terms.lasts_s), briefs, remote)


def _fresh(root: Path, ledger: Ledger) -> ExamBook:
    book = ExamBook(root, ledger)
    exam = book.exam()
    if exam is not None:
        ended = ledger.exam_end(exam.session_id)
        raise UsageError(
            f"{root} {'had its exam' if ended else 'has an exam that goes on'}",
            fix="choose a new folder" if ended else f"cd {root}; train exam status",
        )
    about_to_begin = book.file.exists()
    if root.exists() and not about_to_begin and any(root.iterdir()):
        raise UsageError(
            f"{root} is not empty",
            cause="an exam begins in a fresh folder, so that nothing of before counts",
            fix="choose a new folder",
        )
    around = next((p for p in root.parents if (p / "train.yaml").is_file()), None)
    if around is not None:
        raise UsageError(
            f"{root} lies in the workspace {around}",
            cause="what is in a workspace is sent with its runs",
            fix=f"cd {shlex.quote(str(around.parent))}; the same command again",
        )
    return book


def _seed(book: ExamBook, terms: ExamTerms) -> int:
    """That of a start that was cut off, whose problems are there already."""
    begun = book.begun_seed()
    if begun is None:
        return secrets.randbelow(_SEEDS) if terms.seed is None else terms.seed
    if terms.seed not in (None, begun):
        raise UsageError(
            f"{book.root} was about to begin with seed {begun}",
            fix="leave --seed out, or choose a new folder",
        )
    return begun


def _open_here(terms: ExamTerms, now: Instant) -> tuple[SessionFact, SessionTerms]:
    session_id = f"exam-{now.at.astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    ends_at = now.at + timedelta(seconds=terms.lasts_s)
    return (
        SessionFact(session_id, session_id, "", now.at),
        SessionTerms(session_id, None, "", ends_at, None),
    )


def _open_there(
    root: Path, terms: ExamTerms, console: Console, accept: str
) -> tuple[SessionFact, SessionTerms]:
    """Start the machine where it can be started, and a session on it."""
    workspace = load_workspace(root)
    wanted = Terms("exam", terms.lasts_s, terms.budget)
    with PayDesk(workspace, console, accept) as desk:
        if find_remote(workspace, terms.remote).cloud is not None:
            session = desk.up(terms.remote, wanted, 0.0).tally.session
        else:
            session = desk.begin(terms.remote, wanted).session
        fact = next(s for s in desk.ledger.sessions(terms.remote) if s.id == session.id)
        kept = desk.ledger.terms(session.id)
        assert kept is not None
        return fact, kept
