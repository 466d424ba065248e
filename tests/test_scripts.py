"""Which Python files a job's command names."""

from __future__ import annotations

from pathlib import Path

from orchestrator.source.scripts import scripts_of


def test_only_files_of_the_workspace_are_its_scripts(tmp_path: Path) -> None:
    root = tmp_path / "exam"
    root.mkdir()
    for path in (root / "a b.py", tmp_path / "elsewhere.py"):
        path.touch()
    command = f"python 'a b.py' {tmp_path}/elsewhere.py gone.py notes.txt"
    assert list(scripts_of(root, command)) == [root / "a b.py"]
