"""The first thing the VM runs: makes the modules sent behind it importable, and starts the agent.

Executed as text by the one-line command of the connection, so it may use nothing of ours yet.
Standard input goes on with: a line with a length, and that many bytes of zlib-compressed JSON,
source text by module name.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import sys
import zlib
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Dict, Optional


class Sent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports modules from texts that never touch this machine's disk."""

    def __init__(self, sources: Dict[str, str]) -> None:
        self.sources = sources

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> Optional[ModuleSpec]:
        if fullname not in self.sources:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package="." not in fullname)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        code = compile(self.sources[name], f"<{name}>", "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102  # this is what an import does


def main() -> None:
    stream = sys.stdin.buffer
    sources = json.loads(zlib.decompress(stream.read(int(stream.readline()))))
    sys.meta_path.insert(0, Sent(sources))
    from remote import agent, runs

    agent.main(runs.make_package(sources))


if __name__ == "__main__":
    main()
