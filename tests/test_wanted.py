"""What the store lacks, in few words and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remote.protocol import Lacking, Span, Wanted
from remote.wanted import pack_wanted, unpack_wanted

SIZES = {f"{number:064x}": number + 2 for number in range(20)}

begun = st.sampled_from([(1, ()), (0, (Span(1, 2),)), (1, (Span(1, 2),))])
kinds = st.lists(st.one_of(st.none(), st.just((0, ())), begun), min_size=20, max_size=20)


@given(kinds)
def test_what_is_lacking_comes_out_as_it_went_in(
    kinds: list[tuple[int, tuple[Span, ...]] | None],
) -> None:
    lacking = tuple(
        Lacking(sha256, SIZES[sha256], *kind)
        for sha256, kind in zip(SIZES, kinds, strict=True)
        if kind is not None
    )
    assert sorted(unpack_wanted(pack_wanted(lacking, SIZES), SIZES)) == sorted(lacking)


def test_all_of_a_tree_and_nothing_of_it_take_one_word() -> None:
    every = tuple(Lacking(sha256, size, 0) for sha256, size in SIZES.items())
    assert pack_wanted(every, SIZES) == Wanted((Span(0, 20),), ())
    assert pack_wanted((), SIZES) == Wanted((), ())
