"""The zip that an exported notebook leaves: read with mistrust, and taken whole or not at all.

It came through somebody's browser, and maybe through a friend. Its record bears a seal made with a
key that only the notebook and this laptop have, and names the size and the digest of everything
else. Whoever has the notebook can forge a result; what they gain is a model of theirs on your
shelf, which is graded as any other.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stat
import zipfile
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.declared import accept
from orchestrator.elsewhere.exported import Exported, Exports
from orchestrator.elsewhere.foreign import Foreign
from orchestrator.elsewhere.modelfile import is_pickle
from orchestrator.errors import UsageError
from orchestrator.grades.confine import Limits
from orchestrator.screen.printable import one_line
from orchestrator.size import format_size
from remote import clock
from remote.atomic import naming
from remote.elsewhere import LOG, OUTPUTS, RECORD, SEAL, VERSION, Told, seal
from remote.protocol import CHUNK_BYTES
from remote.record import Malformed, from_bytes
from remote.runfolder import Artifact, RunRequest

# All of it, unpacked. What a notebook carries comes home in a zip without the 64-bit extension.
LIMIT_BYTES = 2**31
_RECORD_BYTES = 4 * 2**20
# The list of members, which is read at once; 10,000 take about one.
_LIST_BYTES = 4 * 2**20
_END = b"PK\x05\x06"
_END_BYTES, _COMMENT_BYTES = 22, 2**16
_LOCATOR_64, _LOCATOR_BYTES = b"PK\x06\x07", 20
_DAMAGE = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)

_WHERE = ("colab", "kaggle", "notebook")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,39}")
_VARIABLE = re.compile(r"SEED|PARAM_[A-Za-z_][A-Za-z0-9_]{0,79}")
_LONGEST_S = 366 * 86400.0


class _Refused(Exception):
    """Why, in words for a person."""


def is_result(file: Path) -> bool:
    """Whether it is a zip of ours and no .keras file, which is a zip, too."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"PK\x03\x04":
                return False
        _check_list(file)
        with zipfile.ZipFile(file) as archive:
            names = {member.filename for member in archive.infolist()}
    except (_Refused, *_DAMAGE):
        return file.suffix == ".zip"
    return RECORD in names or ("config.json" not in names and file.suffix == ".zip")


def take_result(file: Path, exports: Exports, scratch: Path) -> Foreign:
    """The run that a result zip tells of, with verified copies of its files in `scratch`.

    Raises:
        UsageError: it is not the result of a notebook exported here, or was changed since.
    """
    try:
        _check_list(file)
        with zipfile.ZipFile(file) as archive:
            return _take(archive, exports, scratch)
    except _Refused as refused:
        raise UsageError(
            f"{file} cannot be imported: {refused}",
            cause="nothing of it was kept",
            fix="take the result from the notebook again, unopened and unpacked by nobody",
        ) from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise UsageError(
            f"{file} cannot be imported: it is damaged or cut short",
            cause=one_line(str(error)),
            fix="download it again",
        ) from error


def _take(archive: zipfile.ZipFile, exports: Exports, scratch: Path) -> Foreign:
    members = _members(archive)
    told, exported = _read_record(archive, members, exports)
    wanted = {LOG: told.log, **{OUTPUTS + output.path: output for output in told.outputs}}
    _check_told(told, exported)
    for name in members.keys() - {RECORD, SEAL, *wanted}:
        raise _Refused(f"it holds {_shown(name)}, which no notebook of ours writes")
    copies = {
        name: _unpack(archive, members, name, artifact, scratch / str(number))
        for number, (name, artifact) in enumerate(wanted.items())
    }
    now = datetime.now(UTC)
    begun_at = min(clock.parse(exported.exported_at), now)
    # Its clock may be wrong, but it ran after the export and before now.
    lasted = min(timedelta(seconds=told.duration_s), now - begun_at)
    ended_at = min(max(clock.parse(told.started_at), begun_at) + lasted, now)
    return Foreign(
        request=_request(told, exported),
        where=told.where,
        begun_at=begun_at,
        started_at=ended_at - lasted,
        ended_at=ended_at,
        exit_code=told.exit_code,
        reason=_reason(told),
        files=tuple((output, copies[OUTPUTS + output.path]) for output in told.outputs),
        log=copies[LOG],
    )


def _check_list(file: Path) -> None:
    """Refuse a list of members that would fill the memory, before it is read.

    Source: PKWARE's APPNOTE.TXT, 4.3.15 and 4.3.16.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _END_BYTES - _COMMENT_BYTES - _LOCATOR_BYTES))
        tail = stream.read()
    at = tail.rfind(_END)
    if at < 0:
        return  # it is no zip: `zipfile` says so
    listed = int.from_bytes(tail[at + 12 : at + 16], "little")
    is_64 = at >= _LOCATOR_BYTES and tail[at - _LOCATOR_BYTES :].startswith(_LOCATOR_64)
    if listed > _LIST_BYTES or is_64:
        raise _Refused("it lists more files than a result has")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        shown = _shown(member.filename)
        parts = member.filename.split("/")
        if {"", ".", ".."} & set(parts) or set("\\:") & set(member.filename):
            raise _Refused(f"it holds {shown}, a name outside of it")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _Refused(f"it holds {shown}, a link or another thing that is no file")
        if member.filename in members:
            raise _Refused(f"it holds {shown} twice")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refused(f"it holds {shown}, packed in a way that no notebook of ours does")
        if member.flag_bits & 1:
            raise _Refused(f"it holds the encrypted file {shown}")
        members[member.filename] = member
    unpacked = sum(member.file_size for member in members.values())
    if unpacked > LIMIT_BYTES:
        limit = format_size(LIMIT_BYTES)
        raise _Refused(f"it unpacks to {format_size(unpacked)}, more than {limit}")
    return members


def _read_record(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], exports: Exports
) -> tuple[Told, Exported]:
    for name in (RECORD, SEAL, LOG):
        if name not in members:
            raise _Refused(f"it holds no {name}")
    if members[RECORD].file_size > _RECORD_BYTES or members[SEAL].file_size > _RECORD_BYTES:
        raise _Refused(f"its {RECORD} or {SEAL} is too large")
    record = archive.read(RECORD)
    try:
        told = from_bytes(Told, record)
    except Malformed as error:
        raise _Refused(one_line(f"its {RECORD} is not what a notebook writes: {error}")) from None
    exported = exports.get(told.run_id)
    if exported is None:
        raise _Refused(f"its run {_shown(told.run_id)} was not exported from this workspace")
    if not hmac.compare_digest(archive.read(SEAL), seal(record, exported.key).encode()):
        raise _Refused(f"its {RECORD} was changed since the notebook wrote it")
    return told, exported


def _check_told(told: Told, exported: Exported) -> None:
    """Of what the seal says that the notebook wrote it; but anybody may have changed that, too."""
    if told.version != VERSION:
        raise _Refused(f"its form is {told.version}, and this trainshed knows {VERSION}")
    if told.bundle != exported.bundle:
        raise _Refused("it was made of other code or data than were exported")
    if not 0 <= told.duration_s <= _LONGEST_S:
        raise _Refused(f"it took {told.duration_s:g} s")
    try:
        clock.parse(told.started_at)
    except ValueError as error:
        raise _Refused(one_line(str(error))) from None
    if told.where not in _WHERE:
        raise _Refused(f"it is from {_shown(told.where)}")
    for name in ("python", "tensorflow", "keras"):
        found = getattr(told, name)
        if (found or name == "python") and not _VERSION.fullmatch(found):
            raise _Refused(f"its version of {name} is {_shown(found)}")
    if told.gpu != one_line(told.gpu, 100):
        raise _Refused(f"its GPU is {_shown(told.gpu)}")
    if not -255 <= told.exit_code <= 255:
        raise _Refused(f"its exit code is {told.exit_code}")
    for name, value in told.environment.items():
        if not _VARIABLE.fullmatch(name) or value != one_line(value, 1000):
            raise _Refused(f"it was given {_shown(name)}, which is neither PARAM_* nor SEED")
    sound = accept(told.outputs, exported.request.outputs)
    for output in told.outputs:
        if output not in sound:
            raise _Refused(f"it holds {_shown(output.path)}, which train.yaml does not declare")
    if len(sound) < len(told.outputs):
        raise _Refused("it tells of one output twice")


def _unpack(
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    name: str,
    artifact: Artifact,
    target: Path,
) -> Path:
    member = members.get(name)
    if member is None:
        raise _Refused(f"it holds no {name}")
    if member.file_size != artifact.size_bytes:
        raise _Refused(f"{name} has not the size that its {RECORD} tells")
    limit = Limits().model_bytes
    if Path(name).suffix in (".h5", ".keras") and artifact.size_bytes > limit:
        size = format_size(artifact.size_bytes)
        raise _Refused(f"{name} has {size}, and a model at most {format_size(limit)}")
    with archive.open(member) as stream:
        if name != LOG and is_pickle(name, stream.read(2)):
            raise _Refused(f"{name} is a pickle, and opening one executes what is in it")
    digest = hashlib.sha256()
    # `zipfile` reads no member further than its declared size.
    with archive.open(member) as stream, naming(target), target.open("wb") as copy:
        while block := stream.read(CHUNK_BYTES):
            digest.update(block)
            copy.write(block)
    if digest.hexdigest() != artifact.sha256:
        raise _Refused(f"{name} has not the sha256 that its {RECORD} tells")
    return target


def _request(told: Told, exported: Exported) -> RunRequest:
    """As it was executed: the values of the environment may have been changed in the notebook."""
    return exported.request._replace(
        params={name.removeprefix("PARAM_"): value for name, value in told.environment.items()}
    )


def _reason(told: Told) -> str:
    framework = f"TensorFlow {told.tensorflow}" if told.tensorflow else "no TensorFlow"
    return f"on {told.where}: {told.gpu or 'no GPU'}, Python {told.python}, {framework}"


def _shown(text: str) -> str:
    return repr(one_line(text, 80))
