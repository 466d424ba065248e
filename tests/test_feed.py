"""One connection to a remote keeps its mirrors fresh, over cut lines, and only while it must."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.errors import HostKeyUnknown
from orchestrator.records.curves import Epoch
from orchestrator.records.mirror import Mirror
from orchestrator.vm.link import Link
from orchestrator.watch import feed as feed_module
from orchestrator.watch.feed import Feed
from remote.protocol import CHUNK_BYTES, Cancel, Done, News, Watch
from remote.record import to_bytes
from tests.servers import Relay, SshServer
from tests.vm import Vm, practice, wait_until

PACE_S = 0.05


@pytest.fixture
def vm(embedded_server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(embedded_server, tmp_path) as vm:
        yield vm


@pytest.fixture
def counting(vm: Vm) -> Iterator[Mirror]:
    """A run that tells a line and an epoch until it is cancelled."""
    line = Epoch(0, {"loss": 1.0}, 1, 9, "2026-01-01T12:00:00Z", 1.0)
    epoch = to_bytes(line).decode().strip()
    link = vm.connect()
    loop = f"while :; do echo a line; echo '{epoch}' >> ../metrics.jsonl; sleep 0.05; done"
    mirror = vm.start(link, loop, grace_s=0.1)
    yield mirror
    again = vm.connect()
    again.call(Cancel(mirror.run_id), Done)
    vm.finish(again, mirror)


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def test_log_metrics_and_use_come_while_the_run_goes_on(vm: Vm, counting: Mirror) -> None:
    with Feed("vm", vm.connect, PACE_S) as feed:
        feed.follow([counting])
        for file in (counting.log, counting.metrics, counting.usage):
            wait_until(partial(size, file), file.name)
        before = size(counting.log)
        wait_until(lambda: size(counting.log) > before, "more of the log")

        view = feed.view()
        assert view is not None
        assert view.text == "vm: connected"


def test_all_looks_go_over_one_connection_until_there_is_nothing_to_look_at(
    vm: Vm, counting: Mirror
) -> None:
    links: list[Link] = []
    others = len(vm.pids("import sys;"))

    def connect() -> Link:
        links.append(vm.connect())
        return links[-1]

    with Feed("vm", connect, PACE_S) as feed:
        assert not links
        feed.follow([counting])
        wait_until(lambda: size(counting.log), "the log")
        feed.follow([])
        assert feed.view() is None
        wait_until(lambda: len(vm.pids("import sys;")) == others, "its agent has gone")
        before = size(counting.log)
        feed.follow([counting])
        wait_until(lambda: size(counting.log) > before, "more of the log")

    assert len(links) == 2


def test_a_cut_line_is_told_and_found_again(
    vm: Vm, counting: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_DELAYS_S", (2.0,))
    with (
        Relay(vm.server.port) as relay,
        Feed("vm", partial(vm.connect, port=relay.port), PACE_S) as feed,
    ):
        feed.follow([counting])
        wait_until(lambda: size(counting.log), "the log")
        relay.cut()
        wait_until(lambda: (view := feed.view()) and view.trouble, "the trouble")

        view = feed.view()
        assert view is not None
        assert "what is shown is" in view.text
        before = size(counting.log)
        wait_until(lambda: (view := feed.view()) and view.is_fresh, "it is fresh again")
        wait_until(lambda: size(counting.log) > before, "more of the log")


def test_a_long_log_is_heard_while_it_comes(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    link = vm.connect()
    mirror = vm.start(link, f"head -c {4 * CHUNK_BYTES} /dev/zero")
    vm.finish(link, mirror)
    mirror.log.unlink()
    heard_at: list[float | None] = []
    call_for_body = Link.call_for_body

    def slowly(link: Link, call: object, answer: type[News], body: bytes = b"") -> object:
        found = call_for_body(link, call, answer, body)
        if isinstance(call, Watch) and found[1]:
            time.sleep(0.2)
            view = feed.view()
            assert view is not None
            heard_at.append(None if view.heard_s is None else time.monotonic() - view.heard_s)
        return found

    monkeypatch.setattr(Link, "call_for_body", slowly)
    with Feed("vm", vm.connect, PACE_S) as feed:
        feed.follow([mirror])
        wait_until(lambda: size(mirror.log) == 4 * CHUNK_BYTES, "all of the log")
        feed.follow([])
    # Nothing before the first piece, and ever since the piece before.
    first, *others = heard_at
    assert first is None
    assert len(others) >= 3
    pairs = pairwise(others)
    assert all(before is not None and at is not None and at > before + 0.1 for before, at in pairs)


def test_a_machine_that_needs_a_person_is_not_asked_again_and_again(
    vm: Vm, counting: Mirror
) -> None:
    asked = []

    def refuse() -> Link:
        asked.append(1)
        raise HostKeyUnknown("vm is not known", fix="train doctor vm")

    with Feed("vm", refuse, PACE_S) as feed:
        feed.follow([counting])
        wait_until(lambda: (view := feed.view()) and view.trouble, "the trouble")

        view = feed.view()
        assert view is not None
        assert view.trouble == "vm is not known; train doctor vm"
        assert view.retry_s > 200
    assert len(asked) == 1


def test_a_run_that_begins_does_not_wait_for_a_person_who_has_been_there(
    vm: Vm, counting: Mirror
) -> None:
    refusals = [HostKeyUnknown("vm is not known")]

    def connect() -> Link:
        if refusals:
            raise refusals.pop()
        return vm.connect()

    with Feed("vm", connect, PACE_S) as feed:
        feed.follow([counting])
        wait_until(lambda: (view := feed.view()) and view.trouble, "the trouble")
        feed.follow([])
        feed.follow([counting])
        wait_until(lambda: (view := feed.view()) and view.is_fresh, "it is fresh")


def test_closing_does_not_wait_for_a_line_that_is_dead(vm: Vm, counting: Mirror) -> None:
    with Relay(vm.server.port) as relay:
        with Feed("vm", partial(vm.connect, port=relay.port), PACE_S) as feed:
            feed.follow([counting])
            wait_until(lambda: size(counting.log), "the log")
            relay.freeze()
            # So that it waits for an answer by now.
            wait_until(lambda: (view := feed.view()) and (view.heard_s or 0) > 0.5, "it is stuck")
        assert not feed.is_at_work


def test_a_bug_in_the_thread_is_raised_where_the_view_is_asked_for(
    vm: Vm, counting: Mirror
) -> None:
    def broken() -> Link:
        raise ZeroDivisionError

    with Feed("vm", broken, PACE_S) as feed:
        feed.follow([counting])
        wait_until(lambda: not feed.is_at_work, "it has ended")
        with pytest.raises(ZeroDivisionError):
            feed.view()
