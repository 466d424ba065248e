"""A real MLflow tracking server on loopback: `python -m tests.tracker FOLDER PORT [USER:PASSWORD]`.

It is mlflow-skinny's own application with its SQLite store, as `mlflow server` starts it in four
worker processes, here in one. With a login it asks for one, as a proxy before it would.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import HOST, free_port

_START_LIMIT_S = 90.0


@contextmanager
def tracker(folder: Path, login: str = "") -> Iterator[str]:
    """Its address, without the login."""
    folder.mkdir()
    port = free_port()
    address = f"http://{HOST}:{port}"
    log = folder / "log"
    with log.open("wb") as stream:
        words = [sys.executable, "-m", "tests.tracker", str(folder), str(port), login]
        process = subprocess.Popen(words, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + _START_LIMIT_S
        while not _answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health"):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def authorization(login: str) -> str:
    """The header of a question that brings this login."""
    return "Basic " + base64.b64encode(login.encode()).decode()


def serve(folder: Path, port: int, login: str) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # What `mlflow server` tells its workers.  Source: mlflow/server/constants.py of MLflow 3.17
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{folder / 'runs.sqlite'}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = str(folder / "artifacts")
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
    from mlflow.server import app
    from werkzeug.serving import run_simple

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if login and environ.get("HTTP_AUTHORIZATION") != authorization(login):
            start("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b"who are you"]
        answer: Iterable[bytes] = app(environ, start)
        return answer

    run_simple(HOST, port, guarded, threaded=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
