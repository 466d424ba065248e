"""`train bench` against a real server.

Where TensorFlow itself does not matter, the VM's Python is a stand-in: it runs everything as the
real one, but for `measure.py`, in whose place it writes down figures of a machine that is not here.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.measuring.workbench import lay_out
from orchestrator.measuring.workbook import Workbook
from orchestrator.settings.spec import EnvSpec, Price
from remote.measured import Repeat
from remote.record import encode
from tests.laptop import Laptop, is_awaited, make_laptop, wait_until
from tests.servers import SshServer, free_port
from tests.test_sampler import FAKE
from tests.test_workload import K80

WORKBENCH = Path(__file__).parent.parent / "jobs" / "workbench"

STAND_IN = """\
#!{python}
import json, os, pathlib, sys, time
if sys.argv[1:2] != ["measure.py"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
workload, samples, batch, seconds = sys.argv[2:]
print("measuring", workload, samples, batch, seconds, flush=True)
if {until!r}:
    pathlib.Path({until!r} + ".awaited").touch()
while {until!r} and not os.path.exists({until!r}):
    time.sleep(0.01)
if workload in {broken}:
    sys.exit("this machine cannot")
figures = dict({figures}, workload="series" if {wrong!r} == "another's" else workload)
text = "rubbish" if {wrong!r} == "rubbish" else json.dumps(figures)
pathlib.Path(workload + ".json").write_text(text)
"""


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return make_laptop(tmp_path, None)


def add_machine(
    laptop: Laptop,
    server: SshServer,
    name: str,
    rate: int,
    price: str = "",
    *,
    until: Path | str = "",
    broken: tuple[str, ...] = (),
    wrong: str = "",
    **measured: Any,  # noqa: ANN401  # as Measured has them
) -> None:
    """A remote whose figures are `rate` samples a second."""
    program = laptop.home.parent / f"{name} python"
    figures = encode(K80._replace(repeats=(Repeat(rate, 1.0),) * 5, **measured))
    told = {"until": str(until), "broken": broken, "wrong": wrong, "figures": figures}
    program.write_text(STAND_IN.format(python=sys.executable, **told))
    program.chmod(0o755)
    known = Price(Decimal(price)) if price else None
    laptop.add_remote(server, name, env=EnvSpec(python=str(program)), price=known)


def book(laptop: Laptop) -> list[tuple[str, str]]:
    kept = Workbook(laptop.home).all()
    return [(one.remote, one.measured.workload) for one in kept]


def test_two_machines_are_measured_side_by_side_and_the_answer_is_given(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    t4: dict[str, Any] = {"gpu": "Tesla T4", "driver": "535.1", "others": ("Xorg",)}
    add_machine(laptop, embedded_server, "k80", 2000, "0.36")
    add_machine(laptop, embedded_server, "t4", 6000, "3.60", **t4)

    done = laptop.ok("bench", "k80", "t4", "--only", "digits", "--only", "text")

    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    # 20 s of start and 48,000 samples at 2,000 a second.
    assert "digits k80 2000 (2000-2000) 50 % $0.0500 44 s, $0.0044" in lines
    assert "digits t4 6000 (6000-6000) 50 % $0.1667 28 s, $0.0280" in lines
    assert "together k80 80 s, $0.0080" in lines
    assert "k80 2026-11-20 Tesla K80 470.256.02 2.10.1 $0.36" in lines
    assert "! t4: the Tesla T4 was shared with Xorg; alone it would be faster" in lines
    assert lines[-2] == "cheapest to 5/5: k80 $0.0080 in 80 s; t4 $0.0533 in 53 s"
    assert lines[-1] == "fastest to 5/5: t4 $0.0533 in 53 s; k80 $0.0080 in 80 s"
    logs = (laptop.home / "workbench" / ".train" / "runs").glob("*/log")
    assert ["measuring digits 4000 64 4\n" in log.read_text() for log in logs] == [True] * 2
    assert laptop.ok("bench").stdout == done.stdout
    assert laptop.ok("bench", "--show", "t4", "--only", "text").stdout.count("t4") == 3


def test_a_bench_leaves_the_workspace_alone_and_its_cost_is_booked(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    laptop.add_job("category1")
    before = sorted(laptop.root.rglob("*"))
    add_machine(laptop, embedded_server, "k80", 2000, "0.36")

    laptop.ok("bench", "k80", "--quick")

    assert sorted(laptop.root.rglob("*")) == before
    assert laptop.json("status") == []
    assert laptop.json("cost") == []
    (row,) = laptop.json("cost", "--all", "--by", "workspace")
    assert row["key"] == str(laptop.home / "workbench")
    assert row["runs"] == 1


def test_old_figures_stay_when_a_machine_is_measured_again(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    add_machine(laptop, embedded_server, "k80", 2000, "0.36")
    laptop.ok("bench", "k80", "--only", "text")
    (first,) = laptop.json("bench")
    (again,) = laptop.json("bench", "k80", "--only", "text")

    assert first["run"] != again["run"]
    assert first["price_per_hour"] == "0.36"
    assert first["samples_per_s"] == 2000
    assert first["cost_per_million_samples"] == "0.050000000"
    assert book(laptop) == [("k80", "text")] * 2


def test_a_machine_that_is_not_reached_keeps_nobody_from_the_others(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    laptop.add_remote(embedded_server, "gone", port=free_port())
    add_machine(laptop, embedded_server, "k80", 2000)

    done = laptop.train("bench", "gone", "k80", "--only", "text")

    assert done.returncode == 3
    assert done.stderr.count("! gone: cannot reach gone") == 1
    assert book(laptop) == [("k80", "text")]
    assert "unknown" in done.stdout


def test_a_workload_that_fails_does_not_take_the_others_with_it(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    add_machine(laptop, embedded_server, "k80", 2000, broken=("text",))

    done = laptop.train("bench", "k80", "--quick")

    assert done.returncode == 1
    assert "this machine cannot" in done.stderr
    assert "fix:   train doctor k80; what the run wrote: " in done.stderr
    assert [workload for _, workload in book(laptop)] == [
        "regression",
        "digits",
        "photos",
        "series",
    ]


@pytest.mark.parametrize("wrong", ["rubbish", "another's"])
def test_what_makes_no_sense_is_not_kept(
    laptop: Laptop, embedded_server: SshServer, wrong: str
) -> None:
    add_machine(laptop, embedded_server, "liar", 2000, wrong=wrong)
    done = laptop.train("bench", "liar", "--only", "text")
    assert done.returncode == 1
    assert "text.json holds no figures" in done.stderr
    assert book(laptop) == []

    # The user has had it: the next one is measured anew.
    assert "submitted bench-" in laptop.train("bench", "liar", "--only", "text").stderr


def test_a_command_that_was_killed_goes_on_with_the_same_run(
    laptop: Laptop, embedded_server: SshServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    add_machine(laptop, embedded_server, "k80", 2000, until=go)
    words = ("bench", "k80", "--only", "text")
    with laptop.start(*words):
        wait_until(lambda: is_awaited(go), "the run")
    go.touch()

    done = laptop.ok(*words)

    assert "going on with bench-" in done.stderr
    assert book(laptop) == [("k80", "text")]
    assert len(list((laptop.home / "workbench" / ".train" / "runs").iterdir())) == 1


def test_a_remote_whose_environment_is_a_workspaces_file_needs_that_file(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    laptop.add_remote(embedded_server, "vm", env=EnvSpec(requirements="wanted.txt"))
    done = laptop.train("bench", "vm")
    assert done.returncode == 2
    assert "vm has wanted.txt installed, a file of a workspace" in done.stderr
    assert not (laptop.home / "workbench").exists()


def test_the_cheapest_and_the_fastest_are_remotes_that_were_measured(
    laptop: Laptop, embedded_server: SshServer
) -> None:
    folder = laptop.add_job("category2")
    refused = laptop.train("-r", "cheapest")
    assert refused.returncode == 2
    assert "error: no remote is known to be the cheapest" in refused.stderr
    add_machine(laptop, embedded_server, "k80", 2000, "0.36")
    add_machine(laptop, embedded_server, "t4", 6000, "3.60")
    laptop.ok("bench", "k80", "t4", "--only", "digits")

    done = laptop.ok("category2", "-r", "cheapest")

    took = (
        "• cheapest to 5/5 by digits: k80 $0.0044 in 44 s; t4 $0.0280 in 28 s (train bench of 2026"
    )
    assert took in done.stderr
    assert (folder / "mymodel.h5").exists()
    assert {row["remote"] for row in laptop.json("status")} == {"k80"}
    assert "fastest to 5/5 by digits: t4" in laptop.ok("-r", "fastest", "--dry-run").stderr


def test_a_remote_of_that_name_is_itself(laptop: Laptop, embedded_server: SshServer) -> None:
    laptop.add_job("category2")
    laptop.add_remote(embedded_server, "cheapest")
    done = laptop.ok("-r", "cheapest")
    assert "connected to cheapest" in done.stderr


def test_an_unknown_remote_is_named_before_anything_is_sent(laptop: Laptop) -> None:
    done = laptop.train("bench", "k8o")
    assert done.returncode == 2
    assert "no remote is named 'k8o'" in done.stderr
    assert "nothing is measured yet" in laptop.ok("bench").stdout


@pytest.mark.sshd
@pytest.mark.tf
def test_a_real_training_is_measured_on_a_machine_without_a_gpu(
    laptop: Laptop, openssh_server: SshServer
) -> None:
    laptop.add_remote(openssh_server, env=EnvSpec(python=sys.executable))

    (found,) = laptop.json("bench", "vm", "--quick", "--only", "text")

    assert found["quick"]
    assert found["warnings"] == ["no GPU: CPU figures"]
    measured = found["measured"]
    assert len(measured["repeats"]) == 5
    for repeat in measured["repeats"]:
        assert repeat["seconds"] >= 0.5
        assert repeat["samples"] % 256 == 0
    lowest, highest = found["samples_per_s_range"]
    assert lowest <= found["samples_per_s"] <= highest
    assert measured["start_s"] > 0.1
    assert "no GPU: CPU figures" in laptop.ok("bench").stdout


LOOKING = """\
import json
from gpuwatch import GpuWatch
watch = GpuWatch()
watch.ask()
watch.ask()
watch.take()
watch.ask()
watch.take()
found = [watch.gpu and watch.gpu.name, watch.percent, watch.temperatures]
print(json.dumps([*found, sorted(watch.slowed), sorted(watch.others)]))
"""
ROW = {
    "index": "0",
    "utilization.gpu": "93",
    "temperature.gpu": "83",
    "memory.used": "1",
    "memory.total": "2",
    "power.draw": "3",
    "uuid": "GPU-1",
    "driver_version": "535.1",
    "name": "Tesla T4",
    "pid": "77",
    "gpu_uuid": "GPU-1",
    "used_memory": "5",
    "process_name": "somebody",
}


def look(folder: Path, row: dict[str, str], **environment: str) -> list[Any]:
    """What a GpuWatch sees of a driver that tells this row, twice."""
    lay_out(folder / "workbench", None, ())
    programs = folder / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(
        FAKE.format(python=sys.executable, rows=[row] if row else [], before="", extra="")
    )
    (programs / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", LOOKING],
        cwd=folder / "workbench",
        env={"PATH": str(programs), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("word", ["clocks_throttle_reasons.active", "clocks_event_reasons.active"])
def test_the_driver_is_asked_in_the_words_it_knows(tmp_path: Path, word: str) -> None:
    heat_and_power_cap = {word: "0x0000000000000024"}
    gpu, percent, temperatures, slowed, others = look(tmp_path, ROW | heat_and_power_cap)
    assert gpu == "Tesla T4"
    # The first look of a driver that knows only the newer word is lost.
    assert percent in ([93.0, 93.0], [93.0])
    assert set(temperatures) == {83.0}
    assert slowed == ["too hot (the driver's limit)"]
    assert others == ["somebody"]


def test_working_at_the_power_limit_or_idling_is_no_fault(tmp_path: Path) -> None:
    row = ROW | {"clocks_throttle_reasons.active": "0x0000000000000005"}
    assert look(tmp_path, row)[3] == []


def test_another_gpu_than_the_one_that_was_given_is_nobodys_business(tmp_path: Path) -> None:
    row = ROW | {"clocks_throttle_reasons.active": "0x0000000000000040"}
    assert look(tmp_path, row, CUDA_VISIBLE_DEVICES="1") == [None, [], [], [], []]


def test_a_driver_that_fails_stops_nothing(tmp_path: Path) -> None:
    assert look(tmp_path, {}) == [None, [], [], [], []]


@pytest.mark.parametrize("script", sorted(path.name for path in WORKBENCH.glob("*.py")))
def test_the_scripts_are_python_3_8(script: str) -> None:
    ast.parse((WORKBENCH / script).read_text("utf-8"), feature_version=(3, 8))
