"""The line fails at any byte, in either direction; the same command again finishes the job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.line import DOWN, UP, Fault, FaultyLine, Kind, Way
from tests.faults.points import chosen, tell
from tests.faults.scene import set_up, train_until_done
from tests.servers import SshServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

# Lost connection, or none to be had; anything else is no answer to a line that fails.
LOST = {0, 3, 4}


@pytest.mark.parametrize("way", [UP, DOWN])
@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_line_that_breaks_at_any_byte(
    embedded_server: SshServer, tmp_path: Path, kind: Kind, way: Way
) -> None:
    with FaultyLine(embedded_server.port) as line:
        laptop, _ = set_up(tmp_path / "whole", embedded_server, line.port)
        train_until_done(laptop)
        total = line.passed[way]
        offsets = chosen(range(total))
        for offset in offsets:
            fault = Fault(kind, way, offset)
            laptop, scene = set_up(tmp_path / str(offset), embedded_server, line.port)
            line.arm(fault)
            first, *others = train_until_done(laptop)
            assert first.returncode in LOST, f"{fault}: {first.stderr}"
            assert "Traceback" not in "".join(each.stderr for each in (first, *others)), fault
            assert scene.lies_when_done() == [], fault
            assert len(list(scene.store.glob("runs/*-*"))) == 1, fault
    tell(f"line {kind}, {way}wards", len(offsets), "the same command finishes the one run")


@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_line_that_stalls_is_noticed_in_15_s(
    embedded_server: SshServer, tmp_path: Path, way: Way
) -> None:
    with FaultyLine(embedded_server.port) as line:
        laptop, _ = set_up(tmp_path / "whole", embedded_server, line.port)
        train_until_done(laptop)
        offsets = chosen(range(line.passed[way]), few=2)
        for offset in offsets:
            laptop, scene = set_up(tmp_path / str(offset), embedded_server, line.port)
            line.arm(Fault("stall", way, offset))
            train_until_done(laptop)
            assert scene.lies_when_done() == [], offset
    tell(f"line stalls, {way}wards", len(offsets), "noticed in 15 s, and finished")
