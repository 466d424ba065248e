"""docs/json.md says what `--json` prints: all of it, and nothing else."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

import orchestrator.cli  # noqa: F401  # which has all commands
from orchestrator.clouds.pricetable import Row
from orchestrator.commands import app
from orchestrator.exams.advise import Advice
from orchestrator.exams.exam import Spent
from orchestrator.history import Restored
from remote.measured import Measured, Repeat
from remote.protocol import Heap
from remote.runfolder import Loading
from tests.laptop import Laptop, make_laptop
from tests.servers import SshServer

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "json.md").read_text("utf-8")
Keys = dict[str, str]


def records() -> dict[str, Keys]:
    """The type of each key, by the record's name."""
    found = {}
    for section in PAGE.split("\n## ")[2:]:
        name, _, text = section.partition("\n")
        found[name] = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    found["hand-in"] = {**found["attempt"], **found["hand-in"]}
    return found


RECORDS = records()


def names_of(record: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(record))


# What the program puts into a dictionary by other means than by writing its keys.
OTHERS = {
    "vars(one)": names_of(Advice),
    "vars(report.spent)": names_of(Spent),
    "vars(restored)": names_of(Restored),
    "vars(row)": names_of(Row),
    "attempt_json(handed.attempt, hides=not handed.exam.practice)": frozenset(RECORDS["attempt"]),
}


def printed() -> set[frozenset[str]]:
    """The keys of each dictionary that the program writes out to print it."""
    found = {frozenset(record._fields) for record in (Heap, Loading, Measured, Repeat)}
    for path in (ROOT / "orchestrator").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and _prints(function):
                dicts = (node for node in ast.walk(function) if isinstance(node, ast.Dict))
                found |= {keys for node in dicts if (keys := _keys(node))}
    return found


def _prints(function: ast.FunctionDef) -> bool:
    makes = function.name.endswith("_json") and ast.unparse(function.returns or function) == "Json"
    return makes or function.name == "cost_json" or "print_json(" in ast.unparse(function)


def _keys(node: ast.Dict) -> frozenset[str]:
    names: set[str] = set()
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant):
            names.add(str(key.value))
        elif key is None:
            names |= OTHERS[ast.unparse(value)]
    return frozenset(names)


def test_every_key_is_told_and_every_key_told_is_printed() -> None:
    told = {frozenset(keys): name for name, keys in RECORDS.items()}
    made = printed()

    assert [sorted(keys) for keys in made - told.keys()] == []
    assert [name for keys, name in told.items() if keys not in made] == []


def test_every_command_with_json_is_told() -> None:
    told = set(re.findall(r"`train ([a-z ]+)`", PAGE.split("\n## ")[1]))

    def commands(group: click.Group, before: str = "") -> set[str]:
        found = set()
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                found |= commands(command, f"{name} ")
            elif any(param.name == "as_json" for param in command.params):
                found.add(before + name)
        return found

    assert told == commands(app)


KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "switch": (bool,),
    "null": (type(None),),
}


def check(value: Any, kind: str) -> None:  # noqa: ANN401  # whatever JSON can hold
    """Whether a value is as the page says, all through."""
    kind, _, or_null = kind.partition(" or ")
    if value is None:
        assert or_null or kind == "null", f"null is no {kind}"
    elif kind.startswith("list of "):
        for item in value:
            check(item, kind.removeprefix("list of "))
    elif kind.startswith("map of "):
        for item in value.values():
            check(item, kind.removeprefix("map of "))
    elif kind in RECORDS:
        assert value.keys() == RECORDS[kind].keys()
        for key, of in RECORDS[kind].items():
            check(value[key], of)
    else:
        assert type(value) in KINDS[kind], f"{value!r} is no {kind}"


def test_what_is_printed_is_as_it_is_told(tmp_path: Path, embedded_server: SshServer) -> None:
    laptop: Laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("a")

    for words, kind in {
        ("a", "--dry-run"): "list of file",
        ("--remote", "vm"): "result",
        ("pull",): "result",
        ("attach", "a"): "result",
        ("status",): "list of run",
        ("cost", "--by", "remote"): "list of cost row",
        ("history",): "list of entry",
        ("remote", "list"): "list of remote",
        ("remote", "show", "vm"): "remote",
        ("gc", "vm"): "list of heap",
        ("prices",): "list of price",
        ("prices", "--gpu", "K80"): "list of list price",
        ("session", "start", "vm"): "session",
        ("session", "status"): "list of machine",
        ("session", "stop", "vm"): "session",
        ("session", "list"): "list of session",
        ("export", "a", "--notebook"): "export",
    }.items():
        found = laptop.json(*words)
        assert found
        check(found, kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("1", "number"),
        (True, "number"),
        (None, "text"),
        ({"path": "a"}, "file"),
        ([1], "list of text"),
    ],
)
def test_what_is_not_as_it_is_told_is_found(value: object, kind: str) -> None:
    with pytest.raises(AssertionError):
        check(value, kind)
