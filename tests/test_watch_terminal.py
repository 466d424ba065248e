"""The live view as a user has it: in a real terminal, over a real sshd, with a line that fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.laptop import LIMIT_S, TRAIN, Laptop, is_awaited, make_laptop, wait_until
from tests.servers import Relay, SshServer

pytestmark = pytest.mark.sshd


class Tmux:
    """A terminal of 80x24 with a shell in it."""

    def __init__(self, laptop: Laptop) -> None:
        self._base = ("tmux", "-L", f"trainshed-{os.getpid()}", "-f", "/dev/null")
        self._do("new-session", "-d", "-x", "80", "-y", "24", "sh", laptop=laptop)

    def _do(self, *words: str, laptop: Laptop | None = None) -> str:
        env = laptop.environment({"PS1": "$ "}) if laptop else None
        cwd = laptop.root if laptop else None
        done = subprocess.run(
            [*self._base, *words], env=env, cwd=cwd, capture_output=True, text=True, check=True
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        self._do("send-keys", *keys)

    def text(self) -> str:
        return self._do("capture-pane", "-p")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text(), text)

    def close(self) -> None:
        self._do("kill-server")


@contextmanager
def terminal(laptop: Laptop) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    tmux = Tmux(laptop)
    try:
        yield tmux
    finally:
        tmux.close()


def test_it_goes_on_over_a_lost_line_and_quitting_harms_nothing(
    openssh_server: SshServer, tmp_path: Path
) -> None:
    laptop = make_laptop(tmp_path, None)
    laptop.add_job("a")
    go = tmp_path / "go"
    with Relay(openssh_server.port) as first, terminal(laptop) as tmux:
        laptop.add_remote(openssh_server, port=first.port)
        laptop.ok("run", "a", "--remote", "vm", "--detach", "--param", f"until={go}")
        wait_until(lambda: is_awaited(go), "the run runs")
        tmux.type(" ".join(TRAIN) + " watch; echo code $?", "Enter")
        tmux.wait_for("vm: connected")
        tmux.wait_for("told [('until'")

        first.close()
        tmux.wait_for("vm: what is shown is")
        with Relay(openssh_server.port) as second:
            # As a machine that was stopped and started has another address.
            laptop.add_remote(openssh_server, "other", port=second.port)
            config = laptop.home / "remotes.yaml"
            text = config.read_text().replace(str(first.port), str(second.port))
            config.write_text(text)
            tmux.wait_for("vm: connected")

            tmux.type("p")
            tmux.wait_for("train pull a: done")
            tmux.type("q")
            tmux.wait_for("code 0")
            assert list(laptop.states().values()) == ["running"]

            go.touch()
            laptop.ok("attach", "a")
    assert list(laptop.states().values()) == ["succeeded"]


def test_through_a_pipe_it_is_lines_until_ctrl_c(openssh_server: SshServer, tmp_path: Path) -> None:
    laptop = make_laptop(tmp_path, openssh_server)
    laptop.add_job("a")
    go = tmp_path / "go"
    laptop.ok("run", "a", "--remote", "vm", "--detach", "--param", f"until={go}")
    wait_until(lambda: is_awaited(go), "the run runs")
    with laptop.start("watch") as watch:
        assert watch.stdout is not None
        lines = iter(watch.stdout.readline, "")
        (run_id,) = laptop.states()
        assert next(line for line in lines if line == f"{run_id}: running\n")
        go.touch()
        assert next(line for line in lines if line.startswith(f"{run_id}: succeeded"))
        watch.send_signal(signal.SIGINT)
        assert watch.wait(LIMIT_S) == 130


def test_a_remote_that_nobody_knows_is_told_before_anything_is_drawn(tmp_path: Path) -> None:
    laptop = make_laptop(tmp_path, None)
    laptop.add_job("a")
    done = laptop.train("watch", "--remote", "nowhere")

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
