"""Write the data of category 1: cars of 1970-82 and how far each goes on a gallon.

`data/train.npz` holds `x`, float32 [294, 9], and `y`, float32 [294], miles per gallon;
`heldout.npz` the same for 98 other cars. The columns of `x` are `COLUMNS` in their own units, the
year (70 to 82), and a 1 at one of `ORIGINS`.

Source: `cars.json` of the vega_datasets package: 406 cars, of which 392 are complete.
"""

import json
import os
import sys
from pathlib import Path

try:
    import numpy as np
    from vega_datasets import local_data
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is missing: pip install '.[practice]' in trainshed's folder")

HERE = Path(__file__).parent
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 1
HELD_OUT = 98  # a quarter
COLUMNS = ("Cylinders", "Displacement", "Horsepower", "Weight_in_lbs", "Acceleration")
ORIGINS = ("USA", "Europe", "Japan")


def complete_cars():
    """The cars without a gap, as (features, miles per gallon), in the order of the file."""
    cars = json.loads(Path(local_data.cars.filepath).read_text(encoding="utf-8"))
    for car in cars:
        if None in car.values():
            continue
        year = int(car["Year"][:4]) - 1900
        origin = [float(car["Origin"] == name) for name in ORIGINS]
        yield [*(car[column] for column in COLUMNS), year, *origin], car["Miles_per_Gallon"]


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
    features, consumption = zip(*complete_cars(), strict=True)
    x, y = np.array(features, "float32"), np.array(consumption, "float32")
    # RandomState and not default_rng: numpy promises never to change its stream.
    order = np.random.RandomState(SEED).permutation(len(x))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    write_npz(HERE / "heldout.npz", x=x[held_out], y=y[held_out])
    write_npz(HERE / "data" / "train.npz", x=x[train], y=y[train])


if __name__ == "__main__":
    main()
