"""A category made into a notebook: frozen as for a VM, packed, and remembered on this laptop."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.elsewhere.bundle import largest, make_bundle
from orchestrator.elsewhere.exported import Exported, Exports
from orchestrator.elsewhere.notebook import make_notebook
from orchestrator.errors import UsageError
from orchestrator.plan import Overrides, make_request, make_run_id
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.size import format_size
from orchestrator.source.snapshot import take_snapshot
from remote import clock
from remote.atomic import replace_file

# Colab opens up to 20 MB from a drive, Kaggle less; base64 is a third of it.
WARN_BYTES = 15 * 1000**2

# Where a notebook goes that is given no place: part of the workspace, but never of a snapshot.
FOLDER = "notebooks"


@dataclass(frozen=True)
class Notebook:
    file: Path
    run_id: str


def export_notebook(
    workspace: Workspace,
    job: Job,
    overrides: Overrides,
    seed: str,
    target: Path | None,
    tell: Teller,
) -> Notebook:
    """Raises:
    UsageError: the notebook would be too large, or cannot be written.
    """
    snapshot = take_snapshot(workspace, [job], tell)
    now = datetime.now(UTC)
    run_id = make_run_id(job.name, now, secrets.token_hex(2))
    request = make_request(job, Remote("notebook", ""), snapshot, overrides, run_id)
    bundle = make_bundle(snapshot, request)
    environment = {f"PARAM_{name}": value for name, value in request.params.items()}
    if seed:
        environment["SEED"] = seed
    key = secrets.token_hex(16)
    text = json.dumps(make_notebook(request, bundle, key, environment), indent=1) + "\n"
    if len(text) > WARN_BYTES:
        tell.warn(
            f"the notebook has {format_size(len(text))}; Colab and Kaggle may refuse more than "
            f"{format_size(WARN_BYTES)}. The largest in it: {largest(snapshot)}"
        )
    # First what proves its result: a notebook without that would train for nothing.
    Exports(workspace.state).add(Exported(request, bundle.digest, key, clock.now()))
    file = target or _own_folder(workspace) / f"{run_id}.ipynb"
    try:
        replace_file(file, text.encode("ascii"))
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {(error.strerror or '').lower()}") from error
    if target is not None and workspace.root in file.absolute().parents:
        tell.warn(f"{file} lies in the workspace and would be sent from now on: see .trainignore")
    return Notebook(file, run_id)


def _own_folder(workspace: Workspace) -> Path:
    folder = workspace.root / FOLDER
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        replace_file(ignore, b"*\n")
    return folder
