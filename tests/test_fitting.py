"""What a run is expected to take, by those of before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.costs.fitting import fit
from orchestrator.costs.money import priced_runs
from orchestrator.errors import Forbidden
from orchestrator.plan import Order, Overrides
from orchestrator.records.ledger import Ledger, Reporter, RunEvent, RunFact
from orchestrator.settings.spec import Job, Limits, Price, Remote, Workspace
from remote.runfolder import Slurm

JOB = Job("category1", "python train.py", ("mymodel.h5",))
REMOTE = Remote("vm", "host", price=Price(Decimal(1)), budget=Limits(month=Decimal(1)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        yield ledger


def ran(ledger: Ledger, run_id: str, workspace: Path, state: str) -> None:
    """For three hours, in another month than this one."""
    began = datetime.now(UTC) - timedelta(days=60)
    where = (str(workspace), JOB.name, "vm", "", JOB.command)
    ledger.add(
        RunFact(run_id, *where, began, Decimal(1), "USD", "user"),
        RunEvent(run_id, "running", began, Reporter.VM),
        RunEvent(run_id, state, began + timedelta(hours=3), Reporter.VM),
    )
    priced_runs(ledger, [run_id])


def test_a_run_is_expected_to_take_what_those_took_that_succeeded_here(
    ledger: Ledger, tmp_path: Path
) -> None:
    order = Order(Workspace(tmp_path, (JOB,)), (JOB,), REMOTE)
    ran(ledger, "killed", tmp_path, "cancelled")
    ran(ledger, "elsewhere", tmp_path / "other", "succeeded")
    assert fit(ledger, order) == []

    ran(ledger, "here", tmp_path, "succeeded")
    with pytest.raises(Forbidden, match="would be paid for about 3 h 00 min"):
        fit(ledger, order)


def test_of_a_cluster_each_host_and_each_gpu_is_paid_for(ledger: Ledger, tmp_path: Path) -> None:
    job = replace(JOB, nodes=2, gpus=1)
    cluster = replace(REMOTE, slurm=Slurm())
    limit = Overrides(gpus=3, time_limit_s=1000.0)
    assert fit(ledger, Order(Workspace(tmp_path, (JOB,)), (JOB,), REMOTE, limit)) == []

    order = Order(Workspace(tmp_path, (job,)), (job,), cluster, limit)
    with pytest.raises(Forbidden, match=r"be paid for about 1 h 40 min and cost \$1\.67"):
        fit(ledger, order)
    assert fit(ledger, replace(order, overrides=replace(limit, gpus=1))) == []
