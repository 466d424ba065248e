"""What the results were measured on and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def about() -> dict[str, str]:
    """Machine, date, versions, how TCP is tuned, and what else the machine was doing: by name, as
    they are to be shown.
    """
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    tcp = {
        name: " ".join(Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text().split())
        for name in ("congestion_control", "rmem", "wmem")
    }
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory_bytes / 2**30:.0f} GiB",
        # Above some tenths the times are those of a machine that is shared, and of little worth.
        "load before": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "tcp": "{congestion_control}, rmem {rmem}, wmem {wmem}".format(**tcp),
        "trainshed": importlib.metadata.version("trainshed"),
        "python": platform.python_version(),
        "paramiko": importlib.metadata.version("paramiko"),
        "ssh": _said("ssh", "-V").partition(",")[0],
        "rsync": re.sub(r"rsync +version +(\S+).*", r"\1", _said("rsync", "--version")),
    }


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _said(*command: str) -> str:
    """The first line that a program says of itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).splitlines()[0]
