"""Commands that speak with more than one machine, or are spared what they do not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.laptop import Laptop, is_awaited, make_laptop, wait_until
from tests.servers import Relay, SshServer


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer) -> Laptop:
    made = make_laptop(tmp_path, embedded_server)
    made.add_job("a")
    return made


def by_remote(laptop: Laptop) -> dict[str, Any]:
    return {row["remote"]: row for row in laptop.json("status")}


def test_each_remote_is_asked_whatever_becomes_of_the_others(
    laptop: Laptop, openssh_server: SshServer, tmp_path: Path
) -> None:
    gos = {name: tmp_path / name for name in ("vm", "far")}
    with Relay(openssh_server.port) as relay:
        laptop.add_remote(openssh_server, "far", port=relay.port)
        for name, go in gos.items():
            laptop.ok("a", "-r", name, "--detach", "-p", f"until={go}")
            wait_until(lambda go=go: is_awaited(go), "the script")  # type: ignore[misc]
        assert {row["state"] for row in by_remote(laptop).values()} == {"running"}

    for go in gos.values():
        go.touch()
    wait_until(lambda: by_remote(laptop)["vm"]["state"] == "succeeded", "the run that is reached")
    rows = by_remote(laptop)
    assert rows["far"]["state"] == "running"
    assert rows["far"]["note"].startswith("unreachable (last seen ")
    assert rows["vm"]["note"] == "not here yet: train pull"


def test_a_run_was_last_seen_when_its_machine_was_last_asked_though_nothing_had_changed(
    laptop: Laptop, tmp_path: Path
) -> None:
    laptop.ok("a", "-r", "vm", "--detach", "-p", f"until={tmp_path / 'go'}")
    wait_until(lambda: is_awaited(tmp_path / "go"), "the script")
    (seen, again) = (by_remote(laptop)["vm"]["seen_at"] for _ in range(2))
    (tmp_path / "go").touch()

    assert again > seen


def test_who_detaches_waits_for_nothing_that_grades(laptop: Laptop) -> None:
    def loads_it(*words: str) -> bool:
        done = laptop.train("a", "-r", "vm", *words, PYTHONPROFILEIMPORTTIME="1")
        return "orchestrator.grades.examiner" in done.stderr

    assert not loads_it("--detach")
    assert loads_it()
