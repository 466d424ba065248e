"""The built wheel, in an empty environment, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, so that building leaves nothing behind in the checkout.
    source = folder / "source"
    names = ["LICENSE", "README.md", "pyproject.toml", "docs", "orchestrator", "remote", "jobs"]
    source.mkdir()
    subprocess.run(["cp", "-R", *(str(ROOT / name) for name in names), str(source)], check=True)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


def pip(*arguments: str, python: str = sys.executable) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_agents_source_and_the_practice_pack_and_nothing_else(
    wheel: Path,
) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    for package in ("orchestrator", "remote", "jobs"):
        sources = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert sources <= names
    assert {"orchestrator/clouds/prices.csv", "orchestrator/tutorial.md"} <= names
    assert {f"jobs/category{n}/brief.md" for n in range(1, 6)} <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "orchestrator",
        "remote",
        "jobs",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".npz")]


@pytest.mark.timeout(300)
def test_the_wheel_works_in_an_empty_environment_and_grading_says_what_it_lacks(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    lock = str(ROOT / "requirements.lock")
    pip("install", "--quiet", "--constraint", lock, str(wheel), python=str(python))
    environment = {**os.environ, "TRAINSHED_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}

    def train(*words: str, folder: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python.parent / "train"), *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert train("--version").stdout.startswith("trainshed ")
    assert train("remote", "list").returncode == 0
    shown = Path(train("docs").stdout.strip())
    assert shown.is_relative_to(tmp_path / "venv")
    assert shown.read_text("utf-8").startswith("# Fifteen minutes")

    workspace = tmp_path / "own"
    (workspace / "c").mkdir(parents=True)
    (workspace / "train.yaml").write_text("jobs:\n  c: {command: 'true', outputs: [c/m.h5]}\n")
    (workspace / "c" / "grader.py").write_text("")
    (workspace / "c" / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    graded = train("grade", folder=workspace)
    assert graded.returncode == 2, graded.stderr
    assert "-m pip install 'tensorflow>=2.16'" in graded.stderr

    init = train("init", "exam")
    assert init.returncode == 2
    assert "pip install '.[practice]'" in init.stderr
