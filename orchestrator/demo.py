"""The main job against a practice VM on this machine: `python -m orchestrator.demo FOLDER`.

Nothing but the commands a user would type, printed before each is run. It can be run again: the
VM's files, the workspace and the ledger stay in FOLDER, and unfinished runs are gone on with.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.connection.practicevm import Ready, add_command

_START_LIMIT_S = 20.0


def main(folder: Path) -> int:
    """Run the demo in `folder`; the exit code of the first command that fails, else 0."""
    folder = folder.resolve()
    (folder / "vm").mkdir(parents=True, exist_ok=True)
    exam = folder / "exam"
    with practice_vm(folder / "vm") as ready:
        commands = [
            (folder, ["init", "exam", "--solutions"]),
            (folder, ["remote", "remove", "practice", "--force"]),
            (folder, shlex.split(add_command(ready))[1:]),
            (exam, ["--remote", "practice"]),
            (exam, ["ready"]),
            (exam, ["cost"]),
        ]
        for place, words in commands:
            code = run(place, words, folder / "home")
            # The first time there is no remote to remove.
            if code and words[:2] != ["remote", "remove"]:
                return code
    train = str(Path(sys.executable).with_name("train"))
    say(
        f"\nThe models are in {exam}. To go on there by yourself, start the VM again in another\n"
        "terminal; at its old port it is still the remote `practice`:\n"
        f"  {shlex.join(server(folder / 'vm'))}\n"
        "and here:\n"
        f"  export TRAINSHED_HOME={shlex.quote(str(folder / 'home'))}\n"
        f"  cd {shlex.quote(str(exam))} && {shlex.quote(train)} --remote practice"
    )
    return 0


@contextmanager
def practice_vm(home: Path) -> Iterator[Ready]:
    """A practice VM that listens while the block runs; yields what it says in ready.json."""
    say(f"starting the practice VM, an SSH server on loopback with its home in {home}")
    file = home / ".practice" / "ready.json"
    process = subprocess.Popen(server(home), stdin=subprocess.DEVNULL)
    try:
        yield wait_for(file, process)
    finally:
        process.terminate()
        process.wait()


def server(home: Path) -> list[str]:
    """The command that is the practice VM with this home."""
    return [sys.executable, "-m", "orchestrator.connection.practicevm", str(home)]


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> Ready:
    """What the server of this process says once it listens."""
    end = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        if file.exists():
            ready = Ready(**json.loads(file.read_text("utf-8")))
            if ready.pid == process.pid:
                return ready
        time.sleep(0.05)
    raise SystemExit("the practice VM did not start")


def run(place: Path, words: list[str], home: Path) -> int:
    """Run `train` with these words in `place`, showing the command first."""
    if words[:2] == ["remote", "remove"] and not (home / "remotes.yaml").exists():
        return 0
    say(f"\n$ train {shlex.join(words)}")
    command = [sys.executable, "-m", "orchestrator.cli", *words]
    environment = {**os.environ, "TRAINSHED_HOME": str(home)}
    return subprocess.run(command, cwd=place, env=environment, check=False).returncode


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
