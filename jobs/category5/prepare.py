"""Write the data of category 5: the temperature in Seattle, hour by hour through a year.

`data/train.npz` holds `hourly`, float32 [6551], degrees Fahrenheit from 1 January to 30 September.
`heldout.npz` holds windows of October to December: `x`, float32 [2173, 12], twelve hours, and
`y`, float32 [2173, 24], the 24 hours that follow. No hour is in both files. With a seed the year
begins up to thirty days earlier or later, and all of these dates with it.

Source: `seattle-temps.csv` of the vega_datasets package: 8,759 hours of 2010, one left out for
summer time. The values are smooth, as long-term means are.
"""

import csv
import os
import sys
from pathlib import Path

try:
    import numpy as np
    from vega_datasets import local_data
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is missing: pip install '.[practice]' in trainshed's folder")

HERE = Path(__file__).parent
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else None
FIRST_HELD_OUT = "2010/10/01 00:00"
HOURS_IN, HOURS_OUT = 12, 24


def write_npz(path, **arrays):
    """Make `arrays` the content of `path`, or leave `path` as it was.

    Equal arrays give equal bytes: a data folder is sent again only when its content changed.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main():
    with Path(local_data.seattle_temps.filepath).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    hourly = np.array([row["temp"] for row in rows], "float32")
    cut = [row["date"] for row in rows].index(FIRST_HELD_OUT)
    if SEED is not None:
        # Long-term means have no first year: after December comes the same January.
        hourly = np.roll(hourly, 24 * np.random.RandomState(SEED).randint(-30, 31))
    windows = np.lib.stride_tricks.sliding_window_view(hourly[cut:], HOURS_IN + HOURS_OUT)
    write_npz(HERE / "heldout.npz", x=windows[:, :HOURS_IN], y=windows[:, HOURS_IN:])
    write_npz(HERE / "data" / "train.npz", hourly=hourly[:cut])


if __name__ == "__main__":
    main()
