"""When a host of a pool has lost so much that it gets no more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.errors import TrainshedError
from orchestrator.pools.hosts import Hosts
from orchestrator.pools.moving import Moving
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.roundtrip import RoundTrip
from remote.protocol import RunReport
from remote.runfolder import RunRequest, RunState, State


class Lab:
    """A host that answers."""

    name = "gpu0"
    is_dead = False
    refusal: TrainshedError | None = None


def lost(mirrors: Mirrors, number: int, boot: str) -> Mirror:
    """One that waited on a machine which was seen in this boot afterwards."""
    mirror = mirrors.make(RunRequest(f"a-2026010{number}-000000-abcd", "a", "", "true"))
    state = RunState(State.QUEUED, "2026-01-01T00:00:00Z", boot_id="before")
    mirror.see(RunReport(mirror.run_id, "a", alive=False, stamp="1", state=state), boot)
    return mirror


@pytest.mark.parametrize(
    ("boots", "is_refused"),
    [
        (("after", "after", "after", "after"), False),
        (("after", "later", "still later"), True),
        (("before", "before", "before"), True),
        (("before", "before", "after"), True),
    ],
)
def test_what_one_reboot_took_is_one_loss(
    tmp_path: Path, boots: tuple[str, ...], is_refused: bool
) -> None:
    mirrors = Mirrors(tmp_path)
    host = Lab()
    hosts = SimpleNamespace(of=lambda _: host, by_name={}, say_once=lambda _: None)
    trip = SimpleNamespace(mirrors=mirrors, ledger=None)
    moving = Moving(cast(RoundTrip, trip), cast(Hosts, hosts))
    for number, boot in enumerate(boots, start=1):
        assert moving.why_of(lost(mirrors, number, boot)) == "gpu0 lost it before it began"
    assert (host.refusal is not None) == is_refused
