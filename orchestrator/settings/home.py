"""Where the tool keeps what belongs to the user and not to one workspace."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from orchestrator.errors import UsageError

OVERRIDE = "TRAINSHED_HOME"


def config_folder() -> Path:
    """The folder of `remotes.yaml`; made when missing, for this user's eyes only.

    Raises:
        UsageError: it cannot be made.
    """
    return _made(_override() or platformdirs.user_config_path("trainshed", appauthor=False))


def data_folder() -> Path:
    """The folder of the ledger; made as `config_folder` is."""
    return _made(_override() or platformdirs.user_data_path("trainshed", appauthor=False))


def ledger_file() -> Path:
    """The ledger; may not exist yet."""
    return data_folder() / "ledger.sqlite3"


def remotes_file() -> Path:
    """The user's remotes; may not exist yet."""
    return config_folder() / "remotes.yaml"


def config_file() -> Path:
    """What else the user wants everywhere; may not exist."""
    return config_folder() / "config.yaml"


def _override() -> Path | None:
    text = os.environ.get(OVERRIDE)
    # Absolute, so that a later change of the working folder does not move the user's data.
    return Path(text).expanduser().absolute() if text else None


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder}",
            cause=(error.strerror or str(error)).lower(),
            fix=f"make it yourself, or name another in the environment variable {OVERRIDE}",
        ) from error
    return folder
