"""Machines looked at side by side, told one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from orchestrator.connection.hostkeys import Asker
from orchestrator.screen.tell import Teller

Found = TypeVar("Found")
Answer = TypeVar("Answer")

# Each takes a thread or two, and its connection's memory; one that does not answer keeps few others
# waiting.
_AT_ONCE = 32


def side_by_side(
    looks: Mapping[str, Callable[[Asker | None], Found]], asker: Asker | None, tell: Teller
) -> Iterator[tuple[str, Found]]:
    """What each look finds, in their order, each as soon as it and those before it are done.

    What a look wants to know of the user is asked here, between two results: so there is one
    question at a time, nothing is printed into it, and Ctrl-C ends it.

    Args:
        looks: by the machine's name; each is called in a thread, with who answers its questions.

    Raises:
        Exception: what a look raised, in its place; the others are not waited for.
    """
    inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
    relay = None if asker is None else _Relay(asker, inbox)
    done: dict[str, Future[Found]] = {}
    names = iter(looks)

    def work() -> None:
        for name in names:  # from a dictionary it gives each name to one thread
            found: Future[Found] = Future()
            try:
                found.set_result(looks[name](relay))
            except Exception as error:  # noqa: BLE001  # raised where it is waited for
                found.set_exception(error)
            inbox.put(partial(done.__setitem__, name, found))

    for _ in range(min(_AT_ONCE, len(looks))):
        threading.Thread(target=work, daemon=True).start()
    for name in looks:
        while name not in done:
            tell.doing(f"asking {', '.join(other for other in looks if other not in done)}")
            inbox.get()()
        yield name, done[name].result()


class _Relay:
    """Hands the questions of threads to who takes their results."""

    def __init__(self, asker: Asker, inbox: SimpleQueue[Callable[[], None]]) -> None:
        self._asker = asker
        self._inbox = inbox

    def trust(self, host: str, key_type: str, fingerprint: str) -> bool:
        return self._pose(lambda: self._asker.trust(host, key_type, fingerprint))

    def passphrase(self, key: str) -> str | None:
        return self._pose(lambda: self._asker.passphrase(key))

    def _pose(self, question: Callable[[], Answer]) -> Answer:
        answer: Future[Answer] = Future()
        self._inbox.put(lambda: answer.set_result(question()))
        return answer.result()
