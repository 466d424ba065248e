"""A machine's paid time in the ledger: what each sight of it adds, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from orchestrator.billing import Before, Change, Moment, Sight, Stint, Work, reconcile
from orchestrator.ledger import Ledger, Sighting, StintEnd, StintFact
from orchestrator.ledgerschema import written
from orchestrator.power import Power, Provenance, Quote, Tariff
from orchestrator.spec import Remote

_WORKS = """
SELECT run_id, state, at FROM run_event JOIN run USING (run_id)
WHERE remote = ? AND at >= ? AND state <> 'queued' ORDER BY run_event.rowid
"""


class Account:
    """The stints of one remote.

    Every method raises `LedgerError`. Two commands that see a machine at once open one stint.
    """

    def __init__(self, ledger: Ledger, remote: Remote, tariff: Tariff) -> None:
        self._ledger = ledger
        self._remote = remote
        self._tariff = tariff

    def see(self, sight: Sight, quote: Callable[[], Quote | None]) -> Change:
        """Record what was seen, and what follows for the paid time.

        Args:
            quote: the price from now on; asked only where a stint begins. It may take a while, so
                nobody else waits for it.
        """
        price = quote() if self._change(sight).start is not None else None
        with self._ledger.at_once(writing=True):
            change = self._change(sight)
            stint = self._open()
            if stint is not None and change.end is not None:
                self._ledger.add(_end_of(stint, change.end))
            if change.start is not None:
                self._ledger.add(self._begun(change.start, price))
            name = self._remote.name
            self._ledger.add(
                Sighting(name, sight.at, sight.power, sight.source, sight.boot, sight.reason)
            )
        return change

    def close(self, end: Moment) -> None:
        """End the stint that is open, if one is: from now on nobody counts it."""
        with self._ledger.at_once(writing=True):
            stint = self._open()
            if stint is not None:
                self._ledger.add(_end_of(stint, end))

    def _change(self, sight: Sight) -> Change:
        return reconcile(self._before(), sight, self._tariff)

    def _before(self) -> Before:
        stint = self._open()
        ends = self._ledger.stint_ends(self._remote.name)
        seen = self._ledger.last_sighting(self._remote.name, *sorted(self._tariff.billed))
        return Before(
            opened_at=stint.started_at if stint else None,
            closed_at=ends[-1].ended_at if ends else None,
            seen_on_at=seen.at if seen else None,
            boot=self._boot(),
        )

    def _boot(self) -> str:
        """Of its last sight that told one: the cloud tells none."""
        found = self._ledger.query(
            "SELECT boot FROM sighting WHERE remote = ? AND boot <> '' ORDER BY at DESC LIMIT 1",
            self._remote.name,
        )
        return str(found[0][0]) if found else ""

    def _open(self) -> StintFact | None:
        closed = {end.stint_id for end in self._ledger.stint_ends(self._remote.name)}
        stints = self._ledger.stints(self._remote.name)
        return next((stint for stint in reversed(stints) if stint.id not in closed), None)

    def _begun(self, start: Moment, price: Quote | None) -> StintFact:
        return StintFact(
            id=f"{self._remote.name} {written(start.at)}",
            remote=self._remote.name,
            started_at=start.at,
            provenance=start.source,
            price_per_hour=price.per_hour if price else None,
            currency=price.currency if price else "",
            price_source=price.source if price else "",
            region=price.region if price else "",
            spot=price.spot if price else False,
            fetched_at=price.fetched_at if price else None,
            disk_per_hour=price.disk_per_hour if price else None,
            minimum_s=self._tariff.minimum_s,
            step_s=self._tariff.step_s,
        )


def _end_of(stint: StintFact, end: Moment) -> StintEnd:
    return StintEnd(stint.id, max(stint.started_at, end.at), end.source, end.reason)


def stints(ledger: Ledger, remote: str | None, now: datetime) -> tuple[Stint, ...]:
    """All that were counted, by their start; one that goes on lasts until now, as far as known.

    One whose machine was last found off, since nobody knows when, lasts until it was last seen on.
    """
    ends = {end.stint_id: end for end in ledger.stint_ends(remote)}
    return tuple(_stint(ledger, fact, ends.get(fact.id), now) for fact in ledger.stints(remote))


def _stint(ledger: Ledger, fact: StintFact, end: StintEnd | None, now: datetime) -> Stint:
    guessed = fact.provenance is Provenance.ESTIMATED
    if end is not None:
        until, goes_on = end.ended_at, False
        guessed = guessed or end.provenance is Provenance.ESTIMATED
    else:
        last = ledger.last_sighting(fact.remote)
        goes_on = last is None or not Power(last.power).is_down
        until = now if goes_on else _last_on(ledger, fact)
        guessed = True
    return Stint(
        remote=fact.remote,
        started_at=fact.started_at,
        ended_at=max(until, fact.started_at),
        is_estimated=guessed,
        goes_on=goes_on,
        per_hour=fact.price_per_hour,
        currency=fact.currency,
        minimum_s=fact.minimum_s,
        step_s=fact.step_s,
    )


def _last_on(ledger: Ledger, fact: StintFact) -> datetime:
    on = sorted(power for power in Power if not power.is_down and power is not Power.UNKNOWN)
    seen = ledger.last_sighting(fact.remote, *on)
    return seen.at if seen else fact.started_at


def works(ledger: Ledger, remote: str, since: datetime, now: datetime) -> tuple[Work, ...]:
    """What runs did on a machine since then: when each set up and trained."""
    moments: dict[str, dict[str, datetime]] = {}
    for run_id, state, at in ledger.query(_WORKS, remote, written(since)):
        moments.setdefault(run_id, {})[state] = datetime.fromisoformat(at)
    return tuple(work for at in moments.values() for work in _work(at, now))


def _work(at: dict[str, datetime], now: datetime) -> Iterable[Work]:
    running = at.pop("running", None)
    begun = at.pop("setting-up", running)
    if begun is None:
        return
    end = max(min(at.values(), default=now), begun)
    if running is None:
        yield Work((begun, end), None)
    else:
        running = min(max(running, begun), end)
        yield Work((begun, running), (running, end))
