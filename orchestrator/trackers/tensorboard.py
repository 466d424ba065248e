"""TensorBoard, over what was brought home of the runs of a workspace.

It runs in this process, so that it ends with the command, however that ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.records.mirror import Mirror
from orchestrator.trackers.eventfiles import has_events
from remote.boardserver import serve


def serve_here(folder: Path) -> str:
    """As `serve`, with our words where it is not installed.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    try:
        return serve(folder)
    except ImportError as error:
        raise UsageError(
            "TensorBoard is not installed", fix="pip install 'trainshed[tensorboard]'"
        ) from error


def no_events() -> UsageError:
    """Nothing was written that could be shown."""
    return UsageError(
        "there are no event files to show",
        cause="no run wrote any",
        fix="write `tensorboard: on` into the job in train.yaml, and train",
    )


class Shown:
    """The folder that TensorBoard is given: a link to the event files of each run, by its id.

    Attributes:
        any: whether there is a run in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.any = False

    def show(self, mirrors: Iterable[Mirror]) -> None:
        """Add those that have event files by now."""
        for mirror in mirrors:
            link = self.folder / mirror.run_id
            if not link.is_symlink() and has_events(mirror):
                link.symlink_to((mirror.folder / "events").resolve(), target_is_directory=True)
                self.any = True
