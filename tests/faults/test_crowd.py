"""Many clients at once, on one workspace or two laptops, and one VM with one slot."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.points import is_thorough, tell
from tests.faults.scene import set_up
from tests.faults.truth import STARTS, Scene
from tests.faults.vm import processes
from tests.laptop import Finished, Laptop, is_awaited, make_laptop, wait_until
from tests.servers import SshServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

# It notes its start, and a clash where another is at work in the one slot; then it says something,
# waits if it is told to, and makes a model that no other run makes.
SCRIPT = f"""\
import fcntl, os, pathlib, time
home, run = pathlib.Path(os.environ["HOME"]), pathlib.Path.cwd().parent.name
with (home / "{STARTS}").open("a") as file:
    file.write(os.getcwd() + "\\n")
slot = (home / "slot").open("a")
try:
    fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    (home / "clash").touch()
(home / "order").open("a").write(run + "\\n")
print("I am", run, flush=True)
until = os.environ.get("PARAM_until")
if until:
    pathlib.Path(until + ".awaited").touch()
while until and not os.path.exists(until):
    time.sleep(0.02)
time.sleep(0.3)
pathlib.Path(__file__).with_name("mymodel.h5").write_text("a model of " + run)
"""
REPOSITORY = Path(__file__).parents[2]
JOBS = ("x", "y")
LAPTOPS = 2
# Whatever a crowd does to it: done, a run failed or nothing to grade, no such run, refused.
USUAL = {0, 1, 2}


def laptops(folder: Path, server: SshServer) -> list[tuple[Laptop, Scene]]:
    """Their users share the VM's account; nothing of an earlier test is left there."""
    for name in ("slot", "clash", "order"):
        (server.home / name).unlink(missing_ok=True)
    first, scene = set_up(folder / "0", server, server.port)
    found = [(first, scene)]
    for number in range(1, LAPTOPS):
        laptop = make_laptop(folder / str(number), None)
        laptop.add_remote(server, "far")
        found.append((laptop, Scene(laptop.root, laptop.home / "ledger.sqlite3", server.home)))
    for number, (laptop, _) in enumerate(found):
        for job in JOBS:
            # Other code on each laptop, so that each has trees of its own.
            laptop.add_job(job, script=f"# {number}\n{SCRIPT}")
    return found


def some_commands(laptop: Laptop, chance: random.Random, count: int) -> Iterator[list[str]]:
    """What a user might type who does not know of the others."""
    for _ in range(count):
        job = chance.choice(JOBS)
        run_id = chance.choice([*laptop.states(), job])
        train = [job, "--remote", "far", "-p", f"number={chance.randrange(3)}"]
        yield chance.choice(
            [
                train,
                [*train, "--detach"],
                [*train, "--detach"],
                ["cancel", run_id],
                ["pull"],
                ["pull", job],
                ["gc", "far", "--drop", "--keep-days", "0"],
                ["grade", job],
                ["status"],
                ["cost"],
                ["logs", run_id],
            ]
        )


def lies_of_a_crowd(scene: Scene, laptop: Laptop) -> Iterator[str]:
    """What a run may not be when all is over. Those that were dropped on the VM count, too."""
    yield from scene.lies()
    noted = Counter(Path(line).parent.name for line in lines(scene.home / STARTS))
    for run_id, state in laptop.states().items():
        model = f"a model of {run_id}".encode()
        kept = [path.read_bytes() for path in laptop.root.glob(".train/models/*/*")]
        if state not in ("succeeded", "cancelled", "not heard of"):
            yield f"{run_id} is {state}"
        if state == "succeeded" and (noted[run_id] != 1 or model not in kept):
            yield f"{run_id} succeeded, was started {noted[run_id]} times, its model is not here"
        if noted[run_id] > 1:
            yield f"{run_id} was started {noted[run_id]} times"
    if (scene.home / "clash").exists():
        yield "two were at work in one slot"


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("seed", range(4 if is_thorough() else 1))
def test_clients_at_once_do_each_other_no_harm(
    embedded_server: SshServer, tmp_path: Path, seed: int
) -> None:
    clients, count = (20, 8) if is_thorough() else (6, 3)
    crowd = laptops(tmp_path, embedded_server)

    def client(number: int) -> list[tuple[list[str], Finished]]:
        # With an even seed all share one workspace.
        laptop, _ = crowd[number % LAPTOPS if seed % 2 else 0]
        chance = random.Random(f"{seed} {number}")
        return [(words, laptop.train(*words)) for words in some_commands(laptop, chance, count)]

    with ThreadPoolExecutor(clients) as pool:
        tried = [one for done in pool.map(client, range(clients)) for one in done]
    for words, done in tried:
        told = f"{words}: {done.returncode} {done.stderr}"
        assert done.returncode in USUAL, told
        assert "Traceback" not in done.stderr, told
    wait_until(lambda: not processes(embedded_server.home, "remote.zip"), "the end of all runs")
    for laptop, scene in crowd:
        if laptop.states():
            laptop.train("pull")
        assert list(lies_of_a_crowd(scene, laptop)) == []
        assert list(scene.left_over()) == []
    tell(f"{clients} clients at once", len(tried), "no lie, no run twice, every model is here")


def test_runs_that_race_for_one_slot_get_it_in_their_order_and_one_by_one(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    (laptop, scene), *_ = laptops(tmp_path, embedded_server)
    go = tmp_path / "go"

    def hold(_: int) -> None:
        laptop.ok("x", "--remote", "far", "--detach", "-p", f"until={go}")

    # The same command at once is one run, whoever comes first.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(4)))
    wait_until(lambda: is_awaited(go), "the one that holds the slot")
    (holder,) = laptop.states()

    def submit(number: int) -> None:
        laptop.ok("y", "--remote", "far", "--detach", "-p", f"number={number}")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(submit, range(5)))
    tickets = sorted(path.name for path in (scene.store / "queue").iterdir())
    waiting = [name.partition("-")[2] for name in tickets]
    assert len(waiting) == 5
    reasons = {row["run"]: row["reason"] for row in laptop.json("status")}
    assert reasons[waiting[0]] == f"waits for slot cpu0, held by {holder}"
    assert reasons[waiting[1]] == f"behind {waiting[0]}"
    go.touch()
    wait_until(lambda: not processes(scene.home, "remote.zip"), "the end of all runs")
    assert lines(scene.home / "order") == [holder, *waiting]
    laptop.ok("pull")
    assert list(lies_of_a_crowd(scene, laptop)) == []
    tell("five runs race for one slot", 5, "in order of arrival, never two at once")


# `train`, with an agent that takes for old what was not used for a second.
HASTY = """\
import sys
import threading
from orchestrator import cli
from orchestrator.vm import package
sources = package.load_sources()
patient = "_YOUNG_S = 24 * 3600.0"
assert patient in sources["remote.tidy"]
sources["remote.tidy"] = sources["remote.tidy"].replace(patient, "_YOUNG_S = 1.0")
sys.exit(cli.run_command())
"""


def tidy_hastily(laptop: Laptop) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HASTY, "gc", "far", "--drop", "--keep-days", "0"],
        cwd=laptop.root,
        env=laptop.environment({"PYTHONPATH": str(REPOSITORY)}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_gc_drops_nothing_that_runs_need_which_start_or_wait(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    (laptop, scene), *_ = laptops(tmp_path, embedded_server)
    go = tmp_path / "go"
    laptop.ok("x", "--remote", "far", "--detach", "-p", f"until={go}")
    wait_until(lambda: is_awaited(go), "the one that holds the slot")
    is_over = threading.Event()

    def tidy_on() -> int:
        count = 0
        while not is_over.is_set():
            tidy_hastily(laptop)
            count += 1
        return count

    changes = 20 if is_thorough() else 2
    noise = random.Random(0)
    with ThreadPoolExecutor(1) as pool:
        tidied = pool.submit(tidy_on)
        try:
            for _ in range(changes):
                # A tree of its own for each, whose sync takes a while.
                (laptop.root / "y" / "noise.bin").write_bytes(noise.randbytes(3_000_000))
                laptop.ok("y", "--remote", "far", "--detach")
        finally:
            is_over.set()
        count = tidied.result()
    go.touch()
    wait_until(lambda: not processes(scene.home, "remote.zip"), "the end of all runs")
    laptop.ok("pull")
    assert list(lies_of_a_crowd(scene, laptop)) == []
    assert Counter(laptop.states().values()) == {"succeeded": changes + 1}

    def is_tidy() -> bool:
        tidy_hastily(laptop)
        return not list(scene.store.glob("snapshots/*"))

    wait_until(is_tidy, "the end of what nobody needs any more, so that this was not for nothing")
    tell("gc while runs start and wait", count, "nothing goes that a run needs")
