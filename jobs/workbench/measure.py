"""Train one workload and write down how fast: measure.py WORKLOAD SAMPLES BATCH SECONDS.

One fit. Its first epoch is the start; then come five repeats, each of whole epochs that together
take SECONDS or more. What it finds is in WORKLOAD.json beside it. The Keras of TensorFlow 2.5 will
do, and that of 2.21.
"""

import os
import platform
import random
import statistics
import sys
import time
from pathlib import Path

BEGAN_S = time.monotonic()

from gpuwatch import GpuWatch

from remote.clock import now
from remote.measured import Measured, Repeat
from remote.record import to_bytes

# Before the framework is imported: afterwards, this program is on the GPU, too.
WATCH = GpuWatch()

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

try:
    import numpy as np
    import tensorflow as tf
    from networks import NETWORKS
except ImportError as error:
    sys.exit(f"{sys.executable} cannot import TensorFlow: {error}")

SEED = 1
REPEATS = 5


class Stopwatch(tf.keras.callbacks.Callback):
    """Ends the fit after the last repeat.

    Attributes:
        start_s: as `Measured` has it, once the first repeat has ended.
    """

    def __init__(self, samples, seconds):
        super().__init__()
        self.samples = samples
        self.seconds = seconds
        self.repeats = []
        self.start_s = 0.0
        self._epochs = 0
        self._epoch_s = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_began_s = time.monotonic()
        if epoch and not self._epochs:
            self._repeat_began_s = self._epoch_began_s
        # So that the driver answers while the GPU works, and once a repeat.
        if epoch and self._spent() + self._epoch_s >= self.seconds / 2:
            WATCH.ask()

    def on_epoch_end(self, epoch, logs=None):
        now_s = time.monotonic()
        self._epoch_s = now_s - self._epoch_began_s
        if epoch == 0:
            self._warm_s = now_s - BEGAN_S
            return
        self._epochs += 1
        if self._spent() < self.seconds:
            return
        self.repeats.append(Repeat(self._epochs * self.samples, self._spent()))
        if len(self.repeats) == 1:
            self.start_s = max(0.0, self._warm_s - self.repeats[0].seconds / self._epochs)
        self._epochs = 0
        WATCH.take()
        if len(self.repeats) == REPEATS:
            self.model.stop_training = True

    def _spent(self):
        """Seconds, of this repeat."""
        return time.monotonic() - self._repeat_began_s


def measure(workload, samples, batch, seconds):
    random.seed(SEED)
    np.random.seed(SEED)
    tf.random.set_seed(SEED)
    model, loss, data = NETWORKS[workload](samples, batch)
    metrics = [] if loss == "mae" else ["accuracy"]
    model.compile(loss=loss, optimizer=tf.keras.optimizers.Adam(0.002), metrics=metrics)
    stopwatch = Stopwatch(samples, seconds)
    model.fit(**data, epochs=1_000_000, verbose=0, callbacks=[stopwatch])
    gpu = WATCH.gpu
    return Measured(
        workload=workload,
        at=now(),
        start_s=round(stopwatch.start_s, 3),
        repeats=tuple(stopwatch.repeats),
        python=platform.python_version(),
        tensorflow=tf.__version__,
        framework_gpus=tuple(device.name for device in tf.config.list_logical_devices("GPU")),
        cpus=os.cpu_count() or 1,
        gpu=gpu.name if gpu else "",
        driver=gpu.driver if gpu else "",
        compute_cap=gpu.compute_cap if gpu else "",
        gpu_percent=tuple(WATCH.percent),
        temperature_c=max(WATCH.temperatures, default=None),
        slowed=tuple(sorted(WATCH.slowed)),
        others=tuple(sorted(WATCH.others)),
    )


if __name__ == "__main__":
    workload, samples, batch, seconds = sys.argv[1:]
    measured = measure(workload, int(samples), int(batch), float(seconds))
    Path(__file__).with_name(f"{workload}.json").write_bytes(to_bytes(measured))
    rates = [repeat.samples / repeat.seconds for repeat in measured.repeats]
    print(
        f"{workload}: {statistics.median(rates):,.0f} samples/s "
        f"({min(rates):,.0f} to {max(rates):,.0f}), started in {measured.start_s:.1f} s"
    )
