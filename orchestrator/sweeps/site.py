"""Where the trials of a sweep are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from orchestrator.errors import TrainshedError
from orchestrator.plan import Order
from orchestrator.records.mirror import Mirror
from orchestrator.settings.spec import Remote


class Site(Protocol):
    """One machine, or a pool. What it began goes on when it is left.

    Each method may raise `ConnectionLost`, after minutes without an answer: the next command with
    the same study goes on.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def machines(self) -> tuple[Remote, ...]:
        """Where one more trial may begin by now."""

    def reaches(self, remote: str) -> bool:
        """Whether what goes on on the remote of this name can be seen to from here."""

    def obstacle(self, going: int) -> TrainshedError | None:
        """What is in the way of one more trial; None for nothing.

        Args:
            going: how many would go on then.
        """

    def keep_going(self, wanted: Mapping[str, Order]) -> None:
        """Have these runs begin where they have not, and go on elsewhere where they are to.

        Args:
            wanted: by the id of the first run of each, which is written down; all that are to go
                on, in the order in which they are to begin.
        """

    def look(self, runs: Sequence[Mirror]) -> None:
        """Learn what is new of these, and wait a moment for something."""

    def has_ended(self, run: Mirror, *, may_move: bool) -> bool:
        """Whether it has, and all that it told is here.

        Args:
            may_move: whether another run may do its work; then one that ended for that has not.
        """

    def end(self, run: Mirror) -> None:
        """Ask it to end, as soon as it can be asked: to be repeated until it has ended."""

    def take_home(self, run: Mirror) -> None:
        """Pull what it made."""
