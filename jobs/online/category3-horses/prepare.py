"""Write the held-out data: horses and humans.

`heldout.npz` holds `x`, uint8 [256, 60, 60, 3], and `y`, uint8 [256]: the data set's own
test part, which is a file apart. The part for training is fetched by the machine that trains, from
the address in `data/origin.txt`; the environment variable DATA_ORIGIN names a mirror.
"""

import io
import os
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
from skimage.io import imread

from jobs.preparing import write_npz

HERE = Path(__file__).parent
ORIGIN = os.environ.get(
    "DATA_ORIGIN", "https://storage.googleapis.com/download.tensorflow.org/data/"
)
KINDS = ("horses", "humans")


def fetched(name):
    try:
        with urllib.request.urlopen(ORIGIN + name, timeout=60) as answer:  # noqa: S310
            return answer.read()
    except OSError as error:
        sys.exit(f"error: {ORIGIN}{name} cannot be fetched: {error}")


x, y = [], []
with zipfile.ZipFile(io.BytesIO(fetched("validation-horse-or-human.zip"))) as archive:
    for name in sorted(archive.namelist()):
        if name.endswith(".png"):
            pixels = imread(io.BytesIO(archive.read(name)))[..., :3]
            # The mean of every 5 x 5 pixels: from 300 x 300 to 60 x 60.
            x.append(pixels.reshape(60, 5, 60, 5, 3).mean(axis=(1, 3)).astype("uint8"))
            y.append(KINDS.index(name.split("/")[-2]))
x, y = np.array(x), np.array(y, "uint8")
write_npz(HERE / "heldout.npz", x=x, y=y)
(HERE / "data").mkdir(exist_ok=True)
(HERE / "data" / "origin.txt").write_text(ORIGIN + "\n")
