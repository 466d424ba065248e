"""Write the data: the temperature in San Francisco, hour by hour, with gaps to be filled.

`data/train.npz` holds `hourly`, float32 [20, 336], degrees Fahrenheit of 20 fortnights.
`heldout.npz` holds windows of 6 other fortnights: `x`, float32 [n, 12], the six hours before a gap
and the six after it, and `y`, float32 [n, 12], the twelve hours of the gap.
"""

from pathlib import Path

import numpy as np

from jobs.preparing import chance, write
from jobs.temperatures import fortnights, hourly, windows

SIDE, GAP = 6, 12

train, held_out = fortnights(hourly("sf_temps"), chance())
cut = windows(held_out, SIDE + GAP + SIDE)
x = np.concatenate([cut[:, :SIDE], cut[:, -SIDE:]], axis=1)
write(Path(__file__).parent, {"hourly": train}, {"x": x, "y": cut[:, SIDE:-SIDE]})
