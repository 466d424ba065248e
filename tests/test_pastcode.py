"""The code of past runs: kept, bounded, compared, restored."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from orchestrator.errors import UsageError
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Workspace
from orchestrator.source.pastcode import FILE_LIMIT_BYTES, PastCode
from orchestrator.source.snapshot import LocalTree, take_snapshot


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "exam" / "a").mkdir(parents=True)
    (tmp_path / "exam" / "b").mkdir()
    (tmp_path / "exam" / "a" / "a.py").write_text("lr = 1\nprint(lr)\n")
    return tmp_path / "exam"


def freeze(root: Path) -> LocalTree:
    return take_snapshot(Workspace(root), (), Silence()).code


def keep(root: Path) -> str:
    code = freeze(root)
    PastCode(root / ".train").keep(code)
    return code.digest


def test_what_is_kept_comes_back_as_it_was(root: Path, tmp_path: Path) -> None:
    (root / "a" / "run.sh").write_text("#!/bin/sh\n")
    (root / "a" / "run.sh").chmod(0o755)
    (root / "again").symlink_to("a/a.py")
    (root / "image").write_bytes(bytes(1000))
    digest = keep(root)
    (root / "a" / "a.py").write_text("broken")
    target = tmp_path / "back"

    assert PastCode(root / ".train").restore(digest, target) == []
    assert freeze(target).digest == digest
    assert (target / "again").is_symlink()
    # Once more, over what is there: nothing differs, and nothing changes.
    assert PastCode(root / ".train").differing(digest, target) == []
    PastCode(root / ".train").restore(digest, target)
    assert freeze(target).digest == digest


def test_a_restored_file_never_goes_through_a_link_to_elsewhere(root: Path, tmp_path: Path) -> None:
    digest = keep(root)
    (tmp_path / "back" / "a").mkdir(parents=True)
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "back" / "a" / "a.py").symlink_to(tmp_path / "precious")
    past = PastCode(root / ".train")

    assert past.differing(digest, tmp_path / "back") == ["a/a.py"]
    past.restore(digest, tmp_path / "back")

    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "back" / "a" / "a.py").is_symlink()


def test_the_difference_is_as_diff_has_it(root: Path) -> None:
    (root / "b" / "b.py").write_text("1\n")
    (root / "image").write_bytes(b"\0one")
    (root / "old").write_text("gone\n")
    before = keep(root)
    (root / "a" / "a.py").write_text("lr = 2\nprint(lr)\n")
    (root / "b" / "b.py").write_text("2\n")
    (root / "image").write_bytes(b"\0another")
    (root / "old").unlink()
    (root / "new").write_text("come\n")
    after = keep(root)
    past = PastCode(root / ".train")

    lines = list(past.diff(before, after, [PurePosixPath("b")]))

    assert lines[:6] == ["--- a/a/a.py", "+++ b/a/a.py", "@@ -1,2 +1,2 @@", "-lr = 1", "+lr = 2",
                         " print(lr)"]  # fmt: skip
    assert lines[6].startswith("image: 4 B, sha256 ")
    assert lines[7:] == ["--- /dev/null", "+++ b/new", "@@ -0,0 +1 @@", "+come", "--- a/old",
                         "+++ /dev/null", "@@ -1 +0,0 @@", "-gone"]  # fmt: skip
    assert not list(past.diff(after, after))


def test_a_large_file_is_not_kept_and_that_is_told(root: Path, tmp_path: Path) -> None:
    (root / "weights").write_bytes(bytes(FILE_LIMIT_BYTES + 1))
    digest = keep(root)

    assert PastCode(root / ".train").restore(digest, tmp_path / "back") == ["weights"]
    assert sum(f.stat().st_size for f in (root / ".train" / "code").rglob("*")) < 50_000


def test_what_was_changed_since_it_was_hashed_is_not_kept_under_its_name(
    root: Path, tmp_path: Path
) -> None:
    code = freeze(root)
    (root / "a" / "a.py").write_text("another")
    past = PastCode(root / ".train")
    past.keep(code)

    assert past.restore(code.digest, tmp_path / "back") == ["a/a.py"]


def test_the_oldest_goes_first_and_the_newest_stays_whatever_its_size(root: Path) -> None:
    digests = []
    for number in range(4):
        (root / "a" / "a.py").write_text(f"{number}" * 1000)
        code = freeze(root)
        PastCode(root / ".train").keep(code, limit_bytes=2_500)
        digests.append(code.digest)

    past = PastCode(root / ".train")
    assert [past.find(digest) is not None for digest in digests] == [False, False, True, True]
    assert len(list((root / ".train" / "code" / "objects").glob("*/*"))) == 2
    with pytest.raises(UsageError, match="is not kept here"):
        past.tree(digests[0])

    (root / "a" / "a.py").write_text("x" * 5000)
    code = freeze(root)
    past.keep(code, limit_bytes=2_500)
    assert past.restore(code.digest, root.with_name("back")) == []
    assert past.find(digests[3]) is None


def test_a_spoilt_content_is_not_taken_for_code(root: Path, tmp_path: Path) -> None:
    digest = keep(root)
    for file in (root / ".train" / "code" / "objects").glob("*/*"):
        file.write_text("spoilt")

    assert PastCode(root / ".train").restore(digest, tmp_path / "back") == ["a/a.py"]


def test_what_a_power_cut_or_a_kill_has_spoilt_is_dropped_and_kept_anew(root: Path) -> None:
    digest = keep(root)
    trees = root / ".train" / "code" / "trees"
    (trees / digest).write_bytes(b"")
    (trees / ".tmp-0011223344556677").write_bytes(b'{"half')
    (root / "a" / "a.py").write_text("lr = 2\n")
    second = keep(root)
    assert [path.name for path in trees.iterdir()] == [second]

    (trees / second).write_bytes(b"")
    assert keep(root) == second
    assert PastCode(root / ".train").restore(second, root / "back") == []
    assert (root / "back" / "a" / "a.py").read_text() == "lr = 2\n"
