"""The nodes of a config file, and how to read mappings and lists of them. Pure.

A reader takes a node and the full path of its key, and gives a value or raises `Wrong`. Those of
mappings and lists go on after a wrong value, so that one look shows all that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Scalar:
    """One value.

    Attributes:
        kind: what YAML 1.1 takes it for: text, number, switch, date or nothing.
        line: counts from 1, as in the other nodes.
    """

    text: str
    kind: str
    line: int


@dataclass(frozen=True)
class Items:
    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class Pairs:
    """A mapping as written: a key may stand twice."""

    pairs: tuple[tuple[Scalar, Node], ...]
    line: int


Node = Scalar | Items | Pairs
Reader = Callable[[Node, str], Any]
Record = TypeVar("Record")


@dataclass(frozen=True)
class Problem:
    line: int
    key: str
    text: str


class Wrong(Exception):
    """What nodes should not say. Becomes a ConfigError where the file's name is known."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__()
        self.problems = tuple(problems)


def unlike(node: Node, key: str, expected: str) -> Wrong:
    return Wrong([Problem(node.line, key, f"expected {expected}, found {_described(node)}")])


def read_fields(
    node: Node, key: str, readers: Mapping[str, Reader], required: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of a mapping whose keys are ours; keys that are not given are left out."""
    found: dict[str, Any] = {}
    pairs, problems = _once_each(node, key)
    for name, child in pairs:
        where = below(key, name.text)
        reader = readers.get(name.text)
        if reader is None:
            near = nearest(name.text, readers)
            hint = f"; did you mean {near}?" if near else ""
            expected = f"expected one of {', '.join(readers)}, found an unknown key{hint}"
            problems.append(Problem(name.line, where, expected))
            continue
        try:
            found[name.text] = reader(child, where)
        except Wrong as wrong:
            problems += wrong.problems
    given = {name.text for name, _ in pairs}
    problems += [
        Problem(node.line, below(key, name), "expected this key, found nothing")
        for name in required
        if name not in given
    ]
    if problems:
        raise Wrong(problems)
    return found


def read_named(
    node: Node, key: str, read: Callable[[str, Node, str], Record]
) -> tuple[Record, ...]:
    """The records of a mapping whose keys are the user's; none where all is commented out."""
    if isinstance(node, Scalar) and node.kind == "nothing":
        return ()
    found: list[Record] = []
    pairs, problems = _once_each(node, key)
    for name, child in pairs:
        where = below(key, name.text)
        if not NAME.fullmatch(name.text):
            expected = "a name of at most 64 letters, digits, - _ and ., a letter or digit first"
            problems.append(Problem(name.line, where, f"expected {expected}"))
            continue
        try:
            found.append(read(name.text, child, where))
        except Wrong as wrong:
            problems += wrong.problems
    if problems:
        raise Wrong(problems)
    return tuple(found)


def read_items(node: Node, key: str, read: Callable[[Node, str], Record]) -> tuple[Record, ...]:
    if not isinstance(node, Items):
        raise unlike(node, key, "a list ([a, b])")
    found: list[Record] = []
    problems: list[Problem] = []
    for index, item in enumerate(node.items):
        try:
            found.append(read(item, f"{key}[{index}]"))
        except Wrong as wrong:
            problems += wrong.problems
    if problems:
        raise Wrong(problems)
    return tuple(found)


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant; empty where nothing is near, or several are just as near."""
    import difflib

    # Its time grows with the square of the length.
    word = word[:80]
    near = difflib.get_close_matches(word, list(known), n=2)
    ratios = {difflib.SequenceMatcher(a=one, b=word).ratio() for one in near}
    return near[0] if near and len(ratios) == len(near) else ""


def below(key: str, name: str) -> str:
    """The full path of `name` in `key`; one line whatever the name holds."""
    shown = name if name.isprintable() else ascii(name)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return f"{key}.{shown}" if key else shown


def _once_each(node: Node, key: str) -> tuple[list[tuple[Scalar, Node]], list[Problem]]:
    if not isinstance(node, Pairs):
        raise unlike(node, key, "a mapping (key: value)")
    first: dict[str, tuple[Scalar, Node]] = {}
    problems = []
    for name, child in node.pairs:
        if name.text in first:
            line = first[name.text][0].line
            text = f"expected each key once, found it again; it stands on line {line}"
            problems.append(Problem(name.line, below(key, name.text), text))
        else:
            first[name.text] = (name, child)
    return list(first.values()), problems


def _described(node: Node) -> str:
    match node:
        case Items():
            return "a list"
        case Pairs():
            return "a mapping"
        case Scalar(kind="nothing"):
            return "nothing"
        case Scalar(text, kind):
            shown = repr(text) if len(text) <= 60 else f"{text[:57]!r}..."
            return f"the {kind} {shown}"
