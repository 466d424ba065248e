"""A machine's guard is let go: read first, for what it noted goes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.costs.payments import Payments
from orchestrator.costs.sessions import Session
from orchestrator.errors import ConnectError, ConnectionLost, Refused
from orchestrator.screen.tell import Teller
from orchestrator.vm.link import Link
from remote.protocol import Done, LetGo


@contextmanager
def release(
    open_link: Callable[[], Link], payments: Payments, session: Session, tell: Teller
) -> Iterator[Callable[[], None]]:
    """What lets the guard of a session go, over a line that is open by then.

    The machine that is about to stop may answer no new one; and before the cloud has taken the
    order to stop it, the guard is all that would. What stands in the way is warned of.
    """

    def warn(error: object) -> None:
        tell.warn(
            f"{session.remote} could not be told that the session is over ({error}); started "
            "again, it may stop itself by this session's terms"
        )

    try:
        link = open_link()
    except (ConnectError, ConnectionLost, Refused) as error:
        reason = error  # `error` ends with this block
        yield lambda: warn(reason)
        return
    with link:
        payments.by_login(link.hello, link.clock_off_s)

        def let_go() -> None:
            try:
                link.call(LetGo(session.id), Done)
            except (ConnectionLost, Refused) as error:
                warn(error)

        yield let_go
