"""The problems: three a category, and their data from a seed.

A problem is a folder of `jobs/`, named for its category. The one without a suffix is the practice
pack's. `prepare.py` makes its data; it stays out of an exam, where it would be the answer key.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from orchestrator.errors import UsageError
from remote.atomic import replace_file

# What numpy's RandomState takes.
SEEDS = range(2**32)


@dataclass(frozen=True)
class Problem:
    """One exam question; `name` is its folder, `category` where a workspace has it."""

    name: str

    @property
    def category(self) -> str:
        return self.name.rpartition("/")[2].partition("-")[0]

    @property
    def remedy(self) -> str:
        """What to do when its data cannot be made."""
        if self in ONLINE:
            twin = f"{self.category} of the practice pack is alike and needs none"
            return f"check this laptop's network, or leave --online out: {twin}"
        return "in trainshed's own folder: pip install '.[practice]'; then the same command again"

    @property
    def source(self) -> Traversable:
        return resources.files("jobs").joinpath(self.name)

    def files(self, *, solution: bool = False) -> Iterator[tuple[str, bytes]]:
        """What a category's folder gets, the script last: the starter or the reference."""
        for name in ("brief.md", "grader.py"):
            yield name, (self.source / name).read_bytes()
        script = f"{self.category}.py"
        yield script, (self.source / ("solution.py" if solution else script)).read_bytes()

    def preparation(self) -> bytes:
        return (self.source / "prepare.py").read_bytes()


PROBLEMS = tuple(
    Problem(f"category{number}{suffix}")
    for number, suffixes in enumerate(
        (
            ("", "-diabetes", "-weather"),
            ("", "-surfaces", "-pairs"),
            ("", "-camera", "-stickers"),
            ("", "-sentences", "-parts"),
            ("", "-gaps", "-cities"),
        ),
        start=1,
    )
    for suffix in suffixes
)
PACK = tuple(problem for problem in PROBLEMS if problem.name == problem.category)

# Theirs is fetched from the network, by the laptop what is held out and by the VM the rest. Never
# drawn. The problem of the pack is each one's twin that needs no network.
ONLINE = tuple(
    Problem(f"online/{name}")
    for name in (
        *("category2-fashion", "category3-hands", "category3-horses"),
        *("category4-imdb", "category5-sunspots"),
    )
)


def online(word: str) -> Problem:
    """The problem that `--online WORD` asks for."""
    return next(problem for problem in ONLINE if problem.name.endswith(f"-{word}"))


def recognise(folder: Path) -> Problem | None:
    """The problem that a category's folder was made for, by its brief; None for none of ours."""
    try:
        brief = (folder / "brief.md").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    mine = (p for p in (*PROBLEMS, *ONLINE) if p.category == folder.name)
    return next((p for p in mine if (p.source / "brief.md").read_bytes() == brief), None)


def draw(seed: int) -> tuple[Problem, ...]:
    """One problem of each category, the same for a seed on every machine and Python.

    Raises:
        UsageError: there is no such seed.
    """
    _check(seed)
    drawn = []
    for category in (problem.category for problem in PACK):
        choice = [problem for problem in PROBLEMS if problem.category == category]
        digest = hashlib.sha256(f"{seed} {category}".encode()).digest()
        drawn.append(choice[int.from_bytes(digest[:8]) % len(choice)])
    return tuple(drawn)


def make_problem(problem: Problem, seed: int, folder: Path, *, solution: bool = False) -> None:
    """Write a problem and the data of `seed` into `folder`; what is there is overwritten.

    Again after a crash it makes the same bytes. Held-out rows are in `heldout.npz` only, beside
    the grader; `data/` is what is sent.

    Raises:
        UsageError: there is no such seed, or a data package is missing.
    """
    _check(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in problem.files(solution=solution):
        replace_file(folder / name, content)
    prepare(problem, seed, folder)


def prepare(problem: Problem, seed: int | None, folder: Path) -> None:
    """Write `data/` and `heldout.npz` of a problem, or do what the folder's own `prepare.py` does.

    Raises:
        UsageError: a data package is missing, or the script failed otherwise.
    """
    script = folder / "prepare.py"
    is_own = script.exists()
    if not is_own:
        replace_file(script, problem.preparation())
    try:
        done = subprocess.run(
            [sys.executable, script.name, *([] if seed is None else [str(seed)])],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    finally:
        if not is_own:
            script.unlink()
    if done.returncode:
        raise UsageError(
            f"the data of {folder.name} could not be prepared",
            cause=done.stderr.strip().rpartition("\n")[2],
            fix=problem.remedy,
        )


def _check(seed: int) -> None:
    if seed not in SEEDS:
        raise UsageError(
            f"{seed} is no seed", fix=f"choose a whole number from 0 to {SEEDS.stop - 1}"
        )
