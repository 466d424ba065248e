"""Write the held-out data: the sun's spots, month by month from 1999 on.

`heldout.npz` holds windows: `x`, float32 [n, 30], thirty months, and `y`, float32 [n], the one that
follows. No month of them is before 1999. The months to 1998 are fetched by the machine that trains,
from the address in `data/origin.txt`; the environment variable DATA_ORIGIN names a mirror. They are
one file with the later ones, which the script there passes over.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from jobs.fetching import fetched, origin, write

HERE = Path(__file__).parent
ORIGIN = origin("https://storage.googleapis.com/download.tensorflow.org/data/")
TRAINED_ON, MONTHS_IN = 3000, 30


try:
    rows = list(csv.reader(fetched(ORIGIN + "Sunspots.csv").decode("ascii").splitlines()))[1:]
    later = np.array([row[2] for row in rows[TRAINED_ON:]], "float32")
    windows = np.lib.stride_tricks.sliding_window_view(later, MONTHS_IN + 1)
except (ValueError, IndexError) as error:
    sys.exit(f"error: {ORIGIN}Sunspots.csv is not what it should be: {error}")
write(HERE, ORIGIN, x=windows[:, :MONTHS_IN], y=windows[:, MONTHS_IN])
