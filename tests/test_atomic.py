"""A file is replaced whole or not at all, and removed the same way, wherever the process dies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote.atomic import discard, replace_file, sync_folder, temporary_beside
from tests.forks import at_once, fork, killed_at_each_step

OLD, NEW = b"old", b"new" * 1000


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".tmp-*"))


def test_a_process_killed_at_any_step_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    seen = set()
    file = tmp_path / "file"

    def replace(step: int) -> None:
        replace_file(file, NEW)

    file.write_bytes(OLD)
    for _ in killed_at_each_step(replace):
        seen.add(file.read_bytes())
        file.write_bytes(OLD)
    assert seen == {OLD}
    assert file.read_bytes() == NEW


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    contents = [b"a" * 100_000, b"b" * 50_000]
    replace_file(file, contents[0])

    def write_or_read(number: int) -> None:
        for turn in range(200):
            if number == 0:
                replace_file(file, contents[turn % 2])
            else:
                assert file.read_bytes() in contents

    assert at_once(3, write_or_read) == [0, 0, 0]


def test_a_failed_write_leaves_the_old_content_and_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "file"
    file.write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(file, NEW)
    assert file.read_bytes() == OLD
    assert not leftovers(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_an_error_without_leftover(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "file", NEW)
    assert not leftovers(tmp_path)


def test_a_name_as_long_as_names_can_be_is_replaced(tmp_path: Path) -> None:
    for name in ["n" * 255, "ü" * 127, " '\"\n\t*"]:
        replace_file(tmp_path / name, NEW)
        assert (tmp_path / name).read_bytes() == NEW
    assert len({temporary_beside(tmp_path / "x") for _ in range(100)}) == 100


def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(OLD)
    (tmp_path / "link").symlink_to("target")
    replace_file(tmp_path / "link", NEW)
    assert (tmp_path / "target").read_bytes() == OLD
    assert not (tmp_path / "link").is_symlink()


def test_a_folder_can_be_synced_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")


def grow(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    for name in ["1", "a/2", "a/b/3"]:
        (folder / name).write_bytes(OLD)


def test_a_folder_goes_whole_or_not_at_all(tmp_path: Path) -> None:
    def drop(step: int) -> None:
        discard(tmp_path / str(step))

    last = -1
    for step in killed_at_each_step(drop, lambda step: grow(tmp_path / str(step))):
        folder, last = tmp_path / str(step), step
        assert not folder.exists() or len(list(folder.rglob("*"))) == 5
    assert not (tmp_path / str(last + 1)).exists()
    assert len(leftovers(tmp_path)) == last  # of all that were killed after the rename


def test_files_and_links_are_discarded_and_not_what_they_point_to(tmp_path: Path) -> None:
    grow(tmp_path / "kept")
    (tmp_path / "kept").chmod(0o750)
    grow(tmp_path / "gone")
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to("kept")
    for name in ["gone", "link", "never there"]:
        discard(tmp_path / name)
    discard(tmp_path / "kept" / "1")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "kept" / "a" / "b" / "3").read_bytes() == OLD


def test_folders_without_permission_to_remove_from_them_go_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    def as_somebody_else() -> None:
        os.chdir(tmp_path)
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        folder = Path("tree")
        grow(folder)
        for name in ["a/b", "a"]:
            (folder / name).chmod(0o500)
        discard(folder)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(as_somebody_else), 0)[1]) == 0
    assert not list(tmp_path.iterdir())
