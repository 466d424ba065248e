"""Costs: shared time is paid once, nothing is guessed silently, and the sentence tells it all."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.costs.cost import (
    By,
    Cost,
    CostRow,
    Grade,
    PricedRun,
    RunUsage,
    Total,
    cost_rows,
    format_duration,
    format_money,
    format_total,
    gang_costs,
    run_costs,
    run_usage,
    shared_time,
    story,
    sum_costs,
)
from tests.laptop import make_laptop

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
NOW = NOON + timedelta(hours=5)
HOUR = Decimal("0.60")


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def usage(
    run_id: str,
    start: float | None,
    end: float | None,
    *,
    remote: str = "azure-k80",
    price: Decimal | None = HOUR,
    currency: str = "USD",
) -> RunUsage:
    return RunUsage(
        run_id,
        remote,
        None if start is None else after(start),
        None if end is None else after(end),
        price,
        currency if price is not None else "",
    )


def amounts(*usages: RunUsage) -> dict[str, Decimal | None]:
    return {run_id: cost.amount for run_id, cost in run_costs(usages, NOW).items()}


# Instants close together, so that spans often touch, overlap, and run backwards.
instants = st.integers(0, 20).map(lambda steps: NOON + timedelta(microseconds=steps * 700_001))
spans = st.lists(st.tuples(instants, instants), max_size=12)


def union(spans: list[tuple[datetime, datetime]]) -> int:
    """Microseconds in any span, counted by hand."""
    measure, reached = timedelta(0), datetime.min.replace(tzinfo=UTC)
    for start, end in sorted(spans):
        if end > max(start, reached):
            measure += end - max(start, reached)
            reached = end
    return measure // timedelta(microseconds=1)


@given(spans)
def test_the_shares_of_time_sum_to_exactly_the_time_in_use(
    spans: list[tuple[datetime, datetime]],
) -> None:
    assert sum(shared_time(spans)) == union(spans)


@given(spans)
def test_no_share_is_negative_or_more_than_the_span(spans: list[tuple[datetime, datetime]]) -> None:
    for (start, end), share in zip(spans, shared_time(spans), strict=True):
        assert 0 <= share <= max(0, (end - start) // timedelta(microseconds=1))


def usages_of(spans: list[tuple[datetime, datetime]], price: Decimal | None) -> list[RunUsage]:
    return [
        RunUsage(f"run-{number}", f"remote-{number % 2}", start, end, price, "USD")
        for number, (start, end) in enumerate(spans)
    ]


prices = st.decimals("0", "1000", places=4)


@given(spans, prices)
def test_runs_never_cost_more_than_their_machines_and_less_only_by_the_last_decimal(
    spans: list[tuple[datetime, datetime]], price: Decimal
) -> None:
    costs = run_costs(usages_of(spans, price), NOW)
    paid = sum((Fraction(cost.amount or 0) for cost in costs.values()), Fraction(0))
    due = Fraction(price) * (union(spans[::2]) + union(spans[1::2])) / 3_600_000_000
    assert due - len(spans) * Fraction(1, 10**9) <= paid <= due
    assert all(cost.amount is not None and cost.amount >= 0 for cost in costs.values())


@given(spans, prices | st.none(), st.randoms(use_true_random=False))
def test_the_order_of_the_runs_does_not_matter(
    spans: list[tuple[datetime, datetime]], price: Decimal | None, shuffle: random.Random
) -> None:
    usages = usages_of(spans, price)
    shuffled = usages.copy()
    shuffle.shuffle(shuffled)
    costs = run_costs(usages, NOW)
    assert run_costs(shuffled, NOW) == costs
    rows, shuffled_rows = (
        cost_rows((PricedRun(run, costs[run.run_id], "/exam", "c") for run in some), By.CATEGORY)
        for some in (usages, shuffled)
    )
    assert shuffled_rows == rows


def test_a_run_alone_pays_the_whole_machine() -> None:
    assert run_costs([usage("a", 0, 38)], NOW) == {
        "a": Cost(Decimal("0.38"), "USD", 38 * 60, estimated=False)
    }


def test_two_runs_at_once_share_only_the_time_they_have_in_common() -> None:
    # a has 0-60 with b in 30-60, b goes on alone to 90: 45 minutes each.
    assert amounts(usage("a", 0, 60), usage("b", 30, 90)) == {
        "a": Decimal("0.45"),
        "b": Decimal("0.45"),
    }


def test_runs_on_different_remotes_share_nothing() -> None:
    assert amounts(usage("a", 0, 60), usage("b", 0, 60, remote="lambda-a10")) == {
        "a": HOUR,
        "b": HOUR,
    }


def test_a_run_of_another_price_pays_its_own_price_for_its_share() -> None:
    assert amounts(usage("a", 0, 60), usage("b", 0, 60, price=Decimal(2))) == {
        "a": Decimal("0.30"),
        "b": Decimal(1),
    }


def test_a_run_beside_one_of_unknown_price_pays_only_its_half() -> None:
    assert amounts(usage("a", 0, 60), usage("b", 0, 60, price=None)) == {
        "a": Decimal("0.30"),
        "b": None,
    }


def test_a_run_that_never_started_costs_nothing_whatever_the_price() -> None:
    costs = run_costs([usage("a", None, 60), usage("b", None, None, price=None)], NOW)
    assert costs == {
        "a": Cost(Decimal(0), "USD", 0.0, estimated=False),
        "b": Cost(Decimal(0), "", 0.0, estimated=False),
    }
    assert sum_costs(costs.values()) == Total((("USD", Decimal(0)),), 0)


@pytest.mark.parametrize(
    ("price", "text"), [(HOUR, "$0.00 (estimated)"), (None, "unknown")], ids=["priced", "unpriced"]
)
def test_a_run_that_waited_when_its_vm_vanished_is_marked(price: Decimal | None, text: str) -> None:
    moments = [("queued", after(0)), ("lost", after(9))]
    vanished = run_usage("a", "azure-k80", price, "USD" if price else "", moments)
    total = sum_costs(run_costs([vanished], NOW).values())

    assert total.estimated
    assert format_total(total) == text


def test_a_run_that_goes_on_costs_up_to_now_and_is_estimated() -> None:
    assert run_costs([usage("a", 0, None)], after(30)) == {
        "a": Cost(Decimal("0.30"), "USD", 1800.0, estimated=True)
    }


def test_an_end_before_the_start_counts_as_no_time_and_is_estimated() -> None:
    costs = run_costs([usage("a", 60, 0), usage("b", 0, 60)], NOW)
    assert costs["a"] == Cost(Decimal(0), "USD", 0.0, estimated=True)
    assert costs["b"].amount == HOUR


def test_one_run_given_twice_is_a_bug_and_not_half_the_price() -> None:
    with pytest.raises(AssertionError, match="twice"):
        run_costs([usage("a", 0, 60), usage("a", 0, 60)], NOW)


def test_billed_intervals_that_overlap_are_not_paid_twice() -> None:
    costs = run_costs([usage("by the cloud", 0, 60), usage("by the vm", 10, 50)], NOW)
    assert sum_costs(costs.values()).by_currency == (("USD", HOUR),)


def test_thousands_of_overlapping_runs_are_priced_exactly() -> None:
    usages = [usage(f"{n}", n, n + 40 + n % 7) for n in range(3000)]
    paid = sum_costs(run_costs(usages, after(4000)).values()).by_currency[0][1]
    union_min = 2999 + 40 + 2999 % 7
    assert paid.quantize(Decimal("0.00001")) == HOUR * union_min / 60


def test_a_run_is_paid_from_setting_up_to_its_end() -> None:
    moments = [
        ("queued", after(0)),
        ("setting-up", after(1)),
        ("running", after(2)),
        ("succeeded", after(9)),
    ]
    for given_moments in (moments, moments[::-1]):
        assert run_usage("a", "azure-k80", HOUR, "USD", given_moments) == usage("a", 1, 9)


def test_a_run_without_a_set_up_is_paid_from_running() -> None:
    assert run_usage("a", "azure-k80", HOUR, "USD", [("running", after(2))]) == usage("a", 2, None)


def test_a_run_cancelled_in_the_queue_never_started() -> None:
    moments = [("queued", after(0)), ("cancelled", after(9))]
    assert run_usage("a", "azure-k80", HOUR, "USD", moments) == usage("a", None, 9)


def test_a_run_with_two_ends_is_paid_to_the_first() -> None:
    moments = [("running", after(0)), ("cancelled", after(9)), ("failed", after(5))]
    assert run_usage("a", "azure-k80", HOUR, "USD", moments) == usage("a", 0, 5)


def test_a_lost_run_ends_by_estimate_until_the_vm_says_better() -> None:
    moments = [("running", after(0)), ("lost", after(50))]
    lost = run_usage("a", "azure-k80", HOUR, "USD", moments)
    assert (lost.ended_at, lost.estimated) == (after(50), True)
    assert run_costs([lost], NOW)["a"].estimated

    found = run_usage("a", "azure-k80", HOUR, "USD", [*moments, ("failed", after(10))])
    assert (found.ended_at, found.estimated) == (after(10), False)


def test_currencies_are_kept_apart_and_unknown_prices_counted() -> None:
    costs = run_costs(
        [
            usage("a", 0, 60, remote="one"),
            usage("b", 0, 60, remote="two", currency="EUR"),
            usage("c", 0, 60, remote="three"),
            usage("d", 0, 60, remote="four", price=None),
        ],
        NOW,
    )
    total = sum_costs(costs.values())
    assert total == Total((("EUR", HOUR), ("USD", 2 * HOUR)), 1)
    assert format_total(total) == "at least 0.60 EUR + $1.20 (1 run at an unknown price)"


def test_an_amount_shown_among_small_ones_has_as_many_decimals() -> None:
    assert format_money(Decimal("0.0131"), "USD", small=True) == "$0.0131"
    assert format_money(Decimal("1.5"), "EUR", small=True) == "1.5000 EUR"
    assert format_money(Decimal(0), "USD", small=True) == "$0.0000"
    assert format_money(Decimal("0.00001"), "USD", small=True) == "under $0.0001"
    total = Total((("EUR", Decimal("0.25")), ("USD", Decimal("0.0131"))), 0, estimated=True)
    assert format_total(total, small=True) == "0.2500 EUR + $0.0131 (estimated)"


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (Total((), 0), "nothing"),
        (Total((), 3), "unknown"),
        (Total((("USD", Decimal(0)),), 0), "$0.00"),
        (Total((("USD", Decimal("0.42")),), 0, estimated=True), "$0.42 (estimated)"),
        (
            Total((("USD", Decimal("0.42")),), 2, estimated=True),
            "at least $0.42 (estimated, 2 runs at an unknown price)",
        ),
    ],
)
def test_a_total_says_what_it_does_not_know(total: Total, text: str) -> None:
    assert format_total(total) == text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("0.42", "USD", "$0.42"),
        ("0.42", "EUR", "0.42 EUR"),
        ("0", "USD", "$0.00"),
        ("1234.5", "USD", "$1234.50"),
        ("0.0042", "USD", "$0.0042"),
        ("0.005", "USD", "$0.0050"),
        ("0.00999", "USD", "$0.01"),
        ("0.00001", "USD", "under $0.0001"),
        ("0.000000001", "EUR", "under 0.0001 EUR"),
        ("-0.42", "USD", "-$0.42"),
        ("1E+3", "USD", "$1000.00"),
    ],
)
def test_money_reads_as_people_write_it(amount: str, currency: str, text: str) -> None:
    assert format_money(Decimal(amount), currency) == text


@given(st.decimals("0.000000001", "10000000"), st.sampled_from(["USD", "EUR"]))
def test_money_that_is_not_zero_never_reads_as_zero(amount: Decimal, currency: str) -> None:
    assert set(format_money(amount, currency)) & set("123456789")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (38 * 60, "38 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_a_duration_is_rounded_to_what_matters(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def priced(*usages: RunUsage, category: str = "category4", session: str = "") -> list[PricedRun]:
    costs = run_costs(usages, NOW)
    return [PricedRun(run, costs[run.run_id], "/exam", category, session) for run in usages]


def test_a_gang_costs_what_all_its_hosts_do_for_the_chiefs_time() -> None:
    def cost(amount: int | None, currency: str = "USD", seconds: float = 60.0) -> Cost:
        return Cost(None if amount is None else Decimal(amount), currency, seconds, estimated=False)

    costs = {"a.w1": cost(2, seconds=59.0), "a": cost(1), "b": cost(4), "c": cost(1)}
    assert gang_costs({**costs, "c.w1": cost(None)}) == {
        "a": cost(3),
        "b": cost(4),
        "c": cost(None),
    }
    assert gang_costs({"a": cost(1), "a.w1": cost(1, "EUR")})["a"].amount is None


def test_costs_are_grouped_by_what_is_asked() -> None:
    runs = [
        *priced(usage("a", 0, 60), usage("b", 60, 120), session="practice"),
        *priced(usage("c", 0, 30, remote="lambda", price=None), category="category 'ü'\n5"),
    ]
    known = Total((("USD", Decimal("1.20")),), 0)
    unknown = Total((), 1)
    assert cost_rows(runs, By.REMOTE) == (
        CostRow("azure-k80", 2, 7_200_000_000, known),
        CostRow("lambda", 1, 1_800_000_000, unknown),
    )
    assert [row.key for row in cost_rows(runs, By.CATEGORY)] == ["category 'ü'\n5", "category4"]
    assert [row.key for row in cost_rows(runs, By.RUN)] == ["a", "b", "c"]
    assert [row.key for row in cost_rows(runs, By.SESSION)] == ["", "practice"]
    assert cost_rows(runs, By.WORKSPACE) == (
        CostRow("/exam", 3, 9_000_000_000, Total((("USD", Decimal("1.20")),), 1)),
    )
    assert cost_rows([], By.RUN) == ()


def test_rows_of_one_report_sum_to_its_total() -> None:
    runs = priced(*(usage(f"{n}", n / 7, n + 3) for n in range(9)))
    rows = cost_rows(runs, By.RUN)
    whole = sum_costs(run.cost for run in runs)
    assert sum(row.total.by_currency[0][1] for row in rows) == whole.by_currency[0][1]


def test_the_story_says_points_before_and_after_money_and_time() -> None:
    grades = [Grade("old", 3, after(-60)), Grade("a", None, after(39)), Grade("b", 5, after(50))]
    runs = priced(usage("a", 0, 30), usage("b", 30, 42))
    assert story("category4", grades, runs, NOW) == "category 4: 3 -> 5 for $0.42 in 42 min"
    assert story("category4", grades[::-1], runs[::-1], NOW) == story(
        "category4", grades, runs, NOW
    )


def test_the_story_of_a_first_grade_has_no_before() -> None:
    runs = priced(usage("a", 0, 3, price=Decimal(2)))
    assert story("category4", [Grade("a", 5, after(4))], runs, NOW) == (
        "category 4: 5 of 5 for $0.10 in 3 min"
    )


def test_the_story_of_an_unknown_price_says_so() -> None:
    runs = priced(usage("a", 0, 3, price=None))
    assert story("sunspots", [Grade("a", 5, after(4))], runs, NOW) == (
        "sunspots: 5 of 5 for an unknown price in 3 min"
    )


def test_a_worse_model_leaves_the_points_as_they_were() -> None:
    grades = [Grade(None, 3, after(-1)), Grade("a", 2, after(4))]
    assert story("category4", grades, priced(usage("a", 0, 3)), NOW) == (
        "category 4: still 3 of 5 for $0.03 in 3 min"
    )


def test_a_grade_that_came_later_is_not_the_before() -> None:
    grades = [Grade("a", 3, after(4)), Grade("later", 4, after(9))]
    assert story("category4", grades, priced(usage("a", 0, 3)), NOW) == (
        "category 4: 3 of 5 for $0.03 in 3 min"
    )


def test_money_spent_without_a_grade_is_told() -> None:
    assert story("category4", [], priced(usage("a", 0, 3)), NOW) == (
        "category 4: no grade for $0.03 in 3 min"
    )


def test_without_runs_the_story_is_the_points() -> None:
    assert story("category4", [Grade(None, 3, after(0))], [], NOW) == "category 4: 3 of 5"
    assert story("category4", [], [], NOW) == "category 4: no grade"


def test_runs_side_by_side_took_the_time_that_passed() -> None:
    runs = priced(usage("a", 0, 38), usage("b", 0, 38))
    assert story("category4", [Grade("b", 4, after(40))], runs, NOW) == (
        "category 4: 4 of 5 for $0.38 in 38 min"
    )


def test_what_cannot_be_shown_of_costs_is_told_apart(tmp_path: Path) -> None:
    laptop = make_laptop(tmp_path, None)

    assert laptop.ok("cost").stdout == "nothing has run yet\n"
    for since in ("7d", "2026-01-31"):
        told = f"nothing was run within --since {since}; for all there is: train cost\n"
        assert laptop.ok("cost", "--since", since).stdout == told
    both = laptop.train("cost", "--csv", "--json")
    assert (both.returncode, both.stdout) == (2, "")
    assert "--csv and --json" in both.stderr
    outside = laptop.train("cost", cwd=tmp_path)
    assert outside.returncode == 2
    assert "train cost --all" in outside.stderr
    assert laptop.train("cost", "--all", cwd=tmp_path).returncode == 0
    (laptop.root / "train.yaml").write_text("jobs: 3\n")
    assert "--all" not in laptop.train("cost").stderr


def test_a_run_that_stood_still_pays_for_its_attempts_alone() -> None:
    hour = timedelta(hours=1)
    at = {
        "queued": NOON,
        "setting-up": NOON,
        "interrupted-1": NOON + hour,
        "resumed-2": NOON + 3 * hour,
        "interrupted-10": NOON + 4 * hour,
    }
    beside = usage("beside", 0, 240, remote="vm", price=Decimal(1))

    still = run_usage("a", "vm", Decimal(1), "USD", at.items())
    gone_on = run_usage(
        "a", "vm", Decimal(1), "USD", (at | {"resumed-10": NOON + 5 * hour}).items()
    )
    costs = run_costs([still, beside], NOON + 9 * hour)

    assert costs["a"].seconds == 2 * 3600
    assert costs["a"].amount == Decimal(1)
    assert costs["beside"].seconds == 4 * 3600
    assert run_costs([gone_on], NOON + 6 * hour)["a"].seconds == 3 * 3600
    assert still.estimated
