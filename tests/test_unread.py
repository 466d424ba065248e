"""What a sweep varies and no script reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.settings.spec import Job
from orchestrator.source.snapshot import LocalTree
from orchestrator.sweeps.unread import unread
from remote.tree import FILE, LINK, Entry, digest_of, encode_tree


def code(folder: Path, **files: str) -> LocalTree:
    """Also a link that leads nowhere, and a file that went away since it was looked at."""
    tree = {"gone.py": Entry(FILE, 1, "0" * 64, False), "link": Entry(LINK, 0, "", False, "away")}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
        tree[f"{name}.py"] = Entry(FILE, len(text), digest_of(text.encode()), False)
    manifest = encode_tree(tree)
    return LocalTree("", folder, digest_of(manifest), tree, manifest)


@pytest.mark.parametrize(
    ("command", "script", "lacking"),
    [
        ("python a.py", "os.environ['PARAM_lr'], os.environ['PARAM_units']", ()),
        ("python a.py --lr $PARAM_lr", "os.environ['PARAM_units']", ()),
        ("python a.py", "os.environ['PARAM_lr']", ("units",)),
        ("python a.py", "os.environ['PARAM_lrate'], MY_PARAM, units", ("lr", "units")),
        ("python a.py", 'os.environ[f"PARAM_{name}"]', ()),
        ("python a.py", "key.startswith('PARAM_')", ()),
    ],
)
def test_what_no_file_and_no_command_names_is_told(
    tmp_path: Path, command: str, script: str, lacking: tuple[str, ...]
) -> None:
    found = code(tmp_path, a="import os", b=script)
    assert unread(["lr", "units"], Job("a", command, ()), (), found) == lacking


def test_what_only_another_category_names_is_told(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    found = code(tmp_path, **{"b/b": "os.environ['PARAM_lr']"})
    one, other = Job("a", "python a.py", ()), Job("b", "python b/b.py", ())
    at_the_root = Job("c", "python c.py", ("c.h5",))

    assert unread(["lr"], one, (one, other), found) == ("lr",)
    assert unread(["lr"], other, (one, other, at_the_root), found) == ()
