"""What a run used of its machine at one moment: a line of `usage.jsonl`."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple


class GpuUsage(NamedTuple):
    """How busy a GPU is; None where the GPU or its driver cannot tell.

    Attributes:
        index: the driver's, as in CUDA_VISIBLE_DEVICES under CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """

    index: int  # type: ignore[assignment]  # nobody misses tuple's method
    utilization_percent: Optional[float]
    memory_used_mib: Optional[int]
    memory_total_mib: Optional[int]
    temperature_c: Optional[float]
    power_w: Optional[float]


class Usage(NamedTuple):
    """One sample; None is what this system does not tell, or not yet.

    Attributes:
        at: ISO 8601 UTC, of the VM's clock.
        cpu_percent: of the run's processes since the sample before; 100 is one core.
        memory_bytes: their resident memory; pages they share are counted for each.
        available_bytes: memory the machine could still give without swapping.
        load1: load average over one minute.
        disk_free_bytes: for this user, where the run's folder is.
        gpus: empty on a machine without nvidia-smi; None while its driver fails.
    """

    at: str
    cpu_percent: Optional[float]
    memory_bytes: Optional[int]
    available_bytes: Optional[int]
    load1: Optional[float]
    disk_free_bytes: Optional[int]
    gpus: Optional[Tuple[GpuUsage, ...]]
