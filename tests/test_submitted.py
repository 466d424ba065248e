"""What a VM has accepted is known to be there, whatever was heard of it before."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from orchestrator.records.ledger import Ledger, RunFact
from orchestrator.records.mirror import LOST, Mirrors
from orchestrator.roundtrip import RoundTrip
from orchestrator.vm.link import Link
from remote.protocol import RunReport
from remote.runfolder import RunRequest


def test_one_that_another_command_took_for_lost_is_queued(tmp_path: Path) -> None:
    mirror = Mirrors(tmp_path).make(RunRequest("a-20260101-000000-abcd", "a", "", "true"))
    # Asked after between its folder and its start.
    mirror.see(RunReport(mirror.run_id, "a", alive=False, stamp="1"), "boot")
    assert mirror.verdict == LOST
    told: list[str] = []
    link = cast(Link, SimpleNamespace(hello=SimpleNamespace(boot_id="boot"), clock_off_s=0.0))
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        at = datetime.now(UTC)
        fact = RunFact(
            mirror.run_id, "/exam", "a", "k80", "", "true", at, Decimal("0.6"), "USD", "config"
        )
        ledger.add(fact)
        trip = SimpleNamespace(ledger=ledger, tell=SimpleNamespace(step=told.append))
        trip._mark_submitted = lambda *of: RoundTrip._mark_submitted(cast(RoundTrip, trip), *of)
        RoundTrip.record_sent(cast(RoundTrip, trip), [mirror], lambda: link)
    assert (mirror.verdict, told) == ("queued", [f"submitted {mirror.run_id}"])
