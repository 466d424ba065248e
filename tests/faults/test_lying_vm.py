"""A VM that lies to the whole command: an error in words, or no harm; and nothing is lost."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from orchestrator.settings.spec import EnvSpec
from tests.faults.command import MEMORY_LIMIT_BYTES, Done, train
from tests.faults.lies import LIES
from tests.faults.points import chosen, tell
from tests.faults.truth import STARTS, Scene
from tests.laptop import Laptop, make_laptop
from tests.servers import SshServer
from tests.vm import REPOSITORY

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

# An honest VM takes two seconds; a drip is given up after a minute.
TIME_LIMIT_S = 100
SAID_LIMIT_BYTES = 2**16
# It notes that it was started, and makes what was declared.
SCRIPT = f"""\
echo "$PWD" >> "$HOME/{STARTS}"
echo training
mkdir -p a/made
seq 100000 > a/mymodel.h5
echo curve > a/made/curve.txt
"""
MODEL_END = b"\n100000\n"


@pytest.mark.parametrize("name", chosen(list(LIES), few=6))
def test_a_lie_is_told_in_words_and_nothing_is_lost(
    embedded_server: SshServer, tmp_path: Path, name: str
) -> None:
    lie, home = LIES[name], embedded_server.home
    shutil.rmtree(home / ".trainshed", ignore_errors=True)
    (home / STARTS).unlink(missing_ok=True)
    told = tmp_path / "lie"
    laptop = make_laptop(tmp_path / "laptop", None)
    laptop.add_remote(embedded_server, env=EnvSpec(str(liar(tmp_path / "liar", told))))
    job = laptop.add_job("a", command="sh a/job.sh", outputs=["a/mymodel.h5", "a/made"])
    (job / "job.sh").write_text(SCRIPT)
    before = not_ours(laptop)

    told.write_text(name, "utf-8")
    done = train(laptop, "--remote", "vm")
    check(done, lie.code, lie.says)
    after = not_ours(laptop)
    model = after.pop("exam/a/mymodel.h5", MODEL_END)
    assert (after, model.endswith(MODEL_END)) == (before, True)

    told.write_text("")
    again = train(laptop, "--remote", "vm")
    assert again.code == 0, again.said
    scene = Scene(laptop.root, laptop.home / "ledger.sqlite3", home)
    assert [said for said in scene.lies() if not said.split()[0].endswith("/log")] == []
    assert (laptop.root / "a" / "mymodel.h5").read_bytes().endswith(MODEL_END)
    tell(f"the VM lies: {name}", 1, lie.says or "no harm")


def check(done: Done, code: int, says: str) -> None:
    """One thing at a time: what was said may be long."""
    assert (done.code, "Traceback" in done.said) == (code, False), done.said[-3000:]
    assert says in done.said[:SAID_LIMIT_BYTES], done.said[:3000]
    assert len(done.said.encode()) < SAID_LIMIT_BYTES, "it says too much"
    assert all(line.isprintable() for line in done.said.split("\n"))
    assert done.memory_bytes < MEMORY_LIMIT_BYTES
    assert done.time_s < TIME_LIMIT_S


def liar(file: Path, told: Path) -> Path:
    """A program on the VM that passes for its Python."""
    words = [sys.executable, "-m", "tests.faults.liar", str(told)]
    file.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(REPOSITORY))} exec {shlex.join(words)} "$@"\n'
    )
    file.chmod(0o755)
    return file


def not_ours(laptop: Laptop) -> dict[str, bytes]:
    """The content of all files around the laptop's workspace that trainshed does not keep."""
    folder = laptop.root.parent
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".train", laptop.home.name} & set(path.parts)
    }
