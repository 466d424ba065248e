"""What a run wrote, shown: the laptop's copy, and what the VM has beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.errors import TrainshedError
from orchestrator.records.mirror import Mirror
from orchestrator.screen.console import Console
from orchestrator.screen.logview import last_lines
from orchestrator.size import format_size
from remote.protocol import CHUNK_BYTES

if TYPE_CHECKING:
    from orchestrator.vm.link import Link


def show_copy(mirror: Mirror, console: Console, tail: int | None) -> None:
    """Args:
    tail: only so many lines, the last ones; None for all.
    """
    if mirror.log.exists():
        job = mirror.request.label
        with mirror.log.open("rb") as copy:
            copy.seek(0 if tail is None else last_lines(copy, tail))
            while block := copy.read(CHUNK_BYTES):
                console.log(job, block)


def show_end(connect: Callable[[], Link], mirror: Mirror, console: Console, tail: int) -> None:
    """The last lines of what the VM has, of which nothing is kept."""
    from orchestrator.vm.follow import END_LIMIT_BYTES, read_end

    try:
        with connect() as link:
            end, is_cut = read_end(link, mirror, tail)
    except TrainshedError as error:
        show_copy(mirror, console, tail)
        console.warn(f"this is the laptop's copy: {error}")
        return
    console.log(mirror.request.label, end)
    if is_cut:
        console.warn(
            f"only the last {format_size(END_LIMIT_BYTES)} were looked at, and {tail} lines are "
            f"more; for all: train logs {mirror.run_id}"
        )


def show_all(
    connect: Callable[[], Link], look: Callable[[Link], None], mirror: Mirror, console: Console
) -> None:
    """Args:
    look: tells what the VM has beyond the copy, and keeps it.
    """
    show_copy(mirror, console, None)
    try:
        with connect() as link:
            look(link)
    except TrainshedError as error:
        console.warn(f"this is the laptop's copy: {error}")
