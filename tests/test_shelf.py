"""Kept files: none is lost, none is placed unless it is the one that was kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from orchestrator.errors import ModelDamaged
from orchestrator.records.shelf import Shelf, file_sha256

ABC = hashlib.sha256(b"abc").hexdigest()
UGLY = ["mymodel.h5", 'it\'s "my" model.keras', "試\nx.h5", "m" * 255]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / ".train")


def made(path: Path, content: bytes = b"abc") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", UGLY)
def test_what_is_kept_is_found_by_its_digest(shelf: Shelf, tmp_path: Path, name: str) -> None:
    kept = shelf.keep(made(tmp_path / "partial"), ABC, name)

    assert shelf.find(ABC) == kept
    assert kept.name == name
    assert kept.read_bytes() == b"abc"
    assert not (tmp_path / "partial").exists()


def test_the_same_content_is_kept_once(shelf: Shelf, tmp_path: Path) -> None:
    first = shelf.keep(made(tmp_path / "one"), ABC, "one.h5")
    second = shelf.keep(made(tmp_path / "two"), ABC, "two.h5")

    assert first == second
    assert everything(shelf.folder) == {first}
    assert everything(tmp_path) == {first}


@pytest.mark.parametrize("content", [b"abc", b""])
def test_adopting_copies_and_leaves_the_file_where_it_is(
    shelf: Shelf, tmp_path: Path, content: bytes
) -> None:
    mine = made(tmp_path / "a" / "mymodel.h5", content)
    sha256 = shelf.adopt(mine)
    shelf.adopt(mine)

    assert sha256 == hashlib.sha256(content).hexdigest() == file_sha256(mine)
    kept = shelf.find(sha256)
    assert kept is not None
    mine.write_bytes(b"changed")
    assert kept.read_bytes() == content
    assert everything(shelf.folder) == {kept}


def test_placing_makes_the_folder_and_replaces_the_whole_file(shelf: Shelf, tmp_path: Path) -> None:
    sha256 = shelf.adopt(made(tmp_path / "abc.h5"))
    target = tmp_path / "new" / "folder" / "mymodel.h5"
    shelf.place(sha256, target)
    assert target.read_bytes() == b"abc"

    made(target, b"something longer than before")
    shelf.place(sha256, target)
    assert target.read_bytes() == b"abc"
    assert everything(target.parent) == {target}


def test_a_kept_file_that_was_changed_leaves_the_target_as_it_was(
    shelf: Shelf, tmp_path: Path
) -> None:
    target = made(tmp_path / "a" / "mymodel.h5", b"old")
    kept = shelf.keep(made(tmp_path / "partial"), ABC, "mymodel.h5")
    kept.write_bytes(b"abd")

    with pytest.raises(ModelDamaged, match="was changed on this laptop") as raised:
        shelf.place(ABC, target)
    assert str(kept.parent) in raised.value.fix
    assert target.read_bytes() == b"old"
    assert everything(target.parent) == {target}


def test_what_was_never_kept_cannot_be_placed(shelf: Shelf, tmp_path: Path) -> None:
    target = made(tmp_path / "mymodel.h5", b"old")
    shelf.folder.mkdir(parents=True)
    (shelf.folder / ABC).mkdir()  # a crash between mkdir and rename

    assert shelf.find(ABC) is None
    with pytest.raises(ModelDamaged, match="no file with sha256"):
        shelf.place(ABC, target)
    assert target.read_bytes() == b"old"


def test_a_copy_that_fails_leaves_nothing_behind(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    sha256 = shelf.adopt(made(tmp_path / "abc.h5"))
    target = made(tmp_path / "a" / "mymodel.h5", b"old")
    monkeypatch.setattr("orchestrator.records.shelf.os.fsync", full)

    with pytest.raises(OSError, match="No space"):
        shelf.place(sha256, target)
    with pytest.raises(OSError, match="No space"):
        shelf.adopt(target)
    assert target.read_bytes() == b"old"
    assert everything(target.parent) == {target}
    assert len(everything(shelf.folder)) == 1


def test_no_file_has_no_digest(tmp_path: Path) -> None:
    assert file_sha256(tmp_path / "none") is None
    assert file_sha256(made(tmp_path / "abc")) == ABC
