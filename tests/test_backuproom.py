"""A backup that does not fit leaves the room that it took to the model."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from remote.kerasbackup import _Keras3


def test_what_was_written_of_it_is_given_back_though_it_is_still_open(tmp_path: Path) -> None:
    opened: list[int] = []

    class Full:
        """A keeper that finds the disk full in the middle, and cannot close its file either."""

        def __init__(self, folder: str) -> None:
            opened.append(os.open(Path(folder, "latest.weights.h5"), os.O_WRONLY | os.O_CREAT))

        def set_model(self, model: object) -> None:
            pass

        def on_epoch_end(self, epoch: int) -> None:
            os.write(opened[0], b"half a model")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        _Keras3(Full, tmp_path / "fit-1").save(None, 0, b"[]")

    assert not list((tmp_path / "fit-1").iterdir())
    assert os.fstat(opened[0]).st_size == 0
    os.close(opened[0])
