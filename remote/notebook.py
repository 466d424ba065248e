"""One run in a notebook: no agent, no queue, no laptop in sight; what is left is a result zip."""

from __future__ import annotations

import codecs
import json
import os
import platform
import signal
import subprocess
import sys
import time
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict, Mapping, NamedTuple

from remote import clock
from remote.elsewhere import LOG, METRICS, OUTPUTS, RECORD, REQUEST, SEAL, TREE, VERSION, Told, seal
from remote.gpu import GpuTrouble, read_gpus
from remote.outputs import find_outputs
from remote.protocol import CHUNK_BYTES
from remote.record import from_bytes, to_bytes
from remote.runfolder import RunRequest

# Under both names, whatever the kernel's own interpreter is called.
_PYTHON = '#!/bin/sh\nexec "{python}" "$@"\n'


class Trained(NamedTuple):
    """Attributes: as in `Told`."""

    started_at: str
    duration_s: float
    exit_code: int


def train(folder: Path, environment: Mapping[str, str]) -> Trained:
    """Execute the command in the unpacked bundle; what it writes is shown, and kept for the result.

    Args:
        environment: for the command, over the machine's own.
    """
    request = _request(folder)
    said = {
        "Python": platform.python_version(),
        "TensorFlow": _version("tensorflow"),
        "GPU": _gpu(),
    }
    _say(", ".join(f"{name} {what or 'none'}" for name, what in said.items()))
    started_at, start = clock.now(), time.monotonic()
    exit_code = _execute(request.command, folder, environment)
    trained = Trained(started_at, time.monotonic() - start, exit_code)
    ending = "it ended well" if exit_code == 0 else f"it FAILED with exit code {exit_code}"
    _say(f"{ending} after {trained.duration_s:.0f} s")
    return trained


def pack(
    folder: Path, environment: Mapping[str, str], trained: Trained, bundle: str, key: str
) -> Path:
    """Make the result zip in the current folder, of which Kaggle keeps what is in it.

    Args:
        bundle: the digest of what was unpacked.
        key: that the laptop kept at the export.
    """
    request = _request(folder)
    outputs = find_outputs(folder / TREE, request.outputs, _say)
    (log,) = find_outputs(folder, [LOG])
    told = Told(
        version=VERSION,
        run_id=request.run_id,
        bundle=bundle,
        environment=dict(environment),
        started_at=trained.started_at,
        duration_s=trained.duration_s,
        exit_code=trained.exit_code,
        where=_where(),
        python=platform.python_version(),
        tensorflow=_version("tensorflow"),
        keras=_version("keras"),
        gpu=_gpu(),
        log=log,
        outputs=outputs,
    )
    record = to_bytes(told)
    target = Path.cwd() / f"result-{request.run_id}.zip"
    partial = target.with_suffix(".part")
    with zipfile.ZipFile(str(partial), "w", zipfile.ZIP_DEFLATED) as result:
        result.writestr(RECORD, record)
        result.writestr(SEAL, seal(record, key))
        result.write(str(folder / LOG), LOG)
        for output in outputs:
            result.write(str(folder / TREE / output.path), OUTPUTS + output.path)
    os.replace(str(partial), str(target))
    for output in outputs:
        _say(f"{output.path}, {output.size_bytes} bytes, sha256 {output.sha256[:12]}")
    if not outputs:
        _say(f"it made none of its outputs: {', '.join(request.outputs)}")
    return target


def _request(folder: Path) -> RunRequest:
    return from_bytes(RunRequest, (folder / REQUEST).read_bytes())


def _execute(command: str, folder: Path, environment: Mapping[str, str]) -> int:
    """The exit code; Ctrl-C, the notebook's stop button, ends the command and all it started."""
    shown = codecs.getincrementaldecoder("utf-8")("replace")
    with (folder / LOG).open("wb") as log, subprocess.Popen(
        ["/bin/sh", "-c", command],
        cwd=str(folder / TREE),
        env=_environment(folder, environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            while block := process.stdout.read(CHUNK_BYTES):
                log.write(block)
                sys.stdout.write(shown.decode(block))
                sys.stdout.flush()
            return process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _environment(folder: Path, environment: Mapping[str, str]) -> Dict[str, str]:
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("python", "python3"):
        (programs / name).write_text(_PYTHON.format(python=sys.executable))
        (programs / name).chmod(0o755)
    return {
        "TF_CPP_MIN_LOG_LEVEL": "1",
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "TRAINSHED_METRICS": str(folder / METRICS),
        "TRAINSHED_PARAMS": json.dumps(
            {name[6:]: value for name, value in environment.items() if name.startswith("PARAM_")}
        ),
        **environment,
    }


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            pass
    return ""


def _gpu() -> str:
    try:
        return next((gpu.name for gpu in read_gpus()), "")
    except GpuTrouble:
        return ""


def _where() -> str:
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "kaggle"
    return "colab" if "google.colab" in sys.modules else "notebook"


def _say(line: str) -> None:
    sys.stdout.write(f"trainshed: {line}\n")
    sys.stdout.flush()
