"""What is sent to the VM: the `remote` package's source, as it is, once for each version of it."""

from __future__ import annotations

import hashlib
import shlex
import zlib
from functools import cache
from pathlib import Path

_BOOTSTRAP = "remote.bootstrap"

# Without a single quote, newline, `!` or backslash, so that every login shell passes it on as it
# is. Python 2 reads it too, and leaves by the exit code (97 is protocol.EXIT_OLD_PYTHON). The empty
# entry of sys.path is the home folder, whose files must not be taken for modules. `-S`: the agent
# needs nothing of site-packages, where a GPU image may hold a second's worth of start-up code.
_LOADER = (
    "import sys;sys.version_info<(3,8)and sys.exit(97);sys.path=[p for p in sys.path if p];"
    "import zlib;s=sys.stdin.buffer;exec(zlib.decompress(s.read(int(s.readline()))))"
)


def bootstrap_command(python: str) -> str:
    """The command that turns an exec channel into an agent waiting for `bootstrap_input`."""
    return f"exec {quote_program(python)} -S -c '{_LOADER}'"


def bootstrap_input(ahead: bytes = b"") -> bytes:
    """What goes first through the channel: the bootstrap, and calls that need no greeting."""
    sources = load_sources()
    first = zlib.compress(sources[_BOOTSTRAP].encode())
    return b"%d\n%s%s %d\n%s" % (len(first), first, _digest(), len(ahead), ahead)


def package_input() -> bytes:
    """What goes through the channel when the VM does not have the package."""
    package = make_package(load_sources())
    return b"%d\n%s" % (len(package), package)


def make_package(sources: dict[str, str]) -> bytes:
    """A zip file of the `remote` package that runs as a supervisor, its `__main__` at the top.

    Args:
        sources: source text by module name.
    """
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, text in sorted(sources.items()):
            leaf = name.partition(".")[2] or "__init__"
            package.writestr(f"remote/{leaf}.py", text)
        package.writestr("__main__.py", sources["remote.__main__"])
    return buffer.getvalue()


@cache
def load_sources() -> dict[str, str]:
    """Source text of `remote`, by module name; `remote` itself is its `__init__`."""
    folder = Path(__file__).parents[2] / "remote"
    texts = {path.stem: path.read_text("utf-8") for path in folder.glob("*.py")}
    return {
        "remote" if name == "__init__" else f"remote.{name}": text for name, text in texts.items()
    }


def _digest() -> bytes:
    """Names the package on the VM: of the texts, since a zip file also holds the time."""
    texts = "\0".join(f"{name}\0{text}" for name, text in sorted(load_sources().items()))
    return hashlib.sha256(texts.encode()).hexdigest().encode("ascii")


def quote_program(program: str) -> str:
    """A program's name for the VM's shell; a leading `~/` still means the home folder there."""
    if program.startswith("~/"):
        return '"$HOME"/' + shlex.quote(program[2:])
    return shlex.quote(program)
