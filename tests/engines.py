"""What runs may be handed to, each as one kind of remote: a test for all of them takes `engine`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.laptop import Laptop, make_laptop
from tests.servers import SshServer

# Of a test that needs the cluster: only one worker starts it.
_ON_SLURM = (pytest.mark.sshd, pytest.mark.slurm, pytest.mark.xdist_group("slurm"))


def kinds(of_pool: Sequence[pytest.MarkDecorator] = ()) -> list[object]:
    """The parameters of `engine`.

    Args:
        of_pool: further marks of a test on a pool.
    """
    return [
        pytest.param("ssh"),
        pytest.param("pool", marks=(pytest.mark.sshd, *of_pool)),
        pytest.param("slurm", marks=_ON_SLURM),
    ]


@dataclass(frozen=True)
class Engine:
    """A machine, or what stands before many.

    Attributes:
        servers: several are the hosts of a pool.
        keys: what the remote, or each of these, says of it.
        fillers: how many GPUs each of so many runs takes, so that nothing is free.
        few: points of a sweep that there is time for in `make test`.
    """

    servers: tuple[SshServer, ...]
    keys: Mapping[str, Any]
    fillers: tuple[int, ...]
    few: int

    @property
    def server(self) -> SshServer:
        """That stands before all."""
        return self.servers[0]

    @property
    def homes(self) -> tuple[Path, ...]:
        return tuple(server.home for server in self.servers)

    def laptop(self, folder: Path) -> Laptop:
        """With one category, `a`, that makes two files."""
        made = self.bare_laptop(folder)
        made.add_job("a", outputs=["a/mymodel.h5", "a/curve.txt"], metrics=False)
        return made

    def bare_laptop(self, folder: Path) -> Laptop:
        """Without one; the remote is `far`."""
        made = make_laptop(folder, None)
        if len(self.servers) == 1:
            made.add_remote(self.server, "far", **self.keys)
            return made
        names = tuple(f"far{number}" for number in range(len(self.servers)))
        for name, server in zip(names, self.servers, strict=True):
            made.add_remote(server, name, **self.keys)
        made.add_pool("far", names)
        return made

    def runs(self, beginning: str) -> list[str]:
        """Ids of the runs that its hosts have."""
        found = (home.glob(f".trainshed/runs/{beginning}-*") for home in self.homes)
        return [path.name for paths in found for path in paths]
