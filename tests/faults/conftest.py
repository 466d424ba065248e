"""What fails is told, too, so that no row of docs/reliability.md claims that it held."""

from __future__ import annotations

import pytest

from tests.engines import Engine, kinds
from tests.faults.points import only_in_faults, tell_failure


# With a pool, which takes longest, only where there is time.
@pytest.fixture(params=kinds(of_pool=[only_in_faults]))
def engine(request: pytest.FixtureRequest) -> Engine:
    found = request.getfixturevalue(f"{request.param}_engine")
    assert isinstance(found, Engine)
    return found


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        tell_failure(report.nodeid)
