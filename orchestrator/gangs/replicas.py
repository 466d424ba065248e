"""Whether a script asks Keras 3 for what it cannot do: `fit` on several hosts. Pure.

Its compiled losses and metrics are `PerReplica` values then, of which it cannot make an array.
Source: keras issue 20585; tried with Keras 3.15 and TensorFlow 2.21.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

LEGACY = "TF_USE_LEGACY_KERAS"
_STRATEGY = "MultiWorkerMirroredStrategy"


def unfit_line(source: str) -> int | None:
    """The line of a `fit` that would fail; None where none is seen to.

    A script that names TF_USE_LEGACY_KERAS before it imports TensorFlow has seen to it, as has one
    that imports tf_keras. What is no Python has no such line.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    nodes = list(ast.walk(tree))
    if not any(_names(node, _STRATEGY) for node in nodes):
        return None
    imported = [found for node in nodes for found in _imported(node)]
    first = min((line for package, line in imported if package == "tensorflow"), default=0)
    is_legacy = any(package == "tf_keras" for package, _ in imported) or any(
        isinstance(node, ast.Constant) and node.value == LEGACY and node.lineno < first
        for node in nodes
    )
    fits = [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "fit"
    ]
    return None if is_legacy else min(fits, default=None)


def _names(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Attribute(attr=found) | ast.Name(id=found) | ast.alias(name=found):
            return found == name
        case _:
            return False


def _imported(node: ast.AST) -> Iterator[tuple[str, int]]:
    """The packages that this imports, and the line."""
    if isinstance(node, ast.Import):
        yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.partition(".")[0], node.lineno
