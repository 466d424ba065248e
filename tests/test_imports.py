"""The architecture as a test: which module may import which, and who opens which door."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from orchestrator.ledger import Ledger, Reporter, RunEvent, RunFact
from orchestrator.mirror import Mirrors
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import RunRequest, RunState, State

ROOT = Path(__file__).parent.parent

# From the bottom up. A module may import its own row and lower ones; circles are found besides.
ROWS: tuple[tuple[str, set[str]], ...] = (
    (
        "words: no I/O",
        {
            *(
                "advise",
                "billing",
                "cost",
                "deflate",
                "duration",
                "errors",
                "exam",
                "gitignore",
                "lean",
                "logview",
                "node",
                "pace",
                "power",
                "printable",
                "purse",
                "size",
            ),
            *("secret", "spec", "tell", "verdict", "versions"),
        },
    ),
    (
        "files: what the laptop keeps, and what it reads",
        {
            *("bill", "config", "events", "filelock", "hashing", "home", "ignore", "ledger"),
            *(
                "ledgerschema",
                "mirror",
                "money",
                "package",
                "plan",
                "rebuild",
                "remotes",
                "scan",
                "schema",
            ),
            *("shelf", "snapshot", "statcache"),
            *("account", "exambook", "examtime", "fitting", "machinecost", "pastcode", "sessions"),
            *("bundle", "exported", "exporting", "foreign", "notebook"),
            *("surroundings", "declared", "finding", "planning", "pricetable", "status"),
        },
    ),
    (
        "clouds: who rents the machines out",
        {
            *(
                "aws",
                "awserrors",
                "awsprices",
                "azure",
                "azurelogin",
                "azureprices",
                "exchange",
                "gcp",
            ),
            *("gcplogin", "owncommand", "program", "provider", "rest"),
        },
    ),
    (
        "doors: SSH, and the process that opens models",
        {
            *(
                "channel",
                "confine",
                "dialing",
                "flight",
                "grade",
                "grader",
                "grading",
                "hostkeys",
                "keyoffers",
                "legacy",
            ),
            *(
                "line",
                "link",
                "lockdown",
                "modelcheck",
                "pipe",
                "practicevm",
                "reach",
                "ssh",
                "sshconfig",
                "way",
            ),
        },
    ),
    (
        "steps",
        {
            *("ahead", "doctor", "examiner", "follow", "init", "lanes", "pull", "standing", "sync"),
            *("bounds", "examining", "examplaces", "lifecycle", "meeting", "payments", "settling"),
            *("modelfile", "problems", "resultfile", "taking"),
        },
    ),
    ("the way through", {"roundtrip"}),
    (
        "the user's side",
        {
            *(
                "asking",
                "console",
                "desk",
                "judge",
                "logs",
                "machines",
                "overdue",
                "paydesk",
                "renting",
                "report",
            ),
            *("examdesk", "examreport", "examstart", "history", "statement", "table", "terminal"),
        },
    ),
    (
        "the command line",
        {
            *("cli", "commands", "completion", "demo", "elsewherecommands", "examcommands"),
            "machinecommands",
            *("moneycommands", "options"),
        },
    ),
)
RANK = {f"orchestrator.{name}": row for row, (_, names) in enumerate(ROWS) for name in names}

# What of the VM's half the laptop's may use: the wire format, the digest, the names of files.
KERNEL = {
    *("atomic", "bootstrap", "clock", "elsewhere", "parts", "protocol", "record", "runfolder"),
    *("tree", "wanted"),
}

# Which modules alone may import a heavy or dangerous package.
DOORS = {
    "paramiko": {"flight", "ssh"},
    "asyncssh": {"practicevm"},
    "boto3": {"aws"},
    "botocore": {"aws", "awserrors"},
    "google": {"gcplogin"},
    "http": {"exchange"},
    "yaml": {"config"},
    "click": {
        *("cli", "commands", "completion", "elsewherecommands", "examcommands"),
        "machinecommands",
        *("moneycommands", "options"),
    },
    "rich": {"console", "table", "terminal"},
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


# A command that only reads what is on this laptop, and which of our modules it may import.
_PARSING = {
    *("commands", "completion", "elsewherecommands", "errors", "examcommands", "machinecommands"),
    "moneycommands",
    *("options", "printable"),
}
_SHOWING = _PARSING | {
    *("config", "console", "cost", "duration", "home", "logview", "mirror", "node"),
    *("report", "schema", "size", "spec", "table", "tell", "verdict"),
}
_RECORDED = _SHOWING | {"ledger", "ledgerschema", "money", "power"}
_RUNS = _RECORDED | {"declared", "desk", "finding", "logs", "shelf", "status"}
QUICK = {
    ("--help",): _PARSING,
    ("--version",): _PARSING,
    ("run", "--help"): _PARSING,
    ("status",): _RUNS,
    ("status", "--all", "--local"): _RUNS,
    ("logs", "a-1"): _RUNS,
    ("cost",): _RECORDED | {"bill"},
    ("remote", "list"): _SHOWING,
}
HEAVY = {
    *("asyncio", "concurrent.futures", "cryptography", "h5py", "keras", "numpy", "paramiko"),
    *("pydantic", "rich", "tensorflow", "typer", "multiprocessing", "http", "ssl"),
}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, with the user's files beside it, in which a run has ended and is home."""
    root = tmp_path_factory.mktemp("exam")
    (root / "train.yaml").write_text("jobs: {a: {command: 'true', outputs: [a/x.h5]}}\n")
    (root / "home").mkdir()
    now = datetime.now(UTC)
    with Ledger.open(root / "home" / "ledger.sqlite3") as ledger:
        ledger.add(
            RunFact("a-1", str(root), "a", "vm", "", "true", now, Decimal("0.5"), "USD", "user"),
            RunEvent("a-1", "running", now, Reporter.VM),
            RunEvent("a-1", "failed", now, Reporter.VM, exit_code=1),
        )
    mirror = Mirrors(root / ".train").make(RunRequest("a-1", "a", "0" * 64, "true"))
    state = RunState(State.FAILED, clock.now(), ended_at=clock.now(), exit_code=1)
    mirror.see(RunReport("a-1", "a", alive=False, stamp="1", state=state), "")
    mirror.settle()
    return root


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_a_quick_command_imports_nothing_it_does_not_need(
    laptop: Path, words: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "orchestrator.cli", *words],
        cwd=laptop,
        env={**os.environ, "TRAINSHED_HOME": str(laptop / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    own = {name.partition(".")[2] for name in loaded if name.startswith("orchestrator.")}

    assert "click" in loaded
    assert own <= QUICK[words]
    assert not HEAVY & loaded
    if words[-1] in ("--help", "--version"):
        assert not {"json", "sqlite3", "yaml"} & loaded


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
    code = "import asyncio, asyncssh, click, paramiko, platformdirs, rich.live, yaml\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
