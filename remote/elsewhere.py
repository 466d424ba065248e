"""What a notebook says of the run it executed on a machine that this laptop never met.

result-<run id>.zip        what it leaves
    run.json               `Told`
    run.seal               of run.json, made with the key that only the notebook and the laptop have
    log                    what the command wrote
    outputs/<path>         the declared outputs
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Dict, NamedTuple, Tuple

from remote.runfolder import Artifact

RECORD, SEAL, LOG, OUTPUTS = "run.json", "run.seal", "log", "outputs/"

# In the bundle that a notebook carries: the workspace's files, our own, and the request.
TREE, OWN, REQUEST = "tree", "trainshed", "request.json"

# A script may write there as on a machine of ours; it is not taken home.
METRICS = "metrics.jsonl"

VERSION = 1


class Told(NamedTuple):
    """The end of a run, by the machine's own account.

    Attributes:
        version: of this form.
        bundle: sha256 of what was unpacked and executed.
        environment: what the command was given besides the machine's own: PARAM_* and SEED.
        started_at: by the clock there.
        duration_s: by a clock that nobody sets.
        exit_code: of the command; below 0 the number of the signal that ended it.
        where: `colab`, `kaggle` or `notebook`.
        tensorflow, keras: versions; empty where they are not installed.
        gpu: as the driver names it; empty for none.
        log: what it wrote, by the name LOG.
    """

    version: int
    run_id: str
    bundle: str
    environment: Dict[str, str]
    started_at: str
    duration_s: float
    exit_code: int
    where: str
    python: str
    tensorflow: str
    keras: str
    gpu: str
    log: Artifact
    outputs: Tuple[Artifact, ...]


def seal(record: bytes, key: str) -> str:
    """What tells a record that was changed on its way from one that was not."""
    return hmac.new(key.encode("ascii"), record, hashlib.sha256).hexdigest()
