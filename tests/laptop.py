"""A user at a laptop: the real command line in a workspace, against a practice VM."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from orchestrator.records.mirror import Mirrors
from orchestrator.settings.config import format_remotes
from orchestrator.settings.spec import Price, Remote
from tests.servers import HOST, SshServer

# -P: a workspace's own files are not on the path of the command.
TRAIN = (sys.executable, "-P", "-m", "orchestrator.cli")
LIMIT_S = 60.0
HALF = Decimal("0.50")

# A stand-in for a training script; what it does is told by parameters.
SCRIPT = """\
import os, pathlib, sys, time
told = {name[6:]: value for name, value in os.environ.items() if name.startswith("PARAM_")}
print("told", sorted(told.items()), flush=True)
if "until" in told:
    pathlib.Path(told["until"] + ".awaited").touch()
while "until" in told and not os.path.exists(told["until"]):
    time.sleep(0.01)
folder = pathlib.Path(__file__).parent
(folder / "mymodel.h5").write_text(told.get("model", "a model"))
(folder / "curve.txt").write_text("a curve")
sys.exit(int(told.get("code", 0)))
"""

Finished = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Laptop:
    """A workspace and what the user has beside it.

    Attributes:
        home: TRAINSHED_HOME.
    """

    root: Path
    home: Path

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR")}
        return {**kept, "TRAINSHED_HOME": str(self.home), **(more or {})}

    def train(self, *words: str, cwd: Path | None = None, **more: str) -> Finished:
        """Run a command to its end without a terminal; `more` goes into the environment."""
        return subprocess.run(
            [*TRAIN, *words],
            cwd=cwd or self.root,
            env=self.environment(more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LIMIT_S,
            check=False,
        )

    def ok(self, *words: str) -> Finished:
        done = self.train(*words)
        assert done.returncode == 0, done.stderr
        return done

    def json(self, *words: str) -> Any:  # noqa: ANN401  # whatever JSON can hold
        """What a command says with --json; everything on stdout belongs to it."""
        return json.loads(self.ok(*words, "--json").stdout)

    @contextlib.contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on while the test does something else; what it said is added to
        what fails meanwhile.
        """
        with subprocess.Popen(
            [*TRAIN, *words],
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        ) as process:
            try:
                yield process
            except AssertionError as error:
                process.kill()
                if process.stderr is not None and not process.stderr.closed:
                    error.add_note(f"the command said:\n{process.stderr.read()}")
                raise
            finally:
                process.kill()

    def at_terminal(self, *words: str, answers: Mapping[str, str], columns: int = 100) -> Finished:
        """Run a command in a terminal; each answer is typed when its question is shown."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        process = subprocess.Popen(
            [*TRAIN, *words],
            cwd=self.root,
            env=self.environment({"TERM": "xterm"}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        shown, waiting = b"", dict(answers)
        deadline = time.monotonic() + LIMIT_S
        try:
            while process.poll() is None or select.select([master], [], [], 0)[0]:
                assert time.monotonic() < deadline, shown.decode()
                if select.select([master], [], [], 0.05)[0]:
                    try:
                        block = os.read(master, 4096)
                    except OSError:  # the other end is closed
                        break
                    shown += block
                # Slower than the screen is redrawn, as a person is.
                time.sleep(
                    0.3 if any(q in shown.decode("utf-8", "replace") for q in waiting) else 0
                )
                for question in [q for q in waiting if q in shown.decode("utf-8", "replace")]:
                    os.write(master, waiting.pop(question).encode() + b"\n")
        finally:
            process.kill()
            os.close(master)
        return subprocess.CompletedProcess(
            words, process.wait(), shown.decode("utf-8", "replace"), ""
        )

    def add_job(self, name: str, *, script: str = SCRIPT, **keys: object) -> Path:
        """A category with the stand-in script; its folder."""
        folder = self.root / name
        folder.mkdir()
        (folder / "job.py").write_text(script)
        job = {"command": f"python3 {name}/job.py", "outputs": [f"{name}/mymodel.h5"], **keys}
        with (self.root / "train.yaml").open("a") as file:
            file.write(f"  {name}: {json.dumps(job)}\n")
        return folder

    def add_remote(self, server: SshServer, name: str = "vm", **keys: Any) -> None:  # noqa: ANN401
        """A remote that is known already, host key and all."""
        facts = {"port": server.port, "gpus": 0, "price": Price(per_hour=HALF), **keys}
        remote = Remote(name, HOST, user=server.user, key=str(server.key), **facts)
        self._add(remote)
        with (self.home / "known_hosts").open("a") as stream:
            known = server.known_hosts.read_text().split()
            stream.write(f"[{HOST}]:{facts['port']} {known[1]} {known[2]}\n")

    def add_pool(self, name: str, hosts: tuple[str, ...]) -> None:
        """Of remotes."""
        self._add(Remote(name, "", hosts=hosts))

    def _add(self, remote: Remote) -> None:
        text = format_remotes((remote,))
        file = self.home / "remotes.yaml"
        if file.exists():
            text = text.partition("\n")[2]
        with file.open("a") as stream:
            stream.write(text)

    def states(self) -> dict[str, str]:
        """Every run's state by its id, as this laptop knows it."""
        return {mirror.run_id: mirror.verdict for mirror in Mirrors(self.root / ".train").all()}


def make_laptop(folder: Path, server: SshServer | None, workspace: str = "exam") -> Laptop:
    laptop = Laptop(folder / workspace, folder / "trainshed home")
    laptop.root.mkdir(parents=True)
    laptop.home.mkdir()
    (laptop.root / "train.yaml").write_text("jobs:\n")
    if server is not None:
        laptop.add_remote(server)
    return laptop


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline, f"it does not come: {what}"
        time.sleep(0.02)


def without_patience(said: str) -> str:
    """What a command said on stderr, without the lines that it has for whoever waits for it."""
    return re.sub(r"^  .* \(\d+ s\)\n", "", said, flags=re.MULTILINE)


def is_awaited(go: Path) -> bool:
    """Whether a stand-in script runs and waits for this file."""
    return go.with_name(f"{go.name}.awaited").exists()
