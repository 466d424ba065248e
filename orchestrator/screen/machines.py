"""Remotes and what was found on them, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.costs.cost import format_money
from orchestrator.screen.table import Cell, Table
from orchestrator.size import format_size
from remote import record

if TYPE_CHECKING:
    from orchestrator.settings.spec import Remote
    from orchestrator.vm.check import Check
    from orchestrator.vm.machines import Change
    from remote.protocol import Heap

Json = dict[str, Any]


def remotes_table(remotes: Iterable[Remote]) -> Table:
    made = Table("remote", "reached at", ">per hour", "gpus", "~python")
    for remote in remotes:
        # What a pool does not say, each of its hosts may say for itself.
        price, gpus, python = ("", "", "") if remote.hosts else ("unknown", "auto", remote.python)
        if remote.price is not None:
            price = format_money(remote.price.per_hour, remote.price.currency)
            price += " a GPU" if remote.slurm else ""
        if remote.gpus is not None:
            gpus = str(remote.gpus)
        made.add_row(remote.name, _place(remote), price, gpus, remote.env.python or python)
    return made


def _place(remote: Remote) -> str:
    if remote.hosts:
        out = f"; drained: {', '.join(remote.drained)}" if remote.drained else ""
        return f"a pool of {len(remote.hosts)}{out}"
    user = f"{remote.user}@" if remote.user else ""
    return f"{user}{remote.host}" + (f":{remote.port}" if remote.port else "")


def remote_json(remote: Remote) -> Json:
    price = remote.price
    return {
        "name": remote.name,
        "host": remote.host or None,
        "hosts": list(remote.hosts),
        "drained": list(remote.drained),
        "user": remote.user,
        "port": remote.port,
        "key": remote.key,
        "gpus": remote.gpus,
        "price_per_hour": str(price.per_hour) if price else None,
        "currency": price.currency if price else None,
        "python": remote.python,
        "requirements": remote.env.requirements,
        "engine": "ssh" if remote.slurm is None else "slurm",
    }


def change_text(change: Change) -> str:
    """What is new of a remote, and its host key where it was greeted."""
    old, new = remote_json(change.old), remote_json(change.new)
    told = "; ".join(
        f"{key.replace('_', ' ')} {_said(key, old[key])} -> {_said(key, new[key])}"
        for key in new
        if new[key] != old[key]
    )
    if change.host_key is not None:
        kind, fingerprint = change.host_key
        told = f"{told or 'as it was'}; its {kind} host key is {fingerprint}"
    return f"{change.new.name}: {told or 'as it was'}"


def _said(key: str, value: object) -> str:
    absent = {"gpus": "auto", "price_per_hour": "unknown"}.get(key, "nothing")
    told = ", ".join(value) if isinstance(value, list) else value
    return absent if told in (None, "") else str(told)


def checks_table(checks: Iterable[Check]) -> Table:
    made = Table("check", "", "~found", "~fix")
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        mark = check.mark.value
        made.add_row(check.name, Cell(mark, styles[mark]), check.found, check.fix)
    return made


def check_json(check: Check) -> Json:
    return {
        "check": check.name,
        "mark": check.mark.value,
        "found": check.found,
        "fix": check.fix,
    }


def heaps_table(heaps: Iterable[Heap], *, dropped: bool) -> Table:
    gone = "dropped" if dropped else "may go"
    made = Table("in the store", ">count", ">size", f">{gone}", f">{gone}, size")
    for heap in heaps:
        made.add_row(
            heap.kind,
            str(heap.count),
            format_size(heap.size_bytes),
            str(heap.droppable),
            format_size(heap.droppable_bytes),
        )
    return made


def heap_json(heap: Heap) -> Json:
    return record.encode(heap)
