"""A fuzzer led by what it reaches, for a while; what it found is among the other tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.points import chosen, tell
from tests.vm import REPOSITORY

pytestmark = pytest.mark.faults

# As many seconds as points are tried; a minute of each finds what an hour found so far.
SECONDS = len(chosen(range(3600)))


@pytest.mark.skipif("TRAINSHED_FAULT_POINTS" not in os.environ, reason="for `make faults`")
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not here")
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", ["frames", "manifests", "models"])
def test_no_input_that_a_fuzzer_makes_breaks_a_promise(tmp_path: Path, target: str) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzz", target, str(SECONDS)]
    done = subprocess.run(
        # The shell forks. A child of ours would count as its own the most memory that we ever had
        # (ru_maxrss), and be over its limit after a test that reads a log of 1 GB.
        ["sh", "-c", '"$@"; exit $?', "sh", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode("utf-8", "replace")
    found = [path.read_bytes() for path in tmp_path.glob("*-*")]
    assert (done.returncode, found) == (0, []), said[-3000:]
    (count,) = (line.split()[-1] for line in said.splitlines() if "executed_units" in line)
    tell(f"a fuzzer's {target}", int(count), "read, or an error in words; bounded memory and time")
