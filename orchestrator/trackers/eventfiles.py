"""The event files of a run, brought home as they grow.

    .train/runs/<run id>/events/<path>         a prefix of the VM's, only ever added to
    .train/runs/<run id>/events/<path>~1       that file, begun anew; then ~2, ...

TensorBoard reads on where it was, in the file that it opened: one that is replaced or cut looks to
it as if nothing came any more. So what was truncated on the VM goes into a further file, which
TensorBoard takes for the next of that folder.

Source: https://github.com/tensorflow/tensorboard/issues/349
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import AgentBroken
from orchestrator.records.mirror import Mirror
from orchestrator.screen.tell import Teller
from orchestrator.size import format_size
from orchestrator.vm.link import Link
from remote.atomic import naming
from remote.events import ANSWER_LIMIT_BYTES, FILES_LIMIT, MARK, checksum, is_event_name
from remote.protocol import Events, Have, News, Piece

# Numbers by epoch are kilobytes; histograms and images of a long training come to this.
LIMIT_BYTES = 512 * 2**20


class EventFiles:
    """One run's, on this laptop, as they were when this was made and what was added since.

    Attributes:
        size_bytes: of all together.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.run_id = mirror.run_id
        self.folder = mirror.folder / "events"
        self.size_bytes = 0
        # By the VM's name, the file that is added to, and its size.
        self._files: dict[str, tuple[Path, int]] = {}
        for path in sorted(_event_files(self.folder), key=_beginning):
            beginning = path.with_name(path.name.partition("~")[0])
            name = beginning.relative_to(self.folder).as_posix()
            size_bytes = path.stat().st_size
            self._files[name] = path, size_bytes
            self.size_bytes += size_bytes

    def have(self) -> tuple[Have, ...]:
        have = []
        for name, (path, size_bytes) in self._files.items():
            with path.open("rb") as file:
                have.append(Have(name, size_bytes, checksum(file, size_bytes)))
        return tuple(have)

    def add(self, piece: Piece, data: bytes) -> None:
        """Write what came, at its place: two who look at the same run write the same bytes there.

        Raises:
            AgentBroken: it was not asked for, or has a name that leaves the folder or cannot be.
        """
        path, size_bytes = self._files.get(piece.name, (self.folder / piece.name, 0))
        if (
            piece.run_id != self.run_id
            or not is_event_name(piece.name)
            or piece.offset not in (0, size_bytes)
            or len(self._files.keys() | {piece.name}) > FILES_LIMIT
        ):
            raise AgentBroken(f"an event file of {self.run_id} that was not asked for")
        if piece.offset < size_bytes:
            path = self.folder / f"{piece.name}~{_beginning(path) + 1}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            with naming(path), path.open("r+b") as file:
                file.seek(piece.offset)
                file.write(data)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise AgentBroken(f"an event file of {self.run_id} inside another") from error
        self._files[piece.name] = path, piece.offset + len(data)
        self.size_bytes += len(data)


def copy_events(link: Link, mirror: Mirror, tell: Teller) -> None:
    """Bring home what a run's event files have by now.

    Raises:
        AgentBroken: what came makes no sense.
        ConnectionLost: what had come by then is kept.
    """
    files = EventFiles(mirror)
    while files.size_bytes < LIMIT_BYTES:
        news, body = link.call_for_body(Events(mirror.run_id, files.have()), News)
        begin = 0
        for piece in news.pieces:
            data = body[begin : begin + piece.size_bytes]
            begin += piece.size_bytes
            if not data or len(data) != piece.size_bytes:
                raise AgentBroken(f"an event file of {mirror.run_id} without its bytes")
            files.add(piece, data)
        if len(body) < ANSWER_LIMIT_BYTES:
            return
        tell.doing(f"event files of {mirror.run_id}", files.size_bytes)
    tell.warn(
        f"the event files of {mirror.run_id} have more than {format_size(LIMIT_BYTES)}; what is "
        "beyond stays on the VM"
    )


def has_events(mirror: Mirror) -> bool:
    """Whether any are here."""
    return any(_event_files(mirror.folder / "events"))


def _event_files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if MARK in name)


def _beginning(path: Path) -> int:
    """How often the file had been begun before."""
    number = path.name.partition("~")[2]
    return int(number) if number.isdigit() else 0
