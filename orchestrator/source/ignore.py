"""What of a workspace is left out of a snapshot, and why.

`.gitignore` and `.trainignore` files are followed as git follows `.gitignore`: in every folder, the
last rule that matches decides, deeper files before outer ones, and nothing below a folder that is
left out can come back. Of one folder's two files `.trainignore` is read last, so `!path` in it
re-includes what `.gitignore` leaves out.

No rule can re-include: `.git`, `.train`, `__pycache__`, virtual environments, a job's outputs, and
the held-out test data: a `grader.py`, and in its folder and all below what is called `heldout*`.
What else lies beside a grader, a script that prepares its data for one, is sent.

What looks like a secret by its name is left out and reported, unless it is source (`.py`, `.md`,
`.ipynb`) or a `.trainignore` names it. `!deploy.pem` names every file of that name,
`!keys/deploy.pem` one; `!*.pem` names none, because whoever writes a pattern has not seen what it
will match. A file in `.ssh/` also needs its folder named: `!.ssh/`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from orchestrator.source.gitignore import Rule, Rules, parse_rule, raw

# The second is what an atomic write leaves beside its file after a crash.
_NEVER = re.compile(r"\.git|\.train|__pycache__|\.tmp-[0-9a-f]{16}", re.IGNORECASE)
_GRADER = "grader.py"
_HELD_OUT = re.compile(r"grader\.py|heldout.*", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    r"""
      \.env(rc|\..+)?
    | .*\.(env|token)
    | .*\.(pem|key|p12|pfx|ppk|kdbx)
    | id_(rsa|dsa|ed25519|ecdsa).*
    | \.(netrc|pypirc|npmrc|pgpass|htpasswd|git-credentials|aws|azure|ssh|gnupg)
    | kaggle\.json
    | .*credentials.*
    | .*service[-_]account.*\.json
    | (secrets?|client_secret.*)\.(json|toml|ya?ml|txt|ini)
    | token(\.txt)?
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
# Templates that are made to be shared, and source, which is about secrets more than it holds any.
_NO_SECRET = re.compile(
    r".*\.env\.(example|sample|template|dist)|.*\.(py|md|ipynb)", re.IGNORECASE | re.DOTALL
)
_SECRET_PATH = re.compile(r"(.*/)?\.docker/config\.json", re.IGNORECASE | re.DOTALL)


class Verdict(Enum):
    """What becomes of one path, and why."""

    SENT = "sent"
    NAMED = "sent, because a .trainignore names it"
    RULE = "left out by an ignore file"
    NEVER = "never sent"
    HELD_OUT = "held-out test data"
    OUTPUT = "a job's output"
    SECRET = "looks like a secret"  # noqa: S105 -- what it looks like

    @property
    def is_sent(self) -> bool:
        return self in (Verdict.SENT, Verdict.NAMED)


@dataclass(frozen=True)
class _File:
    """An ignore file.

    Attributes:
        start: where the part of a path begins that its rules are about, in `raw` form.
        may_name: whether its rules may name secrets.
    """

    rules: Rules
    start: int
    may_name: bool


@dataclass(frozen=True)
class _Folder:
    """What a folder says about what is in it.

    Attributes:
        files: the nearest first.
        is_graded: whether there is a grader here or in a folder above.
        names, paths: all that any rule says of files, the fixed ones included; None where no rule
            is about paths.
    """

    files: tuple[_File, ...]
    is_graded: bool
    names: re.Pattern[str]
    paths: re.Pattern[str] | None

    def may_mind(self, raw_path: str, name: str, raw_name: str) -> bool:
        """Whether a file needs a closer look; most do not, and two expressions say so at once."""
        return bool(
            self.names.fullmatch(name)
            or (raw_name is not name and self.names.fullmatch(raw_name))
            or (self.paths and self.paths.fullmatch(raw_path))
        )


class Ignore:
    """The verdict on every path of one workspace.

    Ignore files are read when a path below them is first asked for, and then kept.

    Args:
        root: the workspace.
        outputs: paths or globs below it that jobs write.
    """

    def __init__(self, root: Path, outputs: Iterable[str] = ()) -> None:
        self._root = root
        rules = (parse_rule(raw(f"/{output}")) for output in outputs)
        self._outputs = tuple(rule.expression for rule in rules if rule is not None)
        self._folders: dict[str, _Folder] = {}

    def verdict(self, path: str, *, is_folder: bool) -> Verdict:
        """What becomes of `path` if its folder is sent.

        Args:
            path: relative to the workspace, separated by `/`.
            is_folder: a link is none, wherever it points.

        Raises:
            OSError: an ignore file or the folder cannot be read; guessing might send a secret.
        """
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent)
        raw_path, raw_name = raw(path), raw(name)
        if not is_folder and not folder.may_mind(raw_path, name, raw_name):
            return Verdict.SENT
        if _NEVER.fullmatch(name) or (
            is_folder and os.path.lexists(self._root / path / "pyvenv.cfg")
        ):
            return Verdict.NEVER
        if folder.is_graded and _HELD_OUT.fullmatch(name):
            return Verdict.HELD_OUT
        if any(output.fullmatch(raw_path) for output in self._outputs):
            return Verdict.OUTPUT
        rule, may_name = _last_rule(folder.files, raw_path, raw_name, is_folder)
        if rule is not None and not rule.negated:
            return Verdict.RULE
        if rule is not None and rule.literal and may_name:
            return Verdict.NAMED
        return Verdict.SECRET if _looks_secret(path, name) else Verdict.SENT

    def verdict_below(self, path: str, *, is_folder: bool) -> Verdict:
        """What becomes of `path`: the first verdict on the way to it that leaves it out."""
        parts = path.split("/")
        for count in range(1, len(parts)):
            verdict = self.verdict("/".join(parts[:count]), is_folder=True)
            if not verdict.is_sent:
                return verdict
        return self.verdict(path, is_folder=is_folder)

    def _folder(self, path: str) -> _Folder:
        if path not in self._folders:
            self._folders[path] = self._read(path)
        return self._folders[path]

    def _read(self, path: str) -> _Folder:
        outer = self._folder(path.rpartition("/")[0]) if path else None
        start = len(raw(path)) + 1 if path else 0
        folder = self._root / path
        names = os.listdir(folder)  # noqa: PTH208 -- names, not paths
        own = tuple(
            _File(Rules((folder / name).read_bytes()), start, name == ".trainignore")
            for name in (".trainignore", ".gitignore")
            if name in names and (folder / name).is_file()
        )
        # Some file systems find `grader.py` under any case.
        is_graded = any(name.lower() == _GRADER for name in names)
        if outer is None:
            return self._make(own, is_graded)
        if not own and (is_graded or outer.is_graded) == outer.is_graded:
            return outer
        return self._make((*own, *outer.files), is_graded or outer.is_graded)

    def _make(self, files: tuple[_File, ...], is_graded: bool) -> _Folder:
        names = [f"(?is:{_HELD_OUT.pattern})"] if is_graded else []
        names += [f"(?is:{_NEVER.pattern})", f"(?isx:{_SECRET.pattern})", r"(?i:config\.json)"]
        names += [file.rules.names for file in files if file.rules.names]
        paths = [f"(?:{output.pattern})" for output in self._outputs]
        paths += [f".{{{file.start}}}(?:{file.rules.paths})" for file in files if file.rules.paths]
        return _Folder(
            files,
            is_graded,
            re.compile("|".join(names), re.DOTALL),
            re.compile("|".join(paths), re.DOTALL) if paths else None,
        )


def _last_rule(
    files: tuple[_File, ...], path: str, name: str, is_folder: bool
) -> tuple[Rule | None, bool]:
    for file in files:
        rule = file.rules.last(path[file.start :], name, is_folder)
        if rule is not None:
            return rule, file.may_name
    return None, False


def _looks_secret(path: str, name: str) -> bool:
    if _SECRET_PATH.fullmatch(path):
        return True
    return bool(_SECRET.fullmatch(name)) and not _NO_SECRET.fullmatch(name)
