"""Which files go into a snapshot, and when they are read again."""

from __future__ import annotations

import hashlib
import os
import socket
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.source.hashing import Known
from orchestrator.source.ignore import Ignore
from orchestrator.source.scan import Scan, scan
from orchestrator.source.statcache import StatCache
from remote.tree import Entry, decode_tree, encode_tree

LONG_AGO = (1_000_000_000, 1_000_000_000)
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n"


def write(root: Path, files: dict[str, str]) -> Path:
    """Files that were last changed long ago, as those of a workspace mostly were."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, LONG_AGO)
    return root


def file(text: str, *, executable: bool = False) -> Entry:
    content = text.encode()
    return Entry("file", len(content), hashlib.sha256(content).hexdigest(), executable)


class Read:
    """Which files a scan reads."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, path: str, size_bytes: int) -> None:
        assert size_bytes > 0
        self.paths.append(path)


def status(**marks: int) -> Any:  # noqa: ANN401  # as far as it is asked
    return SimpleNamespace(**marks)


def rescan(root: Path, **options: object) -> tuple[Scan, list[str]]:
    read = Read()
    cache = root / ".train" / "digests"
    found = scan(root, Ignore(root), cache, read, **options)  # type: ignore[arg-type]
    return found, sorted(set(read.paths))


def refusal(root: Path, **options: object) -> list[str]:
    with pytest.raises(UsageError) as caught:
        rescan(root, **options)
    assert ".trainignore" in caught.value.fix
    return caught.value.cause.split("\n")


def test_a_tree_is_its_files_and_links_by_sorted_path(tmp_path: Path) -> None:
    write(tmp_path, {"b/train.py": "x", "a b/é\n'\"": "", "B/train.py": "y", "n" * 255: "z"})
    (tmp_path / "b" / "run.sh").write_text("#!")
    (tmp_path / "b" / "run.sh").chmod(0o755)
    (tmp_path / "b" / "link").symlink_to("../a b")
    (tmp_path / "b" / "dangling").symlink_to("nothing")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    found = scan(tmp_path, Ignore(tmp_path))
    assert found.entries == {
        "B/train.py": file("y"),
        "a b/é\n'\"": file(""),
        "b/dangling": Entry("link", 0, "", False, "nothing"),
        "b/link": Entry("link", 0, "", False, "../a b"),
        "b/run.sh": file("#!", executable=True),
        "b/train.py": file("x"),
        "n" * 255: file("z"),
    }
    assert list(found.entries) == sorted(found.entries)
    assert decode_tree(encode_tree(found.entries)) == found.entries


def test_an_empty_workspace_is_an_empty_tree(tmp_path: Path) -> None:
    assert scan(tmp_path, Ignore(tmp_path)) == Scan({}, (), 0)


def test_two_forms_of_one_name_are_two_files(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    write(tmp_path, dict.fromkeys(names, "x"))
    assert sorted(scan(tmp_path, Ignore(tmp_path)).entries) == sorted(names)


def test_what_is_left_out_is_counted_and_secrets_are_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".gitignore": "*.log\nignored.pem",
            "a.log": "",
            "ignored.pem": "",
            ".env": "",
            "c/notes.txt": f"my key:\n{KEY}",
            "c/late.txt": " " * (64 << 10) + KEY,
            ".git/HEAD": "",
        },
    )
    found = scan(tmp_path, Ignore(tmp_path))
    assert sorted(found.entries) == [".gitignore", "c/late.txt"]
    assert found.left_out_secrets == (".env", "c/notes.txt")
    assert found.left_out == 4


def test_held_out_data_is_in_no_tree(tmp_path: Path) -> None:
    write(tmp_path, {"c/grader.py": "", "c/heldout/a.png": "x", "c/heldout.csv": "x", "c/c.py": ""})
    (tmp_path / ".trainignore").write_text("!/**\n!heldout/\n!heldout.csv\n")
    assert sorted(scan(tmp_path, Ignore(tmp_path)).entries) == [".trainignore", "c/c.py"]


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../outside", "..", "c/../../outside", "/", "../w/c/a"]
)
def test_a_link_out_of_the_workspace_is_refused_by_name(tmp_path: Path, target: str) -> None:
    root = write(tmp_path / "w", {"c/a": ""})
    (root / "x y").symlink_to(target)
    (root / "c" / "new\nline").symlink_to(f"../{target}" if target[0] != "/" else target)
    assert refusal(root) == [
        "'c/new\\nline': a link out of the workspace",
        "x y: a link out of the workspace",
    ]
    (root / ".trainignore").write_text("x y\nnew*\n")
    assert sorted(rescan(root)[0].entries) == [".trainignore", "c/a"]


def test_a_link_that_leaves_through_another_link_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "w", {"deep/er/a": ""})
    (root / "deep" / "er" / "up").symlink_to("../..")
    (root / "deep" / "er" / "sly").symlink_to("up/../outside")
    assert refusal(root) == ["deep/er/sly: a link out of the workspace"]


def test_a_loop_of_links_is_kept_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "here").symlink_to(".")
    assert sorted(scan(tmp_path, Ignore(tmp_path)).entries) == ["a", "b", "here"]


def test_what_is_no_file_is_refused_unless_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a": ""})
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        # Relative, because the address of a socket is short.
        monkeypatch.chdir(tmp_path)
        unix.bind("socket")
    assert [line.partition(":")[0] for line in refusal(tmp_path)] == ["pipe", "socket"]
    (tmp_path / ".gitignore").write_text("pipe\nsocket\n")
    assert "a" in rescan(tmp_path)[0].entries


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff")).touch()
    assert refusal(tmp_path) == ["'a\\udcff': its name is not UTF-8"]


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    write(tmp_path, {"a": "", "b/c": "", "d/.gitignore": "", "d/e": ""})
    for name in ("a", "b", "d/.gitignore"):
        (tmp_path / name).chmod(0)
    try:
        assert [line.partition(":")[0] for line in refusal(tmp_path)] == ["a", "b", "d/.gitignore"]
    finally:
        (tmp_path / "b").chmod(0o755)


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1", "b/c": "2"})
    first, read = rescan(tmp_path)
    assert read == ["a", "b/c"]
    assert rescan(tmp_path) == (first, [])


@pytest.mark.parametrize("same_time", [True, False])
def test_a_changed_file_is_read_again(tmp_path: Path, same_time: bool) -> None:
    write(tmp_path, {"a": "1", "b": "2"})
    rescan(tmp_path)
    (tmp_path / "a").write_text("3")
    if same_time:  # only the inode's own time tells
        os.utime(tmp_path / "a", LONG_AGO)
    found, read = rescan(tmp_path)
    assert read == ["a"]
    assert found.entries["a"] == file("3")


def test_a_file_younger_than_the_clocks_tick_is_not_trusted(tmp_path: Path) -> None:
    write(tmp_path, {"old": "1", "new": "2"})
    now = time.time()
    os.utime(tmp_path / "new", (now, now))
    rescan(tmp_path)
    assert rescan(tmp_path)[1] == ["new"]
    os.utime(tmp_path / "new", (now + 3600, now + 3600))
    rescan(tmp_path)
    assert rescan(tmp_path)[1] == ["new"]


@pytest.mark.parametrize("mark", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
@pytest.mark.parametrize(
    "change", [lambda n: n + 1, lambda n: n - 1, lambda n: n * 10, lambda n: n // 10, lambda n: -n]
)
def test_a_file_with_another_size_time_or_inode_is_another_file(
    tmp_path: Path, mark: str, change: Callable[[int], int]
) -> None:
    """A clock set back, an inode used again: the file may be as long and as old as before."""
    marks = {"st_size": 5, "st_mtime_ns": 10**18, "st_ctime_ns": 10**18, "st_ino": 12}
    cache = StatCache(tmp_path / "cache")
    cache.put("a", status(**marks), Known("ab" * 32, holds_key=True), 2 * 10**18)
    cache.save({"a"}, lambda path: True)

    kept = StatCache(tmp_path / "cache")
    assert kept.get("a", status(**marks)) == ("ab" * 32, True)
    assert kept.get("a", status(**{**marks, mark: change(marks[mark])})) is None


def test_a_time_of_any_length_is_kept(tmp_path: Path) -> None:
    for name, then in (("a", -(10**9)), ("b", 15_000_000_000)):
        write(tmp_path, {name: "1"})
        os.utime(tmp_path / name, (then, then))
    rescan(tmp_path)
    assert rescan(tmp_path)[1] == ["b"]  # of the year 2445: younger than now


def test_a_damaged_cache_is_ignored_and_rewritten(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1"})
    first, _ = rescan(tmp_path)
    cache = tmp_path / ".train" / "digests"
    whole = cache.read_bytes()
    digit = whole.index(first.entries["a"].sha256.encode())
    flipped = whole[:digit] + bytes([whole[digit] ^ 1]) + whole[digit + 1 :]
    for damaged in (b"", whole[:-1], flipped, b"\0" * 100, b"{}"):
        cache.write_bytes(damaged)
        assert rescan(tmp_path) == (first, ["a"])
        assert rescan(tmp_path) == (first, [])


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1", ".train": "in the way"})
    assert rescan(tmp_path)[0].entries == {"a": file("1")}


def test_a_cached_key_is_left_out_again_once_it_is_no_longer_named(tmp_path: Path) -> None:
    write(tmp_path, {"notes": KEY, ".trainignore": "!notes"})
    assert "notes" in rescan(tmp_path)[0].entries
    (tmp_path / ".trainignore").write_text("")
    found, read = rescan(tmp_path)
    assert "notes" not in read
    assert found.left_out_secrets == ("notes",)
    assert "notes" not in found.entries


def test_the_cache_forgets_what_is_gone(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1", "b": "2"})
    rescan(tmp_path)
    (tmp_path / "a").unlink()
    rescan(tmp_path)
    assert b"\0a\0" not in (tmp_path / ".train" / "digests").read_bytes()


def test_code_and_data_are_scanned_apart_and_share_a_cache(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "1", "data/x/y": "2", "data/x/.gitignore": "z", "data/x/z": "3"})
    code, read = rescan(tmp_path, without=("data/x",))
    assert (sorted(code.entries), read) == (["a.py"], ["a.py"])
    data, read = rescan(tmp_path, below="data/x")
    assert sorted(data.entries) == [".gitignore", "y"]
    assert read == ["data/x/.gitignore", "data/x/y"]
    assert rescan(tmp_path, without=("data/x",)) == (code, [])
    assert rescan(tmp_path, below="data/x") == (data, [])


def test_a_data_folder_that_git_ignores_is_sent_because_the_config_names_it(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "/data/\n*.tmp", "data/x": "1", "data/y.tmp": "2"})
    found, _ = rescan(tmp_path, below="data")
    assert (sorted(found.entries), found.left_out) == (["x"], 1)


def test_a_data_folder_with_nothing_to_send_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "/data/*", "data/x": "1"})
    with pytest.raises(UsageError, match="holds nothing to send") as caught:
        rescan(tmp_path, below="data")
    line = caught.value.fix.partition(": ")[2]
    (tmp_path / ".trainignore").write_text(line)
    assert sorted(rescan(tmp_path, below="data")[0].entries) == ["x"]


@pytest.mark.parametrize(
    ("below", "why"),
    [
        ("c/heldout", "c/heldout is left out"),
        ("c/heldout/deep", "c/heldout is left out"),
        (".git", ".git is left out"),
        (".aws", ".aws is left out"),
        ("link", "link is not a folder"),
        ("sly/deep", "sly is not a folder"),
        ("c/grader.py", "c/grader.py is not a folder"),
        ("nowhere", "does not exist"),
    ],
)
def test_a_data_folder_cannot_smuggle(tmp_path: Path, below: str, why: str) -> None:
    write(tmp_path, {"c/grader.py": "", "c/heldout/deep/x": "", ".git/x": "", ".aws/x": ""})
    (tmp_path / "link").symlink_to("c/heldout")
    (tmp_path / "sly").symlink_to("c/heldout")
    with pytest.raises(UsageError) as caught:
        rescan(tmp_path, below=below)
    assert why in str(caught.value)


def test_a_link_out_of_a_data_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"data/x": "", "other": ""})
    (tmp_path / "data" / "l").symlink_to("../other")
    assert refusal(tmp_path, below="data") == ["data/l: a link out of the data folder"]


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, {"log": "1"})
    reads: list[str] = []

    def write_once(path: str, _: int) -> None:
        if not reads:
            (tmp_path / path).write_text("22")
        reads.append(path)

    found = scan(tmp_path, Ignore(tmp_path), None, write_once)
    assert found.entries["log"] == file("22")


def test_a_file_that_never_rests_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, {"log": "1"})
    reads: list[str] = []

    def write_always(path: str, _: int) -> None:
        reads.append(path)
        # The block that has just been read was the last, so this is not read as well.
        (tmp_path / path).write_text("x" if len(reads) % 2 else "")
        if not len(reads) % 2:
            (tmp_path / path).write_text("y")

    with pytest.raises(UsageError) as caught:
        scan(tmp_path, Ignore(tmp_path), None, write_always)
    assert caught.value.cause == "log: changed each of the 3 times it was read"


def test_a_file_that_vanishes_was_never_there(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1", "b": "2"})
    gone: list[str] = []

    def remove_the_other(path: str, _: int) -> None:
        if not gone:
            gone.append("a" if path == "b" else "b")
            (tmp_path / gone[0]).unlink()

    found = scan(tmp_path, Ignore(tmp_path), None, remove_the_other)
    assert set(found.entries) == {"a", "b"} - set(gone)
