"""A practice VM on this machine: an SSH server for this user, on loopback only.

    python -m orchestrator.connection.practicevm HOME_FOLDER [--port N] [--name REMOTE]

It runs each command with `/bin/sh -c` in a home of its own, so that the whole way of a run can be
practised without a machine that costs money. It is no sandbox: commands run as the user who
started it. In HOME_FOLDER/.practice are its host key, the one client key that is let in, the port
it had last, a lock, and, while it listens, ready.json (see `Ready`). Started again it is the same
machine at the same port, if that is free, so that a remote that was added once works again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import getpass
import hashlib
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncssh

from remote.atomic import replace_file

if sys.platform != "win32":
    import fcntl

ADDRESS = "127.0.0.1"
FOLDER = ".practice"
PORT_FILE = "port"
KEY_KIND = "ssh-ed25519"

INPUT_BYTES = 256 * 2**10


@dataclass(frozen=True)
class Ready:
    """What ready.json says.

    Attributes:
        host_key: a line for a known_hosts file.
        key: the private key to log in with.
        name: what its remote is to be called.
    """

    port: int
    user: str
    host_key: str
    key: str
    pid: int
    name: str = "practice"


class _Door(asyncssh.SSHServer):
    """Lets one user in, with one key."""

    def __init__(self, user: str, key: asyncssh.SSHKey) -> None:
        self._user = user
        self._key = key

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == self._user and key.public_data == self._key.public_data

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        # For ProxyJump; to this machine only.
        return dest_host in (ADDRESS, "localhost", "::1")


def add_command(ready: Ready) -> str:
    """What makes this server a remote; its key was made here, so its fingerprint is known."""
    words = ["train", "remote", "add", ready.name, "--host", ADDRESS, "--port", str(ready.port)]
    words += ["--user", ready.user, "--key", ready.key, "--python", sys.executable]
    words += ["--gpus", "0", "--price", "0.50", "--accept-host-key", _fingerprint(ready)]
    return shlex.join(words)


def greeting(ready: Ready, last: int) -> str:
    """What to do next, now that it listens.

    Args:
        last: the port it had the last time; 0 if it is new.
    """
    add = f"in another terminal:\n  {add_command(ready)}\n"
    if not last:
        return f"it listens; {add}"
    if ready.port == last:
        return f"it listens at port {last} as before: its remote works again. To add one, {add}"
    change = ["train", "remote", "set", ready.name, "--port", str(ready.port)]
    change += ["--accept-host-key", _fingerprint(ready)]
    return (
        f"it listens at port {ready.port} now, not at {last} as before; tell its remote:\n"
        f"  {shlex.join(change)}\nTo add one, {add}"
    )


def _fingerprint(ready: Ready) -> str:
    blob = base64.b64decode(ready.host_key.split()[-1])
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def _last_port(file: Path) -> int:
    """The port in a file; 0 where none is, or the file is damaged."""
    try:
        port = int(file.read_text("ascii"))
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 2**16 else 0


class PracticeVM:
    """One server and the commands it runs.

    Args:
        home: the commands' HOME and working folder.
        name: of its remote, for the command that adds it.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._home = home
        self._name = name
        self._user = getpass.getuser()
        # As the user's own shell has it: the practice VM borrows this machine's Python, proxies
        # and certificates, but not the keys in its agent.
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"},
            "HOME": str(home),
            "PWD": str(home),
            "USER": self._user,
            "LOGNAME": self._user,
        }

    async def serve(self, port: int) -> None:
        """Listen until cancelled; then end all commands, except what detached itself.

        Args:
            port: 0 for the one it had last, or a free one.

        Raises:
            OSError: the port is taken, or the home cannot be written.
        """
        folder = self._home / FOLDER
        host_key, client_key = _own_key(folder / "host_key"), _own_key(folder / "client_key")
        last = _last_port(folder / PORT_FILE)
        try:
            server = await self._listen(port or last, host_key, client_key)
        except OSError:
            if port or not last:
                raise
            server = await self._listen(0, host_key, client_key)
        port = server.get_port()
        ready = folder / "ready.json"
        line = host_key.export_public_key().decode("ascii").split()
        facts = Ready(
            port=port,
            user=self._user,
            host_key=f"[{ADDRESS}]:{port} {line[0]} {line[1]}",
            key=str(folder / "client_key"),
            pid=os.getpid(),
            name=self._name,
        )
        try:
            replace_file(folder / PORT_FILE, f"{port}\n".encode("ascii"))
            replace_file(ready, json.dumps(asdict(facts), indent=1).encode("utf-8"))
            sys.stderr.write(greeting(facts, last))
            sys.stderr.flush()
            await asyncio.get_running_loop().create_future()
        finally:
            ready.unlink(missing_ok=True)
            server.close()
            await server.wait_closed()

    async def _listen(
        self, port: int, host_key: asyncssh.SSHKey, client_key: asyncssh.SSHKey
    ) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            ADDRESS,
            port,
            server_factory=lambda: _Door(self._user, client_key),
            server_host_keys=[host_key],
            process_factory=self._run,
            encoding=None,
            line_editor=False,
            allow_scp=False,
            agent_forwarding=False,
            x11_forwarding=False,
            compression_algs=None,
            gss_host=None,
            config=(),
        )

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command is None:
            process.stderr.write(b"this practice VM runs commands, it has no shell to talk to\n")
            process.exit(1)
            return
        async with self._child(process) as child:
            if not await _is_sent(process):
                return  # the line is gone, and nobody left to tell
            # As sshd: the end of the output, then of the command.
            process.stdout.write_eof()
            status = await child.wait()
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)

    @contextlib.asynccontextmanager
    async def _child(
        self, process: asyncssh.SSHServerProcess[bytes]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command, its pipes joined to the channel; hung up when the block is left early."""
        (output, stdout), (errors, stderr) = os.pipe(), os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                process.command or "",
                stdin=asyncio.subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                cwd=self._home,
                env=self._environment,
                start_new_session=True,
            )
        except BaseException:
            os.close(output)
            os.close(errors)
            raise
        finally:
            os.close(stdout)
            os.close(stderr)
        assert child.stdin is not None
        feeding = asyncio.create_task(_feed(process.stdin, child.stdin))
        try:
            # A channel has one end for both outputs: asyncssh would send it with the first of them.
            await process.redirect(None, output, errors, send_eof=False)
            yield child
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
            if child.returncode is None:
                # To its group only: what called setsid lives on, as on a real VM.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGHUP)
                await child.wait()


async def _is_sent(process: asyncssh.SSHServerProcess[bytes]) -> bool:
    """Wait for the end of both outputs; False when the channel is closed before."""
    sent = asyncio.create_task(_drain(process.stdout, process.stderr))
    # asyncssh leaves drain() waiting when the connection drops during a redirect.
    closed = asyncio.ensure_future(process.channel.wait_closed())
    try:
        await asyncio.wait((sent, closed), return_when=asyncio.FIRST_COMPLETED)
        return not closed.done()
    finally:
        sent.cancel()
        closed.cancel()


async def _drain(*outputs: asyncssh.SSHWriter[bytes]) -> None:
    # In a task, which takes the outcome of a gather that is cancelled; nobody else would.
    await asyncio.gather(*(output.drain() for output in outputs), return_exceptions=True)


async def _feed(source: asyncssh.SSHReader[bytes], sink: asyncio.StreamWriter) -> None:
    """Bring the channel's input to the command, and its end.

    Not by `redirect`, which ends a pipe from within the callback that says it takes more; asyncio
    (3.11) then drops what was written in that callback. 13 of 100 uploads of 5 MB lost their end.
    """
    try:
        while data := await source.read(INPUT_BYTES):
            sink.write(data)
            await sink.drain()
    except (OSError, asyncssh.Error):
        pass  # the command takes no more, or the line is gone
    finally:
        sink.close()


def _own_key(file: Path) -> asyncssh.SSHKey:
    """The key in a file, made at the first start and kept."""
    if not file.exists():
        replace_file(file, asyncssh.generate_private_key(KEY_KIND).export_private_key())
        file.chmod(0o600)
    return asyncssh.read_private_key(str(file))


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="practicevm", description="an SSH server to practise on")
    parser.add_argument("home", type=Path)
    parser.add_argument(
        "--port", type=int, default=0, help="default: that of the last time, or a free one"
    )
    parser.add_argument("--name", default=Ready.name, help="of its remote; default: %(default)s")
    options = parser.parse_args()
    if not 0 <= options.port < 2**16:
        parser.error(f"--port takes a port from 1 to 65535, not {options.port}")
    if sys.platform == "win32":
        raise SystemExit("a practice VM needs /bin/sh; on Windows start it inside WSL")
    folder = options.home.resolve() / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"a practice VM already runs in {options.home}") from None
        try:
            asyncio.run(_until_terminated(PracticeVM(folder.parent, options.name), options.port))
        except (KeyboardInterrupt, asyncio.CancelledError):
            pass  # that is how it is stopped
        except OSError as error:
            raise SystemExit(f"the practice VM cannot listen: {error}") from None


async def _until_terminated(vm: PracticeVM, port: int) -> None:
    serving = asyncio.ensure_future(vm.serve(port))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    await serving


if __name__ == "__main__":
    main()
