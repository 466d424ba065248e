"""Real sshds as the hosts of a pool, each with a home of its own, that can die and come back."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import yaml

from orchestrator.records.mirror import Mirror, Mirrors
from tests.faults.vm import processes
from tests.laptop import LIMIT_S, make_laptop, wait_until
from tests.servers import HOST, SSHD, answers, free_port, make_key

STARTS = "starts"

# It notes its start in its home, and waits for its gate, if there are any.
SCRIPT = f"""\
import os, pathlib, time
run, job = pathlib.Path.cwd().parent.name, pathlib.Path(__file__).parent.name
with (pathlib.Path.home() / "{STARTS}").open("a") as file:
    file.write(run + "\\n")
print("I am", run, flush=True)
gates = os.environ.get("PARAM_gates")
while gates and not os.path.exists(os.path.join(gates, job)):
    time.sleep(0.02)
pathlib.Path(__file__).with_name("mymodel.h5").write_text("made by " + run)
"""

# `train` for which time goes faster: a host is dead, and the config read, after seconds. It dies at
# what DIE_AT names, and no host lets go of what the job REFUSED has made.
HASTY = """\
import os, sys
from orchestrator import cli
from orchestrator.pools import host, hosts, spread
host.DEAD_S, host._RETRY_S, hosts._CONFIG_S, spread._STEAL_S = 10.0, 0.5, 0.3, 0.3
hosts._WAIT_S = 10.0
module, _, name = os.environ.get("DIE_AT", "").partition(":")
if name:
    owner, _, method = name.partition(".")
    import importlib
    setattr(getattr(importlib.import_module(module), owner), method, lambda *_: os._exit(9))
from datetime import timedelta
from orchestrator.costs import bounds
bounds._LOOK_S, bounds._GUARD_LIMIT = 0.3, timedelta(seconds=1)
if job := os.environ.get("REFUSED"):
    from orchestrator.errors import Refused
    from orchestrator.roundtrip import RoundTrip
    take_home = RoundTrip.take_home
    def refused(trip, link, mirror):
        if mirror.request.job == job:
            raise Refused(f"{link.name}: it is out of sorts")
        take_home(trip, link, mirror)
    RoundTrip.take_home = refused
sys.exit(cli.run_command())
"""
HASTY_TRAIN = (sys.executable, "-P", "-c", HASTY)


class PoolHost:
    """An sshd whose host key and port stay the same over its deaths."""

    def __init__(self, folder: Path, client: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        make_key(folder / "key")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        (folder / "config").write_text(
            f"""\
ListenAddress {HOST}:{self.port}
HostKey {folder}/key
AuthorizedKeysFile {client}.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
SetEnv HOME={self.home}
ForceCommand cd "$HOME" && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""
        )
        self._sshd: subprocess.Popen[bytes] | None = None
        self.boot()

    @property
    def known(self) -> str:
        """Its line of known_hosts."""
        kind, key = (self.folder / "key.pub").read_text().split()[:2]
        return f"[{HOST}]:{self.port} {kind} {key}\n"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def runs(self) -> Path:
        return self.home / ".trainshed" / "runs"

    def states(self) -> dict[str, str]:
        """Of the runs here, by the files in their folders; those without one are not there."""
        files = self.runs.glob("*/state.json")
        return {file.parent.name: json.loads(file.read_text())["state"] for file in files}

    @property
    def starts(self) -> list[str]:
        """The ids of the runs whose scripts began here, once for each time."""
        file = self.home / STARTS
        return file.read_text().split() if file.exists() else []

    def boot(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._sshd = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", self.folder / "config"], stderr=log
            )
        wait_until(lambda: answers(self.port), "the server")

    def die(self) -> None:
        """All its processes are killed at once, as when the power fails."""
        assert self._sshd is not None
        for pid in (self._sshd.pid, *_below(self._sshd.pid)):
            _kill(pid)
        self._sshd.wait()
        while found := processes(self.home):
            for pid in found:
                _kill(pid)


class LabPool:
    """A laptop, and hosts that its pool `lab` lists as addresses.

    Attributes:
        gates: a job may end once a file of its name is here.
    """

    def __init__(self, folder: Path, gpus: list[int]) -> None:
        self.laptop = make_laptop(folder, None)
        self.gates = folder / "gates"
        self.gates.mkdir()
        key = make_key(folder / "client")
        self.hosts = [PoolHost(folder / f"host{n}", key) for n in range(len(gpus))]
        known = "".join(host.known for host in self.hosts)
        (self.laptop.home / "known_hosts").write_text(known)
        self._common = {"user": getpass.getuser(), "key": str(key)}
        # As remotes of their own, because they have GPUs each.
        self._remotes: dict[str, dict[str, object]] = {
            f"gpu{n}": {"host": HOST, "port": h.port, "gpus": count, **self._common}
            for n, (h, count) in enumerate(zip(self.hosts, gpus, strict=True))
        }
        self.says(list(self._remotes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.die()

    def price(self, host: int, **keys: object) -> None:
        """What it costs from now on, and what may be spent on it."""
        self._remotes[f"gpu{host}"] |= keys
        self.says(list(self._remotes))

    def says(self, hosts: list[str], drained: list[str] | None = None) -> None:
        """What the pool says from now on."""
        lab = {"hosts": hosts, "drained": drained or [], "gpus": 1, **self._common}
        file = self.laptop.home / "remotes.yaml"
        new = file.with_name("new")
        new.write_text(yaml.dump({"remotes": {**self._remotes, "lab": lab}}))
        new.replace(file)

    def add_jobs(self, *names: str, **keys: object) -> None:
        for name in names:
            self.laptop.add_job(name, script=SCRIPT, **keys)

    @contextlib.contextmanager
    def train(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        with self.laptop.start("-r", "lab", "-p", f"gates={self.gates}", *words) as process:
            yield process

    def open(self, *jobs: str) -> None:
        for job in jobs:
            (self.gates / job).touch()

    @property
    def mirrors(self) -> dict[str, Mirror]:
        return {mirror.run_id: mirror for mirror in Mirrors(self.laptop.root / ".train").all()}

    @property
    def models(self) -> list[Path]:
        """What is home."""
        return list(self.laptop.root.glob(".train/models/*/mymodel.h5"))

    def heard(self, state: str) -> int:
        """Of how many runs the laptop thinks so."""
        return sum(mirror.verdict == state for mirror in self.mirrors.values())

    def places(self) -> dict[str, int]:
        """The host on which the script of each job began, so far; the last one where several."""
        runs = {run: n for n, host in enumerate(self.hosts) for run in host.starts}
        return {run.rsplit("-", 3)[0]: n for run, n in runs.items()}

    def detach_three(self) -> tuple[Mirror, int]:
        """Have a command leave the jobs a, b and c behind, of which the two hosts run one each: the
        run that waits, and its host, when the other has nothing to do.
        """
        with self.train("--detach") as process:
            assert end_of(process)[0] == 0
        wait_until(lambda: len(self.places()) == 2, "the first two")
        (waiting,) = set("abc") - self.places().keys()
        (mirror,) = [m for m in self.mirrors.values() if m.request.job == waiting]
        where = self.place_of(mirror)
        self.open(*(job for job, place in self.places().items() if place != where))
        return mirror, where

    def place_of(self, mirror: Mirror) -> int:
        """The host that has a run."""
        found = [n for n, host in enumerate(self.hosts) if (host.runs / mirror.run_id).exists()]
        assert len(found) == 1
        return found[0]

    def starts(self) -> Counter[str]:
        """How often each job's script began, on whatever host."""
        return Counter(run.rsplit("-", 3)[0] for host in self.hosts for run in host.starts)


def end_of(process: subprocess.Popen[str], limit_s: float = LIMIT_S) -> tuple[int, str]:
    """How the command ended, and what it said."""
    out, err = process.communicate(timeout=limit_s)
    return process.returncode, out + err


def is_said(process: subprocess.Popen[str], *words: str) -> bool:
    """Wait for a line with all of these; False where the command ends without one."""
    assert process.stderr is not None
    return any(all(word in line for word in words) for line in process.stderr)


def _below(pid: int) -> list[int]:
    try:
        own = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*own, *(below for child in own for below in _below(child))]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
