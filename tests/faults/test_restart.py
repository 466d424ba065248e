"""The VM is rebooted while it has a run that may be restarted: it goes on, as often as it may."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.mirror import Mirrors
from tests.faults.points import chosen, only_in_faults, tell
from tests.faults.scene import set_up
from tests.faults.truth import STARTS, Scene
from tests.faults.vm import RebootableVm, processes
from tests.laptop import LIMIT_S, is_awaited, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

# It notes its start, and that attempt which `PARAM_until` waits for waits, before or after its
# model is made.
SCRIPT = f"""
import os, pathlib, time
home, restarts = os.environ["HOME"], os.environ["TRAINSHED_RESTARTS"]
with open(os.path.join(home, "{STARTS}"), "a") as file:
    file.write(os.getcwd() + "\\n")
kept = pathlib.Path(os.environ["TRAINSHED_CHECKPOINTS"], "kept")
print("attempt", restarts, "kept", kept.read_text() if kept.exists() else "nothing", flush=True)
kept.write_text("what attempt " + restarts + " made")
left = pathlib.Path("c/left")
print("the tree is", "as it was left" if left.exists() else "new", flush=True)
left.touch()
go = pathlib.Path(os.environ["PARAM_until"])
if "large" in os.environ.get("PARAM_how", ""):
    with open("c/mymodel.h5", "wb") as file:
        for _ in range(400):
            file.write(os.urandom(1_000_000))
else:
    pathlib.Path("c/mymodel.h5").write_bytes(b"a model")
pathlib.Path(f"{{go}}-{{restarts}}.awaited").touch()
while not go.exists() and "large" not in os.environ.get("PARAM_how", ""):
    time.sleep(0.02)
"""
RESTART = {"restart": "on-interruption"}


class Machines:
    """A laptop, and a VM that has a job `c` which may be restarted."""

    def __init__(self, folder: Path, vm: RebootableVm, **keys: Any) -> None:  # noqa: ANN401
        self.vm = vm
        self.go = folder / "go"
        self.laptop, self.scene = set_up(folder, vm.server, vm.server.port)
        self.laptop.add_job("c", script=SCRIPT, **{**RESTART, **keys})
        self.words = ("c", "--remote", "far", "-p", f"until={self.go}")

    def await_attempt(self, restarts: int) -> None:
        wait_until(lambda: is_awaited(self.go.with_name(f"go-{restarts}")), f"attempt {restarts}")

    @property
    def run_folder(self) -> Path:
        (folder,) = self.scene.store.glob("runs/c-*")
        return folder

    def state(self) -> Any:  # noqa: ANN401
        return json.loads((self.run_folder / "state.json").read_bytes())

    def log(self) -> str:
        return (self.run_folder / "log").read_text()

    def starts(self) -> int:
        return len((self.scene.home / STARTS).read_text().splitlines())


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[RebootableVm]:
    with RebootableVm(tmp_path / "machine") as vm:
        yield vm


@pytest.fixture
def machines(tmp_path: Path, vm: RebootableVm) -> Machines:
    return Machines(tmp_path, vm)


def test_a_run_goes_on_after_a_reboot_while_it_is_followed(machines: Machines) -> None:
    with machines.laptop.start(*machines.words) as process:
        machines.await_attempt(0)
        machines.vm.reboot()
        machines.await_attempt(1)
        machines.go.touch()
        said = "\n".join(process.communicate(timeout=LIMIT_S))
    assert process.returncode == 0, said
    assert "restarted (1 of 3): the VM restarted while it was running" in said
    assert "attempt 1 kept what attempt 0 made" in said
    assert "the tree is as it was left" in said
    assert machines.scene.lies_when_done() == []
    (mirror,) = Mirrors(machines.laptop.root / ".train").all()
    assert mirror.log.read_bytes() == (machines.run_folder / "log").read_bytes()
    status = machines.laptop.ok("status", "--local").stdout
    assert "restarted 1x" in status
    tell("reboot while a run trains that may be restarted", 1, "it goes on as the same run")


@only_in_faults
def test_a_run_goes_on_at_the_next_contact_and_only_its_own_time_is_paid(
    machines: Machines,
) -> None:
    laptop = machines.laptop
    laptop.ok(*machines.words, "--detach")
    machines.await_attempt(0)
    machines.vm.reboot()
    assert processes(machines.vm.server.home, "c/job.py") == []
    assert "running" in laptop.ok("status").stdout + laptop.ok("status").stdout
    machines.await_attempt(1)
    machines.go.touch()
    done = laptop.ok(*machines.words)
    assert "going on with c-" in done.stderr
    assert machines.starts() == 2
    (first,) = machines.state()["earlier"]
    last = machines.state()
    (row,) = laptop.json("cost", "--by", "run")
    paid = sum(_seconds(attempt["setting_up_at"], attempt["ended_at"]) for attempt in (first, last))
    assert row["seconds"] == pytest.approx(paid, abs=0.01)
    assert row["seconds"] < _seconds(first["setting_up_at"], last["ended_at"]) - 0.1
    assert machines.scene.lies_when_done() == []


def _seconds(start: str, end: str) -> float:
    from remote import clock

    return (clock.parse(end) - clock.parse(start)).total_seconds()


@pytest.mark.parametrize("moment", chosen(["setup", "queue", "hashing"], 1))
def test_a_run_goes_on_after_a_reboot_at_any_moment(
    tmp_path: Path, vm: RebootableVm, moment: str
) -> None:
    keys: dict[str, Any] = {}
    hold = tmp_path / "hold"
    if moment == "setup":
        # The environment's interpreter waits when it is asked to make one.
        slow = tmp_path / "slow-python"
        hold.touch()
        slow.write_text(
            f'#!/bin/sh\ntouch "{tmp_path}/setting-up"\n'
            f'while [ -e "{hold}" ]; do sleep 0.02; done\nexec python3 "$@"\n'
        )
        slow.chmod(0o755)
        keys = {"env": {"python": str(slow), "requirements": "requirements.txt"}}
    machines = Machines(tmp_path, vm, **keys)
    laptop = machines.laptop
    more: tuple[str, ...] = ()
    if moment == "setup":
        (laptop.root / "requirements.txt").write_text("")
        (laptop.root / "link").symlink_to("c/job.py")  # it cannot be made over the first attempt's
    if moment == "queue":
        laptop.add_job("b", script=SCRIPT.replace('"c/', '"b/'), **RESTART)
        laptop.ok("b", "--remote", "far", "-p", f"until={tmp_path / 'other'}", "--detach")
        wait_until(lambda: is_awaited(tmp_path / "other-0"), "the first")
    else:
        machines.go.touch()
    if moment == "hashing":
        more = ("-p", "how=large")
    with laptop.start(*machines.words, *more) as process:
        if moment == "hashing":
            machines.await_attempt(0)
        elif moment == "setup":
            wait_until((tmp_path / "setting-up").exists, "the setup")
        else:
            queued = machines.scene.store.glob
            wait_until(lambda: bool(list(queued("runs/c-*/state.json"))), "the queue")
        vm.reboot()
        if moment == "setup":
            hold.unlink()
        machines.go.touch()
        said = "\n".join(process.communicate(timeout=LIMIT_S))
    assert process.returncode == 0, said
    assert machines.state()["restarts"] == 1
    assert machines.scene.lies() == []
    assert machines.state()["state"] == "succeeded"
    tell(f"reboot while a run is in: {moment}", 1, "it goes on as the same run")


def test_a_machine_that_is_always_rebooted_gets_so_many_attempts_and_no_more(
    tmp_path: Path, vm: RebootableVm
) -> None:
    machines = Machines(tmp_path, vm, restart={"at_most": 2})
    laptop = machines.laptop
    laptop.ok(*machines.words, "--detach")
    for restarts in range(3):
        machines.await_attempt(restarts)
        vm.reboot()
        laptop.ok("status")
    (row,) = laptop.json("status", "--local")
    assert (row["state"], row["restarts"]) == ("lost", 2)
    assert row["reason"] == "the VM restarted while it was running, restarted 2x before"
    assert machines.starts() == 3
    again = laptop.train("cancel", "c")
    assert "has already ended: lost" in again.stdout
    assert machines.scene.lies() == []
    tell("reboot at each attempt", 3, "restarted so often as it may, then told as lost")


def test_two_who_ask_at_once_restart_it_once(machines: Machines) -> None:
    laptop = machines.laptop
    laptop.ok(*machines.words, "--detach")
    machines.await_attempt(0)
    reboots = len(chosen(range(3), 1))
    for restarts in range(1, reboots + 1):
        machines.vm.reboot()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: laptop.train("status"), range(3)))
        machines.await_attempt(restarts)
        assert machines.starts() == 1 + restarts
        assert machines.state()["restarts"] == restarts
    machines.go.touch()
    laptop.ok(*machines.words)
    assert machines.scene.lies_when_done() == []
    tell("three agents find an interrupted run at once", reboots, "one of them restarts it")


def test_an_interrupted_run_can_be_cancelled_and_does_not_run_again(machines: Machines) -> None:
    laptop = machines.laptop
    laptop.ok(*machines.words, "--detach")
    machines.await_attempt(0)
    machines.vm.reboot()
    assert "cancelled" in laptop.ok("cancel", "c").stdout
    assert machines.starts() == 1
    assert machines.state()["state"] == "cancelled"
    assert laptop.states() == {machines.run_folder.name: "cancelled"}


@pytest.mark.parametrize("how", chosen(["notice", "SIGTERM"], 1))
def test_a_run_that_is_warned_of_an_eviction_saves_and_goes_on_later(
    machines: Machines, how: str
) -> None:
    laptop = machines.laptop
    laptop.ok(*machines.words, "--detach")
    machines.await_attempt(0)
    if how == "notice":
        (machines.run_folder / "notice").touch()
    else:
        for pid in processes(machines.vm.server.home, "remote.zip"):
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: "interrupted: the machine" in machines.log(), "the interruption")
    wait_until(lambda: machines.state()["reason"] != "", "the reason")
    assert machines.state()["state"] == "running"
    if how == "notice":
        # On the machine that is about to go it is not tried again.
        assert "running" in laptop.ok("status").stdout
        assert not (machines.run_folder / "restarts").exists()
        machines.vm.reboot()
    machines.go.touch()
    laptop.ok(*machines.words)
    assert machines.starts() == 2
    assert machines.scene.lies_when_done() == []


@only_in_faults
def test_without_restart_an_evicted_run_has_failed(tmp_path: Path, vm: RebootableVm) -> None:
    machines = Machines(tmp_path, vm, restart="never")
    script = machines.laptop.root / "c" / "job.py"
    script.write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'go-0.awaited')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    machines.laptop.ok(*machines.words, "--detach")
    machines.await_attempt(0)
    (machines.run_folder / "notice").touch()
    wait_until(lambda: machines.state()["state"] == "failed", "its end")
    assert "about to go off" in machines.state()["reason"]


@only_in_faults
def test_the_time_limit_counts_all_attempts(tmp_path: Path, vm: RebootableVm) -> None:
    machines = Machines(tmp_path, vm, time_limit="4s")
    laptop = machines.laptop
    laptop.ok(*machines.words, "--detach")
    machines.await_attempt(0)
    scene: Scene = machines.scene
    state = machines.run_folder / "state.json"
    # As if it had run for three seconds by then.
    old = state.stat().st_mtime
    wait_until(lambda: bool(list(machines.run_folder.glob("usage.jsonl"))), "a sample")
    os.utime(machines.run_folder / "usage.jsonl", (old + 3, old + 3))
    machines.vm.reboot()
    laptop.ok("status")
    machines.await_attempt(1)
    laptop.train(*machines.words)
    last = machines.state()
    assert last["state"] == "timed-out"
    assert _seconds(last["running_at"], last["ended_at"]) < 3
    assert scene.lies() == []
