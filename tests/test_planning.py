"""Which runs a command takes up again, and which it makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.plan import Order
from orchestrator.planning import Planning
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirrors
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.source.snapshot import Snapshot, take_snapshot

JOB = Job("a", "true", ("a/m.h5",), restarts=2)
ONE, OTHER = (Remote(name, "127.0.0.1", gpus=1) for name in ("one", "other"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path / "ledger")
    yield ledger
    ledger.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    return Workspace(root, (JOB,), ())


@pytest.fixture
def snapshot(workspace: Workspace) -> Snapshot:
    return take_snapshot(workspace, (JOB,), Silence())


def begin(workspace: Workspace, ledger: Ledger) -> Planning:
    """As another command does."""
    mirrors = Mirrors(workspace.state)
    return Planning(workspace.state / "planning", mirrors, ledger, Silence())


def test_what_a_pool_has_moved_is_not_taken_up_again_on_the_host_that_had_it(
    workspace: Workspace, ledger: Ledger, snapshot: Snapshot
) -> None:
    here, there = (Order(workspace, (JOB,), remote) for remote in (ONE, OTHER))
    (old,) = begin(workspace, ledger).plan_runs(here, snapshot)
    assert begin(workspace, ledger).plan_runs(here, snapshot) == (old,)
    (new,) = begin(workspace, ledger).make_once([there], [here], snapshot, instead=[old])

    (found,) = begin(workspace, ledger).plan_runs(here, snapshot)

    assert found not in (old, new)


def test_two_commands_that_move_a_run_make_one_successor(
    workspace: Workspace, ledger: Ledger, snapshot: Snapshot
) -> None:
    here, there = (Order(workspace, (JOB,), remote) for remote in (ONE, OTHER))
    (old,) = begin(workspace, ledger).plan_runs(here, snapshot)

    (first,) = begin(workspace, ledger).make_once([there], [here], snapshot, instead=[old])
    (second,) = begin(workspace, ledger).make_once([here], [there], snapshot, instead=[old])

    assert first == second == old.successor
    assert [ledger.remote_of(mirror.run_id) for mirror in (old, first)] == ["one", "other"]
    assert begin(workspace, ledger).find_open([here, there], snapshot) == {"a": first}
