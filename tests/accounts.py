"""Slurm's accounting for a private cluster: its daemon, and the database behind that."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from tests.servers import HOST, free_port
from tests.waiting import wait_for

PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db", "mariadb")
_DAEMONS = ("slurmdbd", "mariadbd")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def missing() -> str:
    """What of it is not installed here; empty for nothing."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"no {', '.join(absent)} here (slurmdbd, mariadb-server)" if absent else ""


def open_accounts(folder: Path) -> str:
    """Start both; what slurm.conf has to say of it. The cluster's munge must be up.

    slurmdbd listens on all of this machine's addresses, which no setting of Slurm 22.05 changes;
    it takes only who has munge's key.
    """
    port = free_port()
    _start_database(folder)
    settings = folder / "slurmdbd.conf"
    settings.write_text(
        f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
"""
    )
    settings.chmod(0o600)  # else it does not start
    # It looks for its settings beside Slurm's, and for its database as MariaDB's clients do.
    more = {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "MYSQL_UNIX_PORT": str(folder / "database.socket"),
    }
    _run(folder, "slurmdbd", **more)
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={HOST}
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits
MinJobAge=2
"""


def _start_database(folder: Path) -> None:
    data, socket = f"--datadir={folder}/database", folder / "database.socket"
    _run(folder, "mariadb-install-db", "--no-defaults", data, "--user=root", "--skip-test-db")
    words = ["--no-defaults", data, "--user=root", f"--socket={socket}", "--skip-networking"]
    # It does not leave its parent by itself.
    aside = f"mariadbd {shlex.join(words)} & echo $! >{shlex.quote(str(folder))}/mariadbd.pid"
    _run(folder, "sh", "-c", aside)

    def makes_a_database() -> bool:
        _run(folder, "mariadb", f"--socket={socket}", "-e", "create database slurm")
        return True

    wait_for(makes_a_database, "a database")


def close_accounts(folder: Path) -> None:
    for daemon in _DAEMONS:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGKILL)


def _run(folder: Path, *words: str, **more: str) -> None:
    with (folder / f"{words[0]}.start").open("wb") as log:
        subprocess.run(
            words,
            env={**os.environ, "PATH": _PATH, **more},
            stdout=log,
            stderr=log,
            check=True,
            timeout=60,
        )
