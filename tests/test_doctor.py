"""The doctor's judgement: every bad finding comes with its fix."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.errors import (
    ConnectError,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    NoPython,
    Refused,
    TrainshedError,
)
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import EnvSpec, Price, Remote
from orchestrator.vm import doctor
from orchestrator.vm.check import Check, Mark
from orchestrator.vm.doctor import (
    check_clock,
    check_laptop,
    check_machine,
    check_remote,
)
from orchestrator.vm.link import Link
from remote.protocol import Examined
from tests.laptop import make_laptop
from tests.servers import SshServer

K80 = Remote("k80", "203.0.113.7")
WELL = Examined(
    python="3.8.10",
    driver_gpus=("Tesla K80, 11 GiB",),
    driver_trouble="",
    framework="tensorflow 2.12.0",
    framework_gpus=("Tesla K80",),
    framework_trouble="",
    store_writable="",
)


def judged(examined: Examined, remote: Remote = K80) -> dict[str, Check]:
    return {check.name: check for check in check_machine(remote, examined)}


@pytest.fixture(autouse=True)
def _graded_by_keras_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "local_tensorflow", lambda: "2.21.0")


def test_a_machine_that_is_well_has_nothing_to_fix() -> None:
    checks = judged(WELL)

    assert {check.mark for check in checks.values()} == {Mark.OK}
    assert {check.fix for check in checks.values()} == {""}
    assert set(checks) == {
        "gpu by driver",
        "framework in python3",
        "gpu by framework",
        "versions",
    }


@pytest.mark.parametrize(
    ("change", "name", "mark"),
    [
        ({"store_writable": "no space left"}, "store", Mark.FAIL),
        ({"driver_gpus": (), "driver_trouble": "driver mismatch"}, "gpu by driver", Mark.FAIL),
        ({"driver_gpus": ()}, "gpu by driver", Mark.FAIL),
        ({"framework_gpus": ()}, "gpu by framework", Mark.FAIL),
        ({"framework": "", "framework_trouble": "broken"}, "framework in python3", Mark.WARN),
        ({"framework": ""}, "framework in python3", Mark.WARN),
        ({"framework": "tensorflow 2.15.0"}, "gpu by framework", Mark.FAIL),
    ],
)
def test_what_is_not_well_is_found_and_has_a_fix(
    change: dict[str, object], name: str, mark: Mark
) -> None:
    check = judged(WELL._replace(**change))[name]  # type: ignore[arg-type]

    assert check.mark is mark
    assert check.found
    assert check.fix


def test_a_cpu_machine_that_says_so_is_well_without_a_gpu() -> None:
    checks = judged(WELL._replace(driver_gpus=(), framework_gpus=()), replace(K80, gpus=0))

    assert checks["gpu by driver"].mark is Mark.OK
    assert "gpu by framework" not in checks


def test_what_the_vm_says_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2Jgpu\x07"
    remote = replace(K80, env=EnvSpec("python3.8"))
    examined = WELL._replace(driver_gpus=(evil,), framework=evil, framework_gpus=(evil,))

    for check in judged(examined, remote).values():
        assert "\x1b" not in check.found
        assert "\x07" not in check.found


@pytest.mark.parametrize("off_s", [0.0, 4.9, -4.9])
def test_a_clock_that_is_nearly_right_is_well(off_s: float) -> None:
    assert check_clock(1000.0 + off_s, 1000.0).mark is Mark.OK


@pytest.mark.parametrize("off_s", [5.1, -3600.0])
def test_a_clock_that_is_off_is_told_with_how_much(off_s: float) -> None:
    check = check_clock(10_000.0 + off_s, 10_000.0)

    assert check.mark is Mark.WARN
    assert f"{off_s:+.0f} s" in check.found
    assert "set-ntp" in check.fix


@pytest.mark.parametrize(
    ("error", "exit_code"), [(LoginRefused("let in nobody", fix="a key"), 3), (NoPython("none"), 5)]
)
def test_without_a_connection_the_checks_end_with_its_exit_code(
    error: Exception, exit_code: int
) -> None:
    def connect() -> Link:
        raise error

    *_, last = check_remote(K80, connect, "", Silence())

    assert (last.name, last.mark, last.exit_code) == ("connection", Mark.FAIL, exit_code)


def test_a_price_that_nobody_said_is_a_warning() -> None:
    def connect() -> Link:
        raise LoginRefused("no")

    def price(remote: Remote) -> Check:
        return next(iter(check_remote(remote, connect, "", Silence())))

    assert price(K80).mark is Mark.WARN
    assert price(K80).fix == "train remote set k80 --price 0.50"
    assert price(replace(K80, price=Price(Decimal("0.50"), "EUR"))).found == "0.50 EUR per hour"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (
            LoginRefused("no", fix="a key"),
            "a key; to correct the remote: {} --user USER --key FILE",
        ),
        (ConnectError("no"), "{} --host ADDRESS --port PORT --key FILE"),
        (NoPython("none"), "{} --python PATH"),
        # What mends these is not what the remote says.
        (HostKeyUnknown("new", fix="compare"), "compare"),
        (HostKeyChanged("other", fix="compare"), "compare"),
        (Refused("full", fix="make room"), "make room"),
    ],
)
def test_a_connection_that_fails_names_the_command_that_corrects_the_remote(
    error: TrainshedError, fix: str
) -> None:
    def connect() -> Link:
        raise error

    *_, last = check_remote(K80, connect, "", Silence())

    assert last.fix == fix.format("train remote set k80")


def test_what_the_system_said_is_not_told_twice() -> None:
    def connect() -> Link:
        raise ConnectError("connection refused") from ConnectionRefusedError(111, "refused")

    *_, last = check_remote(K80, connect, "", Silence())

    assert last.found == "connection refused"


@pytest.mark.parametrize(
    ("change", "name", "command", "line"),
    [
        ({"driver_gpus": ()}, "gpu by driver", "--gpus 0", "gpus: 0"),
        ({"framework": ""}, "framework in python3", "--python PATH", "env: {python: PATH}"),
        *(
            (change, name, "--requirements FILE", "env: {requirements: FILE}")
            for change, name in (
                ({"framework": ""}, "framework in python3"),
                ({"framework_gpus": ()}, "gpu by framework"),
                ({"framework": "tensorflow 2.15.0"}, "gpu by framework"),
            )
        ),
    ],
)
def test_a_fix_is_a_command_or_where_the_workspace_says_it_a_place_in_that_file(
    change: dict[str, object], name: str, command: str, line: str
) -> None:
    examined = WELL._replace(**change)  # type: ignore[arg-type]
    file = Path("/w/train.yaml")
    users = {check.name: check.fix for check in check_machine(K80, examined)}
    workspaces = {check.name: check.fix for check in check_machine(K80, examined, file)}

    assert f"train remote set k80 {command}" in users[name]
    assert f"in {file}, under remotes: k80: {line}" in workspaces[name]
    assert "train remote set" not in workspaces[name]


def test_a_python_without_tensorflow_is_told_in_words() -> None:
    trouble = "ModuleNotFoundError: No module named 'tensorflow'"
    check = judged(WELL._replace(framework="", framework_trouble=trouble))["framework in python3"]

    assert check.found == "no TensorFlow"


def test_this_laptop_is_checked_without_importing_tensorflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {check.name: check for check in check_laptop()}
    assert found["grader here"].found == "tensorflow 2.21.0"
    assert found["python here"].mark is Mark.OK

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    poor = {check.name: check for check in check_laptop()}
    assert poor["grader here"].mark is Mark.WARN
    assert poor["ssh here"].mark is Mark.WARN


@pytest.mark.parametrize(
    ("loose", "mark", "says"),
    [
        ((), Mark.OK, "no network, no programs"),
        (("use the network",), Mark.WARN, "could use the network"),
        (("use the network", "write files"), Mark.WARN, "use the network, write files"),
    ],
)
def test_where_grading_is_less_confined_it_is_told(
    loose: tuple[str, ...], mark: Mark, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "confinement", lambda: loose)
    check = next(check for check in check_laptop() if check.name == "grading is confined")

    assert check.mark is mark
    assert says in check.found
    assert bool(check.fix) is bool(loose)


def test_a_real_vm_is_examined_and_a_faked_gpu_is_not_believed(
    tmp_path: Path, embedded_server: SshServer
) -> None:
    laptop = make_laptop(tmp_path, embedded_server)
    python = tmp_path / "bare python"
    python.write_text('#!/bin/sh\nexec python3 -S "$@"\n')
    python.chmod(0o755)
    laptop.add_remote(embedded_server, "gpu", gpus=1, env=EnvSpec(str(python)))
    done = laptop.train("doctor", "gpu", "--json")
    checks = {check["check"]: check for check in json.loads(done.stdout)}

    assert done.returncode == 5, done.stderr
    assert checks["connection"]["mark"] == "ok"
    assert checks["gpu by driver"]["mark"] == "fail"
    assert checks[f"framework in {python}"]["mark"] == "warn"
    assert "ms for one exchange" in checks["rtt"]["found"]
    assert "B free at" in checks["disk"]["found"]
    assert laptop.ok("doctor").stdout.startswith("check")


def test_models_of_keras_2_are_graded_but_not_those_of_keras_3_by_keras_2(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert judged(WELL)["versions"].mark is Mark.OK

    monkeypatch.setattr(doctor, "local_tensorflow", lambda: "2.15.0")
    check = judged(WELL._replace(framework="tensorflow 2.16.1"))["versions"]

    assert check.mark is Mark.WARN
    assert "tensorflow>=2.16" in check.fix


def test_a_gpu_that_the_framework_lists_but_cannot_use_is_a_failure() -> None:
    newer = WELL._replace(framework="tensorflow 2.17.0")

    check = judged(newer)["gpu by framework"]

    assert check.mark is Mark.FAIL
    assert "no code for Tesla K80 (compute capability 3.7, it needs 6.0)" in check.found
    assert "'tensorflow<2.15'" in check.fix


def test_what_the_exam_cannot_read_is_said_before_anything_is_trained() -> None:
    def told(framework: str, exam: str) -> Check:
        examined = WELL._replace(framework=framework)
        return {check.name: check for check in check_machine(K80, examined, None, exam)}["exam"]

    assert "no model that tensorflow 2.16.1" in told("tensorflow 2.16.1", "2.5").found
    assert "tensorflow==2.5.*" in told("tensorflow 2.16.1", "2.5").fix
    assert told("tensorflow 2.12.0", "2.5").mark is Mark.WARN
    assert told("tensorflow 2.5.3", "2.5").mark is Mark.OK
    assert "exam" not in judged(WELL)
