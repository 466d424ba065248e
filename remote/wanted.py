"""What the store lacks of a tree, in few words: mostly it is all of it, or next to nothing."""

from __future__ import annotations

from itertools import groupby
from typing import Iterable, Mapping, Tuple

from remote.protocol import Lacking, Span, Wanted


def pack_wanted(lacking: Iterable[Lacking], sizes: Mapping[str, int]) -> Wanted:
    """Say what is lacking.

    Args:
        sizes: of all contents of the tree, by digest, in order.
    """
    fresh = {one.sha256 for one in lacking if not one.have_bytes and not one.parts}
    spans, end = [], 0
    for is_fresh, group in groupby(sizes, fresh.__contains__):
        begin, end = end, end + sum(1 for _ in group)
        if is_fresh:
            spans.append(Span(begin, end))
    return Wanted(tuple(spans), tuple(one for one in lacking if one.sha256 not in fresh))


def unpack_wanted(wanted: Wanted, sizes: Mapping[str, int]) -> Tuple[Lacking, ...]:
    """What is lacking.

    Raises:
        ValueError: something is that is not among `sizes`, or is twice.
    """
    digests = tuple(sizes)
    _check_order(wanted.fresh, len(digests))
    fresh = [digest for span in wanted.fresh for digest in digests[span.begin : span.end]]
    for one in wanted.begun:
        if sizes.get(one.sha256) != one.size_bytes:
            raise ValueError(f"{one.sha256!r} is none of the contents")
        _check_order((Span(0, one.have_bytes), *one.parts), one.size_bytes)
    named = [*fresh, *(one.sha256 for one in wanted.begun)]
    if len(set(named)) < len(named):
        raise ValueError("a content is lacking twice")
    return (*(Lacking(digest, sizes[digest], 0) for digest in fresh), *wanted.begun)


def _check_order(spans: Iterable[Span], end: int) -> None:
    bounds = [0, *(bound for span in spans for bound in span), end]
    if sorted(bounds) != bounds:
        raise ValueError("spans overlap, or are out of bounds")
