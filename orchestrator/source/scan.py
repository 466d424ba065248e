"""What of a workspace goes into a snapshot: walks it, and hashes what has changed."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.source.hashing import Changing, Progress, read_known
from orchestrator.source.ignore import Ignore, Verdict
from orchestrator.source.statcache import StatCache
from remote.tree import FILE, LINK, BadTree, Entry, Tree, check_path, link_leaves

# Python reads names as UTF-8 unless it was told otherwise, by a Latin-1 locale for one; then they
# are not what they look like.  Source: PEP 538, PEP 540.
_READS_UTF8 = sys.getfilesystemencoding() == "utf-8"


@dataclass(frozen=True)
class Scan:
    """A file tree, and what is not in it.

    Attributes:
        entries: by path, sorted.
        left_out_secrets: what looks like a secret, relative to the workspace, sorted; what an
            ignore file leaves out anyway is not among them.
        left_out: how many files and folders are not in it, a folder as one; what is never sent,
            such as `.git`, is not counted.
    """

    entries: Tree
    left_out_secrets: tuple[str, ...]
    left_out: int


def scan(
    root: Path,
    ignore: Ignore,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    below: str = "",
    without: Sequence[str] = (),
) -> Scan:
    """The tree of a workspace, or of one data folder in it.

    Links that stay in the tree are kept as links and not followed; empty folders are not kept. A
    file that is gone before it is read counts as never there.

    Args:
        root: the workspace.
        cache: where digests of unchanged files are kept; may not exist yet. One file serves all
            scans of a workspace.
        below: a data folder; entries are then relative to it. That the config names it outweighs
            ignore files on the folder itself, not on what is in it, and nothing else.
        without: folders to leave out, because they are scanned by themselves.

    Raises:
        UsageError: something in the tree cannot be sent, or changes all the time; names all of it.
    """
    walk = _Walk(root, ignore, StatCache(cache) if cache else None, progress, below, without)
    return walk.scan()


class _Walk:
    def __init__(
        self,
        root: Path,
        ignore: Ignore,
        cache: StatCache | None,
        progress: Progress | None,
        below: str,
        without: Sequence[str],
    ) -> None:
        self._top = os.path.realpath(root)
        self._ignore = ignore
        self._cache = cache
        self._progress = progress
        self._below = below
        self._without = frozenset(without)
        self._started_ns = time.time_ns()
        self._entries: Tree = {}
        self._seen: set[str] = set()
        self._secrets: list[str] = []
        self._refused: list[str] = []
        self._left_out = 0

    def scan(self) -> Scan:
        if self._below:
            self._check_data_folder()
        for entry, path, verdict in self._walk():
            self._take(entry, path, verdict)
        if self._cache is not None:
            self._cache.save(self._seen, self._is_mine)
        if self._refused:
            count = len(self._refused)
            raise UsageError(
                f"{count} {'thing' if count == 1 else 'things'} cannot be sent",
                cause="\n".join(sorted(self._refused)),
                fix="copy them into the workspace, or leave them out in .trainignore",
            )
        if self._below and self._left_out and not self._entries:
            raise UsageError(
                f"the data folder {self._below} holds nothing to send",
                cause="all that is in it is left out by ignore files",
                fix=f"add this line to .trainignore: !{self._below}/**",
            )
        return Scan(
            dict(sorted(self._entries.items())), tuple(sorted(self._secrets)), self._left_out
        )

    def _check_data_folder(self) -> None:
        path = ""
        for part in self._below.split("/"):
            path = f"{path}/{part}" if path else part
            full = os.path.join(self._top, path)  # noqa: PTH118 -- the walk is on text
            if not os.path.lexists(full):
                raise UsageError(f"the data folder {self._below} does not exist")
            # Through a link held-out data could go by another name.
            if not stat.S_ISDIR(os.lstat(full).st_mode):
                raise UsageError(
                    f"the data folder {self._below} cannot be sent: {path} is not a folder",
                    fix="make it a folder; a link does not do",
                )
            verdict = self._ignore.verdict(path, is_folder=True)
            if not verdict.is_sent and verdict is not Verdict.RULE:
                raise UsageError(
                    f"the data folder {self._below} cannot be sent: {path} is left out",
                    cause=verdict.value,
                )

    def _walk(self) -> Iterator[tuple[os.DirEntry[str], str, Verdict]]:
        """All that is sent or refused, and not a folder."""
        folders = [self._below]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(f"{self._top}/{folder}") as listing:
                    entries = list(listing)
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if path in self._without:
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    verdict = self._ignore.verdict(path, is_folder=is_folder)
                    if not verdict.is_sent:
                        self._leave_out(path, verdict)
                    elif is_folder:
                        folders.append(path)
                    else:
                        yield entry, path, verdict
            except FileNotFoundError:
                pass
            except OSError as error:
                # The folder, or an ignore file in it.
                self._refuse(os.path.relpath(str(error.filename), self._top), _why(error))

    def _take(self, entry: os.DirEntry[str], path: str, verdict: Verdict) -> None:
        inside = path[len(self._below) + 1 :] if self._below else path
        if not _READS_UTF8 and not path.isascii():
            self._refuse(path, "this Python does not read names as UTF-8: export PYTHONUTF8=1")
            return
        try:
            check_path(inside)
            path.encode()
            if entry.is_symlink():
                self._take_link(path, inside)
            elif entry.is_file(follow_symlinks=False):
                self._take_file(entry, path, inside, verdict)
            else:
                self._refuse(path, "neither a file nor a folder nor a link")
        except UnicodeEncodeError:
            self._refuse(path, "its name is not UTF-8")
        except (BadTree, Changing) as error:
            self._refuse(path, str(error))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._refuse(path, _why(error))

    def _take_link(self, path: str, inside: str) -> None:
        full = f"{self._top}/{path}"
        target = os.readlink(full)  # noqa: PTH115 -- Path would tidy the text
        target.encode()
        tree = f"{self._top}/{self._below}".rstrip("/")
        # By text, because the text is what is sent; and resolved, because a link may go through
        # another one.
        resolved = os.path.realpath(full)
        if link_leaves(inside, target) or os.path.commonpath([tree, resolved]) != tree:
            self._refuse(path, f"a link out of the {'data folder' if self._below else 'workspace'}")
            return
        self._entries[inside] = Entry(LINK, 0, "", False, target.replace(os.sep, "/"))

    def _take_file(self, entry: os.DirEntry[str], path: str, inside: str, verdict: Verdict) -> None:
        status = entry.stat(follow_symlinks=False)
        known = self._cache.get(path, status) if self._cache else None
        if known is None:
            status, read = read_known(f"{self._top}/{path}", path, self._progress)
            if self._cache is not None:
                self._cache.put(path, status, read, self._started_ns)
            known = read.sha256, read.holds_key
        sha256, holds_key = known
        self._seen.add(path)
        if holds_key and verdict is not Verdict.NAMED:
            self._leave_out(path, Verdict.SECRET)
            return
        executable = os.name != "nt" and bool(status.st_mode & stat.S_IXUSR)
        self._entries[inside] = Entry(FILE, status.st_size, sha256, executable)

    def _leave_out(self, path: str, verdict: Verdict) -> None:
        self._left_out += verdict is not Verdict.NEVER
        if verdict is Verdict.SECRET:
            self._secrets.append(path)

    def _refuse(self, path: str, why: str) -> None:
        self._refused.append(f"{path if path.isprintable() else ascii(path)}: {why}")

    def _is_mine(self, path: str) -> bool:
        """Whether a cached path is one that this scan would have met."""
        mine = not self._below or path.startswith(f"{self._below}/")
        return mine and not any(path.startswith(f"{folder}/") for folder in self._without)


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
