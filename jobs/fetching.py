"""What the `prepare.py` of the online problems share: where data comes from, and how it is written.

Apart from `preparing.py`, on whose code the calibration of all other problems rests.
"""

import os
import sys
import urllib.request

from jobs.preparing import write_npz


def origin(address):
    """The address of the data set, or of the mirror that the environment's DATA_ORIGIN names."""
    return os.environ.get("DATA_ORIGIN", address)


def fetched(address):
    """A file's content; the script ends where there is none."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310
            return answer.read()
    except OSError as error:
        sys.exit(f"error: {address} cannot be fetched: {error}")


def write(folder, told, **held_out):
    """What is held out, and in `data/origin.txt` what the machine that trains is told.

    That file is written last: with both there, the data counts as prepared.
    """
    write_npz(folder / "heldout.npz", **held_out)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "origin.txt").write_text(told + "\n")
