"""An invented session: five categories, eight runs, a machine that idled; everywhere the same."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from orchestrator.clouds.power import Power, Provenance
from orchestrator.records.curves import Epoch
from orchestrator.records.ledger import (
    ArtifactFact,
    Ledger,
    Reporter,
    RunEvent,
    RunFact,
    SessionEnd,
    SessionFact,
    SessionTerms,
    Sighting,
    StintEnd,
    StintFact,
    VerdictFact,
)
from orchestrator.records.mirror import Mirrors
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Job, Workspace
from orchestrator.source.pastcode import PastCode
from orchestrator.source.snapshot import take_snapshot
from remote import clock
from remote.protocol import RunReport
from remote.record import to_bytes
from remote.runfolder import RunRequest, RunState, State
from remote.usage import GpuUsage, Usage

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
SESSION = "evening"
REMOTE = "azure-k80"
PRICE = Decimal("0.90")

_SCRIPT = """\
import tensorflow as tf

model = tf.keras.Sequential([
    tf.keras.layers.Dense({units}, activation="relu"),
    tf.keras.layers.Dense(10, activation="softmax"),
])
model.compile(optimizer=tf.keras.optimizers.Adam({rate}), loss="sparse_categorical_crossentropy",
              metrics=["accuracy"])
model.fit(x, y, epochs={epochs}, validation_split=0.2)
"""


@dataclass(frozen=True)
class Tried:
    """A run of the tale; minutes count from the session's start.

    Attributes:
        points: of its model; None where it failed.
        units: of the script's first layer, so that each attempt has other code.
    """

    category: str
    at: float
    trains: float
    points: int | None
    value: float
    units: int
    epochs: int = 30
    metric: str = "accuracy"


TALE = (
    Tried("category1", 4, 6, 5, 2.19, 16, metric="mean absolute error"),
    Tried("category2", 11, 9, 3, 0.91, 32),
    Tried("category3", 24, 12, 2, 0.71, 32),
    Tried("category3", 38, 3, None, 0.0, 64, epochs=4),
    Tried("category3", 52, 17, 4, 0.83, 64, epochs=40),
    Tried("category4", 72, 11, 4, 0.862, 24),
    Tried("category5", 96, 9, 5, 0.526, 48, metric="mean absolute error"),
    Tried("category2", 107, 10, 5, 0.98, 128),
)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


class Teller:
    """Writes a session down as the commands would have.

    Args:
        home: TRAINSHED_HOME; the workspace lies beside it.

    Attributes:
        price: of each run; None for unknown.
    """

    def __init__(self, home: Path, workspace: str = "mock") -> None:
        self.home = home
        self.price: Decimal | None = PRICE
        self.root = home.parent / workspace
        self.root.mkdir(parents=True)
        home.mkdir(exist_ok=True)
        names = dict.fromkeys(tried.category for tried in TALE)
        self._jobs = tuple(
            Job(name, f"python {name}/train.py", (f"{name}/mymodel.h5",)) for name in names
        )
        told = {job.name: {"command": job.command, "outputs": job.outputs} for job in self._jobs}
        (self.root / "train.yaml").write_text(json.dumps({"jobs": told}))

    def tell(self, tale: tuple[Tried, ...] = TALE, lasts: float = 135) -> None:
        with Ledger.open(self.home / "ledger.sqlite3") as ledger:
            ledger.add(
                SessionFact("s-1", SESSION, REMOTE, START),
                SessionTerms("s-1", Decimal(5), "USD", at(180), 1200.0),
                StintFact(
                    *("st-1", REMOTE, at(1), Provenance.CLOUD, PRICE, "USD", "train.yaml"),
                    *("westeurope", False, START, Decimal("0.01"), 60.0, 1.0),
                ),
            )
            for tried in tale:
                self.run(ledger, tried)
            ledger.add(
                Sighting(REMOTE, at(lasts), Power.STOPPED_FREE, Provenance.CLOUD),
                StintEnd("st-1", at(lasts), Provenance.CLOUD),
                SessionEnd("s-1", at(lasts), Provenance.CLOUD),
            )

    def run(self, ledger: Ledger, tried: Tried, **names: str) -> str:
        """One run with all that lies beside it; its id.

        Args:
            names: what else a metric, a version, a reason or a parameter is called.
        """
        category, begun, ended = tried.category, at(tried.at + 1), at(tried.at + 1 + tried.trains)
        run_id = f"{category}-{at(tried.at):%Y%m%d-%H%M%S}-{tried.units:04x}"
        code = self._code(tried)
        model = hashlib.sha256(run_id.encode()).hexdigest()
        outputs = (f"{category}/mymodel.h5",)
        state = State.SUCCEEDED if tried.points is not None else State.FAILED
        reason = "" if tried.points is not None else names.get("reason", "exit code 1")
        params = (("units", names.get("param", str(tried.units))),)
        ledger.add(
            RunFact(
                *(run_id, str(self.root), category, REMOTE, code, f"python {category}.py"),
                *(at(tried.at), self.price, "USD" if self.price else "", "train.yaml", params),
                "s-1",
            ),
            RunEvent(run_id, "setting-up", at(tried.at + 0.2), Reporter.VM),
            RunEvent(run_id, "running", begun, Reporter.VM),
            RunEvent(run_id, state.value, ended, Reporter.VM, exit_code=0, reason=reason),
        )
        mirror = Mirrors(self.root / ".train").make(
            RunRequest(run_id, category, code, "python", outputs)
        )
        mirror.see(RunReport(run_id, category, False, "1", RunState(state, clock.now())), "")
        mirror.settle()
        mirror.metrics.write_bytes(b"".join(_epochs(tried, begun, **names)))
        mirror.usage.write_bytes(b"".join(_samples(tried, begun)))
        if tried.points is not None:
            versions = (("framework", names.get("version", "tensorflow 2.21.0, keras 3.12.0")),)
            ledger.add(
                ArtifactFact(run_id, outputs[0], 99_800, model, ended),
                VerdictFact(
                    *(f"v-{run_id}", str(self.root), category, model, run_id, "graded"),
                    *(tried.points, names.get("metric", tried.metric), tried.value, (), True, ""),
                    *(99_800, versions, ended + timedelta(seconds=20)),
                ),
            )
        return run_id

    def _code(self, tried: Tried) -> str:
        """Written, and kept as when it was sent; its digest."""
        folder = self.root / tried.category
        folder.mkdir(exist_ok=True)
        rate = 0.001 if tried.units < 64 else 0.0005
        text = _SCRIPT.format(units=tried.units, rate=rate, epochs=tried.epochs)
        (folder / "train.py").write_text(text)
        code = take_snapshot(Workspace(self.root, self._jobs), (), Silence()).code
        PastCode(self.root / ".train").keep(code)
        return code.digest


def _epochs(tried: Tried, begun: datetime, **names: str) -> list[bytes]:
    """The larger the layer, the faster it learns, and the more it learns by heart."""
    metric = names.get("curve", "accuracy")
    speed, heart, phase = tried.units / 320 + 0.04, tried.units / 9000, sum(tried.category.encode())
    lines = []
    for epoch in range(tried.epochs):
        fitted = 1 - math.exp(-speed * (epoch + 1))
        wave = 0.03 * math.sin(epoch * 1.7 + phase) * math.cos(epoch * 0.6)
        metrics: dict[str, float | None] = {
            metric: 0.1 + 0.87 * fitted,
            "loss": 2.3 * (1 - 0.95 * fitted),
            f"val_{metric}": 0.1 + 0.8 * fitted * (0.97 + wave),
            "val_loss": 2.3 * (1 - 0.85 * fitted) + wave + heart * epoch,
        }
        told = {"tensorflow": names.get("version", "2.11.0"), "keras": "2.11.0"}
        moment = f"{begun:%Y-%m-%dT%H:%M:%SZ}"
        line = Epoch(epoch, metrics, 1, tried.epochs, moment, 1.0, {} if epoch else told)
        lines.append(to_bytes(line))
    return lines


def _samples(tried: Tried, begun: datetime) -> list[bytes]:
    found = []
    for second in range(0, int(tried.trains * 60), 5):
        percent = min(97.0, 8.0 + second) - 9 * abs(math.sin(second / 47))
        gpu = GpuUsage(0, round(percent, 1), 8_200, 11_441, 62.0, 118.0)
        moment = begun + timedelta(seconds=second)
        text = f"{moment:%Y-%m-%dT%H:%M:%S.000000Z}"
        found.append(to_bytes(Usage(text, 130.0, 2**31, 2**34, 1.2, 2**36, (gpu,))))
    return found
