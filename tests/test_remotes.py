"""The user's remotes file, and the folders it stands in."""

from __future__ import annotations

import multiprocessing
import os
import stat
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator import home
from orchestrator.config import load_remotes
from orchestrator.errors import ConfigError, UsageError
from orchestrator.remotes import add_remote, remove_remote
from orchestrator.spec import CloudSpec, Price, Remote

AZURE = Remote(
    "azure-k80",
    "203.0.113.7",
    price=Price(Decimal("0.50")),
    cloud=CloudSpec("azure", (("vm", "7"),)),
)
LAB = Remote("lab", "lab.example")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "remotes.yaml"


def test_what_is_added_is_there_until_it_is_removed(path: Path) -> None:
    add_remote(path, AZURE)
    add_remote(path, LAB)
    assert load_remotes(path) == (AZURE, LAB)
    assert remove_remote(path, "azure-k80") == AZURE
    assert load_remotes(path) == (LAB,)
    remove_remote(path, "lab")
    assert load_remotes(path) == ()


def test_a_name_is_taken_once(path: Path) -> None:
    add_remote(path, LAB)
    with pytest.raises(UsageError, match="'lab' exists already"):
        add_remote(path, Remote("lab", "elsewhere"))
    assert load_remotes(path) == (LAB,)


def test_removing_what_is_not_there_says_what_is(path: Path) -> None:
    add_remote(path, LAB)
    with pytest.raises(UsageError, match="'lap'") as caught:
        remove_remote(path, "lap")
    assert caught.value.cause == "it holds lab"


@pytest.mark.parametrize(
    "remote",
    [
        Remote("bad name", "h"),
        Remote("a", "-oProxyCommand=x"),
        Remote("a", "h\nb"),
        Remote("a", "h", price=Price(Decimal(0))),
        Remote("a", "h", price=Price(Decimal("NaN"))),
        Remote("a", "h", port=0),
    ],
)
def test_a_remote_that_could_not_be_read_back_is_not_written(path: Path, remote: Remote) -> None:
    add_remote(path, LAB)
    with pytest.raises(ConfigError):
        add_remote(path, remote)
    assert load_remotes(path) == (LAB,)


def test_a_broken_file_is_not_overwritten(path: Path) -> None:
    path.write_text("remotes: [")
    with pytest.raises(ConfigError):
        add_remote(path, LAB)
    assert path.read_text() == "remotes: ["


def test_only_the_user_can_read_the_file(path: Path) -> None:
    add_remote(path, LAB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.yaml"
    target.write_text("")
    path.symlink_to(target)
    add_remote(path, LAB)
    assert path.is_symlink()
    assert load_remotes(target) == (LAB,)


def test_a_folder_that_is_missing_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        add_remote(tmp_path / "none" / "remotes.yaml", LAB)


def _add_some(path: Path, start: int) -> None:
    for number in range(start, start + 10):
        add_remote(path, Remote(f"r{number}", "h"))


def test_two_that_add_at_once_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    adders = [context.Process(target=_add_some, args=(path, start)) for start in (0, 10, 20)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    assert {remote.name for remote in load_remotes(path)} == {f"r{n}" for n in range(30)}


def test_the_users_folders_are_made_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path / "a b" / "é"))
    assert home.config_folder() == home.data_folder() == tmp_path / "a b" / "é"
    assert stat.S_IMODE(home.data_folder().stat().st_mode) == 0o700


def test_without_the_override_the_folders_are_the_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert {home.config_folder().name, home.data_folder().name} == {"trainshed"}
    assert home.config_folder() != home.data_folder()
    assert home.remotes_file().is_relative_to(tmp_path)


def test_a_relative_override_does_not_move_with_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINSHED_HOME", "mine")
    assert home.data_folder() == tmp_path / "mine"


def test_a_file_in_the_folders_place_is_an_error_that_names_the_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAINSHED_HOME", os.fspath(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot make the folder") as caught:
        home.data_folder()
    assert "TRAINSHED_HOME" in caught.value.fix
