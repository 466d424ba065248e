"""A notebook's result is taken whole or not at all: what was changed on its way is refused."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.elsewhere import resultfile
from orchestrator.elsewhere.exported import Exported, Exports
from orchestrator.elsewhere.resultfile import is_result, take_result
from orchestrator.errors import UsageError
from orchestrator.grades.confine import Limits
from remote import clock
from remote.elsewhere import seal
from remote.runfolder import RunRequest

MODEL = b"\x89HDF\r\n\x1a\nweights"
KEY = "5" * 32
RUN = "a-20261121-120000-0001"
PLACES = ("a/mymodel.h5", "a/curve.txt", "a/more")

Record = dict[str, Any]
Files = dict[str, bytes]


def artifact(path: str, content: bytes) -> Record:
    digest = hashlib.sha256(content).hexdigest()
    return {"path": path, "size_bytes": len(content), "sha256": digest}


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    exports = Exports(tmp_path / "state")
    request = RunRequest(RUN, "a", "7" * 64, "python a/job.py", PLACES)
    hour_ago = clock.moment((datetime.now(UTC) - timedelta(hours=1)).timestamp())
    exports.add(Exported(request, "b" * 64, KEY, hour_ago))
    return exports


class Zip:
    """A result as a notebook writes it, to be spoilt before it is written."""

    def __init__(self) -> None:
        self.files: Files = {"log": b"Epoch 1\n", "outputs/a/mymodel.h5": MODEL}
        self.record: Record = {
            "version": 1,
            "run_id": RUN,
            "bundle": "b" * 64,
            "environment": {"PARAM_lr": "0.1", "SEED": "3"},
            "started_at": clock.moment((datetime.now(UTC) - timedelta(minutes=40)).timestamp()),
            "duration_s": 1200.0,
            "exit_code": 0,
            "where": "colab",
            "python": "3.11.13",
            "tensorflow": "2.19.0",
            "keras": "3.8.0",
            "gpu": "Tesla T4",
            "log": artifact("log", b"Epoch 1\n"),
            "outputs": [artifact("a/mymodel.h5", MODEL)],
        }
        self.key = KEY
        self.members: list[tuple[zipfile.ZipInfo, bytes]] = []

    def add(self, path: str, content: bytes) -> None:
        self.files[f"outputs/{path}"] = content
        self.record["outputs"].append(artifact(path, content))

    def write(self, file: Path) -> Path:
        record = json.dumps(self.record).encode()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("run.json", record)
            archive.writestr("run.seal", seal(record, self.key))
            for name, content in self.files.items():
                archive.writestr(name, content)
            for member, content in self.members:
                archive.writestr(member, content)
        return file


def take(zipped: Zip, exports: Exports, tmp_path: Path) -> Any:  # noqa: ANN401  # a Foreign
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return take_result(zipped.write(tmp_path / "result.zip"), exports, scratch)


def test_a_result_tells_all_of_its_run(exports: Exports, tmp_path: Path) -> None:
    zipped = Zip()
    zipped.add("a/more/plot.txt", b"a plot")
    foreign = take(zipped, exports, tmp_path)

    assert foreign.request.params == {"lr": "0.1", "SEED": "3"}
    assert foreign.request.tree == "7" * 64
    assert foreign.reason == "on colab: Tesla T4, Python 3.11.13, TensorFlow 2.19.0"
    assert foreign.ended_at - foreign.started_at == timedelta(minutes=20)
    assert [copy.read_bytes() for _, copy in foreign.files] == [MODEL, b"a plot"]
    assert foreign.log.read_bytes() == b"Epoch 1\n"


@pytest.mark.parametrize("hours", [-500, 500])
def test_a_wrong_clock_there_moves_no_run_out_of_its_time(
    exports: Exports, tmp_path: Path, hours: int
) -> None:
    zipped = Zip()
    wrong = datetime.now(UTC) + timedelta(hours=hours)
    zipped.record["started_at"] = clock.moment(wrong.timestamp())
    before = datetime.now(UTC) - timedelta(hours=1, seconds=30)
    foreign = take(zipped, exports, tmp_path)

    assert before <= foreign.begun_at <= foreign.started_at
    assert foreign.ended_at <= datetime.now(UTC)
    assert foreign.ended_at - foreign.started_at == timedelta(minutes=20)


def changed(field: str, value: object) -> Callable[[Zip], None]:
    def spoil(zipped: Zip) -> None:
        *path, last = field.split(".")
        place: Any = zipped.record
        for key in path:
            place = place[int(key)] if key.isdigit() else place[key]
        place[last] = value

    return spoil


def missing(field: str) -> Callable[[Zip], None]:
    return lambda zipped: zipped.record.pop(field) and None


def file(name: str, content: bytes | None) -> Callable[[Zip], None]:
    def spoil(zipped: Zip) -> None:
        if content is None:
            del zipped.files[name]
        else:
            zipped.files[name] = content

    return spoil


def member(
    name: str, *, mode: int = 0, packed: int = zipfile.ZIP_DEFLATED
) -> Callable[[Zip], None]:
    def spoil(zipped: Zip) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, packed
        zipped.members.append((info, b"/etc/passwd"))

    return spoil


def output(path: str, content: bytes = b"x") -> Callable[[Zip], None]:
    return lambda zipped: zipped.add(path, content)


def told_twice(zipped: Zip) -> None:
    zipped.record["outputs"] *= 2


def keyed(zipped: Zip) -> None:
    zipped.key = "6" * 32


OTHER = b"\x89HDF\r\n\x1a\nWEIGHTS"

# Each with the seal of whoever has the notebook, but for the one of the seal itself.
SPOILT: dict[str, tuple[Callable[[Zip], None], str]] = {
    "another seal": (keyed, "was changed since the notebook wrote it"),
    "another form": (changed("version", 2), "its form is 2"),
    "an unknown run": (changed("run_id", "a-1"), "'a-1' was not exported from this workspace"),
    "a run id that leaves": (changed("run_id", "../a"), "was not exported from this workspace"),
    "another bundle": (changed("bundle", "c" * 64), "made of other code or data"),
    "a variable of the system": (changed("environment", {"PATH": "."}), "neither PARAM_* nor SEED"),
    "a value of two lines": (changed("environment", {"SEED": "1\n2"}), "neither PARAM_* nor SEED"),
    "no time": (changed("started_at", "yesterday"), "not a UTC time"),
    "a time below nothing": (changed("duration_s", -1.0), "it took -1 s"),
    "a time of years": (changed("duration_s", 1e9), "it took 1e+09 s"),
    "an odd exit code": (changed("exit_code", 999), "its exit code is 999"),
    "an odd place": (changed("where", "azure-k80"), "it is from 'azure-k80'"),
    "no python": (changed("python", ""), "its version of python is ''"),
    "an odd tensorflow": (changed("tensorflow", "\x1b[2J"), "its version of tensorflow is"),
    "an odd keras": (changed("keras", "three"), "its version of keras is 'three'"),
    "an odd gpu": (changed("gpu", "T4\nerror: no"), "its GPU is 'T4 error: no'"),
    "no bundle": (missing("bundle"), "Told.bundle: missing"),
    "a size that is a text": (changed("outputs.0.size_bytes", "15"), "expected int"),
    "another size": (changed("outputs.0.size_bytes", 16), "mymodel.h5 has not the size"),
    "another digest": (changed("outputs.0.sha256", "0" * 64), "mymodel.h5 has not the sha256"),
    "another log's digest": (changed("log.sha256", "0" * 64), "log has not the sha256"),
    "another model": (file("outputs/a/mymodel.h5", OTHER), "mymodel.h5 has not the sha256"),
    "no model": (file("outputs/a/mymodel.h5", None), "it holds no outputs/a/mymodel.h5"),
    "no log": (file("log", None), "it holds no log"),
    "a foreign file": (file("outputs/a/evil.py", b"x"), "'outputs/a/evil.py', which no notebook"),
    "a file nobody declared": (output("a/grader.py"), "'a/grader.py', which train.yaml does not"),
    "an output that leaves": (output("../a/mymodel.h5"), "a name outside of it"),
    "a path that leaves": (member("../evil"), "'../evil', a name outside of it"),
    "a path from the root": (member("/evil"), "'/evil', a name outside of it"),
    "a path of Windows": (member("..\\evil"), "a name outside of it"),
    "an output told twice": (told_twice, "it tells of one output twice"),
    "a link": (member("outputs/a/curve.txt", mode=stat.S_IFLNK | 0o777), "a link or another"),
    "a device": (member("outputs/a/curve.txt", mode=stat.S_IFBLK | 0o600), "a link or another"),
    "odd packing": (member("outputs/a/curve.txt", packed=zipfile.ZIP_LZMA), "packed in a way"),
    "a pickle by name": (output("a/more/history.pkl"), "history.pkl is a pickle"),
    "a pickle by content": (output("a/more/history", b"\x80\x04K\x01."), "history is a pickle"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_result_is_refused_in_plain_words(
    exports: Exports, tmp_path: Path, fault: str
) -> None:
    zipped = Zip()
    spoil, words = SPOILT[fault]
    spoil(zipped)
    with pytest.raises(UsageError) as refusal:
        take(zipped, exports, tmp_path)

    assert words in str(refusal.value)
    assert "nothing of it was kept" in refusal.value.render()


def test_a_file_that_stands_twice_is_refused(exports: Exports, tmp_path: Path) -> None:
    zipped = Zip()
    zipped.members.append((zipfile.ZipInfo("log"), b"other"))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped.write(tmp_path / "result.zip")
    with pytest.raises(UsageError, match="it holds 'log' twice"):
        take_result(path, exports, tmp_path)


def test_an_encrypted_file_is_refused(exports: Exports, tmp_path: Path) -> None:
    path = Zip().write(tmp_path / "result.zip")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="it holds the encrypted file"):
        take_result(path, exports, tmp_path)


def test_a_bomb_is_refused_before_it_is_unpacked(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resultfile, "LIMIT_BYTES", 1_000_000)
    zipped = Zip()
    zipped.add("a/curve.txt", b"\0" * 2_000_000)
    with pytest.raises(UsageError, match=r"it unpacks to 2\.0 MB, more than 1\.0 MB"):
        take(zipped, exports, tmp_path)
    assert not list((tmp_path / "scratch").iterdir())


def test_a_giant_model_or_record_is_refused(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Zip().write(tmp_path / "result.zip")
    monkeypatch.setattr(resultfile, "Limits", lambda: Limits(model_bytes=len(MODEL) - 1))
    with pytest.raises(UsageError, match=r"mymodel\.h5 has 15 B, and a model at most 14 B"):
        take_result(path, exports, tmp_path)
    monkeypatch.setattr(resultfile, "_RECORD_BYTES", 100)
    with pytest.raises(UsageError, match=r"its run\.json or run\.seal is too large"):
        take_result(path, exports, tmp_path)


def test_a_size_that_is_a_lie_unpacks_no_more_than_it_says(
    exports: Exports, tmp_path: Path
) -> None:
    zipped = Zip()
    zipped.add("a/curve.txt", b"\0" * 2_000_000)
    zipped.record["outputs"][1]["size_bytes"] = 10
    path = zipped.write(tmp_path / "result.zip")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be imported"):
        take_result(path, exports, tmp_path)
    assert all(one.stat().st_size <= 100 for one in tmp_path.glob("[0-9]"))


@pytest.mark.parametrize("where", ["its list's size", "a 64-bit list"])
def test_a_list_that_would_fill_the_memory_is_not_read(
    exports: Exports, tmp_path: Path, where: str
) -> None:
    path = Zip().write(tmp_path / "result.zip")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x05\x06")
    if where == "a 64-bit list":
        content[at:at] = b"PK\x06\x07" + bytes(16)
    else:
        content[at + 12 : at + 16] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UsageError, match="it lists more files than a result has"):
        take_result(path, exports, tmp_path)


@pytest.mark.parametrize("part", range(0, 100, 7))
def test_a_download_that_was_cut_short_is_refused(
    exports: Exports, tmp_path: Path, part: int
) -> None:
    path = Zip().write(tmp_path / "result-x.zip")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * part // 100])
    with pytest.raises(UsageError, match="cannot be imported"):
        take_result(path, exports, tmp_path)


def test_any_byte_that_was_changed_is_noticed_or_harmless(exports: Exports, tmp_path: Path) -> None:
    whole = Zip().write(tmp_path / "whole.zip").read_bytes()
    path, scratch = tmp_path / "result.zip", tmp_path / "scratch"
    scratch.mkdir()
    for at in range(0, len(whole), 9):
        content = bytearray(whole)
        content[at] ^= 0x41
        path.write_bytes(content)
        try:
            foreign = take_result(path, exports, scratch)
        except UsageError:
            continue
        # Times and flags of the zip itself say nothing that is kept.
        ((_, copy),) = foreign.files
        assert (copy.read_bytes(), foreign.exit_code, foreign.where) == (MODEL, 0, "colab")


def test_a_keras_file_is_not_taken_for_a_result(tmp_path: Path) -> None:
    model = tmp_path / "mymodel.keras"
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("config.json", "{}")
    other = tmp_path / "saved.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("saved_model.pb", "")

    assert not is_result(model)
    assert is_result(other)
    assert is_result(Zip().write(tmp_path / "renamed"))
