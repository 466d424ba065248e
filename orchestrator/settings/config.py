"""`train.yaml`, `remotes.yaml`, `config.yaml`: the only module that knows YAML.

Files are read as events, never as objects: nothing in one can make Python construct anything, and
its size is bounded before it is followed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import ConfigError, TrainshedError, UsageError
from orchestrator.settings import home
from orchestrator.settings.node import Items, Node, Pairs, Problem, Scalar, Wrong, nearest
from orchestrator.settings.pool import Pool, find_member, no_machine, resolve
from orchestrator.settings.schema import read_config
from orchestrator.settings.spec import EnvSpec, Job, MonthLimit, Remote, Workspace
from remote.runfolder import Slurm

FILE_NAME = "train.yaml"
SIZE_LIMIT_BYTES = 1 << 20
DEPTH_LIMIT = 20
ALIAS_LIMIT = 50
# Of nodes once every alias is written out: what a reader walks through.
NODE_LIMIT = 10_000

_KINDS = {
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "switch",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "date",
}


def load_workspace(folder: Path) -> Workspace:
    """The workspace that `folder` is in: the nearest `train.yaml`, here or above.

    Its remotes are those the file names; what it leaves unsaid of one comes from the user's remote
    of the same name.

    Raises:
        UsageError: there is none.
        ConfigError: the file is wrong.
    """
    folder = folder.resolve()
    for root in (folder, *folder.parents):
        path = root / FILE_NAME
        if path.is_file():
            return parse_workspace(_read(path), path)
    raise UsageError(
        f"no {FILE_NAME} in {folder} or a folder above it",
        fix="go to your workspace, or make one: train init DIR",
    )


def workspace_here() -> Workspace | None:
    """The one that the current folder is in, if it is in any.

    Raises:
        ConfigError: its file is wrong.
    """
    try:
        return load_workspace(Path.cwd())
    except ConfigError:
        raise
    except UsageError:
        return None


def parse_workspace(text: str, path: Path) -> Workspace:
    """The workspace that `text` says, if it stands in `path`."""

    def known(name: str) -> Remote | None:
        return {remote.name: remote for remote in load_remotes(home.remotes_file())}.get(name)

    node = _compose(text, path)
    try:
        sections = ("remotes", "jobs", "exam_environment", "notify", "mlflow")
        found = read_config(node, sections, known)
    except Wrong as wrong:
        raise _config_error(path, wrong) from None
    return Workspace(
        path.parent,
        jobs=found.get("jobs", ()),
        remotes=found.get("remotes", ()),
        exam_tensorflow=found.get("exam_environment", ""),
        notify=found.get("notify", ""),
        mlflow=found.get("mlflow", ""),
    )


def load_notify(path: Path) -> str:
    """How a user wants to hear of a run's end, as `Workspace.notify`; "" where no file says.

    Raises:
        ConfigError: the file is wrong.
    """
    if not path.exists():
        return ""
    node = _compose(_read(path), path)
    try:
        notify: str = read_config(node, ("notify",), lambda _: None).get("notify", "")
    except Wrong as wrong:
        raise _config_error(path, wrong) from None
    return notify


def load_remotes(path: Path) -> tuple[Remote, ...]:
    """The remotes of a user's file; none when there is no file.

    Raises:
        ConfigError: the file is wrong.
    """
    return parse_remotes(_read(path), path) if path.exists() else ()


def parse_remotes(text: str, path: Path) -> tuple[Remote, ...]:
    """The remotes that `text` says, if it stands in `path`."""
    return _parse_users_file(text, path)[0]


def load_month_limit(path: Path) -> MonthLimit | None:
    """What a user's file says that all remotes together may cost in a month.

    Raises:
        ConfigError: the file is wrong.
    """
    return _parse_users_file(_read(path), path)[1] if path.exists() else None


def _parse_users_file(text: str, path: Path) -> tuple[tuple[Remote, ...], MonthLimit | None]:
    node = _compose(text, path)
    try:
        found = read_config(node, ("remotes", "budget"), lambda _: None)
    except Wrong as wrong:
        raise _config_error(path, wrong) from None
    return found.get("remotes", ()), found.get("budget")


def known_remotes(workspace: Workspace | None) -> tuple[Remote, ...]:
    """The user's remotes and the workspace's, which go first, by name."""
    remotes = {remote.name: remote for remote in load_remotes(home.remotes_file())}
    remotes |= {remote.name: remote for remote in (workspace.remotes if workspace else ())}
    return tuple(remotes[name] for name in sorted(remotes))


def only_remote(workspace: Workspace | None) -> str:
    """Its name, for a command that is offered; empty if there are several, none, or no telling."""
    try:
        names = [remote.name for remote in known_remotes(workspace)]
    except TrainshedError:
        return ""
    return names[0] if len(names) == 1 else ""


def known_machines(workspace: Workspace | None) -> tuple[Remote, ...]:
    """As `known_remotes`, with its members in the place of each pool.

    Raises:
        ConfigError: a pool's list is wrong.
    """
    remotes = {remote.name: remote for remote in known_remotes(workspace)}
    found: dict[str, Remote] = {}
    for remote in remotes.values():
        members = resolve(remote, remotes).members if remote.hosts else (remote,)
        found |= {member.name: member for member in members}
    return tuple(found.values())


def find_pool(workspace: Workspace | None, name: str) -> Pool | None:
    """The pool of this name; None where it is not one's."""
    remotes = {remote.name: remote for remote in known_remotes(workspace)}
    pool = remotes.get(name)
    return resolve(pool, remotes) if pool is not None and pool.hosts else None


def find_remote(workspace: Workspace | None, name: str, categories: Iterable[str] = ()) -> Remote:
    """The machine that the user means by `name`: a remote, or a member of a pool.

    Args:
        categories: what the user wants to train there, for the command that is offered.

    Raises:
        UsageError: there is none, or no name; names the known ones and the nearest. Or it is a
            pool.
    """
    remotes = {remote.name: remote for remote in known_remotes(workspace)}
    if name in remotes:
        if remotes[name].hosts:
            raise no_machine(resolve(remotes[name], remotes))
        return remotes[name]
    if (member := find_member(name, remotes)) is not None:
        return member
    if not name:
        only = next(iter(remotes)) if len(remotes) == 1 else "NAME"
        again = shlex.join(["train", *categories, "--remote", only])
        raise UsageError(
            "no remote was named",
            cause=f"known remotes: {', '.join(remotes) or 'none'}",
            fix=again if remotes else "train remote add NAME --host ADDRESS",
        )
    near = nearest(name, remotes)
    raise UsageError(
        f"no remote is named {name!r}",
        cause=f"the known remotes are {', '.join(remotes)}" if remotes else "no remote is known",
        fix=f"did you mean {near}?" if near else "train remote add NAME --host ADDRESS",
    )


def find_jobs(workspace: Workspace, names: Iterable[str]) -> tuple[Job, ...]:
    """The jobs of these names, or all.

    Raises:
        UsageError: there is none of a name; lists the known ones.
    """
    known = {job.name: job for job in workspace.jobs}
    # An editor gives the folder of the open file, which may be one below the category's.
    names = tuple(
        name if name in known else name.removeprefix("./").partition("/")[0] for name in names
    )
    for name in names:
        if name not in known:
            near = nearest(name, known)
            raise UsageError(
                f"no category is named {name!r}",
                cause=f"train.yaml has: {', '.join(known) or 'no jobs'}",
                fix=f"did you mean {near}?" if near else "add it under `jobs:` in train.yaml",
            )
    if not known:
        raise UsageError(
            f"{workspace.root / 'train.yaml'} has no jobs", fix="add one under `jobs:`"
        )
    chosen = dict.fromkeys(known[name] for name in names)
    return tuple(chosen) or workspace.jobs


def format_remotes(remotes: Iterable[Remote], month: MonthLimit | None = None) -> str:
    """YAML text that `parse_remotes` turns back into `remotes`."""
    body: dict[str, Any] = {"remotes": {remote.name: _said(remote) for remote in remotes}}
    if month is not None:
        body["budget"] = {"month": month.amount, "currency": month.currency}
    return yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _said(remote: Remote) -> dict[str, Any]:
    """What differs from the defaults."""
    price, env, cloud = remote.price, remote.env, remote.cloud
    said = {
        "host": None if remote.hosts else remote.host,
        "hosts": list(remote.hosts) or None,
        "drained": list(remote.drained) or None,
        "user": remote.user,
        "port": remote.port,
        "key": remote.key,
        "gpus": remote.gpus,
        "price": price and _given(vars(price)),
        "env": _given(vars(env)) if env != EnvSpec() else None,
        "budget": _given(vars(remote.budget)) or None,
        "cloud": cloud and {"provider": cloud.provider, **dict(cloud.options)},
        **_said_of_slurm(remote.slurm),
        "queued": remote.queued,
    }
    return _given(said)


def _said_of_slurm(slurm: Slurm | None) -> dict[str, Any]:
    if slurm is None:
        return {}
    terms = {name: value for name, value in slurm._asdict().items() if value}
    if time_s := terms.pop("time_s", None):
        terms["time"] = f"{time_s:g}s"
    if lines := terms.pop("lines", None):
        terms["lines"] = list(lines)
    return {"engine": "slurm", "slurm": terms or None}


def _given(pairs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pairs.items() if value is not None}


class _Dumper(yaml.SafeDumper):
    pass


def _represent_decimal(dumper: _Dumper, amount: Decimal) -> yaml.ScalarNode:
    text = f"{amount:f}"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


_Dumper.add_representer(Decimal, _represent_decimal)


def _config_error(path: Path, wrong: Wrong) -> ConfigError:
    # What was copied into five jobs is one mistake: told once, where it is met first.
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in sorted(wrong.problems, key=lambda problem: problem.line):
        alike.setdefault((problem.key.rpartition(".")[2], problem.text), []).append(problem)
    lines = []
    for first, *others in alike.values():
        again = "; ".join(f"{other.key} on line {other.line}" for other in others)
        lines.append(
            f"{path}:{first.line}: {first.key}{': ' if first.key else ''}{first.text}"
            + (f" (the same: {again})" if again else "")
        )
    return ConfigError("\n".join(lines))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}", cause=(error.strerror or str(error)).lower()
        ) from error
    if len(content) > SIZE_LIMIT_BYTES:
        raise ConfigError(f"{path}:1: expected at most {SIZE_LIMIT_BYTES} bytes, found more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"found the byte 0x{content[error.start]:02x}"
        raise ConfigError(f"{path}:{line}: expected UTF-8 text, {found}") from None


def _compose(text: str, path: Path) -> Node | None:
    """The one document of `text` as nodes; None when it says nothing."""
    try:
        return _Composer(yaml.SafeLoader(text)).document()
    except _Bound as bound:
        raise ConfigError(f"{path}:{bound.line}: {bound}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        problem = str(error.problem)
        if r"'\t'" in problem:
            problem = "expected spaces, found a tab"
        begun = error.context_mark
        raise ConfigError(
            f"{path}:{line}: {problem}",
            cause=f"{error.context}, from line {begun.line + 1}" if begun and error.context else "",
            fix="see whether quotes, brackets and indentation are right there",
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"found the character U+{ord(text[error.position]):04X}"
        raise ConfigError(f"{path}:{line}: expected printable text, {found}") from None


class _Bound(Exception):
    """YAML that is more than a config needs."""

    def __init__(self, event: yaml.Event, text: str) -> None:
        super().__init__(text)
        mark: Any = event.start_mark
        self.line: int = mark.line + 1


class _Composer:
    def __init__(self, loader: yaml.SafeLoader) -> None:
        # Any: types-PyYAML leaves the methods below untyped.
        self._loader: Any = loader
        # With what they count for: themselves and all that is in them.
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._aliases = 0

    def document(self) -> Node | None:
        self._loader.get_event()  # the stream's start
        if self._loader.check_event(yaml.StreamEndEvent):
            return None
        self._loader.get_event()  # the document's start
        node = self._node(0)
        self._loader.get_event()  # the document's end
        if not self._loader.check_event(yaml.StreamEndEvent):
            raise _Bound(self._loader.peek_event(), "expected one document, found a second")
        # `---` or comments alone.
        return None if node == Scalar("", "nothing", node.line) else node

    def _node(self, depth: int) -> Node:
        event = self._loader.get_event()
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._nodes
        self._count(event, 1)
        if depth > DEPTH_LIMIT:
            raise _Bound(event, f"expected at most {DEPTH_LIMIT} levels, found more")
        if event.tag is not None:
            raise _Bound(event, f"expected plain values, found the tag {event.tag!r}")
        node: Node
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            node = Scalar(event.value, _KINDS.get(tag, "text"), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not self._loader.check_event(yaml.SequenceEndEvent):
                items.append(self._node(depth + 1))
            self._loader.get_event()
            node = Items(tuple(items), line)
        else:
            pairs = []
            while not self._loader.check_event(yaml.MappingEndEvent):
                at = self._loader.peek_event()
                key = self._node(depth + 1)
                if not isinstance(key, Scalar):
                    raise _Bound(at, "expected a single value as a key, found a list or mapping")
                pairs.append((key, self._node(depth + 1)))
            self._loader.get_event()
            node = Pairs(tuple(pairs), line)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        self._aliases += 1
        if self._aliases > ALIAS_LIMIT:
            raise _Bound(event, f"expected at most {ALIAS_LIMIT} aliases, found more")
        # An anchor that is still being read is not there yet: nothing can hold itself.
        if event.anchor not in self._anchors:
            raise _Bound(event, f"expected an anchor &{event.anchor} before, found none")
        node, size = self._anchors[event.anchor]
        self._count(event, size)
        return node

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODE_LIMIT:
            raise _Bound(event, f"expected at most {NODE_LIMIT} values, found more")
