"""A new workspace: the practice pack, its data, train.yaml, and the tasks for VS Code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.tell import Teller
from remote.atomic import replace_file

CATEGORIES = tuple(f"category{number}" for number in range(1, 6))

# What a category's folder gets; the reference solution is only for those who ask for it.
_FILES = ("brief.md", "prepare.py", "grader.py")

_CONFIG = """\
# The workspace: what is trained, and what must come back. Every key is explained in the README.
#
# remotes:                       # machines are better kept at user level: train remote add NAME
#   azure-k80:
#     host: 203.0.113.7          # or an alias from ~/.ssh/config
#     user: azureuser
#     price: {per_hour: 0.50, currency: USD}
#     env: {python: python3, requirements: requirements.txt}

jobs:
"""

_JOB = """\
  {name}:
    command: python {name}/{name}.py
    outputs: [{name}/mymodel.h5]
    data: [{name}/data]
    gpus: 1                      # ignored on a remote with `gpus: 0`
    time_limit: 40m
"""

_GITIGNORE = "/.train/\n__pycache__/\n"


def make_workspace(folder: Path, *, solutions: bool, tell: Teller) -> tuple[str, ...]:
    """Make or complete a workspace. No file that is there is changed, but an untouched starter
    when `solutions` are asked for.

    Returns:
        Scripts that differ from the starter and were left alone though solutions were asked for.

    Raises:
        UsageError: the folder cannot be written, or a data package is missing.
    """
    pack = resources.files("jobs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [
            name for name in CATEGORIES if not _make_category(pack, folder, name, solutions, tell)
        ]
        jobs = "".join(_JOB.format(name=name) for name in CATEGORIES)
        _write_new(folder / "train.yaml", _CONFIG + jobs, tell)
        _write_new(folder / ".gitignore", _GITIGNORE, tell)
        (folder / ".vscode").mkdir(exist_ok=True)
        _write_new(folder / ".vscode" / "tasks.json", tasks_json(CATEGORIES), tell)
        _write_new(folder / ".vscode" / "launch.json", launch_json(), tell)
    except OSError as error:
        raise UsageError(
            f"cannot make a workspace in {folder}", fix="choose a folder you may write to"
        ) from error
    for name in CATEGORIES:
        _prepare(folder / name, tell)
    return tuple(f"{name}/{name}.py" for name in kept)


def tasks_json(categories: Iterable[str]) -> str:
    """VS Code's tasks: train this category, follow, pull, grade."""
    category = "${relativeFileDirname}"
    remote = ["--remote", "${input:remote}"]
    tasks = [
        _task("train: this category", ["run", category, *remote], default=True),
        _task("train: all categories", ["run", *remote]),
        _task("train: follow this category", ["logs", category, "--follow"]),
        _task("train: status", ["status"]),
        _task("train: pull this category", ["pull", category]),
        _task("train: grade this category", ["grade", category]),
        _task("train: what would be submitted", ["ready"]),
    ]
    remote_input = {
        "id": "remote",
        "type": "promptString",
        "description": "Name of the remote (train remote list)",
        "default": "azure-k80",
    }
    return _json({"version": "2.0.0", "tasks": tasks, "inputs": [remote_input]})


def launch_json() -> str:
    """VS Code's launch configuration: try the open script on the laptop."""
    here = {
        "name": "This script, on this laptop",
        "type": "debugpy",
        "request": "launch",
        "program": "${file}",
        "cwd": "${workspaceFolder}",
        "console": "integratedTerminal",
    }
    return _json({"version": "0.2.0", "configurations": [here]})


def _task(label: str, arguments: list[str], *, default: bool = False) -> dict[str, object]:
    group: object = {"kind": "build", "isDefault": True} if default else "build"
    return {
        "label": label,
        "type": "process",
        "command": "train",
        "args": arguments,
        "group": group,
        "problemMatcher": [],
        "presentation": {"panel": "dedicated", "clear": True},
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _make_category(
    pack: Traversable, folder: Path, name: str, solutions: bool, tell: Teller
) -> bool:
    """Copy a category; False if its script is the user's own and stays without the solution."""
    source, target = pack / name, folder / name
    target.mkdir(exist_ok=True)
    for file in _files_of(source):
        _write_new(target / file, (source / file).read_text("utf-8"), tell)
    script = target / f"{name}.py"
    starter = (source / f"{name}.py").read_text("utf-8")
    solution = (source / "solution.py").read_text("utf-8")
    if not solutions:
        _write_new(script, starter, tell)
        return True
    there = script.read_text("utf-8") if script.exists() else None
    if there in (None, starter):
        replace_file(script, solution.encode())
        tell.step(f"{name}: the reference solution is in {script.name}")
    return there in (None, starter, solution)


def _files_of(source: Traversable) -> Iterator[str]:
    for name in _FILES:
        if (source / name).is_file():
            yield name


def _write_new(path: Path, text: str, tell: Teller) -> None:
    if not path.exists():
        replace_file(path, text.encode())
        tell.doing(f"writing {path.name}")


def _prepare(folder: Path, tell: Teller) -> None:
    """Make a category's training data and its held-out data, once."""
    if (folder / "heldout.npz").exists() and (folder / "data" / "train.npz").exists():
        return
    tell.doing(f"preparing the data of {folder.name}")
    done = subprocess.run(
        [sys.executable, "prepare.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise UsageError(
            f"the data of {folder.name} could not be prepared",
            cause=said,
            fix="pip install 'trainshed[practice]', then: train init again",
        )
    tell.step(f"{folder.name}: training data and held-out data are prepared")
