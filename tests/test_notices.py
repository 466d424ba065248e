"""Notices of the three clouds that a spot machine is about to be taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.imds import TOKEN
from tests.faults.machine import Machine, wait_for_state, write_state
from tests.test_guard import PYTHON
from tests.vm import wait_until

# Asks as often as there are states, and prints what each answer was.
ASK = """
import json, os, sys
from remote import notices
from remote.metadata import NotThere
cloud, file, *states = sys.argv[1:]
ask, said = notices._CLOUDS[cloud](), []
for state in states:
    with open(file + ".new", "w") as new:
        new.write(state)
    os.rename(file + ".new", file)
    try:
        said.append(ask())
    except NotThere as no:
        said.append("no: %s" % no)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("notices") / "machine", PYTHON) as machine:
        machine.stand_in("imds", cloud="azure")
        yield machine


def answers(machine: Machine, cloud: str, *states: dict[str, object]) -> list[str]:
    """What is read when the cloud is in each of the states, one after the other."""
    file = str(machine.folder / "imds.json")
    told = [json.dumps({"cloud": cloud, **state}) for state in states]
    said = json.loads(machine.says(ASK, cloud, file, *told))
    assert isinstance(said, list)
    return said


@pytest.mark.parametrize(
    ("cloud", "notice"),
    [
        ("azure", "spot notice: Azure takes it away, not before Mon, 19 Sep 2026 18:29:47 GMT"),
        ("aws", "spot notice: AWS will terminate it at 2026-09-18T08:22:00Z"),
        ("gcp", "spot notice: Google Cloud takes it away"),
    ],
)
def test_a_notice_is_read_and_nothing_else_is_taken_for_one(
    machine: Machine, cloud: str, notice: str
) -> None:
    broken = answers(machine, cloud, {}, {"taken": True}, {"status": 500}, {"raw": "<p>"}, {}, {})
    assert broken[:2] == ["", notice]
    assert broken[2].startswith("no: ")
    # Text that is no notice is none; where a document is due, that is said.
    assert broken[3] == "" if cloud == "gcp" else broken[3].startswith("no: ")
    assert broken[-1] == ""


def test_azures_notice_for_another_machine_of_the_set_is_not_ours(machine: Machine) -> None:
    assert answers(machine, "azure", {"others": ["gpu2"]}, {"others": ["gpu1"]})[0] == ""


def test_an_expired_token_of_aws_is_asked_for_anew(machine: Machine) -> None:
    log = machine.folder / "imds.json.log"
    log.unlink(missing_ok=True)
    said = answers(machine, "aws", {}, {}, {"token": "other"}, {"token": TOKEN, "taken": True})
    assert said[:2] == ["", ""]
    assert "401" in said[2]
    assert said[3].startswith("spot notice")
    assert log.read_text().count("PUT ") == 2


def test_a_notice_warns_the_runs_and_is_on_the_disk(tmp_path: Path) -> None:
    with Machine(tmp_path / "machine", PYTHON) as machine:
        imds = machine.stand_in("imds", cloud="azure")
        machine.keep_until_off(idle_s=500.0)
        options = (("cloud", "azure"), ("spot", "yes"))
        machine.keep(ends_in_s=500.0, options=options)
        run = machine.submit("trap 'echo saved >out; exit 1' TERM; while :; do sleep 0.05; done")
        wait_for_state(run, "running")
        assert machine.guard.read_stops() == ()
        write_state(imds, cloud="azure", taken=True)
        state = wait_for_state(run, "failed")
        assert state.reason.startswith("the machine goes off: spot notice: ")
        wait_until(lambda: len(machine.guard.read_stops()) == 1, "it is recorded")
        assert machine.guard.read_stops()[0].why.startswith("spot notice: Azure")
        assert (run.path / "notice").read_text().startswith("spot notice: Azure")
        assert machine.is_up
