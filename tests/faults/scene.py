"""The whole way of a run, small enough to be gone hundreds of times."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.engines import Engine
from tests.faults.truth import STARTS, Scene
from tests.laptop import LIMIT_S, Finished, Laptop, make_laptop
from tests.servers import SshServer
from tests.vm import REPOSITORY

# It notes that it was started, says something, and makes a model and a curve.
SCRIPT = f"""\
import hashlib, os, pathlib, time
with open(os.path.join(os.environ["HOME"], "{STARTS}"), "a") as file:
    file.write(os.getcwd() + "\\n")
for number in range(50):
    print("line", number, "x" * 200, flush=True)
time.sleep(0.2)
noise = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(10_000))
pathlib.Path("a/mymodel.h5").write_bytes(noise)
pathlib.Path("a/curve.txt").write_text("a curve")
"""
# The same command so often at most; one fault costs one.
TRIES = 4


def set_up(
    folder: Path,
    server: SshServer,
    port: int,
    **keys: Any,  # noqa: ANN401  # of the remote
) -> tuple[Laptop, Scene]:
    """A laptop that never spoke with the VM, and a VM that never saw it. The remote is `far`."""
    laptop = make_laptop(folder, None)
    laptop.add_remote(server, "far", port=port, **keys)
    return _set_up(laptop, server.home)


def set_up_on(engine: Engine, folder: Path) -> tuple[Laptop, Scene]:
    """The same with any engine."""
    return _set_up(engine.bare_laptop(folder), *engine.homes)


def _set_up(laptop: Laptop, home: Path, *others: Path) -> tuple[Laptop, Scene]:
    for left in (path / name for path in (home, *others) for name in (".trainshed", STARTS)):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
    made = laptop.add_job("a", script=SCRIPT, outputs=["a/mymodel.h5", "a/curve.txt"])
    (made / "noise.bin").write_bytes(bytes(range(256)) * 400)
    return laptop, Scene(laptop.root, laptop.home / "ledger.sqlite3", home, others)


def train_until_done(laptop: Laptop) -> list[Finished]:
    """The same command again until it says that all went well; each of its tries."""
    tries: list[Finished] = []
    while len(tries) < TRIES and (not tries or tries[-1].returncode):
        tries.append(laptop.train("--remote", "far"))
    assert tries[-1].returncode == 0, "\n---\n".join(each.stderr for each in tries)
    return tries


def run_module(laptop: Laptop, module: str, *words: str) -> Finished:
    """A module of this package in the place of the command, to its end, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", *words],
        cwd=laptop.root,
        env=laptop.environment({"PYTHONPATH": str(REPOSITORY)}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
