"""A new workspace: five problems, their data, train.yaml, and the tasks for VS Code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.problems import ONLINE, PACK, Problem, draw, prepare, recognise
from orchestrator.screen.tell import Teller
from remote.atomic import replace_file

CATEGORIES = tuple(problem.category for problem in PACK)

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
    # restart: on-interruption    # goes on where it was when the machine was rebooted or taken away
    # tensorboard: on             # event files, for `train tensorboard`
    # check: on                   # the VM looks if the model can be loaded, before it comes home
"""

_GITIGNORE = "/.train/\n__pycache__/\n"


@dataclass(frozen=True)
class Made:
    """What came of it; paths are below the folder, in the order they were met.

    Attributes:
        added: files that were not there.
        kept: files that were there, and are as they were.
        own: those of them that are not what would have been written.
        unsolved: scripts of `own` that did not get the solution that was asked for.
        outer: the file of the workspace around this one, if there is one.
    """

    added: tuple[str, ...]
    kept: tuple[str, ...]
    own: tuple[str, ...]
    unsolved: tuple[str, ...]
    outer: Path | None


def make_workspace(
    folder: Path,
    *,
    solutions: bool,
    tell: Teller,
    seed: int | None = None,
    instead: Iterable[Problem] = (),
) -> Made:
    """Make or complete a workspace with the practice pack, or with the exam of `seed`, to practise.

    `instead` are problems that take their category's place; a category that is there keeps its
    problem. No file that is there is changed, but an untouched starter when `solutions` are asked
    for.

    Raises:
        UsageError: the folder cannot be written or has another problem than is asked for, a data
            package is missing, a seed is wanted for data that is gone, or no such seed.
    """
    asked = {problem.category: problem for problem in (() if seed is None else draw(seed))}
    asked |= {problem.category: problem for problem in instead}
    there = {name: found for name in CATEGORIES if (found := recognise(folder / name))}
    _refuse_others(folder, asked, there)
    problems = tuple(asked.get(p.category) or there.get(p.category) or p for p in PACK)
    files = _Files(folder, tell)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for problem in problems:
            name = f"{problem.category}/prepare.py"
            is_seeded = problem.category in there and not (folder / name).exists()
            # Before the brief, by which the problem is known from then on.
            if seed is None and problem in PACK and not is_seeded:
                files.write_new(name, problem.preparation().decode())
            _make_category(files, problem, solutions)
        jobs = "".join(_JOB.format(name=name) for name in CATEGORIES)
        files.write_new("train.yaml", _CONFIG + jobs)
        files.write_new(".gitignore", _GITIGNORE)
        files.write_new(".vscode/tasks.json", tasks_json(CATEGORIES))
        files.write_new(".vscode/launch.json", launch_json())
    except OSError as error:
        raise UsageError(
            f"cannot make a workspace in {folder}",
            cause=(error.strerror or str(error)).lower(),
            fix="choose a folder you may write to",
        ) from error
    for problem in problems:
        _prepare(problem, seed, folder / problem.category, tell)
    around = (parent / "train.yaml" for parent in folder.resolve().parents)
    return Made(
        tuple(files.added),
        tuple(files.kept),
        tuple(files.own),
        tuple(files.unsolved),
        next((file for file in around if file.is_file()), None),
    )


def _refuse_others(folder: Path, asked: dict[str, Problem], there: dict[str, Problem]) -> None:
    for category, problem in asked.items():
        if (found := there.get(category, problem)) != problem:
            raise UsageError(
                f"{folder / category} is the problem {found.name}, not {problem.name}",
                fix="choose a new folder; or leave --seed and --online out, to complete this one",
            )


class _Files:
    """Writes what is not there yet, and keeps book."""

    def __init__(self, folder: Path, tell: Teller) -> None:
        self.folder = folder
        self.tell = tell
        self.added: list[str] = []
        self.kept: list[str] = []
        self.own: list[str] = []
        self.unsolved: list[str] = []

    def write_new(self, name: str, text: str) -> None:
        path = self.folder / name
        if path.exists():
            self.kept.append(name)
            if path.read_bytes() != text.encode():
                self.own.append(name)
            return
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text.encode())
        self.added.append(name)
        self.tell.doing(f"writing {path.name}")


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


def _make_category(files: _Files, problem: Problem, solutions: bool) -> None:
    name = problem.category
    *others, (_, starter) = problem.files()
    *_, (_, solution) = problem.files(solution=True)
    for file, content in others:
        files.write_new(f"{name}/{file}", content.decode())
    script = f"{name}/{name}.py"
    path = files.folder / script
    there = path.read_bytes() if path.exists() else None
    if solutions and there == starter:
        replace_file(path, solution)
        files.tell.step(f"{name}: the reference solution is in {path.name}, where the starter was")
        return
    # Left alone as well: a solution that an earlier call was asked for.
    files.write_new(script, (solution if solutions or there == solution else starter).decode())
    if solutions and there not in (None, solution):
        files.unsolved.append(script)


def _prepare(problem: Problem, seed: int | None, folder: Path, tell: Teller) -> None:
    """Make a category's training data and its held-out data, once."""
    sent = "origin.txt" if problem in ONLINE else "train.npz"
    if (folder / "heldout.npz").exists() and (folder / "data" / sent).exists():
        return
    if seed is None and problem not in ONLINE and not (folder / "prepare.py").exists():
        raise UsageError(
            f"the data of {folder.name} is gone, and the seed it was made from is not kept",
            fix=f"train init {shlex.quote(str(folder.parent))} --seed N",
        )
    tell.doing(f"preparing the data of {folder.name}")
    prepare(problem, seed, folder)
    tell.step(f"{folder.name}: training data and held-out data are prepared")
