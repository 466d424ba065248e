"""What starts the guard again after a reboot or a crash, with no laptop near.

First choice is a systemd unit: cloud images have systemd, and their first user may use sudo without
a password. Else two lines in the user's crontab, marked as ours: at each boot, and every five
minutes. Else nothing, and that is said.

Whatever starts it, `guard` takes a lock first, so that there is never a second one; the unit waits
for that lock and takes over when its holder dies.

Sources: systemd.service(5), systemd.unit(5); crontab(1), crontab(5).
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Iterable, List

from remote.guardfolder import GuardFolder
from remote.processes import read_processes

_SYSTEMD = Path("/run/systemd/system")
_UNITS = Path("/etc/systemd/system")
_COMMAND_S = 30.0
_SAID = 200
_CRONS = ("cron", "crond", "cronie", "fcron", "dcron")


class Unavailable(Exception):
    """Why this way does not go here."""


def install(folder: GuardFolder, python: str) -> str:
    """See to it that the guard comes back. Doing it again does no harm.

    Returns:
        Why it would not; empty where it would.
    """
    reasons = []
    for way in (_install_unit, _install_cron):
        try:
            way(folder, python)
        except (Unavailable, OSError, subprocess.SubprocessError) as no:
            reasons.append(str(no))
        else:
            return ""
    return f"after a reboot nobody starts the guard: {'; '.join(reasons)}"


def remove(folder: GuardFolder) -> None:
    """Take away what `install` left, whichever way it was; what cannot be taken away stays and
    does nothing, because without terms the guard ends at once.
    """
    for way in (_remove_unit, _remove_cron):
        try:
            way(folder)
        except (Unavailable, OSError, subprocess.SubprocessError) as no:
            folder.say(f"what starts the guard could not be removed: {no}")


def guard_command(folder: GuardFolder, python: str) -> List[str]:
    return [python, "-S", str(folder.package), "guard", str(folder.path)]


def unit_name(folder: GuardFolder) -> str:
    """One for each store of the machine."""
    return f"trainshed-guard-{zlib.crc32(os.fsencode(folder.path)):08x}.service"


def unit_text(folder: GuardFolder, python: str) -> str:
    """The unit. It waits for the lock in a shell, which takes 1 MB, and then becomes the guard."""
    lock = shlex.quote(str(folder.lock))
    guard = " ".join(map(shlex.quote, guard_command(folder, python)))
    line = f"flock {lock} true; exec {guard}"
    user = pwd.getpwuid(os.getuid())
    return f"""\
[Unit]
Description=Trainshed's guard: stops this machine when its session is over
After=network-online.target systemd-user-sessions.service ssh.service sshd.service
Wants=network-online.target
ConditionPathExists={_specifiers(str(folder.terms))}
StartLimitIntervalSec=0

[Service]
User={user.pw_name}
Environment={_quoted(f"HOME={user.pw_dir}")}
ExecStart=/bin/sh -c {_quoted(line).replace("$", "$$")}
Restart=always
RestartSec=5
KillMode=process

[Install]
WantedBy=multi-user.target
"""


def cron_lines(folder: GuardFolder, python: str) -> List[str]:
    """For the user's crontab, each with our mark. `%` would end a command there."""
    guard = " ".join(map(shlex.quote, guard_command(folder, python)))
    command = f"{guard} >/dev/null 2>&1".replace("%", "\\%")
    return [f"{when} {command} {_mark(folder)}" for when in ("@reboot", "*/5 * * * *")]


def _install_unit(folder: GuardFolder, python: str) -> None:
    if not _SYSTEMD.is_dir():
        raise Unavailable("it has no systemd")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(unit_text(folder, python))
        file.flush()
        unit = _UNITS / unit_name(folder)
        _execute([*_root(), "install", "-m", "644", file.name, str(unit)])
    _execute([*_root(), "systemctl", "daemon-reload"])
    _execute([*_root(), "systemctl", "enable", unit.name])
    _execute([*_root(), "systemctl", "restart", "--no-block", unit.name])


def _remove_unit(folder: GuardFolder) -> None:
    unit = _UNITS / unit_name(folder)
    if unit.exists():
        # Not stopped: it ends by itself, and with it would go what was started from it.
        _execute([*_root(), "systemctl", "disable", unit.name])
        _execute([*_root(), "rm", "-f", str(unit)])
        _execute([*_root(), "systemctl", "daemon-reload"])


def _install_cron(folder: GuardFolder, python: str) -> None:
    if not any(process.name in _CRONS for process in read_processes(Path("/proc"))):
        raise Unavailable("no cron is running")
    lines = _others(folder, _read_crontab())
    _write_crontab([*lines, *cron_lines(folder, python)])


def _remove_cron(folder: GuardFolder) -> None:
    try:
        lines = _read_crontab()
    except (Unavailable, FileNotFoundError):
        return  # then we never wrote one
    kept = _others(folder, lines)
    if kept != lines:
        _write_crontab(kept)


def _others(folder: GuardFolder, lines: Iterable[str]) -> List[str]:
    return [line for line in lines if not line.endswith(f" {_mark(folder)}")]


def _mark(folder: GuardFolder) -> str:
    return f"# {unit_name(folder)}"


def _read_crontab() -> List[str]:
    done = subprocess.run(
        ["crontab", "-l"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        timeout=_COMMAND_S,
        check=False,
    )
    if done.returncode == 0:
        return os.fsdecode(done.stdout).split("\n")[:-1]
    if b"no crontab" in done.stderr:
        return []
    # Not taken for an empty one, which would then be written over the user's lines.
    raise Unavailable(f"`crontab -l` says: {done.stderr[:_SAID].decode('utf-8', 'replace')}")


def _write_crontab(lines: List[str]) -> None:
    _execute(["crontab", "-"], os.fsencode("".join(f"{line}\n" for line in lines)))


def _root() -> List[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def _execute(command: List[str], given: bytes = b"") -> None:
    done = subprocess.run(
        command,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_COMMAND_S,
        check=False,
    )
    if done.returncode:
        said = done.stdout[-_SAID:].decode("utf-8", "replace").strip()
        raise Unavailable(f"`{' '.join(command[:4])}` says: {said}")


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """One word of a unit's setting."""
    escaped = _specifiers(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
