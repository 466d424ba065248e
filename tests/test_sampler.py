"""What a run uses is measured from the kernel and the driver, and never holds the supervisor up.

nvidia-smi is a stand-in: a script on PATH that prints what the real one prints for GPUs that are
not in this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.gpu import (
    Gpu,
    GpuProcess,
    GpuTrouble,
    Query,
    parse_usage,
    read_gpu_processes,
    read_gpus,
)
from remote.record import decode
from remote.sampler import LONGEST_REST_S, SHARE, Sampler
from remote.usage import GpuUsage, Usage

# Each column as the driver prints it under --format=csv,noheader,nounits.
K80 = [
    {
        "index": str(index),
        "utilization.gpu": utilization,
        "memory.used": used,
        "memory.total": "11441",
        "temperature.gpu": "61",
        "power.draw": power,
        "uuid": f"GPU-k80-{index}",
        "driver_version": "470.256.02",
        "name": "Tesla K80",
        "pid": "4711",
        "gpu_uuid": f"GPU-k80-{index}",
        "used_memory": "10910",
        "process_name": "/home/ada/my env, the old one/bin/python",
    }
    for index, utilization, used, power in [(0, "98", "10943", "141.65"), (1, "0", "3", "27.01")]
]
H200 = [
    {
        "index": "0",
        "utilization.gpu": "37",
        "memory.used": "[N/A]",
        "memory.total": "143771",
        "temperature.gpu": "[Not Supported]",
        "power.draw": "[Unknown Error]",
        "compute_cap": "9.0",
        "uuid": "GPU-h200",
        "driver_version": "570.133.20",
        "name": "NVIDIA H200, 1",
        "pid": "[N/A]",
    }
]
CORRUPTED = "WARNING: infoROM is corrupted at gpu 0000:00:1E.0"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)

FAKE = """#!{python}
import sys, time
rows, extra = {rows!r}, {extra!r}
columns = sys.argv[1].partition("=")[2].split(",")
assert sys.argv[2] == "--format=csv,noheader,nounits", sys.argv
{before}
for column in columns:
    if not any(column in row for row in rows):
        print(f'Field "{{column}}" is not a valid field to query.\\n')
        sys.exit(2)
for row in rows:
    print(", ".join(row[column] for column in columns))
if extra:
    print(extra, file=sys.stderr)
"""


class Machine:
    """A folder that is the whole PATH, with or without an nvidia-smi in it."""

    def __init__(self, programs: Path) -> None:
        self.smi = programs / "nvidia-smi"

    def has(self, rows: list[dict[str, str]], before: str = "", extra: str = "") -> None:
        self.smi.write_text(
            FAKE.format(python=sys.executable, rows=rows, before=before, extra=extra)
        )
        self.smi.chmod(0o755)

    def fails(self, text: str, code: int) -> None:
        self.has([], before=f"print({text!r}); sys.exit({code})")

    def hangs(self) -> None:
        self.has([], before="time.sleep(60)")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return Machine(programs)


def test_a_machine_without_nvidia_smi_has_no_gpus(machine: Machine) -> None:
    assert read_gpus() == ()
    assert read_gpu_processes() == ()


def test_the_gpus_of_an_old_driver_are_read_without_what_it_does_not_know(
    machine: Machine,
) -> None:
    machine.has(K80)

    assert read_gpus() == (
        Gpu(0, 98.0, 10943, 11441, 61.0, 141.65, "GPU-k80-0", "Tesla K80", "470.256.02", ""),
        Gpu(1, 0.0, 3, 11441, 61.0, 27.01, "GPU-k80-1", "Tesla K80", "470.256.02", ""),
    )


def test_what_the_driver_does_not_tell_is_none(machine: Machine) -> None:
    machine.has(H200)

    assert read_gpus() == (
        Gpu(0, 37.0, None, 143771, None, None, "GPU-h200", "NVIDIA H200, 1", "570.133.20", "9.0"),
    )


def test_processes_are_read_with_any_name(machine: Machine) -> None:
    machine.has(K80[:1])

    name = "/home/ada/my env, the old one/bin/python"
    assert read_gpu_processes() == (GpuProcess(4711, "GPU-k80-0", 10910, name),)


def test_a_process_without_a_pid_is_left_out(machine: Machine) -> None:
    machine.has([{**K80[0], "pid": "[N/A]"}])
    assert read_gpu_processes() == ()


def test_no_processes_is_no_trouble(machine: Machine) -> None:
    machine.has([], before="sys.exit(0)")
    assert read_gpu_processes() == ()


def test_a_warning_among_the_rows_is_not_a_gpu(machine: Machine) -> None:
    machine.has(H200, extra=CORRUPTED)
    assert [one.uuid for one in read_gpus()] == ["GPU-h200"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (NO_DRIVER, 9),
        ("Failed to initialize NVML: Driver/library version mismatch", 18),
        ("No devices were found", 6),
        ("No devices were found", 0),
    ],
)
def test_a_failing_driver_is_trouble_in_its_own_words(
    machine: Machine, text: str, code: int
) -> None:
    machine.fails(text, code)
    with pytest.raises(GpuTrouble) as caught:
        read_gpus()
    assert str(caught.value) == text


def test_trouble_without_words_names_the_exit_code(machine: Machine) -> None:
    machine.has([], before="sys.exit(15)")
    with pytest.raises(GpuTrouble, match=r"^nvidia-smi ended with 15$"):
        read_gpus()


def test_a_driver_that_does_not_answer_is_trouble_in_time(machine: Machine) -> None:
    machine.hangs()
    began = time.monotonic()
    with pytest.raises(GpuTrouble, match=r"^nvidia-smi did not answer within 0\.2 s$"):
        read_gpus(timeout_s=0.2)
    assert time.monotonic() - began < 30


def test_an_nvidia_smi_that_cannot_be_executed_is_trouble(machine: Machine) -> None:
    machine.smi.write_bytes(b"\x7fELF, but not really")
    machine.smi.chmod(0o755)
    with pytest.raises(GpuTrouble, match=r"^nvidia-smi cannot be executed: "):
        read_gpus()


def test_no_place_for_the_answer_is_trouble(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has(K80)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(GpuTrouble, match=r"^no place for nvidia-smi's answer: No such file"):
        read_gpus()


@pytest.mark.parametrize("text", ["", "\n", "0", "0, 1, 2", "x, 1, 2, 3, 4, 5", "\x00"])
def test_an_answer_without_a_gpu_is_trouble(text: str) -> None:
    with pytest.raises(GpuTrouble):
        parse_usage(text)


def test_numbers_that_json_lacks_are_none() -> None:
    assert parse_usage("0, nan, inf, 5, , 1e3") == (GpuUsage(0, None, None, 5, None, 1000.0),)


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA driver here")
def test_the_gpus_of_this_machine_are_read() -> None:
    first = read_gpus()[0]
    assert first.uuid.startswith("GPU-")
    assert first.memory_total_mib


class Clock:
    """Monotonic seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sampler(tmp_path: Path, machine: Machine, clock: Clock) -> Iterator[Sampler]:
    sampler = Sampler(tmp_path, os.getpid(), clock=clock)
    yield sampler
    sampler.close()


def read_usage(run_folder: Path) -> list[Usage]:
    lines = (run_folder / "usage.jsonl").read_text().splitlines()
    return [decode(Usage, json.loads(line)) for line in lines]


def test_a_line_comes_once_an_interval(tmp_path: Path, sampler: Sampler, clock: Clock) -> None:
    for _ in range(21):
        sampler.tick()
        clock.now_s += 1

    assert len(read_usage(tmp_path)) == 5


def test_samples_take_no_more_than_their_share_however_many_processes_there_are(
    tmp_path: Path, machine: Machine, clock: Clock
) -> None:
    spent = iter([0.0, 0.1])
    sampler = Sampler(tmp_path, os.getpid(), clock=clock, spent=lambda: next(spent))
    sampler.tick()

    clock.now_s += 0.1 / SHARE - 1
    sampler.tick()
    assert len(read_usage(tmp_path)) == 1

    clock.now_s += 1
    spent = iter([5.0, 5.1])
    sampler.tick()
    assert len(read_usage(tmp_path)) == 2


def test_a_sample_that_was_slow_once_is_not_the_last_for_minutes(
    tmp_path: Path, machine: Machine, clock: Clock
) -> None:
    spent = iter([0.0, 1.0])
    sampler = Sampler(tmp_path, os.getpid(), clock=clock, spent=lambda: next(spent))
    sampler.tick()

    clock.now_s += LONGEST_REST_S
    spent = iter([5.0, 5.0])
    sampler.tick()
    assert len(read_usage(tmp_path)) == 2


def test_a_driver_that_works_long_for_an_answer_is_asked_less_often(
    machine: Machine, sampler: Sampler, clock: Clock
) -> None:
    machine.has(H200, before="\nwhile time.process_time() < 0.1: pass")
    sampler.sample()
    asked = query_of(sampler)
    assert asked is not None
    # Left to be waited for: that is where its processor time is learnt.
    os.waitid(os.P_PID, asked._process.pid, os.WEXITED | os.WNOWAIT)

    for rest_s in (0, 0.1 / SHARE - 1):
        clock.now_s += rest_s
        assert sampler.sample().gpus is not None
        assert query_of(sampler) is None

    clock.now_s += LONGEST_REST_S - 0.1 / SHARE + 1  # its start as a Python was dear, too
    sampler.sample()
    assert query_of(sampler) is not None


def query_of(sampler: Sampler) -> Query | None:
    """The question that is under way."""
    return sampler._query


def test_where_there_is_no_nvidia_smi_none_is_looked_for_again(
    machine: Machine, sampler: Sampler
) -> None:
    assert sampler.sample().gpus == ()
    machine.has(H200)
    assert sampler.sample().gpus == ()
    assert sampler._query is None


def test_a_sample_tells_of_this_machine(sampler: Sampler) -> None:
    usage = sampler.sample()

    assert usage.cpu_percent is None  # nothing to compare with yet
    assert usage.gpus == ()
    for amount in (usage.memory_bytes, usage.available_bytes, usage.disk_free_bytes):
        assert amount is not None
        assert 2**20 < amount < 2**50
    assert usage.load1 is not None


def test_cpu_and_memory_are_those_of_the_whole_family(
    tmp_path: Path, machine: Machine, clock: Clock
) -> None:
    # A grandchild in a session of its own, with 64 MiB and half a second of work.
    work = (
        "import os, time; held = bytearray(b'x') * 2**26\n"
        "while time.process_time() < 0.5: pass\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    script = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {work!r}], start_new_session=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as root:
        sampler = Sampler(tmp_path, root.pid, clock=clock)
        first = sampler.sample()
        assert root.stdout is not None
        grandchild = int(root.stdout.readline())
        clock.now_s += 10
        second = sampler.sample()
        # Its parent ends when it does.
        os.kill(grandchild, signal.SIGKILL)

    assert first.cpu_percent is None
    assert second.cpu_percent is not None
    assert 4.5 < second.cpu_percent < 8, "half a second in ten is 5 %"
    assert second.memory_bytes is not None
    assert 2**26 < second.memory_bytes < 2**27


def test_a_run_that_ended_uses_nothing(tmp_path: Path, machine: Machine, clock: Clock) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    sampler = Sampler(tmp_path, ended.pid, clock=clock)
    sampler.sample()
    clock.now_s += 1

    usage = sampler.sample()

    assert (usage.cpu_percent, usage.memory_bytes) == (0.0, 0)


def test_a_system_without_proc_leaves_out_what_it_cannot_tell(
    tmp_path: Path, machine: Machine
) -> None:
    usage = Sampler(tmp_path, 1, proc=tmp_path / "none").sample()

    assert (usage.cpu_percent, usage.memory_bytes, usage.available_bytes) == (None, None, None)
    assert usage.disk_free_bytes


def test_a_run_folder_that_is_gone_does_not_end_the_supervisor(
    tmp_path: Path, machine: Machine
) -> None:
    sampler = Sampler(tmp_path / "gone", os.getpid())
    sampler.tick()
    assert sampler.sample().disk_free_bytes is None


def test_a_line_that_was_cut_does_not_take_the_next_one_with_it(
    tmp_path: Path, sampler: Sampler, clock: Clock
) -> None:
    sampler.tick()
    with (tmp_path / "usage.jsonl").open("ab") as file:
        file.write(b'{"at": "20')
    for _ in range(2):
        clock.now_s += 5
        sampler.tick()
    lines = (tmp_path / "usage.jsonl").read_text().splitlines()
    assert lines.pop(1) == '{"at": "20'
    assert [decode(Usage, json.loads(line)).at for line in lines] == sorted(
        json.loads(line)["at"] for line in lines
    )
    assert len(lines) == 3


def test_gpus_are_those_the_driver_named_after_the_sample_before(
    machine: Machine, sampler: Sampler
) -> None:
    machine.has(K80)

    assert sampler.sample().gpus is None
    finish(sampler)
    usage = sampler.sample()

    assert usage.gpus == (
        GpuUsage(0, 98.0, 10943, 11441, 61.0, 141.65),
        GpuUsage(1, 0.0, 3, 11441, 61.0, 27.01),
    )


def test_a_driver_that_comes_and_goes_is_asked_again(machine: Machine, sampler: Sampler) -> None:
    machine.fails(NO_DRIVER, 9)
    sampler.sample()
    finish(sampler)
    assert sampler.sample().gpus is None

    machine.has(H200)
    sampler.sample()
    finish(sampler)
    assert sampler.sample().gpus == (GpuUsage(0, 37.0, None, 143771, None, None),)


def test_a_hung_driver_never_holds_a_sample_up_and_is_asked_by_one_process(
    machine: Machine, sampler: Sampler, clock: Clock
) -> None:
    machine.hangs()
    began = time.monotonic()
    for _ in range(20):
        assert sampler.sample().gpus is None
        clock.now_s += 0.5
    assert sampler._query is not None
    hung = sampler._query._process
    assert hung.poll() is None, "within its limit it is let be"

    clock.now_s += 1
    sampler.sample()
    assert time.monotonic() - began < 30
    assert hung.wait(10) == -9

    machine.has(H200)
    sampler.sample()
    sampler.sample()
    finish(sampler)
    assert sampler.sample().gpus is not None


def finish(sampler: Sampler) -> None:
    """Wait for the question that is under way."""
    assert sampler._query is not None
    sampler._query.wait(10)
