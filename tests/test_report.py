"""Tables for people and JSON for programs say the same, and neither lies about money."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console as Rich

from orchestrator.commands import print_json
from orchestrator.costs.bill import Bill, bill_csv
from orchestrator.costs.cost import Cost, CostRow, Total
from orchestrator.costs.money import priced_runs
from orchestrator.grades.settling import Result
from orchestrator.grades.standing import Standing
from orchestrator.grades.verdict import Outcome, Verdict
from orchestrator.plan import Overrides
from orchestrator.records.ledger import ArtifactFact, Ledger, Reporter, RunEvent, RunFact
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.screen.console import Console
from orchestrator.screen.costs import cost_json, cost_row_json, cost_table, cost_text
from orchestrator.screen.grades import (
    metric_text,
    next_text,
    points_table,
    points_text,
    ready_table,
    standing_json,
    verdict_json,
)
from orchestrator.screen.machines import checks_table, heaps_table, remote_json, remotes_table
from orchestrator.screen.outcome import result_blocks
from orchestrator.screen.runs import files_table, jobs_table, run_json, runs_table
from orchestrator.screen.table import Table
from orchestrator.screen.terminal import Terminal
from orchestrator.settings.spec import EnvSpec, Job, Price, Remote
from orchestrator.status import StatusRow
from orchestrator.vm.check import Check, Mark
from remote.protocol import Heap, RunReport
from remote.runfolder import RunRequest, RunState, State

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
GOOD = Verdict(
    category="a",
    outcome=Outcome.GRADED,
    points=3,
    metric="accuracy",
    value=0.71234,
    thresholds=(0.2, 0.4, 0.6, 0.8, 0.9),
    higher_is_better=True,
    reason="",
    sha256="ab" * 32,
    size_bytes=1234,
    graded_at=NOW,
    versions="tensorflow 2.21.0",
)
INVALID = Verdict(
    "a", Outcome.INVALID, None, "", None, (), True, "not a model\x1b[2J", "cd" * 32, 4, NOW, ""
)


def shown(table: Table, width: int = 200) -> str:
    text = io.StringIO()
    Terminal(Rich(file=text, width=width, color_system=None)).show(table)
    return text.getvalue()


def standing(verdict: Verdict | None, sha256: str | None = "ab" * 32) -> Standing:
    return Standing("a", Path("/exam/a/mymodel.h5"), sha256, verdict, "a-1", gradable=True)


def mirror(folder: Path, state: RunState | None = None, *, alive: bool = True) -> Mirror:
    made = Mirrors(folder).make(RunRequest("a-1", "a", "0" * 64, "true"))
    if state is not None:
        made.see(RunReport("a-1", "a", alive, "1", state), "boot")
    return made


@pytest.mark.parametrize(
    ("verdict", "points", "metric", "needs"),
    [
        (GOOD, "3 of 5", "accuracy 0.7123", "at least 0.8"),
        (INVALID, "invalid", "not a model", ""),
        (None, "-", "not graded", ""),
    ],
)
def test_a_verdict_in_words(verdict: Verdict | None, points: str, metric: str, needs: str) -> None:
    assert points_text(verdict) == points
    assert metric_text(standing(verdict)) == metric
    assert next_text(verdict) == needs


def test_a_metric_that_falls_needs_at_most() -> None:
    lower = replace(GOOD, higher_is_better=False, points=5)
    assert next_text(lower) == "all five"
    assert next_text(replace(lower, points=0)) == "at most 0.2"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_null_in_json(
    value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json([verdict_json(replace(GOOD, value=value)), standing_json(standing(None))])
    verdict, ungraded = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert verdict["value"] is None
    assert ungraded["verdict"] is None


def test_an_unknown_price_is_never_zero() -> None:
    unknown = Cost(None, "", 60.0, estimated=False)
    assert cost_text(unknown) == "unknown"
    assert cost_json(unknown) == {
        "amount": None,
        "currency": None,
        "seconds": 60.0,
        "estimated": False,
    }
    assert cost_text(None) == ""
    assert cost_text(Cost(Decimal(0), "USD", 0.0, estimated=False)) == ""
    estimate = Cost(Decimal("0.42"), "USD", 60.0, estimated=True)
    assert cost_text(estimate) == "$0.42 so far"
    assert cost_text(estimate, ended=True) == "$0.42 (estimated)"

    tiny = Total((("USD", Decimal("0.000000001")),), 0)
    assert cost_row_json(CostRow("a", 1, 1_000_000, tiny))["cost"] == {"USD": "0.000000001"}
    row = CostRow("", 2, 60_000_000, Total((), 2))
    assert "(no session)" in shown(cost_table(Bill("session", (row,))))
    assert "unknown" in shown(cost_table(Bill("session", (row,))))
    assert cost_row_json(row)["cost"] == {}
    assert cost_row_json(row)["unknown_runs"] == 2


def totals(table: Table) -> list[list[str]]:
    """The cells of the last rows, from the one named `total` on."""
    rows = [[cell.text for cell in row] for row in table.rows]
    names = [row[0] for row in rows]
    return rows[names.index("total") :] if "total" in names else []


def test_costs_have_a_total_for_each_currency_and_never_one_for_two() -> None:
    dollars = CostRow("a", 2, 60_000_000, Total((("USD", Decimal("0.40")),), 0))
    both = Total((("EUR", Decimal("1.10")), ("USD", Decimal("0.25"))), 1, estimated=True)
    euros = CostRow("b", 3, 3_600_000_000, both)

    assert totals(cost_table(Bill("category", (dollars,)))) == []
    assert totals(
        cost_table(
            Bill(
                "category",
                (
                    dollars,
                    dollars,
                ),
            )
        )
    ) == [["total", "4", "2 min", "$0.80"]]
    assert totals(
        cost_table(
            Bill(
                "category",
                (
                    dollars,
                    euros,
                ),
            )
        )
    ) == [
        ["total", "5", "1 h 01 min", "at least 1.10 EUR (estimated, 1 run at an unknown price)"],
        ["", "", "", "$0.65"],
    ]
    unknown = CostRow("c", 1, 0, Total((), 1))
    assert totals(
        cost_table(
            Bill(
                "category",
                (
                    unknown,
                    unknown,
                ),
            )
        )
    ) == [["total", "2", "0 s", "unknown"]]


def test_a_total_is_the_rounded_sum_and_all_amounts_have_the_decimals_of_the_smallest() -> None:
    parts = ("0.00604", "0.01204", "0.00204")
    rows = [CostRow(part, 1, 0, Total((("USD", Decimal(part)),), 0)) for part in parts]
    shown_costs = [row[3].text for row in cost_table(Bill("run", tuple(rows))).rows]

    assert shown_costs == ["$0.0060", "$0.0120", "$0.0020", "$0.0201"]


def test_csv_has_a_line_for_each_currency_and_quotes_what_it_must() -> None:
    total = Total((("EUR", Decimal("0.1")), ("USD", Decimal("0.000000001"))), 1)
    rows = CostRow('/my, "exam"', 2, 1_500_000, total), CostRow("x", 1, 0, Total((), 1))
    text = bill_csv(Bill("workspace", rows))

    assert text.splitlines() == [
        "workspace,runs,seconds,currency,amount,unknown_runs,estimated",
        '"/my, ""exam""",2,1.500,EUR,0.1,1,false',
        '"/my, ""exam""",2,1.500,USD,0.000000001,1,false',
        "x,1,0.000,,,1,false",
    ]


def test_a_run_that_was_never_sent_is_told_with_what_to_do(tmp_path: Path) -> None:
    row = StatusRow(mirror(tmp_path), "vm", None)
    text = shown(runs_table([row]))

    assert "not heard of" in text
    assert "never" in text
    assert "the command that started it goes on with it" in text
    assert run_json(row)["seen_at"] is None


def test_a_lost_run_says_why(tmp_path: Path) -> None:
    state = RunState(State.RUNNING, "2026-01-31T12:00:00.000000Z", boot_id="boot")
    row = StatusRow(mirror(tmp_path, state, alive=False), "vm", None)

    assert run_json(row)["state"] == "lost"
    assert "its supervisor was killed" in shown(runs_table([row]))


def test_what_a_vm_gives_as_a_reason_cannot_steer_the_terminal(tmp_path: Path) -> None:
    state = RunState(State.FAILED, "2026-01-31T12:00:00.000000Z", reason="\x1b[2Joops\n")
    row = StatusRow(mirror(tmp_path, state), "vm", None)

    assert "\x1b" not in shown(runs_table([row]))
    assert run_json(row)["reason"] == r"oops\n"


def test_a_note_goes_before_the_reason(tmp_path: Path) -> None:
    state = RunState(State.RUNNING, "2026-01-31T12:00:00.000000Z", reason="waits for gpu0")
    row = StatusRow(mirror(tmp_path, state), "vm", None, "unreachable (last seen 3 s ago): x")

    assert "unreachable" in shown(runs_table([row]))
    assert (run_json(row)["note"], run_json(row)["reason"]) == (row.note, "waits for gpu0")


def test_ready_says_no_where_something_is_missing() -> None:
    text = shown(ready_table([standing(GOOD), standing(INVALID), standing(None, sha256=None)]))
    lines = text.splitlines()[2:]

    assert [line.split()[1] for line in lines] == ["yes", "NO", "NO"]
    assert "no model in the folder" in lines[2]
    assert "1.2 kB" in lines[0]


def test_points_are_shown_without_runs() -> None:
    assert "3 of 5" in shown(points_table([standing(GOOD)], []))


def test_a_remote_is_shown_without_what_was_not_said() -> None:
    bare = Remote("bare", "203.0.113.7")
    full = Remote(
        "full", "h", "u", 2222, "/k", 2, Price(Decimal("0.50"), "EUR"), EnvSpec("python3.8", "r")
    )
    text = shown(remotes_table([bare, full]))

    assert "unknown" in text
    assert "u@h:2222" in text
    assert remote_json(bare)["price_per_hour"] is None
    assert remote_json(full)["price_per_hour"] == "0.50"


def test_a_pool_is_shown_without_what_its_hosts_say_for_themselves() -> None:
    pool = Remote("lab", "", hosts=("one", "two"))
    (row,) = remotes_table([pool]).rows
    assert [cell.text for cell in row] == ["lab", "a pool of 2", "", "", ""]
    said = replace(pool, price=Price(Decimal("0.50"), "EUR"), gpus=0, env=EnvSpec("python3.8"))
    (row,) = remotes_table([said]).rows
    assert [cell.text for cell in row[3:]] == ["0", "python3.8"]


def test_other_tables_have_a_row_each() -> None:
    heap = Heap("runs", 3, 5000, 1, 2000)
    assert "may go" in shown(heaps_table([heap], dropped=False))
    assert "dropped" in shown(heaps_table([heap], dropped=True))
    assert r"a\x07b" in shown(files_table([("a\x07b", 10)]))
    assert "fail" in shown(checks_table([Check("x", Mark.FAIL, "found", "fix")]))


def test_no_cell_of_any_table_can_steer_the_terminal() -> None:
    evil = "a\x1b]0;title\x07\x1b[2J\x9b\u202eb"
    heap = Heap(evil, 3, 5000, 1, 2000)
    tables = (
        checks_table([Check(evil, Mark.FAIL, evil, evil)]),
        heaps_table([heap], dropped=False),
        files_table([(evil, 1)]),
        cost_table(Bill("session", (CostRow(evil, 1, 1_000_000, Total((), 1)),))),
        remotes_table([Remote(evil, evil, evil, env=EnvSpec(evil))]),
        ready_table([replace(standing(GOOD), category=evil)]),
        points_table([replace(standing(GOOD), category=evil)], []),
    )
    for made in tables:
        assert r"a\x9b\u202eb" in shown(made)
        assert not set("\x1b\x07\x9b\u202e") & set(shown(made))


@pytest.mark.parametrize("columns", [30, 60, 79])
def test_on_a_narrow_screen_no_word_is_cut_off(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    console.out = Terminal(Rich(width=columns, color_system=None, highlight=False, markup=False))
    console.result(ready_table([standing(GOOD)]))
    console.result(checks_table([Check("connection", Mark.FAIL, "word " * 40, "do " * 40)]))
    text = capsys.readouterr().out

    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text
    for word in ("accuracy", "mymodel.h5", "abababababab", "tensorflow", "connection", "fail"):
        assert word in text
    assert text.count("word") == 40


def test_a_pipe_gets_each_row_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Console().result(checks_table([Check("connection", Mark.FAIL, "word " * 100, "do " * 100)]))

    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_dry_run_tells_on_how_many_nodes_where_a_job_wants_several() -> None:
    one, two = Job("one", "true", ()), Job("two", "true", (), nodes=2)

    assert "nodes" not in shown(jobs_table([one], Overrides()))
    assert "nodes" in (text := shown(jobs_table([one, two], Overrides())))
    assert [line.split()[2] for line in text.splitlines() if "true" in line] == ["1", "2"]


def test_times_are_told_by_how_long_ago(tmp_path: Path) -> None:
    state = RunState(State.RUNNING, "2026-01-31T12:00:00.000000Z")
    made = mirror(tmp_path, state)
    earlier = (datetime.now(UTC) - timedelta(hours=2, minutes=5, seconds=5)).timestamp()
    os.utime(made.folder / "seen.json", (earlier, earlier))

    assert "2 h 05 min ago" in shown(runs_table([StatusRow(made, "vm", None)]))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Two runs of category a, a minute each: a-1 made the graded model, a-2 another."""
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        for run_id, sha256 in (("a-1", "ab" * 32), ("a-2", "ef" * 32)):
            price = (Decimal(60), "USD", "config")
            ledger.add(
                RunFact(run_id, "/exam", "a", "vm", "0" * 64, "true", NOW, *price),
                RunEvent(run_id, "running", NOW, Reporter.VM),
                RunEvent(run_id, "succeeded", NOW + timedelta(minutes=1), Reporter.VM),
                ArtifactFact(run_id, "a/mymodel.h5", 9, sha256, NOW),
            )
        yield ledger


def blocks(result: Result, ledger: Ledger) -> list[str]:
    return [one if isinstance(one, str) else shown(one) for one in result_blocks(result, ledger)]


def test_without_a_run_of_this_command_the_run_that_made_the_model_is_counted(
    ledger: Ledger,
) -> None:
    # They ran side by side, so each has half of a dollar.
    (table,) = blocks(Result((), standings=(standing(GOOD),)), ledger)
    assert table.splitlines()[-1].split()[-5:] == ["1", "min", "$0.50", "mymodel.h5", "ab" * 6]

    by_hand = replace(standing(GOOD), run_id=None)
    (table,) = blocks(Result((), standings=(by_hand,)), ledger)
    assert "cost" not in table


def test_a_model_that_could_not_be_compared_is_told_with_the_way_to_have_it(
    ledger: Ledger,
) -> None:
    runs = priced_runs(ledger, {"a-1", "a-2"})
    here = replace(standing(GOOD), can_grade=False)
    told = [text for text in blocks(Result((), runs, standings=(here,)), ledger) if "a-2" in text]

    assert told == [
        "a-2 made another model, not graded: TensorFlow is not installed here; the one in the "
        "folder stays. To have this one there: train pull a --latest"
    ]
    for other in (standing(GOOD), replace(here, sha256="ef" * 32, verdict=None)):
        assert "a-2" not in "".join(blocks(Result((), runs, standings=(other,)), ledger))
