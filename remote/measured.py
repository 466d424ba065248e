"""What one process measured of one workload: a file that `train bench` brings home."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple


class Repeat(NamedTuple):
    """Whole epochs of training, one after the other."""

    samples: int
    seconds: float


class Measured(NamedTuple):
    """Attributes:
    at: the end, ISO 8601 UTC, by the VM's clock.
    start_s: from the script's first line to the first step of training that others are like: the
        framework's import, the data, tracing and compiling.
    repeats: in the order of training.
    framework_gpus: devices that the framework made, as it names them.
    gpu, driver, compute_cap: of the GPU that the run was given, as its driver tells; empty where
        there is none.
    gpu_percent: how busy it was, once a repeat; nothing where nobody tells.
    temperature_c: the highest.
    slowed: as `remote.gpu.Strain` has it, all that was seen.
    others: programs on that GPU that are not this one.
    """

    workload: str
    at: str
    start_s: float
    repeats: Tuple[Repeat, ...]
    python: str
    tensorflow: str
    framework_gpus: Tuple[str, ...]
    cpus: int
    gpu: str = ""
    driver: str = ""
    compute_cap: str = ""
    gpu_percent: Tuple[float, ...] = ()
    temperature_c: Optional[float] = None
    slowed: Tuple[str, ...] = ()
    others: Tuple[str, ...] = ()
