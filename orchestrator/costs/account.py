"""A machine's paid time in the ledger: what each sight of it adds, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from orchestrator.clouds.power import Power, Provenance, Quote, Tariff
from orchestrator.costs.billing import Before, Boot, Change, Moment, Sight, Stint, Work, reconcile
from orchestrator.costs.cost import Span, run_usage
from orchestrator.records.ledger import Ledger, Sighting, StintEnd, StintFact
from orchestrator.records.ledgerschema import written
from orchestrator.settings.spec import Remote
from remote.runfolder import State

_WORKS = """
SELECT run_id, state, at FROM run_event JOIN run USING (run_id)
WHERE remote = ? AND at >= ? AND state <> 'queued' ORDER BY run_event.rowid
"""

# What was seen of a machine while it can have been on.
_SIGHTS = """
SELECT at, power FROM sighting
WHERE remote = ? AND at > ? AND at <= ? AND power <> 'unknown' ORDER BY rowid
"""
# By the machine's uptime when it was last met in a boot, and when that was.
_MET = "SELECT max(booted_at), max(at) FROM sighting WHERE remote = ? AND boot = ? AND boot <> ''"
# The terms that its guard was last given by then.
_TERMS = """
SELECT started_at, budget, idle_s, ends_at
FROM session JOIN session_terms ON session.id = session_id
WHERE remote = ? AND started_at <= ? ORDER BY started_at DESC LIMIT 1
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
        price = quote() if self._begins(sight) else None
        name = self._remote.name
        with self._ledger.at_once(writing=True):
            lost, stint = self._lost(), self._open()
            change = self._change(sight)
            for (gone, _), found in zip(lost, change.found or (None,) * len(lost), strict=True):
                if found is not None:
                    self._ledger.add(_end_of(gone, found))
            if stint is not None and change.missed is not None:
                missed = self._begun(change.missed, price)
                self._ledger.add(missed, StintEnd(missed.id, stint.started_at, stint.provenance))
            if stint is not None and change.end is not None:
                self._ledger.add(_end_of(stint, change.end))
            if change.start is not None:
                begun = self._begun(change.start, price)
                if change.over is not None and change.over.at == change.start.at:
                    # Only that it went off again is known; a minimum would be a guess.
                    begun = replace(begun, minimum_s=0.0)
                self._ledger.add(begun)
                if change.over is not None:
                    self._ledger.add(_end_of(begun, change.over))
            for start, end in change.unseen:
                unseen = self._begun(start, price)
                self._ledger.add(unseen, _end_of(unseen, end))
            self._ledger.add(
                Sighting(
                    name,
                    self._free(sight),
                    sight.power,
                    sight.source,
                    sight.boot,
                    sight.reason,
                    sight.started_at if sight.boot else None,
                )
            )
        return change

    def close(self, end: Moment) -> None:
        """End the stint that is open, if one is: from now on nobody counts it."""
        with self._ledger.at_once(writing=True):
            stint = self._open()
            if stint is not None:
                self._ledger.add(_end_of(stint, end))

    def price(self, at: datetime, quote: Quote) -> None:
        """From now on, where what is open costs nobody knew what; what was before stays unknown."""
        with self._ledger.at_once(writing=True):
            stint = self._open()
            if stint is None or stint.price_per_hour is not None or stint.started_at >= at:
                return
            now = Moment(at, Provenance.VM)
            self._ledger.add(_end_of(stint, now), replace(self._begun(now, quote), minimum_s=0.0))

    @property
    def is_unpriced(self) -> bool:
        """Whether a stint is open of which nobody knew the price."""
        stint = self._ledger.last_stint(self._remote.name)
        return stint is not None and stint.price_per_hour is None and self._open() is not None

    def _begins(self, sight: Sight) -> bool:
        change = self._change(sight)
        return change.start is not None or change.missed is not None or bool(change.unseen)

    def _change(self, sight: Sight) -> Change:
        sight = replace(sight, boots=tuple(self._trued(sight)))
        return reconcile(self._before(sight), sight, self._tariff)

    def _trued(self, sight: Sight) -> Iterator[Boot]:
        """Its boots before this one, as far as their times can be."""
        shift = timedelta()
        name = self._remote.name
        meetings = [self._ledger.query(_MET, name, boot.id)[0] for boot in sight.boots]
        last_met = max((n for n, (at, _) in enumerate(meetings) if at is not None), default=-1)
        for number, (boot, (booted_at, seen_at)) in enumerate(
            zip(sight.boots, meetings, strict=True)
        ):
            boot = replace(boot, is_told=number < last_met)
            if booted_at is not None:
                met = boot.met(*map(datetime.fromisoformat, (booted_at, seen_at)))
                shift = met.started_at - boot.started_at
                yield met
            else:
                yield boot.moved(shift)

    def _before(self, sight: Sight) -> Before:
        lost, stint = self._lost(), self._open()
        began_at = sight.started_at or sight.at
        billed = sorted(self._tariff.billed)
        seen = self._ledger.last_sighting(self._remote.name, *billed, until=began_at)
        last = self._ledger.last_sighting(self._remote.name)
        lease_ends_at = None
        if stint is not None:
            seen_on_at = self._seen_on(stint, sight.at)
            lease_ends_at = _lease_end(self._ledger, stint, seen_on_at)
        return Before(
            opened_at=stint.started_at if stint else None,
            is_guess=stint is not None and stint.provenance is Provenance.ESTIMATED,
            lost=tuple(
                (gone.started_at, self._seen_on(gone, next_at), next_at) for gone, next_at in lost
            ),
            closed=tuple(self._closed()),
            seen_at=last.at if last else None,
            seen_on_at=seen.at if seen else None,
            seen_off_at=last.at if last and Power(last.power).is_down else None,
            seen_starting_at=last.at if last and last.power == Power.STARTING else None,
            lease_ends_at=lease_ends_at,
            was_halted=last is not None and last.power == Power.STOPPED_BILLED,
            boot=self._boot(),
        )

    def _seen_on(self, gone: StintFact, before: datetime) -> datetime:
        """Last; what was seen as the next one began is that one."""
        until = before - timedelta(microseconds=1)
        seen = self._ledger.last_sighting(gone.remote, *sorted(self._tariff.billed), until=until)
        return gone.started_at if seen is None else max(gone.started_at, seen.at)

    def _boot(self) -> str:
        """Of its last sight that told one: the cloud tells none."""
        found = self._ledger.query(
            "SELECT boot FROM sighting WHERE remote = ? AND boot <> '' ORDER BY rowid DESC LIMIT 1",
            self._remote.name,
        )
        return str(found[0][0]) if found else ""

    def _open(self) -> StintFact | None:
        """The last one, if it has no end."""
        stint = self._ledger.last_stint(self._remote.name)
        return None if stint is None or stint.id in self._ends() else stint

    def _lost(self) -> list[tuple[StintFact, datetime]]:
        """Those without an end that another follows, and when that began."""
        ends = self._ends()
        pairs = pairwise(self._ledger.stints(self._remote.name))
        return [(stint, after.started_at) for stint, after in pairs if stint.id not in ends]

    def _closed(self) -> Iterator[Span]:
        ends = self._ends()
        for stint in self._ledger.stints(self._remote.name):
            if stint.id in ends:
                yield stint.started_at, ends[stint.id]

    def _ends(self) -> dict[str, datetime]:
        return {e.stint_id: e.ended_at for e in self._ledger.stint_ends(self._remote.name)}

    def _free(self, sight: Sight) -> datetime:
        """Its time, or just after the sight of the same tick of the clock."""
        last = self._ledger.last_sighting(self._remote.name)
        is_taken = last is not None and last.at == sight.at
        return sight.at + timedelta(microseconds=1) if is_taken else sight.at

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
    """All that were counted, by their start; one that goes on lasts until now, as far as known."""
    ends = {end.stint_id: end for end in ledger.stint_ends(remote)}
    facts = ledger.stints(remote)
    follows: dict[str, datetime] = {}
    found = []
    for fact in reversed(facts):
        found.append(_stint(ledger, fact, ends.get(fact.id), follows.get(fact.remote), now))
        follows[fact.remote] = fact.started_at
    return tuple(reversed(found))


def _stint(
    ledger: Ledger, fact: StintFact, end: StintEnd | None, next_at: datetime | None, now: datetime
) -> Stint:
    guessed = fact.provenance is Provenance.ESTIMATED
    goes_on = False
    if end is not None:
        until = end.ended_at
        guessed = guessed or end.provenance is Provenance.ESTIMATED
    else:
        off_at = next_at or _off_at(ledger, fact.remote)
        goes_on = off_at is None
        until = now if off_at is None else _guess(ledger, fact, off_at)
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


def _off_at(ledger: Ledger, remote: str) -> datetime | None:
    """When it was found off; None while it was last seen on."""
    last = ledger.last_sighting(remote)
    return last.at if last is not None and Power(last.power).is_down else None


def _guess(ledger: Ledger, fact: StintFact, off_at: datetime) -> datetime:
    """The end of a stint of which it is only known that it was over by then.

    As late as it can have been: until it was first seen off, or its guard's terms were up.
    """
    seen_on, seen_off = fact.started_at, off_at
    for at, power in ledger.query(_SIGHTS, fact.remote, written(fact.started_at), written(off_at)):
        if Power(power).is_down:
            seen_off = datetime.fromisoformat(at)
            break
        seen_on = datetime.fromisoformat(at)
    lease_ends_at = _lease_end(ledger, fact, seen_on)
    return seen_off if lease_ends_at is None else min(seen_off, lease_ends_at)


def _lease_end(ledger: Ledger, fact: StintFact, seen_on: datetime) -> datetime | None:
    """Until when the guard would have kept it on at most, which was last seen on then."""
    ends = []
    for began_at, budget, idle_s, ends_at in ledger.query(_TERMS, fact.remote, written(seen_on)):
        if budget is not None and fact.price_per_hour:
            begun = max(fact.started_at, datetime.fromisoformat(began_at))
            ends.append(begun + timedelta(hours=float(Decimal(budget) / fact.price_per_hour)))
        busy_until = _busy_until(ledger, fact, seen_on)
        if idle_s is not None and busy_until is not None:
            ends.append(busy_until + timedelta(seconds=float(idle_s)))
        if ends_at is not None:
            ends.append(datetime.fromisoformat(ends_at))
    return max(seen_on, min(ends)) if ends else None


def _busy_until(ledger: Ledger, fact: StintFact, seen_on: datetime) -> datetime | None:
    """None while it may have gone on to work: a run's end is not known."""
    far = datetime.max.replace(tzinfo=seen_on.tzinfo)
    ends = (work.ended_at for work in works(ledger, fact.remote, fact.started_at, far))
    last = max(ends, default=seen_on)
    return None if last == far else max(seen_on, last)


def works(ledger: Ledger, remote: str, since: datetime, now: datetime) -> tuple[Work, ...]:
    """What runs did on a machine since then: when each set up and trained."""
    moments: dict[str, dict[str, datetime]] = {}
    for run_id, state, at in ledger.query(_WORKS, remote, written(since)):
        moments.setdefault(run_id, {})[state] = datetime.fromisoformat(at)
    return tuple(work for at in moments.values() for work in _work(at, now))


def _work(at: dict[str, datetime], now: datetime) -> Iterator[Work]:
    """One for each attempt of a run."""
    usage = run_usage("", "", None, "", at.items())
    begun, running = usage.started_at, at.get(State.RUNNING.value)
    if begun is None:
        return
    end = max(usage.ended_at or now, begun)
    if running is None:
        yield Work((begun, end), None)
        return
    starts = [min(max(running, begun), end), *(resumed for _, resumed in usage.gaps)]
    stops = [*(stopped for stopped, _ in usage.gaps), end]
    yield Work((begun, starts[0]), (starts[0], stops[0]))
    for start, stop in zip(starts[1:], stops[1:], strict=True):
        yield Work((start, start), (start, stop))
