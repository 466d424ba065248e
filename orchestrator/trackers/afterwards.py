"""Runs that have ended, written to the tracking server that train.yaml names.

It is `train mlflow` in a process of its own, whose time is limited: whatever MLflow or its server
do, the command that has the runs goes on, and ends as it would without.
"""

from __future__ import annotations

import os
import subprocess
import sys

from orchestrator.grades.settling import Result
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Workspace

# Enough for models of some hundred megabytes; a server that is silent costs less, see below.
_LIMIT_S = 120.0
# The user has the result, and would like the prompt back.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def write_afterwards(workspace: Workspace, result: Result, tell: Teller) -> None:
    """Write what has ended and was not home before; what goes wrong is told."""
    ended = [m.run_id for m in result.mirrors if m.ended and m.run_id not in result.old]
    if not ended:
        return
    tell.doing(f"writing to {workspace.mlflow}")
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "orchestrator.cli"),
                *("mlflow", "--to", workspace.mlflow, "--", *ended),
            ],
            cwd=workspace.root,
            env={**_PATIENCE, **os.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"{workspace.mlflow} took more than {_LIMIT_S:g} s"
    except KeyboardInterrupt:
        why = "interrupted"
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    else:
        if done.returncode == 0:
            tell.step(done.stdout.strip())
            return
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        why = lines[0].removeprefix("error: ") if lines else f"exit code {done.returncode}"
    tell.warn(f"not written to MLflow: {why}; later: train mlflow")
