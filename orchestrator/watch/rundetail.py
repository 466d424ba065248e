"""One run as `train watch` shows it: its log, its curves and its use of the machine, from what the
laptop has of its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from orchestrator.costs.cost import format_duration
from orchestrator.records.curves import Epoch, paired, read_epochs, read_usage, series
from orchestrator.records.mirror import Mirror
from orchestrator.screen.logview import LogView, last_lines
from orchestrator.size import format_size
from orchestrator.watch.board import Chart, Curve, RunDetail, sparkline
from remote.usage import GpuUsage, Usage

_LOG_LINES = 200
_LOG_TAIL_BYTES = 64 * 2**10
# Of one GPU a sample has 250 bytes.
_USAGE_TAIL_BYTES = 16 * 2**10
_SAMPLES = 24
# As many as tell how long the next ones will take.
_EPOCHS = 10
# No machine is paid for so long: what would take longer, nobody knows.
_LONGEST_S = 365 * 86400.0
_MIB = 2**20


def run_detail(mirror: Mirror, best: Mirror | None, best_label: str) -> RunDetail:
    """Args:
    best: an earlier run to compare with.
    """
    earlier = epochs_of(best) if best is not None else ()
    return RunDetail(
        mirror.run_id,
        _read_log(mirror.log, _size(mirror.log)),
        charts(epochs_of(mirror), earlier, best_label),
        usage_lines(read_usage(mirror.usage, _USAGE_TAIL_BYTES)[-_SAMPLES:]),
    )


def epochs_of(mirror: Mirror) -> tuple[Epoch, ...]:
    return _read_epochs(mirror.metrics, _size(mirror.metrics))


def epoch_text(epochs: tuple[Epoch, ...]) -> str:
    """`12 of 100`, of the last fit; empty before its first epoch has ended."""
    if not epochs:
        return ""
    last = epochs[-1]
    return f"{last.epoch + 1}" + (f" of {last.epochs}" if last.epochs is not None else "")


def left_text(epochs: tuple[Epoch, ...]) -> str:
    """`40 s left`, of the last fit."""
    if not epochs or epochs[-1].epochs is None:
        return ""
    left = epochs[-1].epochs - epochs[-1].epoch - 1
    last_s = [epoch.seconds for epoch in epochs[-_EPOCHS:]]
    left_s = sum(last_s) / len(last_s) * left
    return f"{format_duration(left_s)} left" if left > 0 and 0 < left_s < _LONGEST_S else ""


def charts(
    epochs: tuple[Epoch, ...], earlier: tuple[Epoch, ...], earlier_label: str
) -> tuple[Chart, ...]:
    """One for each metric: the loss, then the others in the order in which they were told."""
    before = {pair.metric: pair for pair in paired(series(earlier))}
    made = []
    for metric, training, validation in paired(series(epochs)):
        known = before.get(metric)
        # What was validated is compared with what was.
        compared = (known.validation or known.training) if known else ()
        lines = (
            Curve("training", training),
            Curve("validation", validation),
            Curve(earlier_label, compared),
        )
        made.append(Chart(metric, tuple(line for line in lines if line.points)))
    return tuple(made)


def usage_lines(samples: tuple[Usage, ...]) -> tuple[str, ...]:
    """A line for each GPU, and one for processor and memory; nothing before the first sample."""
    if not samples:
        return ()
    last = samples[-1]
    gpus = [_gpu_line(gpu, _load_of(samples, gpu.index)) for gpu in last.gpus or ()]
    if last.gpus is None:
        gpus = ["gpu: its driver does not answer"]
    cpu = tuple(sample.cpu_percent for sample in samples if sample.cpu_percent is not None)
    parts = []
    if last.cpu_percent is not None:
        parts.append(f"cpu {last.cpu_percent:.0f} % {sparkline(cpu, max(100.0, *cpu, 0.0))}")
    if last.memory_bytes is not None:
        parts.append(f"memory {format_size(last.memory_bytes)}")
    if last.available_bytes is not None:
        parts.append(f"{format_size(last.available_bytes)} left")
    return (*gpus, ", ".join(parts))


def _load_of(samples: Iterable[Usage], index: int) -> tuple[float, ...]:
    return tuple(
        gpu.utilization_percent
        for sample in samples
        for gpu in sample.gpus or ()
        if gpu.index == index and gpu.utilization_percent is not None
    )


def _gpu_line(gpu: GpuUsage, loads: tuple[float, ...]) -> str:
    name = f"gpu {gpu.index}"
    if gpu.utilization_percent is not None:
        name += f" {gpu.utilization_percent:.0f} % {sparkline(loads, 100.0)}"
    parts = [name]
    if gpu.memory_used_mib is not None:
        used = f"memory {format_size(gpu.memory_used_mib * _MIB)}"
        total = gpu.memory_total_mib
        parts.append(used if total is None else f"{used} of {format_size(total * _MIB)}")
    _add(parts, gpu.temperature_c, lambda degrees: f"{degrees:.0f} °C")
    _add(parts, gpu.power_w, lambda watts: f"{watts:.0f} W")
    return ", ".join(parts)


def _add(parts: list[str], value: float | None, text: Callable[[float], str]) -> None:
    if value is not None:
        parts.append(text(value))


@lru_cache(maxsize=32)
def _read_epochs(file: Path, size_bytes: int) -> tuple[Epoch, ...]:
    """The same as long as the file has not grown: copies of a VM's files only do that."""
    return read_epochs(file)


@lru_cache(maxsize=4)
def _read_log(file: Path, size_bytes: int) -> tuple[str, ...]:
    """The last lines, and the one being drawn, such as a progress bar."""
    if not size_bytes:
        return ()
    with file.open("rb") as log:
        log.seek(max(0, size_bytes - _LOG_TAIL_BYTES, last_lines(log, _LOG_LINES, size_bytes)))
        view = LogView()
        lines = view.feed(log.read(_LOG_TAIL_BYTES))
    return (*lines, *([view.current] if view.current else []))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
