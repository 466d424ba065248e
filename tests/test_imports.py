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

from orchestrator.records.ledger import Ledger, Reporter, RunEvent, RunFact
from orchestrator.records.mirror import Mirrors
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import RunRequest, RunState, State

ROOT = Path(__file__).parent.parent


def named(text: str) -> set[str]:
    """`a costs: bill cost` are a, costs.bill and costs.cost."""
    found, folder = set(), ""
    for word in text.split():
        if word.endswith(":"):
            folder = word[:-1] + "."
        else:
            found.add(folder + word)
    return found


# What parses a command's words, and imports the rest where it is needed.
COMMANDS = named("""
    cli commands completion machinecommands options
    costs: commands
    elsewhere: commands
    exams: commands
    measuring: commands
    stories: command
    sweeps: commands
    trackers: commands
    watch: command
""")

# From the bottom up. A module may import its own row and lower ones; circles are found besides.
ROWS: tuple[tuple[str, set[str]], ...] = (
    (
        "words: no I/O",
        named("""
            duration errors size
            clouds: power secret
            connection: lean
            costs: billing cost purse
            exams: advise exam
            gangs: addresses replicas
            grades: verdict versions
            measuring: choosing workload
            pools: placing
            screen: headway logview printable tell
            settings: node pool spec
            source: gitignore
            stories: plot
            sweeps: metric space
            vm: check cluster deflate pace
            watch: board
        """),
    ),
    (
        "files: what the laptop keeps, and what it reads",
        named("""
            declared filelock finding loads outlook plan planning status unwatched
            clouds: pricetable
            costs: account bill fitting machinecost money sessions
            elsewhere: bundle exported exporting foreign notebook
            exams: book timespent
            gangs: refusal
            grades: counting surroundings
            measuring: picking workbook
            records: curves events ledger ledgerschema mirror rebuild shelf
            settings: config home remotes schema
            source: hashing ignore pastcode scan scripts snapshot statcache
            stories: chronicle story sweeps trials
            sweeps: allowance moved past study terms trial unread words
            vm: package
            watch: rundetail
        """),
    ),
    (
        "clouds: who rents the machines out",
        named("""
            clouds: aws awserrors awsprices azure azurelogin azureprices exchange gcp gcplogin
                owncommand program provider rest
        """),
    ),
    (
        "doors: SSH, and the process that opens models",
        named("""
            connection: channel dialing flight forward hostkeys keyoffers line pipe practicevm ssh
                sshconfig way
            grades: confine grade grader grading legacy lockdown modelcheck
            vm: link reach
        """),
    ),
    (
        "steps",
        named("""
            init problems
            clouds: lifecycle
            costs: bounds guarding meeting moving payments quoting release
            elsewhere: modelfile resultfile taking
            exams: places
            grades: examiner examining settling standing
            trackers: eventfiles tensorboard
            vm: ahead doctor follow incoming lanes pull rounds sync
        """),
    ),
    (
        "the way through",
        named("roundtrip"),
    ),
    (
        "the user's side",
        named("""
            asking candidates desk history judge logs notify tutorial
            costs: checkup overdue paydesk renting statement
            exams: desk report start
            measuring: report workbench
            screen: console costs desktop grades machines outcome runs table terminal
            stories: file page plots sweepplots words
            pools: checkup host hosts moving pooltrip sending spread work
            sweeps: onmachine onpool report site sweep sweeping
            trackers: afterwards desk mlflow remoteboard tracked
            vm: machines
            watch: app chart errand feed gathering plain watching widgets
        """),
    ),
    ("the command line", COMMANDS | {"demo"}),
)
RANK = {f"orchestrator.{name}": row for row, (_, names) in enumerate(ROWS) for name in names}

# What of the VM's half the laptop's may use: the wire format, the digest, the names of files.
KERNEL = {
    *(
        "atomic",
        "boardserver",
        "bootstrap",
        "clock",
        "elsewhere",
        "events",
        "measured",
        "parts",
        "protocol",
    ),
    *("record", "runfolder", "tree", "usage", "wanted"),
}

# Which modules alone may import a heavy or dangerous package.
DOORS = {
    "paramiko": named("connection: flight ssh"),
    "asyncssh": {"connection.practicevm"},
    "boto3": {"clouds.aws"},
    "botocore": named("clouds: aws awserrors"),
    "google": {"clouds.gcplogin"},
    "http": {"clouds.exchange"},
    "yaml": {"settings.config"},
    "click": COMMANDS,
    "jinja2": {"stories.page"},
    "markdown_it": {"tutorial"},
    "plotext": {"watch.chart"},
    "optuna": {"sweeps.study"},
    "sqlalchemy": {"sweeps.study"},
    "rich": named("screen: console table terminal watch: chart widgets"),
    "sqlite3": named("records: ledger ledgerschema"),
    "mlflow": {"trackers.mlflow"},
    "tensorboard": set(),
    "tensorflow": {"grades.grading"},
    "textual": named("watch: app widgets"),
    "keras": {"grades.grading"},
    "h5py": {"grades.grading"},
    "numpy": named("grades: grader grading"),
}


def modules(package: str) -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
        for path in sorted((ROOT / package).rglob("*.py"))
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
            if (ROOT / node.module.replace(".", "/")).is_dir():
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
_PARSING = COMMANDS | named("errors screen: printable")
_SHOWING = _PARSING | named("""
    duration loads size
    costs: cost
    grades: verdict
    records: mirror
    screen: console costs headway logview machines runs table tell
    settings: config home node pool schema spec
""")
_RECORDED = _SHOWING | named("""
    clouds: power
    costs: money
    records: ledger ledgerschema
""")
_RUNS = _RECORDED | named("""
    declared desk finding logs status
    grades: counting
    records: shelf
""")
QUICK = {
    ("--help",): _PARSING,
    ("--version",): _PARSING,
    ("run", "--help"): _PARSING,
    ("status",): _RUNS,
    ("status", "--all", "--local"): _RUNS,
    ("logs", "a-1"): _RUNS,
    ("cost",): _RECORDED | {"costs.bill"},
    ("remote", "list"): _SHOWING,
}
HEAVY = {
    *("asyncio", "concurrent.futures", "cryptography", "h5py", "keras", "numpy", "paramiko"),
    *("http", "jinja2", "multiprocessing", "plotext", "pydantic", "rich", "ssl", "tensorflow"),
    *("optuna", "sqlalchemy", "textual", "typer"),
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
    own = {name.partition(".")[2] for name in loaded & set(LAPTOP)}

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


def test_what_machines_cost_is_not_imported_on_the_way_to_one() -> None:
    code = "import orchestrator.desk, orchestrator.roundtrip, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    costs = {name for name in loaded if name.startswith("orchestrator.costs.")}
    assert costs <= {"orchestrator.costs.cost", "orchestrator.costs.money"}
    assert "statistics" not in loaded


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
    libraries = "asyncio, asyncssh, click, paramiko, platformdirs, rich.live, sqlalchemy, yaml"
    code = f"import {libraries}\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
