"""The VM is rebooted in the middle of everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.points import tell
from tests.faults.scene import set_up, train_until_done
from tests.faults.truth import STARTS
from tests.faults.vm import RebootableVm, processes
from tests.laptop import LIMIT_S, SCRIPT, is_awaited, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

# Makes so much that hashing it takes a while.
LARGE = """
import os, pathlib
with open("a/mymodel.h5", "wb") as file:
    for _ in range(400):
        file.write(os.urandom(1_000_000))
if "PARAM_until" in os.environ:
    pathlib.Path(os.environ["PARAM_until"] + ".awaited").touch()
"""


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[RebootableVm]:
    with RebootableVm(tmp_path / "machine") as vm:
        yield vm


def test_a_run_that_a_reboot_ended_is_told_and_the_command_trains_anew(
    vm: RebootableVm, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    laptop, scene = set_up(tmp_path, vm.server, vm.server.port)
    laptop.add_job("b", script=SCRIPT)
    with laptop.start("b", "--remote", "far", "-p", f"until={go}") as process:
        wait_until(lambda: is_awaited(go), "the script")
        vm.reboot()
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 1, said
    assert "the VM restarted while it was running" in said
    assert set(laptop.states().values()) == {"lost"}
    assert scene.lies() == []
    assert processes(vm.server.home, "b/job.py") == []
    go.touch()
    laptop.ok("b", "--remote", "far")
    assert scene.lies() == []
    tell("reboot while a run trains", 1, "told as lost; the same command trains anew")


def test_a_run_that_waits_for_its_slot_is_lost_in_a_reboot_too(
    vm: RebootableVm, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    laptop, scene = set_up(tmp_path, vm.server, vm.server.port)
    laptop.add_job("b", script=SCRIPT)
    laptop.ok("b", "--remote", "far", "--detach", "-p", f"until={go}")
    wait_until(lambda: is_awaited(go), "the script")
    with laptop.start("a", "--remote", "far") as process:
        wait_until(lambda: len(list(scene.store.glob("runs/*-*/state.json"))) == 2, "the second")
        vm.reboot()
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 1, said
    assert "the VM restarted while it was queued" in said
    assert scene.lies() == []
    train = laptop.ok("a", "--remote", "far")
    assert "succeeded" in train.stderr
    assert not (scene.home / STARTS).read_text().splitlines()[1:]
    tell("reboot while a run is queued", 1, "told as lost; its place in the queue is free")


def test_a_reboot_while_outputs_are_hashed_loses_no_run_that_is_told_as_ended(
    vm: RebootableVm, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    laptop, scene = set_up(tmp_path, vm.server, vm.server.port)
    laptop.add_job("c", script=LARGE.replace('"a/', '"c/'))
    with laptop.start("c", "--remote", "far", "-p", f"until={go}") as process:
        wait_until(lambda: is_awaited(go), "the script's end")
        vm.reboot()
        process.communicate(timeout=LIMIT_S)
    assert process.returncode in (0, 1)
    assert scene.lies() == []
    train_until_done(laptop)
    assert scene.lies() == []
    tell("reboot while outputs are hashed", 1, "the run has all its outputs, or is lost")
