"""Login shells that talk, leave, or are of another kind: the whole command over OpenSSH."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.command import train
from tests.faults.points import chosen, tell
from tests.laptop import make_laptop
from tests.servers import SSHD, SshServer, openssh

pytestmark = [pytest.mark.faults, pytest.mark.sshd]

NOISE = (
    "printf '\\033[2J\\033]0;owned\\007Welcome to \\342\\200\\256\\n'; seq 20000; seq 9000 >&2\n"
)
# Which shell, what its start-up file says, and how the command ends.
SHELLS = {
    "bash that talks": ("bash", NOISE, 0, "succeeded"),
    "bash that leaves": ("bash", "exit 0\n", 5, "the agent did not start"),
    "bash that leaves with words": ("bash", "echo '\033[2Jno'>&2; exit 3\n", 5, "exit status 3"),
    "bash that hangs up": ("bash", "kill -9 $$\n", 4, "the connection to vm ended"),
    "bash that becomes another": ("bash", "exec cat\n", 4, "nothing came for 15 s"),
    "csh": ("tcsh", "", 0, "succeeded"),
    "fish": ("fish", "", 0, "succeeded"),
    "dash": ("dash", "", 0, "succeeded"),
    "no shell": ("false", "", 5, "the agent did not start"),
    "a shell that repeats": ("echo", "", 5, "the agent did not start"),
}


@pytest.fixture
def vm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SshServer]:
    """An sshd whose account has the shell that the test's case names."""
    shell, start_up, _, _ = SHELLS[request.getfixturevalue("name")]
    found = shutil.which(shell)
    if found is None or not SSHD.exists():
        pytest.skip(f"{shell if found is None else SSHD} is not installed")
    # As sshd starts the account's own: `-c` and the command.
    command = f'cd "$HOME" && BASH_ENV="$HOME/.start-up" exec {found} -c "$SSH_ORIGINAL_COMMAND"'
    with openssh(tmp_path / "vm", f"ForceCommand {command}") as server:
        # bash reads the first where it thinks that sshd started it, else the second.
        for file in (".bashrc", ".start-up"):
            (server.home / file).write_text(start_up)
        yield server


@pytest.mark.parametrize("name", chosen(list(SHELLS), few=2))
def test_a_login_shell_is_read_past_or_named(vm: SshServer, tmp_path: Path, name: str) -> None:
    _, _, code, says = SHELLS[name]
    laptop = make_laptop(tmp_path / "laptop", vm)
    laptop.add_job("a")
    done = train(laptop, "--remote", "vm")
    assert (done.code, "Traceback" in done.said) == (code, False), done.said
    assert says in done.said
    assert all(line.isprintable() for line in done.said.split("\n"))
    tell(f"a login shell: {name}", 1, says)
