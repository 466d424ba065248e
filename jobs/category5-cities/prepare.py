"""Write the data: the temperatures of two cities, hour by hour.

`data/train.npz` holds `hourly`, float32 [20, 336, 2], degrees Fahrenheit in Seattle and in San
Francisco, of 20 fortnights. `heldout.npz` holds windows of 6 other fortnights: `x`, float32
[n, 24, 2], a day, and `y`, float32 [n, 12, 2], the twelve hours that follow.
"""

from pathlib import Path

import numpy as np

from jobs.preparing import chance, write
from jobs.temperatures import fortnights, hourly, windows

HOURS_IN, HOURS_OUT = 24, 12

both = np.stack([hourly("seattle_temps"), hourly("sf_temps")], axis=1)
train, held_out = fortnights(both, chance())
cut = windows(held_out, HOURS_IN + HOURS_OUT)
write(
    Path(__file__).parent,
    {"hourly": train},
    {"x": cut[:, :HOURS_IN], "y": cut[:, HOURS_IN:]},
)
