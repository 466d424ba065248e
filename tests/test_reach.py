"""A head start never changes what happens, only when."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import ConnectError, ConnectionLost, HostKeyUnknown
from orchestrator.settings.home import config_folder
from orchestrator.settings.spec import CloudSpec, EnvSpec, Remote
from orchestrator.vm import reach
from orchestrator.vm.link import Link
from orchestrator.vm.reach import HeadStart, open_link
from remote.protocol import Hello, ListRuns, News
from tests.servers import HOST, Relay, SshServer, free_port
from tests.vm import practice

PASSPHRASE = "open sesame"


class Yes:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def trust(self, host: str, key_type: str, fingerprint: str) -> bool:
        self.asked.append(fingerprint)
        return True

    def passphrase(self, key: str) -> str | None:
        self.asked.append(key)
        return PASSPHRASE


@pytest.fixture
def relay(server: SshServer) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay


@pytest.fixture
def remote(
    server: SshServer, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    """Reached through the relay; its host key is known, and it was connected to before."""
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path))
    known = server.trusted(tmp_path)
    known.write_text(known.read_text().replace(f":{server.port} ", f":{relay.port} "))
    with practice(server, tmp_path) as vm:
        remote = Remote(
            "practice",
            server.host,
            user=server.user,
            port=relay.port,
            key=str(server.key),
            env=EnvSpec(python=vm.python),
        )
        assert answers(open_link(remote, None))
        yield remote


def test_a_rented_machine_that_does_not_answer_may_be_off(tmp_path: Path) -> None:
    cloud = CloudSpec("command", (("start", "true"),))
    remote = Remote("k80", HOST, user="me", port=free_port(), cloud=cloud)

    for begun in (None, HeadStart(remote)):
        with pytest.raises(ConnectError) as unreached:
            open_link(remote, None, begun=begun)
        assert unreached.value.fix.startswith("if it is off: train up k80; else: ")
    with pytest.raises(ConnectError) as unreached:
        open_link(replace(remote, cloud=None), None)
    assert "train up" not in unreached.value.fix


def lines(relay: Relay) -> int:
    return len(relay._sockets) // 2


def answers(link: Link) -> bool:
    with link:
        return link.call(ListRuns(), News).missing == ()


def test_the_connection_begun_is_the_one_that_is_used(remote: Remote, relay: Relay) -> None:
    before = lines(relay)
    begun = HeadStart(remote)
    assert answers(open_link(remote, None, begun=begun))
    assert lines(relay) == before + 1
    assert begun.take() is None


def test_the_user_is_asked_all_the_same(remote: Remote) -> None:
    (config_folder() / "known_hosts").unlink()
    begun = HeadStart(remote)
    with pytest.raises(HostKeyUnknown):
        open_link(remote, None, begun=begun)
    yes = Yes()
    assert answers(open_link(remote, yes, begun=HeadStart(remote)))
    assert len(yes.asked) == 1


@pytest.mark.parametrize("is_remembered", [False, True])
def test_a_locked_key_is_asked_about(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_remembered: bool
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked = Path(shutil.copy(str(remote.key), tmp_path / "locked"))
    locked.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-a", "1", "-N", PASSPHRASE, "-P", "", "-f", str(locked)]
    subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
    if not is_remembered:
        (config_folder() / "ways.json").unlink()
    remote = replace(remote, key=str(locked))
    yes = Yes()
    assert answers(open_link(remote, yes, begun=HeadStart(remote)))
    assert yes.asked == [str(locked)]


def test_a_way_that_is_closed_is_tried_once(remote: Remote) -> None:
    nowhere = replace(remote, port=free_port())
    with pytest.raises(ConnectError) as plain:
        open_link(nowhere, None)
    with pytest.raises(ConnectError) as early:
        open_link(nowhere, None, begun=HeadStart(nowhere))
    assert str(early.value) == str(plain.value)


def test_one_that_waited_too_long_is_made_anew(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_FRESH_S", 0.0)
    begun = HeadStart(remote)
    assert begun.take() is None
    assert answers(open_link(remote, None, begun=HeadStart(remote)))


def test_one_that_died_meanwhile_is_made_anew(remote: Remote, relay: Relay) -> None:
    begun = HeadStart(remote)
    begun._thread.join()
    relay.cut()
    assert answers(open_link(remote, None, begun=begun))


def test_one_that_nobody_takes_is_closed(remote: Remote) -> None:
    begun = HeadStart(remote)
    begun.drop()
    begun._thread.join()
    assert begun.take() is None
    ready = HeadStart(remote)
    ready._thread.join()
    connection = ready._connection
    assert connection is not None
    ready.drop()
    assert not any(transport.is_active() for transport in connection._transports)


def test_what_may_have_been_started_over_a_head_start_is_not_told_as_never_sent(
    remote: Remote, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = [(ListRuns(), b"")]
    with HeadStart(remote) as begun:
        begun._thread.join()
        # All that is sent ahead gets through, and then the machine is gone.
        greet = Link._greet

        def lose(link: Link) -> Hello:
            greet(link)
            relay.close()
            raise ConnectionLost("gone")

        monkeypatch.setattr(Link, "_greet", lose)
        with pytest.raises(ConnectionLost, match="gone") as caught:
            open_link(remote, None, "", ahead, begun)
    assert isinstance(caught.value.__cause__, ConnectError)


def test_with_nothing_sent_ahead_a_machine_that_is_gone_is_not_reached(
    remote: Remote, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HeadStart(remote) as begun:
        begun._thread.join()

        def lose(link: Link) -> Hello:
            relay.close()
            raise ConnectionLost("gone")

        monkeypatch.setattr(Link, "_greet", lose)
        with pytest.raises(ConnectError):
            open_link(remote, None, "", (), begun)
