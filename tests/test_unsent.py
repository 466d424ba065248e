"""Runs of which no VM ever spoke: told apart from those that may have started, and forgotten."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.records.mirror import Mirrors
from remote.runfolder import RunRequest
from tests.laptop import LIMIT_S, Laptop, is_awaited, make_laptop, wait_until, without_patience
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
    with laptop.start("--remote", "far") as process:
        assert process.stderr is not None
        # It would look for its VM for 20 s before it ends by itself.
        assert any("connecting again" in line for line in process.stderr)
        process.kill()
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
    assert without_patience(laptop.ok("pull").stderr) == "• everything is home\n"
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
    laptop.ok("remote", "remove", "far", "--force")
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


def test_a_remote_is_not_moved_or_removed_from_under_a_run_that_may_go_on(
    laptop: Laptop, relay: Relay, cut: str, embedded_server: SshServer
) -> None:
    relay.cut_after(sys.maxsize)
    for words in (["set", "far", "--port", str(embedded_server.port)], ["remove", "far"]):
        refused = laptop.train("remote", *words)
        assert refused.returncode == 2
        assert cut in refused.stderr
        assert "--force" in refused.stderr


def test_a_reconnection_to_another_machine_is_none(
    laptop: Laptop, openssh_server: SshServer, embedded_server: SshServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with Relay(embedded_server.port) as relay:
        laptop.add_remote(embedded_server, "far", port=relay.port)
        with laptop.start("--remote", "far", "-p", f"until={go}") as process:
            wait_until(lambda: is_awaited(go), "the script")
            remotes = laptop.home / "remotes.yaml"
            text = remotes.read_text()
            laptop.add_remote(openssh_server, "other")
            other = remotes.read_text().removeprefix(text).replace("other:", "far:")
            far = text.index("  far:")
            remotes.write_text(text[:far] + other)
            relay.close()
            said = process.communicate(timeout=LIMIT_S)[1]
    go.touch()
    assert process.returncode == 3, said
    assert "far is another machine by now" in said
    assert "lost" not in laptop.states().values()


def test_of_two_commands_about_a_run_only_the_last_says_that_it_was_never_sent(
    tmp_path: Path,
) -> None:
    mirrors = Mirrors(tmp_path / ".train")
    mirror = mirrors.make(RunRequest("a-1", "a", "0" * 64, "true"))
    mirror.take_on("the first")
    mirror.take_on("the second")
    assert not mirror.is_taken_on_by("the first")
    assert mirror.is_taken_on_by("the second")


def test_a_run_whose_vm_is_gone_can_be_given_up(
    laptop: Laptop, embedded_server: SshServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with Relay(embedded_server.port) as relay:
        laptop.add_remote(embedded_server, "far", port=relay.port)
        laptop.ok("a", "--remote", "far", "--detach", "-p", f"until={go}")
        wait_until(lambda: is_awaited(go), "the script")
    refused = laptop.train("cancel", "a")
    assert refused.returncode == 3
    assert "if that machine is gone: train cancel a-" in refused.stderr

    assert "is given up" in laptop.ok("cancel", "a", "--forget").stdout
    assert set(laptop.states().values()) == {"lost"}
    laptop.ok("remote", "remove", "far")
    go.touch()


def test_with_its_vm_there_a_run_is_cancelled_and_not_given_up(
    laptop: Laptop, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    laptop.ok("a", "--remote", "vm", "--detach", "-p", f"until={go}")
    wait_until(lambda: is_awaited(go), "the script")
    assert laptop.ok("cancel", "a", "--forget").stdout.endswith(" cancelled\n")


def test_outputs_with_names_that_not_every_system_keeps_are_named_and_no_success(
    laptop: Laptop,
) -> None:
    script = "import pathlib\npathlib.Path('out').mkdir()\n"
    script += (
        "for name in ('q\"uote', 'back\\\\slash', 'fine'):\n    pathlib.Path('out', name).touch()\n"
    )
    laptop.add_job("ugly", script=script, outputs=["out"])
    done = laptop.train("ugly", "--remote", "vm")
    assert done.returncode == 2
    assert "2 files that ugly-" in done.stderr
    assert "stayed on the VM: 'out/back\\\\slash', 'out/q\"uote'" in done.stderr
    assert list(laptop.root.glob(".train/runs/ugly-*/outputs/out/fine"))


def test_another_fingerprint_than_the_known_one_is_not_accepted(laptop: Laptop) -> None:
    refused = laptop.train("remote", "set", "vm", "--accept-host-key", "SHA256:wrong")
    assert refused.returncode == 2
    assert "not the accepted SHA256:wrong" in refused.stderr
