"""From a remote's host to the servers on the way."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from orchestrator.connection.sshconfig import Destination, Settings, ask_ssh, route
from orchestrator.errors import ConnectError


def config(text: str, file: Path) -> None:
    file.write_text(text)


def test_everything_ssh_config_says_is_taken_over(ssh_config: Path) -> None:
    config(
        """
        Host alias
          HostName 10.0.0.1
          User bob
          Port 2200
          IdentityFile "/a b/key one"
          IdentityFile ~/.ssh/%h_%r
          IdentitiesOnly yes
          UserKnownHostsFile "/a b/known" ~/.ssh/other
          GlobalKnownHostsFile none
          ProxyCommand nc %h %p -x %r %n 100%%
        """,
        ssh_config,
    )

    (hop,) = route(Destination("vm", "alias"), ask_ssh)

    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - as ssh sees it
    assert str(hop) == "bob@10.0.0.1:2200"
    assert hop.known_as == "[10.0.0.1]:2200"
    assert hop.identities == (Path("/a b/key one"), home / ".ssh/10.0.0.1_bob")
    assert hop.identities_only
    assert hop.known_hosts[:2] == (Path("/a b/known"), home / ".ssh/other")
    assert hop.proxy_command == "nc 10.0.0.1 2200 -x bob alias 100%"


def test_what_the_remote_says_goes_before_ssh_config(ssh_config: Path) -> None:
    config("Host alias\n User bob\n Port 2200\n IdentityFile /other\n", ssh_config)

    (hop,) = route(Destination("vm", "alias", user="ann", port=7, key="~/k"), ask_ssh)

    assert str(hop) == "ann@alias:7"
    assert hop.identities == (Path("~/k").expanduser(),)
    assert hop.identities_only


def test_without_any_config_the_usual_files_are_meant() -> None:
    def nothing(host: str, user: str | None, port: int | None) -> Settings:
        return {}

    (hop,) = route(Destination("vm", "Example.COM"), nothing)

    assert str(hop) == f"{getpass.getuser()}@Example.COM:22"
    assert hop.known_as == "example.com"
    assert Path("~/.ssh/id_ed25519").expanduser() in hop.identities
    assert Path("~/.ssh/known_hosts").expanduser() in hop.known_hosts


@pytest.mark.parametrize(
    ("jumps", "way"),
    [
        ("j1", ["bob@j1:22"]),
        ("ann@j1:23,j2", ["ann@j1:23", "bob@j2:22"]),
        ("ssh://ann@j1:23", ["ann@j1:23"]),
        ("[fe80::1]:23", ["bob@[fe80::1]:23"]),
        ("none", []),
        # `behind` has a ProxyJump of its own: it counts for the first jump only, as in ssh.
        ("behind", ["bob@j9:22", "bob@behind:22"]),
        ("j1,behind", ["bob@j1:22", "bob@behind:22"]),
    ],
)
def test_jump_hosts_are_passed_in_the_order_ssh_passes_them(
    ssh_config: Path, jumps: str, way: list[str]
) -> None:
    config(
        f"Host behind\n ProxyJump j9\nHost vm\n ProxyJump {jumps}\nHost *\n User bob", ssh_config
    )

    hops = route(Destination("vm", "vm"), ask_ssh)

    assert [str(hop) for hop in hops] == [*way, "bob@vm:22"]


def test_jumps_that_cannot_be_read_are_an_error() -> None:
    def broken(host: str, user: str | None, port: int | None) -> Settings:
        return {"proxyjump": ["a:b:c"]}

    with pytest.raises(ConnectError):
        route(Destination("vm", "vm"), broken)
