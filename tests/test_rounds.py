"""Machines looked at side by side."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from orchestrator.connection.hostkeys import Asker
from orchestrator.errors import ConnectError
from orchestrator.screen.tell import Silence
from orchestrator.vm.rounds import side_by_side

LIMIT_S = 60.0


class Person:
    """Trusts every machine but one, and has to be asked one question at a time."""

    def __init__(self, stranger: str) -> None:
        self._stranger = stranger
        self.asked: list[tuple[str, threading.Thread]] = []

    def trust(self, host: str, key_type: str, fingerprint: str) -> bool:
        self.asked.append((host, threading.current_thread()))
        return host != self._stranger

    def passphrase(self, key: str) -> str | None:
        return f"of {key}"


def test_all_are_looked_at_at_once_and_told_in_their_order() -> None:
    meeting = threading.Barrier(3, timeout=LIMIT_S)
    last_is_done = threading.Event()

    def look(name: str, asker: Asker | None) -> str:
        assert asker is None
        meeting.wait()
        if name == "c":
            last_is_done.set()
        assert last_is_done.wait(LIMIT_S)
        return name.upper()

    looks = {name: partial(look, name) for name in "abc"}
    assert list(side_by_side(looks, None, Silence())) == [("a", "A"), ("b", "B"), ("c", "C")]


def test_questions_are_asked_by_who_takes_the_results() -> None:
    person = Person(stranger="b")

    def look(name: str, asker: Asker | None) -> tuple[bool, str | None]:
        assert asker is not None
        assert threading.current_thread() is not threading.main_thread()
        return asker.trust(name, "ssh-ed25519", "SHA256:x"), asker.passphrase(name)

    looks = {name: partial(look, name) for name in "ab"}
    found = dict(side_by_side(looks, person, Silence()))
    assert found == {"a": (True, "of a"), "b": (False, "of b")}
    assert sorted(name for name, _ in person.asked) == ["a", "b"]
    assert {thread for _, thread in person.asked} == {threading.main_thread()}


def test_what_one_raises_is_raised_in_its_place() -> None:
    def look(name: str, asker: Asker | None) -> str:
        if name == "b":
            raise ConnectError("gone")
        return name

    told = side_by_side({name: partial(look, name) for name in "abc"}, None, Silence())
    assert next(told) == ("a", "a")
    with pytest.raises(ConnectError, match="gone"):
        next(told)
