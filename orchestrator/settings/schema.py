"""From the nodes of a config file to remotes and jobs. Pure: no YAML library, no files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import permutations
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from orchestrator.duration import parse_duration
from orchestrator.settings.node import (
    Node,
    Pairs,
    Problem,
    Reader,
    Scalar,
    Wrong,
    nearest,
    read_fields,
    read_items,
    read_named,
    unlike,
)
from orchestrator.settings.spec import CloudSpec, EnvSpec, Job, Limits, MonthLimit, Price, Remote
from remote.runfolder import GANG_LIMIT, RESTART_LIMIT, Slurm

_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?|\.[0-9]{1,12}")
# ssh would read a host or user that starts with a dash as an option.
_WORD = re.compile(r"[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*")
_GLOB = frozenset("*?[")
_ENGINES = ("ssh", "slurm")
# How often a run is started again.
_RESTART_WORDS = {"never": 0, "on-interruption": 3}


def read_config(
    node: Node | None, sections: Sequence[str], known: Callable[[str], Remote | None]
) -> dict[str, Any]:
    """What a file says, by section; what it does not say is left out.

    Args:
        node: None for a file that says nothing.
        sections: which the file may hold; see `readers`.
        known: gives the remote that the file's own of this name adds to, key by key.

    Raises:
        Wrong: with every problem of the file.
    """
    if node is None:
        return {}

    def read_remote(name: str, node: Node, key: str) -> Remote:
        return _remote(name, node, key, known(name))

    readers: dict[str, Reader] = {
        "remotes": partial(read_named, read=read_remote),
        "jobs": partial(read_named, read=_job),
        "exam_environment": _exam_tensorflow,
        "notify": _notify,
        "budget": _month_limit,
        "mlflow": _tracking_server,
    }
    return read_fields(node, "", {section: readers[section] for section in sections})


def _notify(node: Node, key: str) -> str:
    """`desktop`, `off`, or a command that can be taken apart into words."""
    if isinstance(node, Scalar) and node.kind == "switch":
        return "desktop" if _switch(node, key) else "off"
    command = _line(node, key)
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if not words:
        raise unlike(node, key, "desktop, off, or a command with its quotes in pairs")
    return command


def _tracking_server(node: Node, key: str) -> str:
    if "@" in _text_of(node):
        # Not told what was found: it may be a password.
        text = (
            "expected an address without a login, because train.yaml is sent to machines, found "
            "one; it goes into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
        raise Wrong([Problem(node.line, key, text)])
    address = _word(node, key)
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and parts.hostname is not None
    except ValueError:
        is_address = False
    if not is_address:
        raise unlike(node, key, "the address of a tracking server such as http://127.0.0.1:5000")
    return address


def _exam_tensorflow(node: Node, key: str) -> str:
    found: dict[str, str] = read_fields(node, key, {"tensorflow": _version}, ("tensorflow",))
    return found["tensorflow"]


def _version(node: Node, key: str) -> str:
    # Its text, for as a number 2.10 would be 2.1.
    if isinstance(node, Scalar) and re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)?", node.text):
        return node.text
    raise unlike(node, key, "a version of TensorFlow such as 2.5")


def _remote(name: str, node: Node, key: str, base: Remote | None) -> Remote:
    readers: dict[str, Reader] = {
        "host": _word,
        "hosts": _hosts,
        "drained": _hosts,
        "user": _word,
        "port": _port,
        "key": _line,
        "gpus": _gpus_or_auto,
        "price": partial(_price, base=base.price if base else None),
        "env": partial(_env, base=base.env if base else None),
        "cloud": _cloud,
        "budget": partial(_budget, base=base.budget if base else None),
        "engine": _engine,
        "slurm": partial(_slurm, base=base.slurm if base else None),
        "queued": _queued,
    }
    found = read_fields(node, key, readers)
    _choose_host(node, key, found, base)
    is_slurm = found.pop("engine", "slurm" if base and base.slurm else "ssh") == "slurm"
    if not is_slurm and (lone := {"slurm", "queued"} & found.keys()):
        text = "expected engine: slurm beside it"
        raise Wrong([Problem(node.line, f"{key}.{name}", text) for name in sorted(lone)])
    if is_slurm:
        found.setdefault("slurm", base.slurm if base and base.slurm else Slurm())
    elif base and base.slurm:
        found.update(slurm=None, queued=None)
    remote = replace(base, **found) if base else Remote(name, **found)
    if remote.hosts and (remote.cloud or remote.slurm or remote.budget != Limits()):
        text = "expected no cloud, budget or engine in a pool; its hosts may be remotes with them"
        raise Wrong([Problem(node.line, key, text)])
    return remote


def _choose_host(node: Node, key: str, found: dict[str, Any], base: Remote | None) -> None:
    """A machine has a host, a pool has hosts, and what is said last counts."""
    if "host" in found and "hosts" in found:
        text = "expected host, or hosts of a pool, found both"
        raise Wrong([Problem(node.line, f"{key}.hosts", text)])
    if "hosts" in found:
        found["host"] = ""
    elif "host" in found:
        found.update(hosts=(), drained=())
    elif base is None:
        raise Wrong([Problem(node.line, f"{key}.host", "expected this key, found nothing")])


def _hosts(node: Node, key: str) -> tuple[str, ...]:
    hosts = read_items(node, key, _word)
    if not hosts and key.endswith("hosts"):
        raise Wrong([Problem(node.line, key, "expected at least one host, found none")])
    return hosts


def _job(name: str, node: Node, key: str) -> Job:
    readers: dict[str, Reader] = {
        "command": _line,
        "outputs": _paths,
        "data": _folders,
        "gpus": _gpus,
        "nodes": _nodes,
        "time_limit": _time_limit,
        "metrics": _switch,
        "tensorboard": _switch,
        "restart": _restart,
        "check": _switch,
        "env": partial(_env, base=None),
    }
    found = read_fields(node, key, readers, required=("command", "outputs"))
    if "time_limit" in found:
        found["time_limit_s"] = found.pop("time_limit")
    if "restart" in found:
        found["restarts"] = found.pop("restart")
    job = Job(name, **found)
    if job.tensorboard and not job.metrics:
        # Both are written by the callback that `metrics: off` leaves out.
        text = "expected metrics: on beside tensorboard: on, found metrics: off"
        raise Wrong([Problem(node.line, f"{key}.tensorboard", text)])
    for output in job.outputs:
        for folder in job.data:
            if PurePosixPath(output).is_relative_to(folder):
                text = (
                    "expected outputs outside of the data, which runs share read-only, "
                    f"found {output!r} in {folder!r}"
                )
                raise Wrong([Problem(node.line, f"{key}.outputs", text)])
    return job


def _price(node: Node, key: str, base: Price | None) -> Price:
    readers: dict[str, Reader] = {
        "per_hour": _amount,
        "currency": _currency,
        "disk_per_hour": _amount,
    }
    found = read_fields(node, key, readers, required=() if base else ("per_hour",))
    return replace(base, **found) if base else Price(**found)


def _budget(node: Node, key: str, base: Limits | None) -> Limits:
    found = read_fields(node, key, {"session": _amount, "month": _amount})
    return replace(base or Limits(), **found)


def _month_limit(node: Node, key: str) -> MonthLimit:
    found = read_fields(node, key, {"month": _amount, "currency": _currency}, ("month",))
    return MonthLimit(found["month"], found.get("currency", "USD"))


def _env(node: Node, key: str, base: EnvSpec | None) -> EnvSpec:
    return replace(
        base or EnvSpec(), **read_fields(node, key, {"python": _line, "requirements": _path})
    )


def _cloud(node: Node, key: str) -> CloudSpec:
    # Its keys are the provider's own: all are taken.
    keys = [name.text for name, _ in node.pairs] if isinstance(node, Pairs) else []
    found = read_fields(node, key, dict.fromkeys([*keys, "provider"], _scalar), ("provider",))
    return CloudSpec(found.pop("provider"), tuple(sorted(found.items())))


def _engine(node: Node, key: str) -> str:
    engine = _text_of(node)
    if engine not in _ENGINES:
        raise unlike(node, key, " or ".join(_ENGINES))
    return engine


def _slurm(node: Node, key: str, base: Slurm | None) -> Slurm:
    readers: dict[str, Reader] = {
        "partition": _word,
        "account": _word,
        "qos": _word,
        "gres": _gres,
        "cpus": _cpus,
        "memory": _memory,
        "time": _time_limit,
        "lines": _options,
    }
    found = read_fields(node, key, readers)
    if "time" in found:
        found["time_s"] = found.pop("time")
    return (base or Slurm())._replace(**found)


def _gres(node: Node, key: str) -> str:
    text = _text_of(node)
    if not re.fullmatch(r"[A-Za-z]\w*(:[A-Za-z][\w.-]*)?", text):
        raise unlike(node, key, "a kind of GPU such as gpu:a100; the job says how many")
    return text


def _cpus(node: Node, key: str) -> int:
    return _whole(node, key, "a number of cores, 1 or more", 1, 100_000)


def _memory(node: Node, key: str) -> str:
    text = _text_of(node)
    if not re.fullmatch(r"[1-9][0-9]{0,8}[KMGT]", text):
        raise unlike(node, key, "an amount of memory such as 16G")
    return text


def _options(node: Node, key: str) -> tuple[str, ...]:
    return tuple(read_items(node, key, _option))


def _option(node: Node, key: str) -> str:
    line = _line(node, key)
    if not line.startswith("-"):
        raise unlike(node, key, "an option of sbatch such as --constraint=volta")
    return line


def _scalar(node: Node, key: str) -> str:
    if not isinstance(node, Scalar) or node.kind == "nothing" or not node.text:
        raise unlike(node, key, "a single value")
    return node.text


def _line(node: Node, key: str) -> str:
    """One line of text. A block (`|`, `>`) ends in a line feed that nobody meant."""
    text = _text_of(node).strip(" \n")
    if text and _is_text(node) and text.isprintable():
        return text
    quoted = " in quotes" if _text_of(node) and not _is_text(node) else ""
    raise unlike(node, key, f"one line of text{quoted}")


def _word(node: Node, key: str) -> str:
    word = _line(node, key)
    if not _WORD.fullmatch(word):
        raise unlike(node, key, "one word that does not start with '-'")
    return word


def _whole(node: Node, key: str, expected: str, low: int, high: int) -> int:
    if isinstance(node, Scalar) and node.kind == "number" and _WHOLE.fullmatch(node.text):
        number = int(node.text)
        if low <= number <= high:
            return number
    raise unlike(node, key, expected)


def _port(node: Node, key: str) -> int:
    return _whole(node, key, "a port from 1 to 65535", 1, 65535)


def _gpus(node: Node, key: str) -> int:
    return _whole(node, key, "a number of GPUs, 0 or more", 0, 4096)


def _queued(node: Node, key: str) -> int:
    return _whole(node, key, "a number of runs, 1 or more", 1, 1_000_000)


def _nodes(node: Node, key: str) -> int:
    return _whole(node, key, f"a number of hosts from 1 to {GANG_LIMIT}", 1, GANG_LIMIT)


def _gpus_or_auto(node: Node, key: str) -> int | None:
    if _text_of(node) == "auto":
        return None
    return _whole(node, key, "a number of GPUs, 0 or more, or auto", 0, 4096)


def _amount(node: Node, key: str) -> Decimal:
    """Exact: made of the text, never of a float."""
    if isinstance(node, Scalar) and node.kind == "number" and _AMOUNT.fullmatch(node.text):
        amount = Decimal(node.text)
        if amount > 0:
            return amount
    raise unlike(node, key, "an amount above 0 such as 0.50 (leave an unknown price out)")


def _currency(node: Node, key: str) -> str:
    text = _text_of(node)
    if not re.fullmatch("[A-Z]{3}", text):
        raise unlike(node, key, "a currency of three capitals such as USD")
    return text


def _time_limit(node: Node, key: str) -> float | None:
    text = _text_of(node)
    if text == "none" or (isinstance(node, Scalar) and node.kind == "nothing"):
        return None
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise unlike(node, key, "a duration above 0 such as 40m, 1h30m or 90s, or none")
    return seconds


def _switch(node: Node, key: str) -> bool:
    # YAML 1.1 takes on, yes and true for the same; in quotes they are text.
    text = _text_of(node).lower()
    if text in ("on", "yes", "true"):
        return True
    if text in ("off", "no", "false"):
        return False
    raise unlike(node, key, "on or off")


def _restart(node: Node, key: str) -> int:
    """How often: `never`, `on-interruption`, or `{at_most: 5}` for other than the usual number."""
    if isinstance(node, Pairs):
        restarts: int = read_fields(node, key, {"at_most": _at_most}, ("at_most",))["at_most"]
        return restarts
    word = _text_of(node)
    if word in _RESTART_WORDS:
        return _RESTART_WORDS[word]
    near = nearest(word, _RESTART_WORDS)
    expected = "never, on-interruption or {at_most: 5}" + (f" ({near}?)" if near else "")
    raise unlike(node, key, expected)


def _at_most(node: Node, key: str) -> int:
    expected = f"a number of restarts from 1 to {RESTART_LIMIT}"
    return _whole(node, key, expected, 1, RESTART_LIMIT)


def _path(node: Node, key: str) -> str:
    """A path below the workspace's root, without `.` and doubled or closing slashes."""
    expected = "a path below the workspace with forward slashes, without '..'"
    text = _line(node, key)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise unlike(node, key, expected)
    # A drive or a home would be one on the other machine only, or on none.
    if "\\" in text or re.match("[A-Za-z]:", text) or text.startswith("~"):
        raise unlike(node, key, expected)
    return str(path)


def _paths(node: Node, key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(read_items(node, key, _path)))


def _folders(node: Node, key: str) -> tuple[str, ...]:
    folders = _paths(node, key)
    for folder in folders:
        if _GLOB & set(folder):
            raise unlike(node, key, f"folders by name, not by a pattern such as {folder!r}")
    for outer, inner in permutations(folders, 2):
        if PurePosixPath(inner).is_relative_to(outer):
            raise unlike(node, key, f"folders apart from each other ({inner!r} is in {outer!r})")
    return folders


def _text_of(node: Node) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _is_text(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind == "text"
