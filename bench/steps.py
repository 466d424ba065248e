"""The job whose steps `overhead` measures; alone it is any Keras script.

python steps.py WIDTH SECONDS [--hook]

It trains for SECONDS after a warm-up, in steps that are the longer the wider the model is, and
writes `steps.json`. With --hook it has to be in a run: fits with our hook and without it take turns
in this one process, which no noise of the machine can tell apart.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

BATCH = 32
STEPS = 200
# Of one fit, in turn with and without the hook.
EPOCHS = 3
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    width, seconds = int(sys.argv[1]), float(sys.argv[2])
    model = make(width)
    source = np.random.default_rng(0)
    x = source.standard_normal((BATCH * STEPS, 32), dtype="float32")
    y = x[:, :1]
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS)
    found = (
        take_turns(model, x, y, seconds) if "--hook" in sys.argv else train(model, x, y, seconds)
    )
    Path("steps.json").write_text(json.dumps(found))


def make(width: int) -> Any:  # noqa: ANN401  # Keras has no types
    layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(width, "relu")]
    model = keras.Sequential([keras.Input((32,)), *layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Until(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Ends the fit after the epoch in which its time is over, and counts the epochs."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end_s = time.monotonic() + seconds
        self.epochs = 0

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.epochs = epoch + 1
        if time.monotonic() >= self.end_s:
            self.model.stop_training = True


def train(model: Any, x: Any, y: Any, seconds: float) -> dict[str, float]:  # noqa: ANN401
    """What a step takes, and what our processes take beside it."""
    until = Until(seconds)
    beside_s, _ = beside()
    began_s, cpu_s = time.monotonic(), time.process_time()
    model.fit(x, y, batch_size=BATCH, epochs=10**6, callbacks=[until])
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    after_s, beside_mib = beside()
    steps = until.epochs * STEPS
    return {
        "step_ms": 1e3 * wall_s / steps,
        "step_cpu_ms": 1e3 * cpu_s / steps,
        # Not the shared pages: another job's framework would take half of them on itself.
        "own_mib": rollup_mib("self", "Anonymous"),
        "beside_percent": 100 * (after_s - beside_s) / wall_s,
        "beside_mib": beside_mib,
    }


def take_turns(model: Any, x: Any, y: Any, seconds: float) -> dict[str, float]:  # noqa: ANN401
    """By how much the hook makes the processor time of a fit longer: quartiles of the pairs."""
    hooked = type(model).fit
    plain = hooked.__wrapped__
    assert hooked.trainshed
    longer: list[float] = []
    end_s = time.monotonic() + seconds
    while len(longer) < 2 or time.monotonic() < end_s:  # quartiles need two
        spent = {}
        # Each is the first of a pair as often as the other.
        for fit in (hooked, plain) if len(longer) % 2 else (plain, hooked):
            before_s = time.process_time()
            fit(model, x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
            spent[fit] = time.process_time() - before_s
        longer.append(100 * (spent[hooked] / spent[plain] - 1))
    return dict(zip(("low", "median", "high"), statistics.quantiles(longer), strict=True))


def beside() -> tuple[float, float]:
    """Seconds of processor, and MiB, of the other processes of this home folder."""
    mark = b"\0HOME=%s\0" % os.fsencode(os.environ["HOME"])
    cpu_s = memory_mib = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                int(folder.name) != os.getpid()
                and mark in b"\0" + (folder / "environ").read_bytes()
            ):
                # The program's name stands in parentheses and may hold anything.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                # With that of the children it has waited for.
                cpu_s += sum(map(int, fields[11:15])) / TICKS_PER_S
                memory_mib += rollup_mib(folder.name, "Pss")
        except OSError:
            continue  # it ended meanwhile, or is not ours to see
    return cpu_s, memory_mib


def rollup_mib(pid: str, kind: str) -> float:
    """Memory of a process; as `Pss`, what it shares is divided by those who share it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition(f"\n{kind}:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
