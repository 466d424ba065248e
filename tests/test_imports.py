"""The architecture as a test: which module may import which, and who opens which door."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up. A module may import its own row and lower ones; circles are found besides.
ROWS: tuple[tuple[str, set[str]], ...] = (
    (
        "words: no I/O",
        {
            *("cost", "duration", "errors", "gitignore", "logview", "node", "printable", "size"),
            *("spec", "tell", "verdict"),
        },
    ),
    (
        "files: what the laptop keeps, and what it reads",
        {
            *("bill", "config", "events", "hashing", "home", "ignore", "ledger", "ledgerschema"),
            *(
                "mirror",
                "money",
                "package",
                "plan",
                "remotes",
                "scan",
                "schema",
                "shelf",
                "snapshot",
            ),
            *("statcache",),
        },
    ),
    (
        "doors: SSH, and the process that opens models",
        {
            *(
                "channel",
                "confine",
                "flight",
                "grade",
                "grader",
                "grading",
                "hostkeys",
                "keyoffers",
            ),
            *("line", "link", "modelcheck", "practicevm", "ssh", "sshconfig", "way"),
        },
    ),
    ("steps", {"doctor", "follow", "init", "pull", "standing", "sync"}),
    ("the way through", {"roundtrip"}),
    ("the user's side", {"console", "desk", "machines", "report"}),
    ("the command line", {"cli", "demo"}),
)
RANK = {f"orchestrator.{name}": row for row, (_, names) in enumerate(ROWS) for name in names}

# What of the VM's half the laptop's may use: the wire format, the digest, the names of files.
KERNEL = {"atomic", "clock", "protocol", "record", "runfolder", "tree"}

# Which modules alone may import a heavy or dangerous package.
DOORS = {
    "paramiko": {"flight", "ssh"},
    "asyncssh": {"practicevm"},
    "yaml": {"config"},
    "typer": {"cli"},
    "rich": {"console", "report"},
    "sqlite3": {"ledger", "ledgerschema"},
    "tensorflow": {"grading"},
    "keras": {"grading"},
    "h5py": {"grading"},
    "numpy": {"grading", "grader"},
}


def modules(package: str) -> dict[str, ast.Module]:
    return {
        f"{package}.{path.stem}": ast.parse(path.read_text("utf-8"))
        for path in sorted((ROOT / package).glob("*.py"))
        if path.stem != "__init__"
    }


def imports(tree: ast.Module) -> set[str]:
    """Every module that is imported, also inside functions; `from a import b` may mean `a.b`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module in ("orchestrator", "remote"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


LAPTOP = modules("orchestrator")
VM = modules("remote")


def test_every_module_of_the_laptop_has_its_row() -> None:
    assert set(LAPTOP) == set(RANK)


@pytest.mark.parametrize("module", sorted(LAPTOP))
def test_the_laptops_imports_point_down_and_through_the_doors(module: str) -> None:
    name = module.partition(".")[2]
    for imported in imports(LAPTOP[module]):
        package, _, rest = imported.partition(".")
        if package == "orchestrator":
            assert RANK[imported] <= RANK[module], f"{module} may not import {imported}"
        elif package == "remote":
            assert rest in KERNEL, f"{module} may not import {imported}"
        assert package != "jobs"
        assert name in DOORS.get(package, {name}), f"only {DOORS[package]} may import {package}"


@pytest.mark.parametrize("module", sorted(VM))
def test_the_vms_half_needs_nothing_but_the_standard_library_and_itself(module: str) -> None:
    for imported in imports(VM[module]):
        package = imported.partition(".")[0]
        assert package == "remote" or package in sys.stdlib_module_names, imported


def test_there_are_no_circles() -> None:
    everything = LAPTOP | VM
    graph = {
        module: {name for name in imports(tree) if name in everything}
        for module, tree in everything.items()
    }

    assert len(list(TopologicalSorter(graph).static_order())) == len(everything)


def test_the_kernel_works_where_there_is_no_posix() -> None:
    posix = {"fcntl", "grp", "pwd", "resource", "termios"}
    for name in KERNEL:
        assert not imports(VM[f"remote.{name}"]) & posix


@pytest.mark.parametrize("module", ["orchestrator.cli", "orchestrator.roundtrip"])
def test_importing_starts_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"tensorflow", "keras", "paramiko", "textual", "numpy"} & set(loaded)
    assert module in loaded


def test_the_laptops_half_imports_on_a_system_without_posix() -> None:
    names = sorted(set(LAPTOP) - {"orchestrator.demo"})
    code = f"""
import importlib, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty"):
    sys.modules[name] = None
sys.platform = "win32"
for name in {names}:
    importlib.import_module(name)
"""
    # The libraries are imported first: it is our modules that are put to the test.
    code = "import asyncio, asyncssh, paramiko, platformdirs, rich.live, typer, yaml\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
