"""What is worth doing next in an exam, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from orchestrator.costs.cost import format_duration
from orchestrator.grades.verdict import POINTS, of_five

# How long a run takes of which nothing is known: a plain model on a small GPU, with its setup.
_USUAL_S = 600.0
# For typing, and for what takes longer than it usually does.
_MARGIN_S = 120.0
_SLOW = 3.0
# What a category of which little is known may still give: as if half of one more try had gained.
_HOPE = 0.5
# A run that is cut off earlier has hardly begun.
_SHORTEST_S = 120.0


class Deed(StrEnum):
    SUBMIT = "submit"
    TRAIN = "train"
    WAIT = "wait"
    FINISH = "finish"


@dataclass(frozen=True)
class Try:
    """A run of this user's that was graded.

    Attributes:
        before: the best points in its category until then.
        after: its own.
    """

    before: int
    after: int
    seconds: float

    @property
    def gain(self) -> int:
        return max(0, self.after - self.before)


@dataclass(frozen=True)
class Place:
    """Where a category stands.

    Attributes:
        best: points of the best that was handed in; None where nothing was.
        unsubmitted: whether the model in its folder was not handed in.
        running: a run of it that goes on; empty for none.
        tries: all there were, also in other workspaces.
    """

    category: str
    best: int | None = None
    unsubmitted: bool = False
    running: str = ""
    tries: tuple[Try, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Attributes:
    category: empty for several.
    takes_s: as far as is known; never more than is left.
    """

    deed: Deed
    category: str
    why: str
    command: str
    takes_s: float


def submit_margin_s(places: Sequence[Place], grading_s: float) -> float:
    """What to keep free at the end, so that all that stands can be handed in."""
    return _MARGIN_S + _SLOW * grading_s * max(1, sum(place.unsubmitted for place in places))


def advise(
    places: Sequence[Place], left_s: float, grading_s: float, remote: str = ""
) -> tuple[Advice, ...]:
    """What to do, the best first; nothing that cannot end, and be handed in, before the end.

    First what stands is handed in, then each category gets a plain model, then there is work where
    points per minute are likeliest by this user's own tries.

    Args:
        places: in the order of difficulty.
        grading_s: what handing one model in takes.
    """
    if left_s <= 0:
        return (_finish("the time is up"),)
    margin_s = submit_margin_s(places, grading_s)
    free_s = left_s - margin_s
    found = [
        *_submissions(places, left_s, margin_s, grading_s),
        *_everywhere(places, free_s, remote),
        *_better(places, free_s, grading_s, remote),
        *_waits(places, free_s),
    ]
    return tuple(found) or (_finish(_why_over(places, left_s)),)


def _submissions(
    places: Sequence[Place], left_s: float, margin_s: float, grading_s: float
) -> Iterator[Advice]:
    hurry = f"only {format_duration(left_s)} left: " if left_s <= margin_s else ""
    # What counts 0 so far goes first.
    for place in sorted(places, key=lambda place: place.best is not None):
        if not place.unsubmitted:
            continue
        if place.best is None:
            why = "a model stands there, and until one is handed in the category counts 0"
        else:
            why = f"the model there was not handed in; what counts has {of_five(place.best)}"
        command = f"train submit {place.category}"
        yield Advice(Deed.SUBMIT, place.category, hurry + why, command, min(grading_s, left_s))


def _everywhere(places: Sequence[Place], free_s: float, remote: str) -> Iterator[Advice]:
    """One command for several, where it fits."""
    plain = list(_plain(places, free_s, remote))
    takes_s = sum(one.takes_s for one in plain)
    if len(plain) < 2 or takes_s > free_s:
        yield from plain
        return
    are_all = len(plain) == len(places)
    command = _train("" if are_all else " ".join(one.category for one in plain), remote)
    why = "they count 0 so far: first a plain model everywhere, in one command"
    yield Advice(Deed.TRAIN, "", why, command, takes_s)


def _plain(places: Sequence[Place], free_s: float, remote: str) -> Iterator[Advice]:
    for place in places:
        if place.best is not None or place.unsubmitted or place.running:
            continue
        takes_s = typical_s([t for t in place.tries if not t.before] or place.tries)
        command = _train(place.category, remote)
        why = "it counts 0 so far: first a plain model everywhere"
        if takes_s > free_s:
            if free_s < _SHORTEST_S:
                continue
            takes_s = free_s // 60 * 60
            command += f" --time-limit {takes_s / 60:.0f}m"
            why += "; with less time than it usually takes"
        yield Advice(Deed.TRAIN, place.category, why, command, takes_s)


def _better(
    places: Sequence[Place], free_s: float, grading_s: float, remote: str
) -> Iterator[Advice]:
    rated = []
    for place in places:
        if place.best is None or place.best >= POINTS:
            continue
        if place.unsubmitted or place.running:
            continue
        takes_s = typical_s(place.tries) + grading_s
        if takes_s <= free_s:
            gain = likely_gain(place)
            why = _why_better(place, place.best, gain, takes_s)
            command = _train(place.category, remote)
            advice = Advice(Deed.TRAIN, place.category, why, command, takes_s)
            rated.append((gain / takes_s, advice))
    # Of equals the easier category first.
    yield from (advice for _, advice in sorted(rated, key=lambda pair: -pair[0]))


def _why_better(place: Place, best: int, gain: float, takes_s: float) -> str:
    same = [one for one in place.tries if one.before == best]
    tries = same or place.tries
    start = f"{of_five(best)} so far"
    if not tries:
        return f"{start}; you have no tries there to learn from"
    gained = sum(one.gain > 0 for one in tries)
    where = f"from {of_five(best)}" if same else "there"
    count = f"{gained} of your {len(tries)} tries" if tries[1:] else f"{gained} of 1 try"
    return f"{start}; {count} {where} gained, about {gain:.1f} points in {format_duration(takes_s)}"


def likely_gain(place: Place) -> float:
    """Points that one more run there is likely to bring."""
    best = place.best or 0
    tries = [one for one in place.tries if one.before == best] or place.tries
    gain = (sum(one.gain for one in tries) + _HOPE) / (len(tries) + 1)
    return min(gain, float(POINTS - best))


def typical_s(tries: Sequence[Try]) -> float:
    """What one more run is likely to take."""
    return median(one.seconds for one in tries) if tries else _USUAL_S


def _waits(places: Sequence[Place], free_s: float) -> Iterator[Advice]:
    for place in places:
        if place.running and free_s > 0:
            why = f"{place.running} goes on; what it makes is still to be handed in"
            takes_s = min(typical_s(place.tries), free_s)
            yield Advice(Deed.WAIT, place.category, why, f"train attach {place.running}", takes_s)


def _train(category: str, remote: str) -> str:
    return " ".join(filter(None, ["train", category, "--remote", remote or "NAME"]))


def _finish(why: str) -> Advice:
    return Advice(Deed.FINISH, "", why, "train exam finish", 0.0)


def _why_over(places: Sequence[Place], left_s: float) -> str:
    if all(place.best == POINTS for place in places):
        return "all there is has been earned"
    return f"nothing that would help ends in the {format_duration(left_s)} left"
