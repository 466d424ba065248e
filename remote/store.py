"""The store on the VM: contents by digest, trees whose contents are all there, and their copies.

    objects/aa/<sha256>     a content, read-only, under its final name only when verified
    incoming/<sha256>       what has come of a content so far
    incoming/<sha256>.*     more of it, from behind a gap (`parts`)
    snapshots/<digest>.json a tree's manifest, there only once all its contents are
    data/<digest>/          a tree made once, read-only, shared by runs
    data/.spoilt-<digest>-* one that a job has changed, for the runs that are at work in it

After a crash at any point these sentences still hold; what is left over is swept by `tidy`.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import secrets
import shutil
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Callable, ContextManager, Iterable, List, Optional, Tuple, Union

from remote.atomic import discard, replace_file, temporary_beside
from remote.lock import holding, is_held, take
from remote.parts import covered, discard_parts, find_parts, new_part, write_all
from remote.protocol import CHUNK_BYTES, Lacking, Span
from remote.tree import LINK, Entry, Tree, content_sizes, digest_of, read_tree

# Every content bears this time of change. One that bears another was written to since, by a job
# that ignored the permissions (root may), or never finished, and is taken for missing. The file
# system writes data before it grows the size, so that after a power cut the two together tell.
STAMP_S = 1_000_000_000

_FOLDERS = ("objects", "incoming", "snapshots", "data", "envs", "queue", "runs", "locks")

_SPOILT = ".spoilt-"

# Sending so much again after a cut costs less than keeping account of how far it came.
SMALL_BYTES = 64 * 2**10

Tick = Callable[[], None]
"""Called often during long work, so that the caller can say that it lives."""


class StoreTrouble(Exception):
    """What came is not what was announced."""


class Store:
    """The folder of everything we keep on a VM; `~/.trainshed`."""

    def __init__(self, root: Path, tick: Tick = lambda: None) -> None:
        self.root = root
        self.tick = tick
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = root.stat()
        if status.st_mode & 0o077 and status.st_uid == os.getuid():
            root.chmod(0o700)  # made by an umask, or by an older version under one
        for name in _FOLDERS:
            (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._objects = str(root / "objects")
        # The next small content, until it has its final name: one agent receives one at a time.
        self._small = str(temporary_beside(root / "incoming" / "small"))

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cluster(self) -> Path:
        """What the cluster has said; there only on the login node of one that was given a run."""
        return self.root / "slurm"

    def object_path(self, sha256: str) -> Path:
        return self.root / "objects" / sha256[:2] / sha256

    def snapshot_path(self, digest: str) -> Path:
        return self.root / "snapshots" / f"{digest}.json"

    def lock_path(self, name: str) -> Path:
        return self.root / "locks" / name

    def untidied(self) -> ContextManager[int]:
        """While it is held, `tidy` neither decides nor drops anything."""
        return holding(self.lock_path("tidy"), shared=True, meanwhile=self.tick)

    def is_untidied(self) -> bool:
        """Whether anybody is putting something to use just now, or tidies."""
        lock = take(self.lock_path("tidy"))
        if lock is not None:
            os.close(lock)
        return lock is None

    def touch(self, path: Path) -> bool:
        """Whether it is there; asking counts as use, which keeps it from being tidied for a day."""
        with self.untidied():
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def has_tree(self, digest: str) -> bool:
        """Whether the tree is complete; asking counts as use."""
        return self.touch(self.snapshot_path(digest))

    def load_tree(self, digest: str) -> Tree:
        """Raises:
        StoreTrouble: the tree is unknown, or its manifest was damaged; then it is unknown now.
        """
        try:
            manifest = self.snapshot_path(digest).read_bytes()
        except FileNotFoundError:
            manifest = b""
        if digest_of(manifest) != digest:
            raise self._spoilt(digest, f"the tree {digest}")
        return read_tree(manifest)

    def lacking(self, tree: Tree) -> Tuple[Lacking, ...]:
        """The contents of `tree` that are not in the store, each once, by digest.

        Asking counts as use of those that are.
        """
        wanted: List[Lacking] = []
        begun = {path.name.partition(".")[0] for path in (self.root / "incoming").iterdir()}
        with self.untidied():
            for sha256, size_bytes in content_sizes(tree).items():
                self.tick()
                path = self._object(sha256)
                if _is_untouched(path, size_bytes):
                    # Renews the inode's time of change, which `tidy` goes by, and not the stamp.
                    os.chmod(path, 0o444)  # noqa: PTH101
                elif sha256 in begun:
                    wanted.append(self._lacking(sha256, size_bytes))
                else:
                    wanted.append(Lacking(sha256, size_bytes, 0))
        return tuple(wanted)

    def receive(self, objects: Iterable[Lacking], chunks: Iterable[bytes]) -> None:
        """Take the contents of `objects`, from each one's `have_bytes` on, out of one zlib stream,
        and what they have in parts out of those.

        A cut loses at most what was not yet written, and a content of up to SMALL_BYTES; the next
        `lacking` says how far the others came.

        Raises:
            StoreTrouble: the stream is damaged, too short or too long, or a digest is wrong (then
                nothing of that content is kept).
            OSError: no space, no permission.
        """
        stream = _Inflated(chunks, self.tick)
        for wanted in objects:
            self._receive_one(wanted, stream)
        if stream.read(1):
            raise StoreTrouble("more came than was announced")

    def receive_part(self, sha256: str, span: Span, chunks: Iterable[bytes]) -> None:
        """Take a part of a content out of a zlib stream; `receive` judges it later.

        A cut loses at most what was not yet written; the next `lacking` says how far it came.

        Raises:
            StoreTrouble: the stream is damaged, too short or too long.
            OSError: no space, no permission.
        """
        stream = _Inflated(chunks, self.tick)
        with new_part(self._incoming(sha256), span.begin).open("xb", buffering=0) as file:
            take = partial(write_all, file)
            _copy_from(stream, take, span.end - span.begin, sha256)
        if stream.read(1):
            raise StoreTrouble("more came than was announced")

    def complete(self, manifest: bytes, lacked: Iterable[Lacking]) -> None:
        """Keep the tree of `manifest`: all contents are there.

        Args:
            lacked: what was `lacking` a moment ago.

        Raises:
            StoreTrouble: some of it still is.
        """
        missing = [w.sha256 for w in lacked if not self._intact(w.sha256, w.size_bytes)]
        if missing:
            raise StoreTrouble(f"{len(missing)} contents are missing, {missing[0]} for one")
        replace_file(self.snapshot_path(digest_of(manifest)), manifest)

    def copy_tree(self, digest: str, target: Path) -> None:
        """Make the tree in the empty or absent folder `target`, as private, writable copies.

        Raises:
            StoreTrouble: a content is gone or was changed; the tree is then unknown again, and
                sending it anew heals it.
        """
        self._make(digest, target, self._copy)

    def share_tree(self, digest: str) -> Path:
        """The tree as one read-only folder, made when first asked for and shared from then on.

        Raises:
            StoreTrouble: as `copy_tree`; what was made of it before is then put aside.
        """
        target = self.root / "data" / digest
        with holding(self.lock_path(f"data-{digest[:16]}"), meanwhile=self.tick):
            if not self.touch(target):
                temporary = temporary_beside(target)
                try:
                    self._make(digest, temporary, self._link)
                    for folder, _, _ in os.walk(str(temporary), topdown=False):
                        Path(folder).chmod(0o555)  # nothing can be added or replaced, either
                    temporary.rename(target)
                finally:
                    discard(temporary)
            self._check(digest, target)
        return target

    def _make(self, digest: str, target: Path, place: Callable[[Entry, Path], None]) -> None:
        target.mkdir(mode=0o700, exist_ok=True)
        made = {""}
        for path, entry in sorted(self.load_tree(digest).items()):
            self.tick()
            folder = posixpath.dirname(path)
            if folder not in made:
                (target / folder).mkdir(parents=True, exist_ok=True)
                made.add(folder)
            if entry.kind == LINK:
                (target / path).symlink_to(entry.target)
            elif self._intact(entry.sha256, entry.size_bytes):
                place(entry, target / path)
            else:
                raise self._spoilt(digest, repr(path))

    def _check(self, digest: str, shared: Path) -> None:
        for path, entry in self.load_tree(digest).items():
            self.tick()
            if entry.sha256 and not _is_untouched(shared / path, entry.size_bytes):
                # Not removed: runs that use it now go on with the files that they see.
                with suppress(FileNotFoundError):
                    shared.rename(shared.with_name(f"{_SPOILT}{digest}-{secrets.token_hex(8)}"))
                raise self._spoilt(digest, repr(path))

    def _spoilt(self, digest: str, what: str) -> StoreTrouble:
        discard(self.snapshot_path(digest))
        return StoreTrouble(f"the VM's copy of {what} was changed or lost; the same again heals it")

    def _intact(self, sha256: str, size_bytes: int) -> bool:
        return _is_untouched(self._object(sha256), size_bytes)

    def _copy(self, entry: Entry, path: Path) -> None:
        shutil.copyfile(self.object_path(entry.sha256), path)
        path.chmod(0o755 if entry.executable else 0o644)

    def _link(self, entry: Entry, path: Path) -> None:
        try:
            os.link(self.object_path(entry.sha256), path)
        except OSError:
            # No hard links here (some network file systems), or too many of one file.
            shutil.copyfile(self.object_path(entry.sha256), path)
            _stamp(path)

    def _object(self, sha256: str) -> str:
        # Text: of 100,000 contents a Path each would take most of the time.
        return f"{self._objects}/{sha256[:2]}/{sha256}"

    def _incoming(self, sha256: str) -> Path:
        return self.root / "incoming" / sha256

    def _lacking(self, sha256: str, size_bytes: int) -> Lacking:
        if is_held(self._incoming(sha256)):
            return Lacking(sha256, size_bytes, 0)  # arriving from elsewhere, not ours to go on with
        have_bytes = self._arrived(sha256, size_bytes)
        spans = []
        for span, path in find_parts(self._incoming(sha256)):
            with suppress(FileNotFoundError):
                os.utime(path)
                spans.append(span)
        return Lacking(sha256, size_bytes, have_bytes, covered(spans, have_bytes, size_bytes))

    def _arrived(self, sha256: str, size_bytes: int) -> int:
        path = self._incoming(sha256)
        try:
            os.utime(path)
            arrived = path.stat().st_size
        except FileNotFoundError:
            return 0
        return arrived if arrived <= size_bytes else 0

    def _receive_small(self, wanted: Lacking, stream: _Inflated) -> None:
        """Take a content that is not worth going on with after a cut, in few steps."""
        content = bytearray()
        _copy_from(stream, content.extend, wanted.size_bytes, wanted.sha256)
        if (digest := hashlib.sha256(content).hexdigest()) != wanted.sha256:
            raise StoreTrouble(f"what came as {wanted.sha256} is {digest}")
        try:
            with open(self._small, "xb", buffering=0) as file:  # noqa: PTH123  # text, as above
                write_all(file, content)
                _stamp(file.fileno())
            self._name_small(self._object(wanted.sha256))
        except BaseException:
            discard(Path(self._small))
            raise

    def _name_small(self, path: str) -> None:
        try:
            os.replace(self._small, path)
        except FileNotFoundError:
            Path(path).parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(self._small, path)

    def _receive_one(self, wanted: Lacking, stream: _Inflated) -> None:
        if wanted.size_bytes <= SMALL_BYTES and not wanted.have_bytes and not wanted.parts:
            self._receive_small(wanted, stream)
            return
        path = self.object_path(wanted.sha256)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        incoming = self._incoming(wanted.sha256)
        lock = _take_file(incoming)
        if lock is None:
            # Another laptop sends the same content now; this one's goes beside it, and whole, as
            # the parts are the other's.
            if wanted.have_bytes or wanted.parts:
                raise StoreTrouble(f"{wanted.sha256} is arriving from elsewhere; try again")
            incoming = temporary_beside(incoming)
        try:
            self._fill(incoming, wanted, stream)
            # Read-only and stamped before it has its final name, where others look at it, but not
            # under the name where the next attempt would have to write to it.
            verified = temporary_beside(incoming)
            incoming.rename(verified)
            _stamp(verified)
            verified.replace(path)
        finally:
            if lock is not None:
                os.close(lock)
            else:
                incoming.unlink(missing_ok=True)  # nobody could go on with it

    def _fill(self, incoming: Path, wanted: Lacking, stream: _Inflated) -> None:
        digest = hashlib.sha256()
        with incoming.open("a+b") as file:
            file.truncate(wanted.have_bytes)
            file.seek(0)
            while block := file.read(CHUNK_BYTES):
                digest.update(block)
                self.tick()

            def take(block: bytes) -> None:
                file.write(block)
                digest.update(block)

            for span in (*wanted.parts, Span(wanted.size_bytes, wanted.size_bytes)):
                _copy_from(stream, take, span.begin - file.tell(), wanted.sha256)
                self._join(wanted.sha256, file, take, span.end)
        if digest.hexdigest() != wanted.sha256:
            incoming.unlink()
            if wanted.parts or wanted.have_bytes:
                discard_parts(self._incoming(wanted.sha256))
            raise StoreTrouble(f"what came as {wanted.sha256} is {digest.hexdigest()}")
        if wanted.parts or wanted.have_bytes:  # a kill may have left one that is in the file
            discard_parts(self._incoming(wanted.sha256))

    def _join(self, sha256: str, file: BinaryIO, take: Callable[[bytes], None], end: int) -> None:
        """Append what lies in parts up to `end`; each goes as soon as all of it is in the file."""
        while (at := file.tell()) < end:
            parts = find_parts(self._incoming(sha256))
            here = [part for part in parts if part[0].begin <= at < part[0].end]
            if not here:
                raise StoreTrouble(f"a part of {sha256} is gone; try again")
            span, path = here[0]
            with suppress(FileNotFoundError), path.open("rb") as part:
                part.seek(at - span.begin)
                left = min(span.end, end) - at
                while left and (block := part.read(min(left, CHUNK_BYTES))):
                    take(block)
                    left -= len(block)
                    self.tick()
                if span.end <= end:
                    file.flush()  # a kill between the two must not lose it
                    path.unlink()


def shared_digest(folder: Path) -> str:
    """Which tree a folder of `data` is, or was; anything else's own name."""
    name = folder.name
    return name[len(_SPOILT) :].partition("-")[0] if name.startswith(_SPOILT) else name


def _take_file(path: Path) -> Optional[int]:
    """The lock on the file that is at `path` now; it may have been renamed since it was opened."""
    while True:
        lock = take(path)
        if lock is None:
            return None
        try:
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


def _copy_from(
    stream: _Inflated, take: Callable[[bytes], object], size_bytes: int, sha256: str
) -> None:
    while size_bytes > 0:
        block = stream.read(min(size_bytes, CHUNK_BYTES))
        if not block:
            raise StoreTrouble(f"the stream ended inside {sha256}")
        take(block)
        size_bytes -= len(block)


def _stamp(file: Union[int, Path]) -> None:
    """Mark a content, by its path or descriptor, as whole."""
    os.chmod(file, 0o444)  # noqa: PTH101
    os.utime(file, (STAMP_S, STAMP_S))


def _is_untouched(path: Union[str, Path], size_bytes: int) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    return status.st_size == size_bytes and status.st_mtime == STAMP_S


class _Inflated:
    """A zlib stream that comes in chunks, read like a file."""

    def __init__(self, chunks: Iterable[bytes], tick: Tick) -> None:
        self._chunks = iter(chunks)
        self._tick = tick
        self._inflate = zlib.decompressobj()
        self._ready = b""
        self._used = 0

    def read(self, size: int) -> bytes:
        """1 to `size` bytes; empty at the end."""
        while self._used == len(self._ready):
            source = self._inflate.unconsumed_tail
            try:
                if source or (source := self._next_chunk()):
                    # Bounded, so that a small chunk cannot swell beyond memory.
                    self._ready = self._inflate.decompress(source, 4 * CHUNK_BYTES)
                    if self._inflate.unused_data:
                        raise StoreTrouble("more came than was announced")
                else:
                    self._ready = self._inflate.flush()
                    if not self._ready:
                        return b""
            except zlib.error as error:
                raise StoreTrouble(f"the stream is damaged: {error}") from error
            self._used = 0
        block = self._ready[self._used : self._used + size]
        self._used += len(block)
        return block

    def _next_chunk(self) -> bytes:
        """The next chunk that holds anything; empty when there is none."""
        for chunk in self._chunks:
            self._tick()
            if chunk:
                return chunk
        return b""
