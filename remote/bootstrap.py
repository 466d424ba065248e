"""The first thing the VM runs: finds the agent it was given before, or asks for it, and starts it.

Executed as text by the one-line command of the connection, so it may use nothing of ours yet.
Standard input goes on with: a line with a package's digest and a length, and that many bytes of
calls, which the laptop sent without waiting. If the package is not here, it is asked for by WANTED
and comes next: a line with a length, and the package, a zip file of `remote`.

    agents/<digest>-<version>   the package, and its modules as this Python compiled them

It is replaced as a whole or not at all, and not needed: a machine that cannot keep it, or whose
disk has spoilt it, is sent the package again.
"""

from __future__ import annotations

import marshal
import os
import sys
import zlib
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Dict, Optional, Tuple

if TYPE_CHECKING:
    from typing import BinaryIO

# Not printable, as what the agent says first (`protocol.MAGIC`).
WANTED = b"\x00\xff\x00trainshed?\x00\xff\n"

_SEAL_BYTES = 4


class Sent:
    """Imports modules from code that came over the line."""

    def __init__(self, code: Dict[str, CodeType]) -> None:
        self.code = code

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> Optional[ModuleSpec]:
        if fullname not in self.code:
            return None
        return ModuleSpec(fullname, self, is_package="." not in fullname)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # an ordinary one

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code[module.__name__], module.__dict__)  # noqa: S102  # what an import does


def load(stream: BinaryIO, digest: str, folder: Path) -> bytes:
    """Make the package's modules importable; returns the package."""
    path = folder / f"{digest}-{sys.implementation.cache_tag}-{sys.hexversion:08x}"
    try:
        package, code = read(path)
    except (OSError, ValueError):
        sys.stdout.buffer.write(WANTED)
        sys.stdout.buffer.flush()
        package = stream.read(int(stream.readline()))
        code = compile_package(package)
        keep(path, package, code)
    sys.meta_path.insert(0, Sent(code))
    return package


def compile_package(package: bytes) -> Dict[str, CodeType]:
    """The code of each module in the zip file, by module name."""
    import io
    import zipfile

    code = {}
    with zipfile.ZipFile(io.BytesIO(package)) as modules:
        for path in modules.namelist():
            if path.startswith("remote/"):
                name = path[: -len(".py")].replace("/", ".").replace(".__init__", "")
                code[name] = compile(modules.read(path), f"<{name}>", "exec", 0, True)
    return code


def read(path: Path) -> Tuple[bytes, Dict[str, CodeType]]:
    """What `keep` put there.

    Raises:
        OSError, ValueError: it is not there, or no longer what it was.
    """
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ValueError("others may have written it")
    kept = path.read_bytes()
    seal, content = kept[:_SEAL_BYTES], kept[_SEAL_BYTES:]
    if seal != _seal(content):
        raise ValueError("spoilt")
    try:
        os.utime(path)  # says to `tidy` that it is of use
    except OSError:
        pass  # read-only now, or tidied in this moment
    package, code = marshal.loads(content)  # noqa: S302  # we wrote it into our own folder
    return package, code


def keep(path: Path, package: bytes, code: Dict[str, CodeType]) -> None:
    """Put both there as a whole; without room or permission, leave it."""
    content = marshal.dumps((package, code))
    temporary = path.with_name(f".tmp-{os.getpid()}")
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            temporary.touch(mode=0o600)
            temporary.write_bytes(_seal(content) + content)
            temporary.replace(path)
        except OSError:
            temporary.unlink()
    except OSError:
        pass


def _seal(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_SEAL_BYTES, "big")


def main() -> None:
    stream = sys.stdin.buffer
    digest, ahead_bytes = stream.readline().decode("ascii").split()
    ahead = stream.read(int(ahead_bytes))
    root = Path(os.environ.get("TRAINSHED_STORE") or Path.home() / ".trainshed")
    package = load(stream, digest, root / "agents")
    from remote import agent

    agent.main(root, package, ahead)


if __name__ == "__main__":
    main()
