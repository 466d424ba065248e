"""A machine that stops itself, and says beforehand whether it can: against stand-ins of its clouds.

What runs is the VM's half, on the oldest Python that is here, in a network of its own in which the
metadata address is the stand-in's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.armlite import MACHINE, PORT
from tests.faults.machine import Machine, write_state
from tests.test_guard import PYTHON
from tests.vm import WAIT_LIMIT_S

ARM = f"http://127.0.0.1:{PORT}"
CONTRIBUTOR = {"actions": ["*/read", "Microsoft.Compute/virtualMachines/*"]}
# Answers what `selfstop` says, as JSON.
DO = """
import json, sys
from remote import selfstop
do, how, options = sys.argv[1:]
print(json.dumps(getattr(selfstop, do)(how, json.loads(options))))
"""
# The same as a user who is not root, and who need not see the folders of Python.
AS_USER = "import encodings.idna, os; from remote import selfstop; os.setuid(65534)\n" + DO


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("selfstop") / "machine", PYTHON) as machine:
        machine.stand_in("imds", cloud="azure")
        machine.stand_in("armlite", **CONTRIBUTOR)
        programs(machine, shutdown='echo "$0 $*" >>/run/called', sudo='[ "$1" = -n ] && exit 1')
        yield machine


def programs(machine: Machine, **bodies: str) -> None:
    """Stand-ins in /run/bin, which everybody may enter, in front of the real ones."""
    script = "mkdir -p /run/bin; cd /run/bin\n"
    for name, body in bodies.items():
        script += f"cat >{name} <<'END'\n#!/bin/sh\n{body}\nEND\n"
    done = machine.start(["sh", "-ec", f"{script}chmod 755 *; rm -f /run/called"])
    assert done.communicate(timeout=WAIT_LIMIT_S)[1] == b""


def metadata(machine: Machine, **state: object) -> None:
    write_state(machine.folder / "imds.json", **{"cloud": "azure", **state})


def arm(machine: Machine, **state: object) -> None:
    write_state(machine.folder / "armlite.json", **{**CONTRIBUTOR, **state})


def ask(machine: Machine, do: str, how: str, program: str = DO, **options: str) -> str:
    path = {"PATH": "/run/bin:/usr/bin:/bin"}
    said = json.loads(machine.says(program, do, how, json.dumps(options), more=path))
    assert isinstance(said, str)
    return said


def test_an_azure_machine_deallocates_itself(machine: Machine) -> None:
    metadata(machine)
    arm(machine)
    log, mark = machine.folder / "armlite.json.log", machine.folder / "armlite.json.deallocated"
    log.unlink(missing_ok=True)
    assert ask(machine, "check", "deallocate", arm=ARM) == ""
    # Asked without harm.
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"GET"}
    assert not mark.exists()
    assert ask(machine, "stop", "deallocate", arm=ARM) == ""
    assert log.read_text().splitlines()[-1] == f"POST {MACHINE}/deallocate"
    assert mark.exists()


def test_its_token_follows_no_redirect(machine: Machine) -> None:
    metadata(machine)
    arm(machine, redirect=True)
    log = machine.folder / "armlite.json.log"
    log.unlink(missing_ok=True)
    assert "answers 307" in ask(machine, "check", "deallocate", arm=ARM)
    assert log.read_text() == f"GET {MACHINE}\n"


@pytest.mark.parametrize(
    ("imds", "manager", "said"),
    [
        ({"identity": False}, {}, "no identity that can ask"),
        ({"cloud": "aws"}, {}, "it does not find itself on Azure: /metadata/instance answers 404"),
        ({"status": 500}, {}, "it does not find itself on Azure"),
        ({"raw": "<html>"}, {}, "does not answer with JSON"),
        ({"raw": "[1]"}, {}, "do not describe an Azure machine"),
        ({}, {"actions": ["*/read"]}, "may not deallocate it; give it the role"),
        ({}, {"actions": ["*"], "notActions": ["*/deallocate/action"]}, "may not deallocate it"),
        ({}, {"actions": None}, "does not say what the machine's identity may do"),
        (
            {},
            {"errors": {"/gpu1": [403, "AuthorizationFailed", "no read"]}},
            "answers 403 AuthorizationFailed: no read; give it the role",
        ),
        (
            {},
            {"errors": {"/permissions": [403, "AuthorizationFailed", "no list"]}},
            "answers 403 AuthorizationFailed: no list; give it the role",
        ),
        ({"name": "other"}, {}, "answers 404 ResourceNotFound"),
    ],
)
def test_why_an_azure_machine_cannot_is_said(
    machine: Machine, imds: dict[str, object], manager: dict[str, object], said: str
) -> None:
    metadata(machine, **imds)
    arm(machine, **manager)
    assert said in ask(machine, "check", "deallocate", arm=ARM)


@pytest.mark.parametrize(
    ("status", "code"),
    [(409, "OperationNotAllowed"), (429, "TooManyRequests"), (500, "InternalError")],
)
def test_a_refused_deallocation_is_said(machine: Machine, status: int, code: str) -> None:
    metadata(machine)
    arm(machine, errors={"/deallocate": [status, code, "not now"]})
    assert f"answers {status} {code}: not now" in ask(machine, "stop", "deallocate", arm=ARM)


def test_a_resource_manager_that_cannot_be_reached_is_said(machine: Machine) -> None:
    metadata(machine)
    assert "does not answer" in ask(machine, "check", "deallocate", arm="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("cloud", "options", "said"),
    [
        ("gcp", {}, ""),
        ("aws", {"shutdown": "stop"}, ""),
        ("aws", {"shutdown": "terminate"}, "may delete this instance"),
        ("aws", {}, "nobody has checked what"),
        ("azure", {}, "is billed on; use `deallocate`"),
    ],
)
def test_a_power_off_is_promised_only_where_it_ends_the_cost(
    machine: Machine, cloud: str, options: dict[str, str], said: str
) -> None:
    metadata(machine, cloud=cloud)
    found = ask(machine, "check", "poweroff", **options)
    assert said in found
    assert bool(said) == bool(found)


def test_it_is_powered_off_and_never_halted(machine: Machine) -> None:
    assert ask(machine, "stop", "poweroff") == ""
    called = machine.says("print(open('/run/called').read())")
    assert called == "/run/bin/shutdown -h -P now"


def test_a_user_without_the_right_to_power_off_is_told(machine: Machine) -> None:
    metadata(machine, cloud="gcp")
    program = AS_USER
    assert "this user may not power the machine off" in ask(machine, "check", "poweroff", program)
    allowed = '[ "$*" = "-n -l shutdown -h -P now" ]'
    programs(machine, sudo=allowed, shutdown="exit 9")
    try:
        assert ask(machine, "check", "poweroff", program) == ""
    finally:
        programs(machine, sudo="exit 1", shutdown='echo "$0 $*" >>/run/called')


def test_the_users_own_command_is_tried_by_its_own_check(machine: Machine) -> None:
    assert ask(machine, "check", "command") == "no command is given that stops it"
    assert ask(machine, "check", "command", command="true") == ""
    said = ask(machine, "check", "command", command="true", check="echo no key; exit 3")
    assert said.endswith("ends with 3: no key")
    assert "ends with 1" in ask(machine, "stop", "command", command="exit 1")
    assert ask(machine, "stop", "magic") == "no way to stop itself is known for it"


def test_a_machine_of_no_cloud_may_be_powered_off(tmp_path: Path) -> None:
    with Machine(tmp_path / "machine", PYTHON) as machine:
        programs(machine, shutdown="exit 9")
        assert ask(machine, "check", "poweroff") == ""
