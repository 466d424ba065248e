"""Runs of which no VM ever spoke: told apart from those that may have started, and forgotten."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.laptop import Laptop, is_awaited, make_laptop, wait_until
from tests.servers import Relay, SshServer, free_port


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer) -> Laptop:
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("a")
    return laptop


@pytest.fixture
def relay(embedded_server: SshServer) -> Iterator[Relay]:
    with Relay(embedded_server.port) as relay:
        yield relay


@pytest.fixture
def cut(laptop: Laptop, embedded_server: SshServer, relay: Relay) -> str:
    """A run that was cut off while it was sent over the remote `far`."""
    laptop.add_remote(embedded_server, "far", port=relay.port)
    (laptop.root / "a" / "big.bin").write_bytes(os.urandom(1_000_000))
    relay.cut_after(400_000)
    assert laptop.train("--remote", "far").returncode == 4
    (run_id,) = laptop.states()
    return run_id


def test_a_refused_run_is_forgotten_without_its_vm(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    laptop.add_remote(embedded_server, "one", gpus=1)
    laptop.add_job("two", gpus=2)
    assert laptop.train("two", "--remote", "one").returncode == 5
    (run_id,) = laptop.states()
    laptop.ok("remote", "remove", "one")

    assert "to forget it: train cancel RUN" in laptop.ok("status").stdout
    assert laptop.ok("pull").stderr == "• everything is home\n"
    assert laptop.ok("cancel", "two").stdout == f"{run_id} was never sent; it is forgotten\n"
    assert "no runs yet" in laptop.ok("status").stdout


def test_so_is_one_that_did_not_reach_its_vm(laptop: Laptop, embedded_server: SshServer) -> None:
    laptop.add_remote(embedded_server, "none", port=free_port())
    assert laptop.train("--remote", "none").returncode == 3

    assert "never sent; it is forgotten" in laptop.ok("cancel", "a").stdout


def test_a_run_sent_after_all_is_not_taken_for_one_that_never_was(
    laptop: Laptop, embedded_server: SshServer, relay: Relay
) -> None:
    laptop.add_remote(embedded_server, "far", port=relay.port)
    relay.cut_after(0)
    assert laptop.train("--remote", "far").returncode in (3, 4)
    relay.cut_after(sys.maxsize)
    done = laptop.ok("--remote", "far", "--detach")

    (run_id,) = laptop.states()
    assert f"going on with {run_id}" in done.stderr
    assert not (laptop.root / ".train" / "runs" / run_id / "unsent").exists()
    laptop.ok("attach", "a")


def test_a_run_that_may_have_started_is_only_forgotten_when_told_to(
    laptop: Laptop, relay: Relay, cut: str
) -> None:
    relay.cut_after(0)
    assert "unreachable (never seen)" in laptop.ok("status").stdout
    assert laptop.train("cancel", "a").returncode in (3, 4)
    laptop.ok("remote", "remove", "far")
    refused = laptop.train("cancel", "a")
    pulled = laptop.ok("pull")

    assert refused.returncode == 2
    assert f"it is not known whether {cut} was started: no remote is named 'far'" in refused.stderr
    assert f"train cancel {cut} --forget" in refused.stderr
    assert f"! {cut}: no remote is named 'far'" in pulled.stderr
    assert "it is forgotten" in laptop.ok("cancel", "a", "--forget").stdout
    assert "no runs yet" in laptop.ok("status").stdout
    assert "everything is home" in laptop.ok("pull").stderr


def test_its_vm_is_asked_where_it_answers(laptop: Laptop, relay: Relay, cut: str) -> None:
    relay.cut_after(sys.maxsize)

    assert laptop.ok("cancel", "a").stdout == f"{cut} was never sent; it is forgotten\n"


def test_a_run_that_its_vm_has_is_not_forgotten(laptop: Laptop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    laptop.ok("--remote", "vm", "--detach", "-p", f"until={go}")
    wait_until(lambda: is_awaited(go), "the script")
    refused = laptop.train("cancel", "a", "--forget")

    assert refused.returncode == 2
    assert "may cost money" in refused.stderr
    assert laptop.ok("cancel", "a").stdout.endswith(" cancelled\n")
