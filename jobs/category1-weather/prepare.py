"""Write the data: days in Seattle, and how warm each became.

`data/train.npz` holds `x`, float32 [1096, 9], and `y`, float32 [1096], degrees Celsius;
`heldout.npz` the same for 365 other days.

Source: `seattle-weather.csv` of vega_datasets: 1,461 days of 2012 to 2015.
"""

import csv
from datetime import datetime
from pathlib import Path

import numpy as np
from vega_datasets import local_data

from jobs.preparing import chance, parted, write

KINDS = ("sun", "fog", "drizzle", "rain", "snow")


def features(row):
    day = datetime.strptime(row["date"], "%Y/%m/%d").timetuple().tm_yday  # noqa: DTZ007
    measured = [float(row[name]) for name in ("temp_min", "precipitation", "wind")]
    return [day, *measured, *(float(row["weather"] == kind) for kind in KINDS)]


with Path(local_data.seattle_weather.filepath).open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
x = np.array([features(row) for row in rows], "float32")
y = np.array([row["temp_max"] for row in rows], "float32")
train, held_out = parted(chance(), len(x), 365)
write(
    Path(__file__).parent,
    {"x": x[train], "y": y[train]},
    {"x": x[held_out], "y": y[held_out]},
)
