"""A model file that somebody brings, looked at from outside: whether it can be a category's model.

What is in it is judged where all models are, in the confined process that grades.
"""

from __future__ import annotations

import secrets
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.elsewhere.exported import Exported
from orchestrator.elsewhere.foreign import Foreign
from orchestrator.errors import UsageError
from orchestrator.grades.confine import Limits
from orchestrator.grades.modelcheck import suffix
from orchestrator.plan import make_run_id
from orchestrator.records.shelf import file_copy
from orchestrator.screen.printable import one_line
from orchestrator.settings.spec import Job
from orchestrator.size import format_size
from remote import clock
from remote.elsewhere import RECORD
from remote.runfolder import Artifact, RunRequest

_CONVERT = "load it where it was made, and: model.save('{name}')"


def take_model(
    file: Path, job: Job, where: str, duration_s: float, exported: Exported | None, scratch: Path
) -> Foreign:
    """A model of this category, copied; nothing else is changed.

    Args:
        where: what the user says it is from.
        duration_s: how long it trained, as far as the user said; else 0.
        exported: of the notebook whose model it is, where the user says so.
        scratch: a folder for the copy.

    Raises:
        UsageError: it cannot be this category's model.
    """
    if job.model is None:
        raise UsageError(
            f"{job.name} declares no model",
            fix="name it in train.yaml: outputs: [FOLDER/mymodel.h5]",
        )
    _refuse_strange(file, job)
    copy = scratch / "model"
    sha256 = file_copy(file, copy)
    artifact = Artifact(str(job.model), copy.stat().st_size, sha256)
    now = datetime.now(UTC)
    started_at = now - timedelta(seconds=duration_s)
    if exported is not None:
        begun_at = min(clock.parse(exported.exported_at), now)
        started_at = max(started_at, begun_at)
        request = exported.request
    else:
        begun_at = started_at
        run_id = make_run_id(job.name, now, secrets.token_hex(2))
        source = one_line(str(file.absolute()))
        request = RunRequest(run_id, job.name, "", f"train import {source}", job.outputs)
    ended_at = max(now, started_at + timedelta(microseconds=1))
    reason = one_line(f"imported from {file.absolute()}")
    return Foreign(request, where, begun_at, started_at, ended_at, 0, reason, ((artifact, copy),))


def _refuse_strange(file: Path, job: Job) -> None:
    assert job.model is not None
    convert = _CONVERT.format(name=job.model.name)
    try:
        found = file.stat()
        if stat.S_ISDIR(found.st_mode) and (file / RECORD).exists():
            raise UsageError(
                f"{file} is a notebook's result that was unpacked",
                cause="some browsers unpack what they download",
                fix="take the zip itself: get it again, or from the trash",
            )
        if stat.S_ISDIR(found.st_mode):
            what = "a SavedModel" if (file / "saved_model.pb").exists() else "a folder"
            raise UsageError(f"{file} is {what}, not a model file", fix=convert)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{file} is not a file")
        with file.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {(error.strerror or '').lower()}") from error
    if not found.st_size:
        raise UsageError(f"{file} is empty", fix="download it again")
    limit = Limits().model_bytes
    if found.st_size > limit:
        size = format_size(found.st_size)
        raise UsageError(f"{file} has {size}, and a model at most {format_size(limit)}")
    if is_pickle(file.name, head):
        raise UsageError(
            f"{file} is a pickle, and opening one executes what is in it; it was not opened",
            fix=convert,
        )
    kind, wanted = suffix(head), ".keras" if job.model.suffix == ".keras" else ".h5"
    if not kind:
        raise UsageError(
            f"{file} is no Keras model, neither .h5 nor .keras",
            cause=one_line(f"it begins with {head[:24]!r}"),
            fix=convert,
        )
    if kind != wanted:
        raise UsageError(
            f"{file} is a {kind} file, and the model of {job.name} is {job.model.name}",
            fix=convert,
        )


def is_pickle(name: str, head: bytes) -> bool:
    """Whether a file is one by its name, or by its first bytes (protocols 2 to 5)."""
    named = Path(name).suffix.lower() in (".pkl", ".pickle", ".joblib")
    return named or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))
