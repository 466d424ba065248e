"""The line fails at any byte, in either direction; the same command again finishes the job."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.connection.ssh import LOGIN_LIMIT_S, SILENCE_LIMIT_S
from tests.engines import Engine
from tests.faults.line import DOWN, UP, Fault, FaultyLine, Kind, Way
from tests.faults.points import chosen, only_in_faults, tell
from tests.faults.scene import run_module, set_up, set_up_on, train_until_done
from tests.faults.truth import Scene
from tests.faults.vm import processes
from tests.laptop import SCRIPT, Finished, Laptop, is_awaited, wait_until
from tests.servers import SshServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

# Lost connection, or none to be had; anything else is no answer to a line that fails.
LOST = {0, 3, 4}


@pytest.mark.parametrize("way", [UP, DOWN])
@pytest.mark.parametrize("kind", ["cut", pytest.param("reset", marks=only_in_faults)])
def test_a_line_that_breaks_at_any_byte(
    embedded_server: SshServer, tmp_path: Path, kind: Kind, way: Way
) -> None:
    with FaultyLine(embedded_server.port) as line:
        laptop, _ = set_up(tmp_path / "whole", embedded_server, line.port)
        train_until_done(laptop)
        total = line.passed[way]
        offsets = chosen(range(total), few=3)
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


# A login has twice as long, because the server may be asking others whether to let us in.
# Where in what is sent the key is proven: behind the agreement on keys.
LOGIN = {UP: range(1_500, 4_000), DOWN: range(2_700, 4_000)}
# What a machine that is busy with other tests adds.
MARGIN_S = 6.0


@pytest.mark.parametrize("way", [UP, pytest.param(DOWN, marks=only_in_faults)])
def test_a_line_that_stalls_is_noticed_in_15_s(
    embedded_server: SshServer, tmp_path: Path, way: Way
) -> None:
    with FaultyLine(embedded_server.port) as line:
        laptop, _ = set_up(tmp_path / "whole", embedded_server, line.port)
        train_until_done(laptop)
        offsets = chosen(range(line.passed[way]), few=1)
        for offset in offsets:
            laptop, scene = set_up(tmp_path / str(offset), embedded_server, line.port)
            line.arm(Fault("stall", way, offset))
            tries = train_until_done(laptop)
            said = "".join(each.stderr for each in tries)
            assert {each.returncode for each in tries} <= LOST, f"{offset}: {said}"
            # It connects again as soon as it has noticed; but for the end, where it is not needed.
            if line.accepted_at[-1] > line.struck_at:
                took_s = line.accepted_at[-1] - line.struck_at
                limit_s = LOGIN_LIMIT_S if offset in LOGIN[way] else SILENCE_LIMIT_S
                assert took_s < limit_s + MARGIN_S, f"{offset}: {took_s} s, {said}"
            assert scene.lies_when_done() == [], offset
    tell(f"line stalls, {way}wards", len(offsets), "noticed in 15 s, and finished")


def parted(laptop: Laptop, word: int, when: str, count: Path, *words: str) -> Finished:
    """A command whose line is cut before or after its so many-th word with the VM."""
    return run_module(laptop, "parted", str(word), when, str(count), *words)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_line_that_is_cut_at_any_word_of_a_submission_starts_it_once(
    engine: Engine, tmp_path: Path, when: str
) -> None:
    count = tmp_path / "count"
    laptop, _ = set_up_on(engine, tmp_path / "whole")
    assert parted(laptop, 0, when, count, "--remote", "far").returncode == 0
    words = chosen(range(1, int(count.read_text()) + 1), min(3, engine.few))
    for word in words:
        laptop, scene = set_up_on(engine, tmp_path / str(word))
        done = parted(laptop, word, when, count, "--remote", "far")
        assert done.returncode in LOST, f"{word}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{word}: {done.stderr}"
        if done.returncode:
            train_until_done(laptop)
        assert scene.lies_when_done() == [], word
        assert len(scene.found("runs/*-*")) == 1, word
    tell(f"line cut {when} each word of a run", len(words), "it is started once, and comes home")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_line_that_is_cut_at_any_word_of_a_cancellation_cancels_it(
    embedded_server: SshServer, tmp_path: Path, when: str
) -> None:
    count = tmp_path / "count"

    def begin(folder: Path) -> tuple[Laptop, Scene]:
        laptop, scene = set_up(folder, embedded_server, embedded_server.port)
        laptop.add_job("b", script=SCRIPT)
        go = folder / "never"
        laptop.ok("b", "--remote", "far", "--detach", "-p", f"until={go}")
        wait_until(lambda: is_awaited(go), "the script")
        return laptop, scene

    laptop, _ = begin(tmp_path / "whole")
    assert parted(laptop, 0, when, count, "cancel", "b").returncode == 0
    words = chosen(range(1, int(count.read_text()) + 1), few=2)
    for word in words:
        laptop, scene = begin(tmp_path / str(word))
        done = parted(laptop, word, when, count, "cancel", "b")
        assert done.returncode in LOST, f"{word}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{word}: {done.stderr}"
        assert "cancelled" in laptop.ok("cancel", "b").stdout
        assert set(laptop.states().values()) == {"cancelled"}
        assert scene.lies() == [], word
        assert not processes(scene.home, "b/job.py")
    tell(f"line cut {when} each word of a cancel", len(words), "the same command ends the run")


@only_in_faults
@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_line_that_is_slow_is_not_taken_for_dead(
    embedded_server: SshServer, tmp_path: Path, way: Way
) -> None:
    with FaultyLine(embedded_server.port) as line:
        laptop, _ = set_up(tmp_path / "whole", embedded_server, line.port)
        train_until_done(laptop)
        offsets = chosen(range(line.passed[way] * 3 // 4), few=1)
        for offset in offsets:
            laptop, scene = set_up(tmp_path / str(offset), embedded_server, line.port)
            before = len(line.accepted_at)
            line.arm(Fault("slow", way, offset))
            done = laptop.ok("--remote", "far")
            assert "again" not in done.stderr, f"{offset}: {done.stderr}"
            assert line.has_struck
            assert len(line.accepted_at) == before + 1, offset
            assert scene.lies_when_done() == [], offset
    tell(f"line of 2 kB/s, {way}wards", len(offsets), "waited for")
