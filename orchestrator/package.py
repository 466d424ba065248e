"""What is sent to the VM at each connection: the `remote` package's source, as it is."""

from __future__ import annotations

import json
import shlex
import zlib
from importlib import resources

_BOOTSTRAP = "remote.bootstrap"

# Without a single quote, newline, `!` or backslash, so that every login shell passes it on as it
# is. Python 2 reads it too, and leaves by the exit code (97 is protocol.EXIT_OLD_PYTHON). The empty
# entry of sys.path is the home folder, whose files must not be taken for modules.
_LOADER = (
    "import sys;sys.version_info<(3,8)and sys.exit(97);sys.path=[p for p in sys.path if p];"
    "s=sys.stdin.buffer;exec(s.read(int(s.readline())))"
)


def bootstrap_command(python: str) -> str:
    """The command that turns an exec channel into an agent waiting for `bootstrap_input`."""
    return f"exec {quote_program(python)} -c '{_LOADER}'"


def bootstrap_input() -> bytes:
    """What goes first through the channel: the bootstrap, then every module."""
    sources = load_sources()
    first = sources[_BOOTSTRAP].encode()
    modules = zlib.compress(json.dumps(sources).encode(), 9)
    return b"%d\n%s%d\n%s" % (len(first), first, len(modules), modules)


def load_sources() -> dict[str, str]:
    """Source text of `remote`, by module name; `remote` itself is its `__init__`."""
    sources = {}
    for file in resources.files("remote").iterdir():
        name, dot, suffix = file.name.rpartition(".")
        if dot and suffix == "py":
            module = "remote" if name == "__init__" else f"remote.{name}"
            sources[module] = file.read_text("utf-8")
    return sources


def quote_program(program: str) -> str:
    """A program's name for the VM's shell; a leading `~/` still means the home folder there."""
    if program.startswith("~/"):
        return '"$HOME"/' + shlex.quote(program[2:])
    return shlex.quote(program)
