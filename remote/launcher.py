"""What a job's command finds when it says `python`: its environment's, with our hook in it."""

from __future__ import annotations

import os
import shlex
import zipfile
from pathlib import Path
from typing import Dict, Optional

# Without its remarks at each start, but with warnings and errors: 2 would hide those of its own
# operations, 3 why a GPU does not come up. TensorFlow 2.21 prints two remarks before it reads the
# variable, whatever it says.
_TENSORFLOW_LOG_LEVEL = "1"


def prepare_launch(run_folder: Path, package: Path, python: str, metrics: bool) -> Dict[str, str]:
    """Write a run's `bin` and `site` folders. Doing it again does no harm.

    Args:
        run_folder: absolute.
        package: the zip file of `remote`, where the hook comes from.
        python: the interpreter's absolute path; a virtual environment's as it is, not the
            base interpreter that it links to.
        metrics: whether fits are watched; otherwise Python starts as if we were not there.

    Returns:
        What the command's environment needs besides this process's.

    Raises:
        OSError: no space, no permission.
    """
    # By name the shim would start itself, for ever.
    assert os.path.isabs(python), python  # noqa: PTH117  # a string for the shell
    site = run_folder / "site" if metrics else None
    if site is not None:
        write_site(site, package)
    write_shims(run_folder / "bin", python, site)
    path = [os.fspath(run_folder / "bin"), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    # pip and the environment's other programs come with its python.
    programs = os.fspath(Path(python).parent)
    if programs not in path:
        path.insert(1, programs)
    return {
        "PATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", _TENSORFLOW_LOG_LEVEL),
        "TRAINSHED_RUN": os.fspath(run_folder),
        "TRAINSHED_PYTHON": python,
    }


def begin_metrics(file: Path) -> None:
    """Have the file there, with what an earlier attempt wrote, and end a line that was cut: the
    next one must not be lost with it. A script that takes the path for a folder's fails at once.

    Raises:
        OSError: no space, no permission.
    """
    with file.open("a+b") as lines:
        lines.seek(max(0, lines.seek(0, os.SEEK_END) - 1))
        if lines.read(1) not in (b"", b"\n"):
            lines.write(b"\n")


def write_site(site: Path, package: Path) -> None:
    """Put into `site` what Python imports at its start when the folder is on PYTHONPATH."""
    site.mkdir(exist_ok=True)
    # Copied, not imported from the package: a package on the script's sys.path would hide the
    # user's own folder `remote`.
    with zipfile.ZipFile(package) as modules:
        (site / "sitecustomize.py").write_bytes(modules.read("remote/sitehook.py"))
        for name in ("kerashook.py", "kerasbackup.py", "kerasboard.py"):
            (site / name).write_bytes(modules.read(f"remote/{name}"))


def write_shims(bin_folder: Path, python: str, site: Optional[Path]) -> None:
    """Make `python` and `python3` in `bin_folder` mean the interpreter at the path `python`.

    Scripts, not links: through a link a virtual environment's Python does not find its packages.
    The shim sets PYTHONPATH, so that a command that sets its own (`PYTHONPATH=src python ...`)
    keeps the hook, and only what a run's Python starts inherits it.
    """
    lines = ["#!/bin/sh"]
    if site is not None:
        # Not in one line: an older dash splits the words of what `export` is given.
        entry = shlex.quote(os.fspath(site))
        lines += [f"PYTHONPATH={entry}${{PYTHONPATH:+:$PYTHONPATH}}", "export PYTHONPATH"]
    lines.append(f'exec {shlex.quote(python)} "$@"')
    script = os.fsencode("\n".join(lines) + "\n")
    bin_folder.mkdir(exist_ok=True)
    for name in ("python", "python3"):
        shim = bin_folder / name
        shim.write_bytes(script)
        shim.chmod(0o755)
