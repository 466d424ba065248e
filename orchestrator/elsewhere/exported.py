"""What this laptop keeps of each run that left it in a notebook, until its result comes home.

.train/exports/<run id>.json
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from remote.atomic import replace_file
from remote.record import from_bytes, to_bytes
from remote.runfolder import RunRequest, is_run_id


class Exported(NamedTuple):
    """Attributes:
    bundle: sha256 of what the notebook carries.
    key: seals its result.
    exported_at: by this laptop's clock.
    """

    request: RunRequest
    bundle: str
    key: str
    exported_at: str


class Exports:
    """Args:
    state: the workspace's `.train`.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "exports"

    def add(self, exported: Exported) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._path(exported.request.run_id), to_bytes(exported))

    def get(self, run_id: str) -> Exported | None:
        """None for a run that was not exported here, and for what cannot name a run.

        Raises:
            Malformed: the record was damaged.
        """
        if not is_run_id(run_id) or not self._path(run_id).exists():
            return None
        return from_bytes(Exported, self._path(run_id).read_bytes())

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.json"
