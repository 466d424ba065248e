"""A year of temperatures, hour by hour, in fortnights of which every fourth is held out.

Source: `sf-temps.csv` and `seattle-temps.csv` of vega_datasets: 8,759 hours of 2010 each, in
degrees Fahrenheit. The values are smooth, as long-term means are.
"""

import csv
from pathlib import Path

import numpy as np
from vega_datasets import local_data

FORTNIGHT = 14 * 24


def hourly(city):
    """float32 [8759] of `sf_temps` or `seattle_temps`."""
    table = Path(getattr(local_data, city).filepath)
    with table.open(encoding="utf-8", newline="") as file:
        return np.array([row["temp"] for row in csv.DictReader(file)], "float32")


def fortnights(series, random):
    """(train, held out): [20 and 6, 336, ...] of `series`, both from all seasons."""
    whole = len(series) // FORTNIGHT
    parts = series[: whole * FORTNIGHT].reshape(whole, FORTNIGHT, *series.shape[1:])
    # One of every four that follow each other, so that a seed decides on days and not on seasons.
    held_out = [
        random.choice(np.arange(first, min(first + 4, whole))) for first in range(0, whole - 3, 4)
    ]
    return np.delete(parts, held_out, axis=0), parts[held_out]


def windows(parts, length):
    """[n, length, ...]: all windows that lie in one of the `parts`."""
    cut = np.lib.stride_tricks.sliding_window_view(parts, length, axis=1)
    return np.moveaxis(cut, -1, 2).reshape(-1, length, *parts.shape[2:])
