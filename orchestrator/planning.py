"""Which runs a command is about: those of a command that was cut off, else new ones, recorded
before anything is sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.filelock import alone
from orchestrator.ledger import Ledger, RunFact
from orchestrator.mirror import LOST, Mirror, Mirrors, readable
from orchestrator.plan import Order, make_request, make_run_id, same_work
from orchestrator.rebuild import keep_beside
from orchestrator.snapshot import Snapshot
from orchestrator.spec import Job, Price, Remote
from orchestrator.tell import Teller
from remote.runfolder import RunRequest


class Planning:
    """What one command is about."""

    def __init__(self, lock: Path, mirrors: Mirrors, ledger: Ledger, tell: Teller) -> None:
        self._lock = lock
        self._mirrors = mirrors
        self._ledger = ledger
        self._tell = tell
        self._resumed: set[str] = set()
        self._unsent: set[str] = set()
        self._token = secrets.token_hex(8)

    def note_unsent(self, mirrors: Iterable[Mirror]) -> None:
        """For certain this command started none of these. Those of which no VM can have heard when
        they were planned, and which no other command took on since, may be forgotten without asking
        a VM.
        """
        with alone(self._lock):
            for mirror in mirrors:
                if mirror.run_id in self._unsent and mirror.is_taken_on_by(self._token):
                    mirror.note_unsent()

    def may_be_sent(self, mirrors: Iterable[Mirror]) -> None:
        """From now on nobody knows whether a VM has heard of these."""
        self._unsent.clear()
        for mirror in mirrors:
            mirror.forget_unsent()

    def plan_runs(self, order: Order, snapshot: Snapshot) -> tuple[Mirror, ...]:
        """A run for each job: the one of a command that was interrupted before it gave its result,
        if it asked for the same work; else a new one.
        """
        # Two commands at once would each make one.
        with alone(self._lock):
            known = readable(self._mirrors.unsettled(), self._tell)
            return tuple(self._plan_run(job, order, snapshot, known) for job in order.jobs)

    def _plan_run(
        self, job: Job, order: Order, snapshot: Snapshot, known: Iterable[Mirror]
    ) -> Mirror:
        request = make_request(job, order.remote, snapshot, order.overrides)
        mirror = self._unfinished(request, order.remote, known)
        if mirror is None:
            run_id = make_run_id(job.name, datetime.now(UTC), secrets.token_hex(2))
            mirror = self._mirrors.make(request._replace(run_id=run_id))
            self._unsent.add(run_id)
        elif mirror.run_id not in self._resumed:
            self._resumed.add(mirror.run_id)
            if mirror.unsent:
                mirror.forget_unsent()
                self._unsent.add(mirror.run_id)
            self._tell.step(f"going on with {mirror.run_id}")
        mirror.take_on(self._token)
        if self._ledger.run(mirror.run_id) is None:
            fact = self._run_fact(mirror, order)
            keep_beside(fact, mirror, self._ledger.path)
            self._ledger.add(fact)
        return mirror

    def _unfinished(
        self, request: RunRequest, remote: Remote, known: Iterable[Mirror]
    ) -> Mirror | None:
        for mirror in known:
            if (
                same_work(mirror.request, request)
                and not mirror.settled
                and mirror.verdict != LOST
                and self._ledger.remote_of(mirror.run_id) in ("", remote.name)
            ):
                return mirror
        return None

    def _price(self, remote: Remote) -> tuple[Price | None, str]:
        """The user's, else the one that the machine's paid time began with; and whose it is."""
        if remote.price is not None:
            return remote.price, "config"
        ended = {end.stint_id for end in self._ledger.stint_ends(remote.name)}
        for stint in reversed(self._ledger.stints(remote.name)):
            if stint.id not in ended and stint.price_per_hour is not None:
                return Price(stint.price_per_hour, stint.currency), stint.price_source
        return None, ""

    def _run_fact(self, mirror: Mirror, order: Order) -> RunFact:
        request = mirror.request
        price, source = self._price(order.remote)
        session = next(reversed(self._ledger.open_sessions(order.remote.name)), None)
        return RunFact(
            run_id=mirror.run_id,
            workspace=str(order.workspace.root),
            category=request.job,
            remote=order.remote.name,
            snapshot=request.tree,
            command=request.command,
            submitted_at=datetime.now(UTC),
            price_per_hour=price.per_hour if price else None,
            currency=price.currency if price else "",
            price_source=source,
            params=tuple(sorted(request.params.items())),
            session_id=session.id if session else None,
        )
