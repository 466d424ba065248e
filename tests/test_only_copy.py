"""`train gc` lets no run go of which the VM has the only copy, unless that is asked for by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.records.mirror import Mirrors
from tests.laptop import SCRIPT, Laptop, make_laptop
from tests.servers import SshServer

DROP = ("gc", "vm", "--keep-days", "0", "--drop")


@pytest.fixture
def laptop(embedded_server: SshServer, tmp_path: Path) -> Laptop:
    """One that is the first to use its VM."""
    shutil.rmtree(embedded_server.home / ".trainshed", ignore_errors=True)
    return make_laptop(tmp_path, embedded_server)


def runs(server: SshServer) -> set[str]:
    """Jobs of which the VM has a run."""
    return {path.name.partition("-")[0] for path in server.home.glob(".trainshed/runs/*-*")}


def test_files_that_could_not_be_pulled_are_named_and_stay(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    odd = SCRIPT.replace('"curve.txt"', '"a:b.txt"')
    laptop.add_job("odd", script=odd, outputs=["odd/mymodel.h5", "odd/*.txt"])
    laptop.add_job("home")
    done = laptop.train("odd", "home", "--remote", "vm")
    assert "odd/a:b.txt" in done.stderr
    kept = laptop.ok(*DROP)
    assert "stays: of 'odd/a:b.txt' it has the only copy" in kept.stderr
    assert "train gc vm --drop --force" in kept.stderr
    assert runs(embedded_server) == {"odd"}
    assert "stays" not in laptop.ok(*DROP, "--force").stderr
    assert runs(embedded_server) == set()


def test_a_lost_run_that_makes_nothing_does_not_stay(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    laptop.add_job("a", script="import os; os.kill(os.getppid(), 9)", outputs=[])
    laptop.train("a", "--remote", "vm")
    for mirror in Mirrors(laptop.root / ".train").all():
        (mirror.folder / "settled").unlink(missing_ok=True)
    assert "not here yet" not in laptop.ok(*DROP).stderr
    assert runs(embedded_server) == set()


def test_a_model_that_was_removed_here_is_the_vms_only_copy(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    laptop.add_job("a")
    laptop.ok("a", "--remote", "vm")
    shutil.rmtree(laptop.root / ".train" / "models")
    assert "of 'a/mymodel.h5' it has the only copy" in laptop.ok(*DROP).stderr
    assert runs(embedded_server) == {"a"}


def test_what_another_laptop_has_not_fetched_is_none_of_ours_to_drop(
    laptop: Laptop, embedded_server: SshServer, tmp_path: Path
) -> None:
    laptop.add_job("a")
    laptop.ok("a", "--remote", "vm")
    other = make_laptop(tmp_path / "other", embedded_server)
    other.add_job("theirs")
    other.ok("theirs", "--remote", "vm")
    assert "it is another laptop's" in laptop.ok(*DROP).stderr
    assert runs(embedded_server) == {"theirs"}
    assert "stays" not in other.ok(*DROP).stderr
    assert runs(embedded_server) == set()
