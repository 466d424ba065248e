"""What the NVIDIA driver says of its GPUs and of who is on them, asked through nvidia-smi.

Source: `nvidia-smi --help-query-gpu` and `--help-query-compute-apps`.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from remote.usage import GpuUsage

# A healthy driver answers in 0.1-2 s; with persistence mode off it wakes every GPU first.
TIMEOUT_S = 5.0

# The name is last: it is the one value that may hold the separator.
_USAGE = (
    "index",
    "utilization.gpu",
    "memory.used",
    "memory.total",
    "temperature.gpu",
    "power.draw",
)
_IDENTITY = ("uuid", "driver_version", "name")
_PROCESS = ("pid", "gpu_uuid", "used_memory", "process_name")
_STRAIN = ("index", "utilization.gpu", "temperature.gpu")
# As it is called up to the 530 branch, and since; the same bits.
_SLOWED = ("clocks_throttle_reasons.active", "clocks_event_reasons.active")

# Why the clocks are lower than they could be, of the reasons that are a fault. A GPU that idles or
# works at its rated power (a T4 nearly always) is as fast as it was sold.
# Source: nvml.h, nvmlClocksThrottleReason*.
_SLOWDOWNS = {
    0x08: "slowed down by its hardware",
    0x20: "too hot (the driver's limit)",
    0x40: "too hot (the hardware's limit)",
    0x80: "power brake",
}


class GpuTrouble(Exception):
    """nvidia-smi is there, but gave no answer that can be used; the message is its own."""


class Gpu(NamedTuple):
    """A `GpuUsage`, and which GPU it is.

    Attributes:
        driver: its version.
        compute_cap: `3.7` for a K80; empty where the driver is too old to tell.
    """

    index: int  # type: ignore[assignment]  # nobody misses tuple's method
    utilization_percent: Optional[float]
    memory_used_mib: Optional[int]
    memory_total_mib: Optional[int]
    temperature_c: Optional[float]
    power_w: Optional[float]
    uuid: str
    name: str
    driver: str
    compute_cap: str


class Strain(NamedTuple):
    """How hard a GPU works at one moment.

    Attributes:
        slowed: why it is slower than it could be, where that is a fault and the driver tells.
    """

    index: int  # type: ignore[assignment]  # nobody misses tuple's method
    utilization_percent: Optional[float]
    temperature_c: Optional[float]
    slowed: Tuple[str, ...]


class GpuProcess(NamedTuple):
    """A process with a compute context on a GPU.

    Attributes:
        pid: of the host, which a container may number differently.
        memory_mib: None where the driver does not tell.
    """

    pid: int
    gpu_uuid: str
    memory_mib: Optional[int]
    name: str


class Query:
    """One nvidia-smi under way.

    Never waited for without a limit, not even after a kill: under a wedged driver it sleeps in
    the kernel, where no signal reaches it.

    Raises:
        FileNotFoundError: this machine has no nvidia-smi.
        GpuTrouble: it cannot be executed, or its answer be kept.
    """

    def __init__(self, kind: str, columns: Tuple[str, ...]) -> None:
        command = ["nvidia-smi", f"--query-{kind}={','.join(columns)}"]
        # A file, not a pipe: reading a pipe would wait for whoever holds its other end.
        try:
            self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the answer
        except OSError as error:
            why = error.strerror or error
            raise GpuTrouble(f"no place for nvidia-smi's answer: {why}") from error
        try:
            self._process = subprocess.Popen(
                [*command, "--format=csv,noheader,nounits"],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            self._output.close()
            if isinstance(error, FileNotFoundError):
                raise
            raise GpuTrouble(f"nvidia-smi cannot be executed: {error.strerror}") from error

    @property
    def done(self) -> bool:
        return self._process.poll() is not None

    def wait(self, timeout_s: float) -> None:
        """Until it is done, or the time is over."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        """End it, if that is possible, and want no answer."""
        self.kill()
        self.wait(1.0)
        self._output.close()

    def answer(self) -> str:
        """What it printed, once it is done.

        Raises:
            GpuTrouble: it ended with an error.
        """
        with self._output as output:
            output.seek(0)
            text = output.read().decode("utf-8", "replace").strip()
        if self._process.returncode != 0:
            raise GpuTrouble(text or f"nvidia-smi ended with {self._process.returncode}")
        return text


def usage_query() -> Query:
    """Ask for what `parse_usage` reads."""
    return Query("gpu", _USAGE)


def parse_usage(text: str) -> Tuple[GpuUsage, ...]:
    """The answer to `usage_query`.

    Raises:
        GpuTrouble: it speaks of no GPU.
    """
    rows = _rows(text, _USAGE)
    if not rows:
        raise GpuTrouble(text or "nvidia-smi names no GPU")
    return tuple(GpuUsage(**_usage(row)) for row in rows)


def strain_query(*, newer: bool = False) -> Query:
    """Ask for what `parse_strain` reads.

    Args:
        newer: whether the driver is one that no longer knows the older word.
    """
    return Query("gpu", (*_STRAIN, _SLOWED[newer]))


def parse_strain(text: str) -> Tuple[Strain, ...]:
    """The answer to `strain_query`."""
    return tuple(
        Strain(
            int(row["index"]),
            _number(row["utilization.gpu"]),
            _number(row["temperature.gpu"]),
            _slowdowns(row["slowed"]),
        )
        for row in _rows(text, (*_STRAIN, "slowed"))
    )


def read_gpus(timeout_s: float = TIMEOUT_S) -> Tuple[Gpu, ...]:
    """Every GPU the driver knows, by index; none where there is no nvidia-smi.

    Raises:
        GpuTrouble: the driver fails, finds no GPU, or does not answer in time.
    """
    columns: Tuple[str, ...] = (*_USAGE, "compute_cap", *_IDENTITY)
    try:
        text = _ask("gpu", columns, timeout_s)
    except FileNotFoundError:
        return ()
    except GpuTrouble as trouble:
        # Drivers older than the 510 branch do not know it; the K80's last one is 470.
        if "compute_cap" not in str(trouble):
            raise
        columns = (*_USAGE, *_IDENTITY)
        text = _ask("gpu", columns, timeout_s)
    rows = _rows(text, columns)
    if not rows:
        raise GpuTrouble(text or "nvidia-smi names no GPU")
    return tuple(
        Gpu(
            uuid=row["uuid"],
            name=row["name"],
            driver=row["driver_version"],
            compute_cap=row.get("compute_cap", ""),
            **_usage(row),
        )
        for row in rows
    )


def read_gpu_processes(timeout_s: float = TIMEOUT_S) -> Tuple[GpuProcess, ...]:
    """Who computes on the GPUs, whoever's they are; none where there is no nvidia-smi.

    Raises:
        GpuTrouble: the driver fails or does not answer in time.
    """
    try:
        text = _ask("compute-apps", _PROCESS, timeout_s)
    except FileNotFoundError:
        return ()
    return tuple(
        GpuProcess(
            int(row["pid"]), row["gpu_uuid"], _whole(row["used_memory"]), row["process_name"]
        )
        for row in _rows(text, _PROCESS)
    )


def _ask(kind: str, columns: Tuple[str, ...], timeout_s: float) -> str:
    query = Query(kind, columns)
    query.wait(timeout_s)
    if not query.done:
        query.stop()
        raise GpuTrouble(f"nvidia-smi did not answer within {timeout_s:g} s")
    return query.answer()


def _rows(text: str, columns: Tuple[str, ...]) -> List[Dict[str, str]]:
    """The lines that begin with a number, by column.

    nvidia-smi puts sentences between them ("WARNING: infoROM is corrupted at gpu 0000:00:1E.0").
    """
    rows = []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(", ", len(columns) - 1)]
        if len(values) == len(columns) and values[0].isdigit():
            rows.append(dict(zip(columns, values)))
    return rows


def _usage(row: Dict[str, str]) -> Dict[str, Any]:
    """The fields of a GpuUsage."""
    return {
        "index": int(row["index"]),
        "utilization_percent": _number(row["utilization.gpu"]),
        "memory_used_mib": _whole(row["memory.used"]),
        "memory_total_mib": _whole(row["memory.total"]),
        "temperature_c": _number(row["temperature.gpu"]),
        "power_w": _number(row["power.draw"]),
    }


def _number(text: str) -> Optional[float]:
    """None for `[N/A]`, `[Not Supported]`, `[Unknown Error]` and the like."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _slowdowns(text: str) -> Tuple[str, ...]:
    try:
        bits = int(text, 16)
    except ValueError:
        return ()
    return tuple(words for bit, words in _SLOWDOWNS.items() if bits & bit)


def _whole(text: str) -> Optional[int]:
    number = _number(text)
    return None if number is None else int(number)
