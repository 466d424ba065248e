"""A run that waits is given back to the laptop; one that has begun is not, unless it must end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.vm.link import Link
from remote.protocol import Done, GiveBack, RunReport
from remote.runfolder import GIVEN_BACK, RunState, State
from tests.servers import SshServer
from tests.vm import Vm, practice, wait_until

WAIT = "until [ -e ../../../go ]; do sleep 0.05; done"


@pytest.fixture
def vm(embedded_server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(embedded_server, tmp_path) as vm:
        yield vm


@pytest.fixture
def link(vm: Vm) -> Link:
    return vm.connect()


def go(vm: Vm) -> None:
    (vm.store / "go").touch()


def is_running(vm: Vm, run_id: str) -> bool:
    state = vm.run_folder(run_id).state
    return state.exists() and b'"running"' in state.read_bytes()


def state_of(report: RunReport) -> RunState:
    assert report.state is not None
    return report.state


def test_one_that_waits_ends_at_once_and_its_command_never_starts(vm: Vm, link: Link) -> None:
    first = vm.start(link, WAIT, "first", gpus=1)
    wait_until(lambda: is_running(vm, "first"), "the one that has the slot")
    second = vm.start(link, "touch ../../../started", "second", gpus=1)
    link.call(GiveBack("second"), Done)
    (report,) = vm.finish(link, second)
    assert (state_of(report).state, state_of(report).reason) == (State.CANCELLED, GIVEN_BACK)
    assert second.is_given_back
    assert not second.has_begun
    go(vm)
    vm.finish(link, first)
    assert not (vm.store / "started").exists()


def test_one_that_has_begun_ignores_it(vm: Vm, link: Link) -> None:
    mirror = vm.start(link, WAIT, gpus=1)
    wait_until(lambda: is_running(vm, "run"), "its command")
    link.call(GiveBack("run"), Done)
    go(vm)
    (report,) = vm.finish(link, mirror)
    assert state_of(report).state is State.SUCCEEDED


def test_one_that_another_host_has_ends_though_it_has_begun(vm: Vm, link: Link) -> None:
    mirror = vm.start(link, "sleep 60", gpus=1, grace_s=0.1)
    wait_until(lambda: is_running(vm, "run"), "its command")
    link.call(GiveBack("run", begun=True), Done)
    (report,) = vm.finish(link, mirror)
    assert (state_of(report).state, state_of(report).reason) == (State.CANCELLED, GIVEN_BACK)


def test_one_that_the_user_has_cancelled_stays_the_users(vm: Vm, link: Link) -> None:
    mirror = vm.start(link, "sleep 60", gpus=1, grace_s=0.1)
    wait_until(lambda: is_running(vm, "run"), "its command")
    vm.run_folder().cancel.touch()
    link.call(GiveBack("run", begun=True), Done)
    (report,) = vm.finish(link, mirror)
    assert state_of(report).reason == "cancelled by the user"
