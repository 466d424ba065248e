"""A gang as one of its runs sees it: what became of the others, and what its command is told."""

from __future__ import annotations

import json
from typing import Dict, Iterator, Sequence

from remote.restart import read_state
from remote.runfolder import Ended, Gang, RunFolder, RunRequest, gang_folders, worker_name


def ended_others(folder: RunFolder, request: RunRequest) -> Iterator[Ended]:
    """Those of this store, in the order in which they ended, by their machines' clocks."""
    ended = [
        (state.ended_at or "", rank, state.state)
        for rank, other in enumerate(gang_folders(folder, request))
        if other != folder and (state := read_state(other)) is not None and state.state.final
    ]
    for _, rank, word in sorted(ended, key=lambda each: each[:2]):
        yield Ended(worker_name(rank), word)


def gang_environment(gang: Gang, addresses: Sequence[str]) -> Dict[str, str]:
    """How TensorFlow and PyTorch are told who the others are, and which of them this one is.

    Args:
        addresses: `host:port` of each, in order.

    Source: TensorFlow, "Distributed training with TensorFlow", TF_CONFIG; PyTorch,
    torch.distributed, "Environment variable initialization".
    """
    host, _, port = addresses[0].rpartition(":")
    task = {"type": "worker", "index": gang.rank}
    return {
        "TF_CONFIG": json.dumps({"cluster": {"worker": list(addresses)}, "task": task}),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "RANK": str(gang.rank),
        "WORLD_SIZE": str(gang.size),
    }
