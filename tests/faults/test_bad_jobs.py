"""Jobs that do what no job should: each is told truthfully, and harms nobody after it.

All that harm only themselves are trained by one command, on a VM where root has no more rights
over files than a user has.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.points import is_thorough, tell
from tests.faults.scene import set_up
from tests.faults.truth import Scene, sha256
from tests.faults.vm import processes
from tests.laptop import TRAIN, Finished, Laptop, is_awaited, wait_until
from tests.servers import SshServer, embedded

# One worker, because the day of them all is shared.
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("bad jobs"),
]

AS_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
MIB = 2**20
# What Python and its imports take is half of it.
MEMORY_LIMIT_BYTES = 200 * MIB
# Nothing of it may reach a terminal: controls, escapes, and what turns text around.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
SAVE = 'open("{name}/mymodel.h5", "w").write("a model of {name}")\n'


@dataclass(frozen=True)
class Bad:
    """Attributes:
    script: where `SAVE` stands it saves its model; {name} is its folder.
    said: on stderr, about it.
    """

    script: str
    verdict: str
    said: str
    keys: dict[str, object] = field(default_factory=dict)

    @property
    def saves(self) -> bool:
        return self.script.endswith(SAVE)


FLEES = """\
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(1000)
if os.fork() == 0:
    time.sleep(1000)
"""
EATS = """\
import os, pathlib
group = pathlib.Path(os.environ["MEMORY_GROUP"])
(group / "cgroup.procs").write_text(str(os.getpid()))
eaten = [b"x" * 2**20 for _ in range(2**20)]
"""
BLARES = r"""
import os
os.write(1, bytes(range(256)) + b"\x1b]0;title\x07\x1b[2J\x9b31m" + "\u202e".encode() + b"\n")
"""
MANY = 10_000 if is_thorough() else 100
BAD = {
    "flees": Bad(FLEES + SAVE, "succeeded", ""),
    "killed": Bad(
        "import os\nos.kill(os.getpid(), 9)\n", "failed", "perhaps because the machine ran out of"
    ),
    "blares": Bad(BLARES + SAVE, "succeeded", r"\x00\x01\x02"),
    "runson": Bad('import os\nos.write(1, b"x" * 10_000_000)\n' + SAVE, "succeeded", "xxxx"),
    "mute": Bad("import os\nos.close(1)\nos.close(2)\n" + SAVE, "succeeded", ""),
    "lazy": Bad("pass\n", "succeeded", "made none of its outputs: lazy/mymodel.h5"),
    "pipes": Bad(
        'import os\nos.mkfifo("pipes/mymodel.h5")\n',
        "succeeded",
        "'pipes/mymodel.h5' is no file, and is left out",
    ),
    "links": Bad(
        'import os\nos.symlink("/etc/passwd", "links/mymodel.h5")\n',
        "succeeded",
        "'links/mymodel.h5' is a link, or behind one, and is left out",
    ),
    "points": Bad(
        'import os\nos.symlink("/etc", "points/out")\n' + SAVE,
        "succeeded",
        "made all of its outputs but points/out/passwd",
        {"outputs": ["points/mymodel.h5", "points/out/passwd"]},
    ),
    "locks": Bad(
        SAVE + 'import os\nos.chmod("locks", 0)\nos.chmod(".", 0)\n',
        "succeeded",
        "'locks/mymodel.h5' cannot be read: Permission denied",
    ),
    "razes": Bad(
        "import os, shutil\nshutil.rmtree(os.getcwd())\n",
        "succeeded",
        "made none of its outputs: razes/mymodel.h5",
    ),
    "swarms": Bad(
        f'import os\nos.mkdir("swarms/out")\nfor n in range({MANY}):\n'
        f'    open(f"swarms/out/{{{{n}}}}", "w").write(str(n % 100))\n' + SAVE,
        "succeeded",
        "more that swarms-",
        {"outputs": ["swarms/mymodel.h5", "swarms/out"]},
    ),
}
if is_thorough():
    BAD["deaf"] = Bad(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)\n",
        "timed-out",
        "it did not end in time and is killed",
        {"time_limit": "1s"},
    )


@dataclass(frozen=True)
class Day:
    """What came of them all."""

    laptop: Laptop
    scene: Scene
    done: Finished
    runs: dict[str, str]


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if os.geteuid() == 0 and shutil.which(AS_USER[0]) is None:
        pytest.skip("root may do anything, and there is no setpriv")
    before = AS_USER if os.geteuid() == 0 else ()
    with embedded(tmp_path_factory.mktemp("badjobs") / "vm", before) as server:
        yield server


@pytest.fixture(scope="module")
def day(vm: SshServer, tmp_path_factory: pytest.TempPathFactory) -> Day:
    laptop, scene = set_up(tmp_path_factory.mktemp("day"), vm, vm.port)
    for name, bad in BAD.items():
        laptop.add_job(name, script=bad.script.format(name=name), gpus=0, **bad.keys)
    done = train(laptop, *BAD)
    runs = {run_id.partition("-")[0]: run_id for run_id in laptop.states()}
    return Day(laptop, scene, done, runs)


def train(laptop: Laptop, *words: str) -> Finished:
    """As `Laptop.train`, for as long as it takes."""
    return subprocess.run(
        [*TRAIN, *words, "--remote", "far"],
        cwd=laptop.root,
        env=laptop.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("name", BAD)
def test_what_it_did_is_told_and_nothing_of_it_goes_on(day: Day, name: str) -> None:
    bad, run_id = BAD[name], day.runs[name]
    assert day.laptop.states()[run_id] == bad.verdict
    assert bad.said in day.done.stderr
    assert f"{run_id} {bad.verdict}" in day.done.stderr
    assert (day.laptop.root / name / "mymodel.h5").exists() == bad.saves
    assert processes(day.scene.home, f"{name}/job.py") == []


def test_a_day_of_bad_jobs_leaves_no_lie_and_later_runs_are_as_ever(day: Day) -> None:
    assert day.done.returncode == 1
    assert "Traceback" not in day.done.stderr
    # Where a job shut its own tree, nobody can look into it.
    assert [lie for lie in day.scene.lies() if "locks-" not in lie] == []
    passwd = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
    assert all(sha256(path) != passwd for path in day.laptop.root.rglob("*") if path.is_file())
    assert "succeeded" in day.laptop.ok("a", "--remote", "far").stderr
    # What failed is trained anew.
    again = day.laptop.train("killed", "--remote", "far")
    assert "submitted killed-" in again.stderr
    assert day.runs["killed"] not in again.stderr
    tell("jobs that harm themselves", len(BAD), "each told truthfully; nothing of it goes on")


def test_nothing_raw_of_a_log_reaches_a_terminal_and_its_copy_is_as_it_was(day: Day) -> None:
    shown = day.laptop.ok("logs", "blares")
    for text in (day.done.stderr, day.done.stdout, shown.stdout, shown.stderr):
        assert RAW.search(text) is None
    run_id = day.runs["blares"]
    copy = day.laptop.root / ".train" / "runs" / run_id / "log"
    assert bytes(range(256)) in copy.read_bytes()
    assert copy.read_bytes() == (day.scene.store / "runs" / run_id / "log").read_bytes()


def test_a_last_line_without_its_end_is_shown_before_what_came_after_it(day: Day) -> None:
    lines = day.done.stderr.splitlines()
    (last,) = (n for n, line in enumerate(lines) if line.startswith("runson │ xxxx"))
    (end,) = (n for n, line in enumerate(lines) if f"{day.runs['runson']} succeeded" in line)
    assert last < end


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A control group with so much memory; skips where there is none to be had.

    Source: cgroups(7); Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst of Linux.
    """
    root, limit = Path("/sys/fs/cgroup"), "memory.max"
    if (root / "memory").is_dir():
        root, limit = root / "memory", "memory.limit_in_bytes"
    group = root / f"trainshed-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(limit_bytes))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory control group can be made: {error}")
    try:
        yield group
    finally:
        group.rmdir()


def test_a_job_that_the_kernel_ends_for_its_memory_is_told_so(
    vm: SshServer, tmp_path: Path
) -> None:
    laptop, scene = set_up(tmp_path, vm, vm.port)
    with memory_group(64 * MIB) as group:
        laptop.add_job("eats", script=EATS, command=f"MEMORY_GROUP={group} python3 eats/job.py")
        done = laptop.train("eats", "--remote", "far")
    assert done.returncode == 1
    assert "perhaps because the machine ran out of memory" in done.stderr
    assert set(laptop.states().values()) == {"failed"}
    assert scene.lies() == []
    tell("out of memory", 1, "told; the machine's other runs go on")


WRECKS = """\
import os, pathlib, shutil, time
run = pathlib.Path.cwd().parent
{wreck}
time.sleep(1000)
"""
WRECKED = {
    "its lock": '(run / "lock").unlink()',
    "its folder": "shutil.rmtree(run)",
    "the store": "shutil.rmtree(run.parent.parent)",
}


@pytest.mark.parametrize("what", WRECKED)
def test_a_job_that_removes_what_we_keep_of_it_is_lost_and_ended(
    vm: SshServer, tmp_path: Path, what: str
) -> None:
    laptop, scene = set_up(tmp_path, vm, vm.port)
    laptop.add_job("wrecks", script=WRECKS.format(wreck=WRECKED[what]))
    # It waits for the wrecker's slot, and is nobody's prey: it ends as well, or gets the slot.
    laptop.add_job("waits", script='open("waits/mymodel.h5", "w").write("a model")\n')
    done = laptop.train("wrecks", "waits", "--remote", "far")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    states = {run_id.partition("-")[0]: state for run_id, state in laptop.states().items()}
    assert states["wrecks"] == "lost"
    assert states["waits"] == ("lost" if what == "the store" else "succeeded")
    # Else two would train in one slot, and the machine would be paid for what nobody can see.
    wait_until(lambda: not processes(scene.home, "remote.zip"), "the end of all of it")
    assert processes(scene.home, "wrecks/job.py") == []
    assert scene.lies() == []
    laptop.ok("a", "waits", "--remote", "far")
    assert scene.lies() == []
    tell(f"a job removes {what}", 1, "told as lost, ended at once; the next command sends it anew")


FLOOD = """\
import os, pathlib, time
line = b"x" * 999 + b"\\n"
for _ in range({size_bytes} // len(line) // 1000):
    os.write(1, line * 1000)
go = pathlib.Path(os.environ["PARAM_until"])
go.with_name(go.name + ".awaited").touch()
while not go.exists():
    time.sleep(0.02)
open("floods/mymodel.h5", "w").write("a model")
"""


def test_a_job_that_floods_its_log_takes_memory_nowhere(vm: SshServer, tmp_path: Path) -> None:
    size_bytes = 1_000_000_000 if is_thorough() else 50_000_000
    laptop, scene = set_up(tmp_path, vm, vm.port)
    laptop.add_job("floods", script=FLOOD.format(size_bytes=size_bytes))
    go = tmp_path / "go"
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*TRAIN, "floods", "--remote", "far", "-p", f"until={go}"],
            cwd=laptop.root,
            env=laptop.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        wait_until(lambda: is_awaited(go), "all of the log")
        while copied_bytes(laptop) < size_bytes and process.poll() is None:
            time.sleep(0.05)
        there = {pid: peak_bytes(pid) for pid in processes(scene.home, "python")}
        # Not what the system counts of it: that begins with what it was forked of.
        here = peak_bytes(process.pid)
        go.touch()
        process.wait(60)
    said = (tmp_path / "stderr").read_text()
    assert process.returncode == 0, said[-2000:]
    assert max(there.values()) < MEMORY_LIMIT_BYTES
    assert 0 < here < MEMORY_LIMIT_BYTES
    assert "MB by now, and all of it is copied to" in said
    assert said.count("floods │ xxx") == size_bytes // 1000
    assert scene.lies() == []
    tell(
        "a log of " + ("1 GB" if is_thorough() else "50 MB"), 1, "bounded memory; its copy is told"
    )


def copied_bytes(laptop: Laptop) -> int:
    """Of all logs."""
    return sum(copy.stat().st_size for copy in laptop.root.glob(".train/runs/*/log"))


def peak_bytes(pid: int) -> int:
    """The most memory a process ever had; 0 where it ended.

    Source: proc(5), Linux man-pages: VmHWM of /proc/[pid]/status.
    """
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return 0


LARGE = """\
with open("large/mymodel.h5", "wb") as file:
    file.write(bytes(30_000_000))
"""


def test_an_output_that_somebody_writes_to_is_never_taken_for_what_was_recorded(
    vm: SshServer, tmp_path: Path
) -> None:
    laptop, scene = set_up(tmp_path, vm, vm.port)
    laptop.add_job("large", script=LARGE)
    model = laptop.root / "large" / "mymodel.h5"
    is_over = threading.Event()

    def meddle() -> None:
        """As a program of the user's does, that is none of the run's."""
        number = 0
        while not is_over.wait(0.005):
            for made in scene.store.glob("runs/*/tree/large/mymodel.h5"):
                with made.open("r+b") as file:
                    file.seek(number % 30_000_000)
                    file.write(b"%d" % number)
                number += 999_983

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        first = laptop.train("large", "--remote", "far")
    finally:
        is_over.set()
        meddler.join()
    assert first.returncode == 5, first.stderr
    assert "is not what the VM hashed when the run ended" in first.stderr
    assert not model.exists()
    laptop.ok("large", "--remote", "far")
    assert sha256(model) == hashlib.sha256(bytes(30_000_000)).hexdigest()
    tell("an output that changes after the run", 1, "refused and told; the same trains anew")
