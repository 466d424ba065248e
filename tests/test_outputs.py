"""Outputs are the run's own regular files that the patterns name, each once, with its digest."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote.outputs import LIMIT, find_outputs
from remote.protocol import CHUNK_BYTES, RESULT, Frame, News, RunReport, pack, read_frame
from remote.record import encode, from_bytes, to_bytes
from remote.runfolder import Artifact, Artifacts
from remote.tree import BadTree, check_path

UGLY = ["a b.h5", "quo'te\".h5", "line\nbreak.h5", "ünï.h5", "-rf.h5", "n" * 252 + ".h5"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ["model.h5", "out/a.h5", "out/deep/b.h5", "out/deep/notes.txt", ".hidden.h5"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def paths(tree: Path, *patterns: str) -> list[str]:
    return [artifact.path for artifact in find_outputs(tree, patterns)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("model.h5", ["model.h5"]),
        ("missing.h5", []),
        ("out", ["out/a.h5", "out/deep/b.h5", "out/deep/notes.txt"]),
        ("out/*.h5", ["out/a.h5"]),
        ("out/**", ["out/a.h5", "out/deep/b.h5", "out/deep/notes.txt"]),
        ("**/*.h5", [".hidden.h5", "model.h5", "out/a.h5", "out/deep/b.h5"]),
        ("out/d*p", ["out/deep/b.h5", "out/deep/notes.txt"]),
        # Inside a name it means no more than `*`, on every Python.
        ("**.h5", [".hidden.h5", "model.h5"]),
        ("out/**p/***.h5", ["out/deep/b.h5"]),
        ("[z-a].h5", []),
        ("model.h5/x", []),
        ("[", []),
    ],
)
def test_a_pattern_is_a_path_a_glob_or_a_folder(tree: Path, pattern: str, found: list[str]) -> None:
    assert paths(tree, pattern) == found


def test_a_file_that_two_patterns_name_is_there_once_and_the_order_is_by_path(tree: Path) -> None:
    assert paths(tree, "out", "model.h5", "*.h5", "out/a.h5")[:2] == [".hidden.h5", "model.h5"]
    assert len(paths(tree, "out", "out/**/*", "**/*")) == 5


def test_a_name_with_glob_characters_is_found_as_it_is(tree: Path) -> None:
    for name in ["model[1].h5", "what?.h5", "st*r.h5"]:
        (tree / name).touch()
        assert paths(tree, name) == [name]


@pytest.mark.parametrize("name", UGLY)
def test_an_ugly_name_is_found_by_name_and_by_glob_and_survives_the_record(
    tree: Path, name: str
) -> None:
    (tree / "ugly").mkdir()
    (tree / "ugly" / name).touch()
    for pattern in [f"ugly/{name}", "ugly/*", "ugly"]:
        found = find_outputs(tree, [pattern])
        assert [artifact.path for artifact in found] == [f"ugly/{name}"]
        assert from_bytes(Artifacts, to_bytes(Artifacts(found))).files == found


def test_a_name_that_is_not_unicode_is_found(tree: Path) -> None:
    (tree / os.fsdecode(b"\xff\xfe.h5")).touch()
    (found,) = find_outputs(tree, ["*.h5"])[:1] and find_outputs(tree, [os.fsdecode(b"\xff*")])
    assert os.fsencode(found.path) == b"\xff\xfe.h5"
    assert from_bytes(Artifacts, to_bytes(Artifacts((found,)))).files == (found,)


def test_links_and_what_lies_behind_them_are_left_out(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.h5").write_text("not the run's")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "data.h5").touch()
    (tree / "link.h5").symlink_to(tmp_path / "secret.h5")
    (tree / "dangling.h5").symlink_to("nowhere")
    (tree / "data").symlink_to(tmp_path / "shared")
    (tree / "out" / "up").symlink_to("..")
    assert paths(tree, "link.h5", "dangling.h5", "data", "data/data.h5", "data/*", "out/up/*") == []
    assert paths(tree, "**/*.h5") == [".hidden.h5", "model.h5", "out/a.h5", "out/deep/b.h5"]


def test_pipes_and_sockets_are_left_out_without_waiting_for_them(tree: Path) -> None:
    os.mkfifo(tree / "pipe.h5")
    assert paths(tree, "pipe.h5", "*.h5") == [".hidden.h5", "model.h5"]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_size_and_digest_are_the_contents(tree: Path, size: int) -> None:
    content = os.urandom(size)
    (tree / "model.h5").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert find_outputs(tree, ["model.h5"]) == (Artifact("model.h5", size, digest),)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("a.h5*?[]!-/\\{}z\n")))
def test_no_pattern_that_a_request_may_hold_is_an_error(tree: Path, pattern: str) -> None:
    try:
        check_path(pattern)
    except BadTree:
        return
    paths(tree, pattern)


@pytest.fixture
def no_root() -> Iterator[None]:
    """Root may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_what_cannot_be_read_is_told_and_the_others_are_there(
    no_root: None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ["a.h5", "b\n.h5", "locked/c.h5", "z.h5"]:
            (tree / name).parent.mkdir(exist_ok=True)
            (tree / name).touch()
        (tree / "b\n.h5").chmod(0)
        (tree / "locked").chmod(0)
        told: list[str] = []
        found = find_outputs(tree, ["*.h5", "locked"], told.append)
        (tree / "locked").chmod(0o700)
    assert [artifact.path for artifact in found] == ["a.h5", "z.h5"]
    assert [trouble.partition(" cannot be read: Perm")[0] for trouble in told] == [
        "'locked'",
        r"'b\n.h5'",
    ]


def test_of_more_outputs_than_a_frame_may_tell_of_the_first_are_recorded(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote.outputs.LIMIT", 3)
    told: list[str] = []
    found = find_outputs(tree, ["**/*"], told.append)
    assert [artifact.path for artifact in found] == [".hidden.h5", "model.h5", "out/a.h5"]
    assert told == ["of 5 outputs only the first 3 are recorded"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("e" * 200, id="long"),
        pytest.param("\u00e9" * 120, id="escaped"),
        pytest.param("," * 250, id="values"),
        pytest.param("[{,", id="short"),
    ],
)
def test_what_is_recorded_of_any_number_of_outputs_fits_into_a_frame(
    tree: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    names = [f"{'d' * 240}/{name}{number}" for number in range(LIMIT + 1)]
    monkeypatch.setattr("remote.outputs._matches", lambda *_: names)
    digest = "0" * 64
    monkeypatch.setattr("remote.outputs._hash", lambda _, path: Artifact(path, 2**60, digest))
    told: list[str] = []
    found = find_outputs(tree, ["out"], told.append)
    assert told == [f"of {LIMIT + 1} outputs only the first {len(found)} are recorded"]
    assert len(found) > LIMIT / 10
    report = RunReport("a-1", "a", alive=False, stamp="1", artifacts=found)
    packed = pack(Frame(RESULT, encode(News((report,), (), ()))))
    assert read_frame(io.BytesIO(packed).read) is not None
