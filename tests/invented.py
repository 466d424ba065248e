"""A workspace in the middle of an exam, all of it invented: a run goes on, and one waits."""

from __future__ import annotations

import hashlib
import math
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from orchestrator.exams.book import ExamBook, read_instant
from orchestrator.records.curves import Epoch
from orchestrator.records.ledger import (
    ArtifactFact,
    ExamFact,
    ExamMark,
    Ledger,
    RunFact,
    SessionFact,
    SessionTerms,
    VerdictFact,
)
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.records.shelf import Shelf
from orchestrator.settings.config import format_remotes
from orchestrator.settings.home import ledger_file
from orchestrator.settings.spec import Price, Remote
from remote import clock
from remote.protocol import RunReport
from remote.record import to_bytes
from remote.runfolder import RunRequest, RunState, State
from remote.usage import GpuUsage, Usage
from tests.exams import stand_in_problems

REMOTE = "azure-k80"
PRICE = Price(Decimal("0.90"), "USD")
EPOCHS = 60
RUNNING_EPOCHS = 24
# What runs say that tells a terminal to clear itself.
HOSTILE = "\x1b[2J"


def invent(root: Path, *, practice: bool = True) -> None:
    """Made in `root`; the remote and the ledger in TRAINSHED_HOME.

    `category3` was trained twice before, for 2 and 3 points, and is trained again.
    """
    stand_in_problems(root)
    ledger_file().parent.mkdir(parents=True, exist_ok=True)
    # The port of nothing: nobody answers.
    remote = Remote(REMOTE, "127.0.0.1", port=1, gpus=1, price=PRICE)
    (ledger_file().parent / "remotes.yaml").write_text(format_remotes((remote,)))
    now = datetime.now(UTC).replace(microsecond=0)
    with Ledger.open(ledger_file()) as ledger:
        _begin_exam(root, ledger, now - timedelta(minutes=100), practice=practice)
        for category, minutes, points, value in (
            ("category1", 95, 5, 0.98),
            ("category2", 80, 4, 0.93),
            ("category3", 65, 2, 0.71),
            ("category3", 50, 3, 0.78),
            ("category5", 30, 4, 0.61),
        ):
            run = _Run(root, ledger, category, now - timedelta(minutes=minutes))
            run.train(EPOCHS, State.SUCCEEDED)
            run.grade(points, value)
        _Run(root, ledger, "category3", now - timedelta(minutes=4)).train(RUNNING_EPOCHS)
        _Run(root, ledger, "category4", now - timedelta(minutes=3)).wait()


def _begin_exam(root: Path, ledger: Ledger, at: datetime, *, practice: bool) -> None:
    instant = read_instant()
    book = ExamBook(root, ledger)
    book.begin(7)
    book.keep(
        SessionFact("mock-1", "mock", REMOTE, at),
        SessionTerms("mock-1", Decimal(5), "USD", at + timedelta(hours=5), 1200.0),
        ExamFact("mock-1", str(root), 7, 5 * 3600.0, practice, 20),
        ExamMark("mock-1", instant.at, instant.boot, instant.up_s, 6000.0),
    )


class _Run:
    def __init__(self, root: Path, ledger: Ledger, category: str, at: datetime) -> None:
        self._root = root
        self._ledger = ledger
        self._category = category
        self._at = at
        self._random = random.Random(f"{category} {at:%M}")
        run_id = f"{category}-{at:%Y%m%d-%H%M%S}-{self._random.randrange(16**4):04x}"
        model = f"{category}/mymodel.h5"
        request = RunRequest(run_id, category, "0" * 64, "python3 job.py", outputs=(model,))
        self._mirror: Mirror = Mirrors(root / ".train").make(request)
        ledger.add(
            RunFact(
                run_id,
                str(root),
                category,
                REMOTE,
                "0" * 64,
                "python3 job.py",
                at,
                PRICE.per_hour,
                PRICE.currency,
                "user",
                session_id="mock-1",
            )
        )

    def train(self, epochs: int, state: State = State.RUNNING) -> None:
        """Ten seconds an epoch."""
        end = self._at + timedelta(seconds=10 * epochs)
        slope = self._random.uniform(8, 16)
        log = [HOSTILE]
        for epoch in range(epochs):
            loss, noise = 2.2 * math.exp(-epoch / slope) + 0.1, self._random.uniform(0, 0.06)
            metrics: dict[str, float | None] = {
                "accuracy": 0.97 - loss / 2.6,
                "loss": loss,
                "val_accuracy": 0.94 - (loss + noise) / 2.5,
                "val_loss": loss + 0.15 + noise,
            }
            at = clock.moment((self._at + timedelta(seconds=10 * epoch + 10)).timestamp())
            with self._mirror.metrics.open("ab") as file:
                file.write(to_bytes(Epoch(epoch, metrics, 1, EPOCHS, at, 10.0)))
            with self._mirror.usage.open("ab") as file:
                file.write(to_bytes(self._usage(at)))
            told = ", ".join(f"{name}: {value:.4f}" for name, value in metrics.items())
            log += [f"Epoch {epoch + 1}/{EPOCHS}", f"188/188 ━━━━━━━━━━ 10s - {told}"]
        self._mirror.log.write_text("\n".join(log) + "\n", "utf-8")
        ended_at = clock.moment(end.timestamp()) if state.final else None
        self._see(state, running_at=clock.moment(self._at.timestamp()), ended_at=ended_at)

    def wait(self) -> None:
        self._see(State.QUEUED, reason="waits for slot gpu0")

    def grade(self, points: int, value: float) -> None:
        """Its model stands in the folder from now on."""
        run_id = self._mirror.run_id
        file = self._root / self._category / "mymodel.h5"
        file.write_text(run_id)
        sha256 = Shelf(self._root / ".train").adopt(file)
        assert sha256 == hashlib.sha256(run_id.encode()).hexdigest()
        graded_at = self._at + timedelta(minutes=12)
        thresholds = (value - 0.2, value - 0.1, value, value + 0.1, value + 0.2)
        self._ledger.add(
            ArtifactFact(run_id, f"{self._category}/mymodel.h5", len(run_id), sha256, graded_at),
            VerdictFact(
                run_id,
                str(self._root),
                self._category,
                sha256,
                run_id,
                "graded",
                points,
                "accuracy",
                value,
                thresholds,
                True,
                "",
                len(run_id),
                (),
                graded_at,
            ),
        )

    def _usage(self, at: str) -> Usage:
        gpu = GpuUsage(0, self._random.uniform(70, 99), 9_300, 11_441, 61.0, 118.0)
        cpu = self._random.uniform(90, 180)
        return Usage(at, cpu, 3 * 10**9, 48 * 10**9, 1.2, 10**12, (gpu,))

    def _see(self, state: State, **facts: str | None) -> None:
        at = clock.moment(self._at.timestamp())
        seen = RunState(state, at, boot_id="b", **facts)  # type: ignore[arg-type]
        alive = not state.final
        report = RunReport(self._mirror.run_id, self._category, alive, "1", seen)
        self._mirror.see(report, "b")


def last_run(root: Path, category: str) -> str:
    return max(path.name for path in (root / ".train" / "runs").glob(f"{category}-*"))
