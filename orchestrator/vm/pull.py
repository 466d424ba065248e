"""Artifacts from the VM to the shelf: resumed where they stopped, verified before they count."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.errors import AgentBroken, LaptopFull, ModelDamaged, Refused, UsageError
from orchestrator.records.shelf import DISK_THREADS, Shelf
from orchestrator.screen.printable import printable
from orchestrator.screen.tell import Teller
from orchestrator.size import format_size
from orchestrator.vm.incoming import Incoming, WrongLength
from orchestrator.vm.lanes import Piece, Work
from orchestrator.vm.link import Call, Link
from remote.atomic import naming
from remote.parts import discard_parts
from remote.protocol import Fetch, Span
from remote.runfolder import Artifact

if TYPE_CHECKING:
    from concurrent.futures import Future

# How much is asked for at a file's beginning, whatever its size: who does not know that yet can
# send it ahead.
_FIRST_BYTES = 2**20
# So many small files lie in `partial` at once; for each, what else lies there is looked through.
_TOGETHER = 256


class Pulled(NamedTuple):
    """Attributes:
    seconds: until its bytes were here and verified; next to none for one that came with others.
    kept: the file on the shelf, once it is safe there. Its `result()` may raise ModelDamaged: the
        bytes do not have the VM's sha256, they are thrown away; Refused: the VM does not hand it
        out; LaptopFull or OSError: this laptop cannot write it.
    """

    artifact: Artifact
    seconds: float
    kept: Future[Path]


def pull(
    link: Link,
    run_id: str,
    artifacts: Iterable[Artifact],
    partial: Path,
    shelf: Shelf,
    tell: Teller,
) -> Iterator[Pulled]:
    """Bring a run's artifacts onto the shelf, in their order. What is there is not sent again.

    Args:
        partial: a folder for what has come so far; the next attempt goes on from it.

    Raises:
        ConnectionLost: what came is kept.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    pulling = _Pulling(link, run_id, partial, shelf, tell)
    # By digest: several outputs may be one content.
    kept: dict[str, Future[Path]] = {}
    late: deque[Pulled] = deque()
    with ThreadPoolExecutor(DISK_THREADS) as pool:
        for artifact in pulling.with_small_ones_fetched(artifacts):
            begun_s = time.monotonic()
            future = kept.get(artifact.sha256)
            if future is None:
                try:
                    pulling.fetch(artifact)
                    future = pool.submit(pulling.keep, artifact)
                    kept[artifact.sha256] = future
                except AgentBroken:
                    raise
                except (ModelDamaged, UsageError, Refused) as trouble:
                    future = Future()
                    future.set_exception(trouble)
            late.append(Pulled(artifact, time.monotonic() - begun_s, future))
            if len(late) > DISK_THREADS:
                yield late.popleft()
        yield from late


@dataclass(frozen=True)
class _Pulling:
    """What all artifacts of a `pull` have in common."""

    link: Link
    run_id: str
    partial: Path
    shelf: Shelf
    tell: Teller

    def with_small_ones_fetched(self, artifacts: Iterable[Artifact]) -> Iterator[Artifact]:
        """The same artifacts; the bytes of small ones that follow each other came together, so
        that not each waits for a round trip.

        What did not come as it should is not told: `fetch` looks at all of it.
        """
        for is_small, group in groupby(artifacts, lambda one: one.size_bytes <= _FIRST_BYTES):
            while some := tuple(islice(group, _TOGETHER)):
                wanted: dict[str, Artifact] = {}
                for one in some if is_small else ():
                    is_begun = (self.partial / one.sha256).exists()
                    if not is_begun and not self.shelf.find(one.sha256):
                        wanted.setdefault(one.sha256, one)
                if len(wanted) > 1:
                    self.partial.mkdir(parents=True, exist_ok=True)
                    with suppress(WrongLength, OSError):
                        self._fetch_together(wanted)
                yield from some

    def _fetch_together(self, wanted: dict[str, Artifact]) -> None:
        spans = [(sha256, Span(0, artifact.size_bytes)) for sha256, artifact in wanted.items()]
        came_bytes, all_bytes = 0, sum(artifact.size_bytes for artifact in wanted.values())

        def ask(lane: Link, piece: Piece) -> None:
            lane.begin_call(Fetch(self.run_id, wanted[piece.name].path, 0, _FIRST_BYTES))

        def bring(lane: Link, piece: Piece) -> None:
            nonlocal came_bytes
            content = b""
            try:
                for block in lane.end_fetch():
                    content += block
                    if len(content) > piece.size_bytes:
                        raise WrongLength
                (self.partial / piece.name).write_bytes(content)
            except AgentBroken:
                raise
            except Refused:
                pass
            came_bytes += piece.size_bytes
            piece.begin = piece.end
            self.tell.doing(f"pulling {len(wanted)} files", came_bytes, all_bytes)

        Work(spans, ask, bring).share(self.link)

    def fetch(self, artifact: Artifact) -> None:
        """Have all bytes of what is not on the shelf yet in `partial`, verified, not synced.

        Raises:
            ModelDamaged, LaptopFull, ConnectionLost: as `pull`.
        """
        if self.shelf.find(artifact.sha256) is not None:
            return
        self.partial.mkdir(parents=True, exist_ok=True)
        path = self.partial / artifact.sha256
        path.touch()
        # In place, not appended: two who pull the same file write the same bytes there.
        with naming(path), path.open("r+b", buffering=0) as file:
            incoming = Incoming(file, path, artifact.size_bytes)
            _check_space(self.partial, artifact, incoming.missing_bytes)
            name = printable(artifact.path)
            wrong = ""

            def ask(lane: Link, piece: Piece) -> None:
                # To the end, where the size is not to be told from the call: see `first_fetch`.
                whole = not piece.begin and piece.end == artifact.size_bytes
                size_bytes = max(piece.size_bytes, _FIRST_BYTES) if whole else piece.size_bytes
                lane.begin_call(Fetch(self.run_id, artifact.path, piece.begin, size_bytes))

            def bring(lane: Link, piece: Piece) -> None:
                all_bytes = artifact.size_bytes
                for _ in incoming.take(piece, lane.end_fetch()):
                    self.tell.doing(
                        f"pulling {name}", all_bytes - incoming.missing_bytes, all_bytes
                    )

            try:
                # Again, where another who pulls the same has taken a part away.
                while missing := incoming.missing():
                    Work([(name, span) for span in _opened(missing)], ask, bring).share(self.link)
            except WrongLength as error:
                wrong = f"{error} came"
            except AgentBroken:
                path.unlink(missing_ok=True)  # nothing of such a VM is worth going on with
                raise
            have_bytes, digest = incoming.end()
        discard_parts(path)  # those of which nothing came, or that only repeat what came
        if wrong or have_bytes != artifact.size_bytes or digest != artifact.sha256:
            path.unlink(missing_ok=True)
            raise ModelDamaged(
                f"{name} of {self.run_id} is not what the VM hashed when the run ended",
                cause=f"{wrong or f'{have_bytes} bytes came'}, sha256 {digest}; "
                f"expected {artifact.size_bytes} bytes, {artifact.sha256}",
                fix="it was changed on the VM after the run, or the line is bad: train pull again",
            )

    def keep(self, artifact: Artifact) -> Path:
        """Put it onto the shelf, from any thread."""
        known = self.shelf.find(artifact.sha256)
        if known is not None:
            return known
        try:
            path, name = self.partial / artifact.sha256, PurePosixPath(artifact.path).name
            return self.shelf.keep(path, artifact.sha256, name)
        except FileNotFoundError:
            known = self.shelf.find(artifact.sha256)
            if known is None:
                raise
            return known  # another command was faster


def first_fetch(run_id: str, outputs: Iterable[str]) -> tuple[Call, ...]:
    """What `pull` asks first of a run that has ended, if its first output was declared by name, for
    those who send it ahead.
    """
    paths = sorted(outputs)
    if not paths or any(character in path for path in paths for character in "*?["):
        return ()
    return ((Fetch(run_id, paths[0], 0, _FIRST_BYTES), b""),)


def _opened(spans: Iterable[Span]) -> Iterator[Span]:
    """As they are, but what is asked for first is a span of its own."""
    for span in spans:
        if span.begin == 0 and span.end > _FIRST_BYTES:
            yield Span(0, _FIRST_BYTES)
            span = span._replace(begin=_FIRST_BYTES)
        yield span


def _check_space(folder: Path, artifact: Artifact, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LaptopFull(
            f"{printable(artifact.path)} does not fit on this laptop's disk",
            cause=f"it needs {format_size(needed)} more, {format_size(free)} are free",
            fix="free some space, then: train pull, or the same command again",
        )
