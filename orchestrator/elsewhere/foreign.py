"""A run that was executed where this laptop never was, and how it is put among the others.

It gets a folder like any run, with a report as its machine would have given it, so that whatever
reads runs needs to know nothing of where they came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.records.events import run_events
from orchestrator.records.ledger import ArtifactFact, Ledger, RunEvent, RunFact, from_text
from orchestrator.records.mirror import Mirror, Mirrors, readable
from orchestrator.records.rebuild import keep_beside
from orchestrator.records.shelf import Shelf
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Workspace
from remote import clock
from remote.atomic import replace_file, sync_folder, temporary_beside
from remote.protocol import RunReport
from remote.record import to_bytes
from remote.runfolder import Artifact, RunRequest, RunState, State

_MICROSECONDS_PER_HOUR = 3_600_000_000
# More digits than any sum of money has; rounded up, since a cost is rounded down.
_EXACT = Context(prec=40, rounding=ROUND_CEILING)


@dataclass(frozen=True)
class Paid:
    """What somebody paid for a run, all of it."""

    amount: Decimal = Decimal(0)
    currency: str = "USD"

    @classmethod
    def parse(cls, text: str) -> Paid:
        """Raises:
        UsageError: not an amount such as `0.40` or `0.40 EUR`.
        """
        amount, _, currency = text.strip().partition(" ")
        currency = currency.strip() or "USD"
        try:
            paid = Decimal(amount)
        except ArithmeticError:
            paid = Decimal(-1)
        if not (paid.is_finite() and 0 <= paid < 10**6 and _is_currency(currency)):
            raise UsageError(f"--cost takes an amount, not {text!r}", fix="--cost '0.40 EUR'")
        return cls(paid, currency)


@dataclass(frozen=True)
class Foreign:
    """Attributes:
    where: the kind of machine, in a word; the run's remote in the ledger.
    begun_at: when it was exported, else when it started.
    started_at, ended_at: by this laptop's clock, as far as that can be told.
    reason: for the user: from which machine or file it is.
    files: its artifacts and the verified copies of them, which are moved away.
    log: what it wrote, where that came along.
    """

    request: RunRequest
    where: str
    begun_at: datetime
    started_at: datetime
    ended_at: datetime
    exit_code: int
    reason: str
    files: tuple[tuple[Artifact, Path], ...]
    log: Path | None = None

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(artifact for artifact, _ in self.files)


def known_run(mirrors: Mirrors, foreign: Foreign) -> Mirror | None:
    """The run that is here already, and is this one.

    Raises:
        UsageError: the same run is here with other outputs.
    """
    mirror = mirrors.get(foreign.request.run_id)
    if mirror is not None:
        seen = mirror.seen
        if seen is None or seen.report.artifacts != foreign.artifacts:
            raise UsageError(
                f"{mirror.run_id} is here already, with other outputs",
                cause="its notebook was executed twice, or a model of it was imported before",
                fix="import the model file alone, or export a notebook for each run",
            )
        return mirror
    if foreign.request.tree:
        return None
    # A model file of which nobody knows the run is nothing but its content.
    for other in readable(mirrors.begun(f"{foreign.request.job}-"), Silence()):
        seen = other.seen
        if (
            seen is not None
            and other.request.job == foreign.request.job
            and foreign.artifacts
            and set(foreign.artifacts) <= set(seen.report.artifacts)
        ):
            return other
    return None


def record(foreign: Foreign, workspace: Workspace, ledger: Ledger, paid: Paid) -> Mirror:
    """Put it among the runs: its files on the shelf, its folder, its facts in the ledger.

    After a crash anywhere the same again goes on from there; no other run is made of it.
    """
    shelf, mirrors = Shelf(workspace.state), Mirrors(workspace.state)
    mirror = known_run(mirrors, foreign)
    for artifact, copy in foreign.files:
        shelf.keep(copy, artifact.sha256, Path(artifact.path).name)
    if mirror is None:
        mirror = _make_folder(foreign, workspace, ledger, paid)
    ledger.add(*_facts(mirror, ledger, shelf))
    return mirror


def _make_folder(foreign: Foreign, workspace: Workspace, ledger: Ledger, paid: Paid) -> Mirror:
    runs = Mirrors(workspace.state).folder
    runs.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: one without its report would be taken for a run to be sent to a VM.
    aside = Mirror(temporary_beside(runs / "x"))
    aside.folder.mkdir()
    replace_file(aside.folder / "request.json", to_bytes(foreign.request))
    if foreign.log is not None:
        foreign.log.replace(aside.log)
    keep_beside(_run_fact(foreign, workspace, paid), aside, ledger.path)
    state = RunState(
        State.SUCCEEDED if foreign.exit_code == 0 else State.FAILED,
        queued_at=_text(foreign.begun_at),
        running_at=_text(foreign.started_at),
        ended_at=_text(foreign.ended_at),
        exit_code=foreign.exit_code if foreign.exit_code >= 0 else None,
        signal=-foreign.exit_code if foreign.exit_code < 0 else None,
        reason=foreign.reason,
    )
    run_id, job = foreign.request.run_id, foreign.request.job
    report = RunReport(
        run_id, job, alive=False, stamp="imported", state=state, artifacts=foreign.artifacts
    )
    aside.see(report, boot_id="")
    # After a crash just now, no command for a VM may take it for a run of its own.
    aside.settle()
    aside.folder.rename(runs / run_id)
    sync_folder(runs)
    return Mirror(runs / run_id)


def _run_fact(foreign: Foreign, workspace: Workspace, paid: Paid) -> RunFact:
    request = foreign.request
    # The shortest time the ledger knows, where nobody said how long it took.
    time_us = max(1, (foreign.ended_at - foreign.started_at) // timedelta(microseconds=1))
    per_hour = _EXACT.divide(_EXACT.multiply(paid.amount, _MICROSECONDS_PER_HOUR), Decimal(time_us))
    # Runs on one machine share its price; what was paid for this one is its own.
    own = f" {request.run_id.rpartition('-')[2]}" if paid.amount else ""
    return RunFact(
        run_id=request.run_id,
        workspace=str(workspace.root),
        category=request.job,
        remote=foreign.where + own,
        snapshot=request.tree,
        command=request.command,
        submitted_at=foreign.begun_at,
        price_per_hour=per_hour,
        currency=paid.currency,
        price_source="told at the import" if paid.amount else "import",
        params=tuple(sorted(request.params.items())),
    )


def _facts(
    mirror: Mirror, ledger: Ledger, shelf: Shelf
) -> Iterator[RunFact | ArtifactFact | RunEvent]:
    """What the ledger does not know of it yet."""
    fact = ledger.run(mirror.run_id)
    if fact is None:
        fact = from_text(RunFact, mirror.recorded.read_text("ascii"))
        yield fact
    seen = mirror.seen
    assert seen is not None
    yield from run_events(mirror.run_id, seen, fact.submitted_at, mirror.last_use_at())
    now = datetime.now(UTC)
    for artifact in seen.report.artifacts:
        is_new = ledger.artifact(mirror.run_id, artifact.path) is None
        if is_new and shelf.find(artifact.sha256):
            yield ArtifactFact(
                mirror.run_id, artifact.path, artifact.size_bytes, artifact.sha256, now
            )


def _text(at: datetime) -> str:
    return clock.moment(at.timestamp())


def _is_currency(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isupper() and text.isalpha()
