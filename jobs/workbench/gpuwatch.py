"""The GPU that this run was given, as its driver sees it while the run trains."""

import os

from remote.gpu import (
    TIMEOUT_S,
    GpuTrouble,
    parse_strain,
    read_gpu_processes,
    read_gpus,
    strain_query,
)


class GpuWatch:
    """Made before the framework is on the GPU. A driver that fails is silent, and stops nothing.

    Attributes:
        gpu: None where there is none.
        percent, temperatures: one for each look, where the driver tells.
        slowed: the reasons that any look has found.
        others: programs on this GPU that are not this one.
    """

    def __init__(self):
        self.percent = []
        self.temperatures = []
        self.slowed = set()
        self.others = set()
        self._query = None
        self._newer = False
        self.gpu = self._own_gpu()
        self._strangers(own=())

    def _own_gpu(self):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        try:
            return next((gpu for gpu in read_gpus() if str(gpu.index) == visible), None)
        except GpuTrouble:
            return None

    def ask(self):
        """Begin a look; waits for nothing."""
        if self.gpu is not None and self._query is None:
            try:
                self._query = strain_query(newer=self._newer)
            except (OSError, GpuTrouble):
                self._query = None

    def take(self):
        """End the look that was begun, and see who else is there."""
        query, self._query = self._query, None
        if query is None:
            return
        query.wait(TIMEOUT_S)
        if not query.done:
            query.stop()
            return
        try:
            strains = parse_strain(query.answer())
        except GpuTrouble:
            # The other word for it, from the next look on.
            self._newer = not self._newer
            return
        for strain in strains:
            if strain.index == self.gpu.index:
                self.slowed.update(strain.slowed)
                if strain.utilization_percent is not None:
                    self.percent.append(strain.utilization_percent)
                if strain.temperature_c is not None:
                    self.temperatures.append(strain.temperature_c)
        self._strangers(own=(os.getpid(),))

    def _strangers(self, own):
        """Who is on the GPU besides us. In a container our own process has another number, and
        somebody else is only certain where there are two.
        """
        if self.gpu is None:
            return
        try:
            there = [p for p in read_gpu_processes() if p.gpu_uuid == self.gpu.uuid]
        except (OSError, GpuTrouble):
            return
        numbers = {process.pid for process in there}
        if own and not numbers & set(own) and len(numbers) < 2:
            return
        self.others |= {process.name for process in there if process.pid not in own}
