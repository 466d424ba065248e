"""The bench's own arithmetic: what is counted, kept, compared and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.compare import fallen
from bench.figures import Figure, Results, from_json, to_json
from bench.proof import Proof
from bench.summary import show, summary
from bench.table import markdown
from bench.trace import Packet, round_trips

RTT_S = 0.05
LINE = Proof(50, 50.2, 100.0, 700.0)


def out(at_s: float, payload_bytes: int = 100) -> Packet:
    return Packet(at_s, outgoing=True, payload_bytes=payload_bytes)


def back(at_s: float, payload_bytes: int = 100) -> Packet:
    return Packet(at_s, outgoing=False, payload_bytes=payload_bytes)


@pytest.mark.parametrize(
    ("packets", "count"),
    [
        ([], 0),
        ([out(0)], 0),
        ([out(0), back(0.05)], 1),
        # What comes sooner was on its way before: it answers nothing.
        ([out(0), back(0.04)], 0),
        ([out(0), back(0.04), back(0.05)], 1),
        # Two questions in one flight are one round trip.
        ([out(0), out(0.01), back(0.05), back(0.06)], 1),
        ([out(0), back(0.05), out(0.06), back(0.11)], 2),
        # A bare handshake and a bare acknowledgement count where a payload waits for them,
        ([out(0, 0), back(0.05, 0), out(0.05), back(0.10)], 2),
        # and do not behind the last one.
        ([out(0), back(0.05), out(0.06, 0), back(0.11, 0)], 1),
        ([back(0.05), back(0.10)], 0),
    ],
)
def test_a_round_trip_is_a_question_and_what_may_be_its_answer(
    packets: list[Packet], count: int
) -> None:
    assert round_trips(packets, RTT_S) == count


def figure(program: str, *values: float, part: str = "sync", rtt_ms: float = 50) -> Figure:
    return Figure(part, "50 files", rtt_ms, program, "s", values, 0.1, 30.0)


def results(*figures: Figure, lines: tuple[Proof, ...] = (LINE,), **about: str) -> Results:
    parts = dict.fromkeys((one.part for one in figures), {"machine": "here"} | about)
    return Results(parts, lines, figures)


@pytest.mark.parametrize(
    ("theirs", "said"), [(4.0, False), (3.3, False), (3.1, True), (1.0, True), (9.0, False)]
)
def test_a_ratio_that_fell_by_more_than_a_fifth_is_said(theirs: float, said: bool) -> None:
    before = results(figure("train", 1, 1, 1), figure("rsync", 4, 4, 4))
    now = results(figure("train", 2, 2, 2), figure("rsync", 2 * theirs))

    lines = list(fallen(before, now))

    assert len(lines) == said
    if said:
        assert lines[0] == (f"sync, 50 files, 50 ms: rsync takes {theirs:.2f} times ours, was 4.00")


def test_what_was_not_measured_before_or_at_another_distance_has_not_fallen() -> None:
    before = results(figure("train", 1), figure("rsync", 9))
    elsewhere = results(figure("train", 1, rtt_ms=150), figure("rsync", 1, rtt_ms=150))
    alone = results(figure("train", 1), figure("scp", 1))

    assert not list(fallen(before, elsewhere))
    assert not list(fallen(before, alone))
    assert not list(fallen(results(figure("rsync", 9)), before))


def test_newer_results_take_the_place_of_their_parts_and_lines_alone() -> None:
    far = replace(LINE, asked_ms=150)
    old = results(figure("train", 1), figure("train", 2, part="pull"), lines=(LINE, far))
    better = replace(LINE, measured_ms=50.9)
    new = results(figure("train", 3), lines=(better,), kernel="newer")

    both = old.updated(new)

    assert both.figures == (figure("train", 2, part="pull"), figure("train", 3))
    assert both.lines == (better, far)
    assert both.about["pull"] == {"machine": "here"}
    assert both.about["sync"] == {"machine": "here", "kernel": "newer"}


def test_a_part_measured_again_loses_the_cases_that_are_no_longer_in_it() -> None:
    old = results(figure("train", 1), figure("gone", 1))
    assert old.updated(results(figure("train", 2))).figures == (figure("train", 2),)


def test_results_are_read_as_they_were_written() -> None:
    kept = results(figure("train", 1, 2.5), figure("rsync", 4))
    assert from_json(to_json(kept)) == kept


def test_the_table_has_a_row_for_each_race_and_how_many_times_ours_each_takes() -> None:
    text = markdown(
        results(
            figure("train", 1, 3, 2),
            figure("rsync, cold", 4, 10, 6),
            figure("train", 5, rtt_ms=150),
        )
    )

    assert "- sync: machine here\n" in text
    assert "| 50 ms | 50.20 ms | 100 MB/s | 700 MB/s |\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| 50 files")]
    assert rows == [
        "| 50 files | 50 ms | 2 s (1-3) | 6 s (4-10) 3x; 0.1 s | 0.1 s, 30 MiB | 3 |",
        "| 50 files | 150 ms | 5 s (5-5) |  | 0.1 s, 30 MiB | 1 |",
    ]


def test_what_was_left_out_is_said() -> None:
    text = markdown(Results({}, (), (), ("50 ms: network namespaces need root",)))
    assert text.endswith("## Left out\n\n- 50 ms: network namespaces need root\n")


def test_the_readmes_table_is_put_between_its_marks(tmp_path: Path) -> None:
    figures = (
        Figure("pull", "25 MB", 50, "train", "s", (1.0, 1.25, 1.5)),
        Figure("pull", "25 MB", 50, "scp", "s", (20.4,)),
    )
    results = Results({"pull": {"machine": "a laptop"}}, (), figures)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    show(results, readme)
    text = readme.read_text()

    assert text.startswith("before\n<!-- bench -->\n| | 0 ms away |")
    assert text.endswith("<!-- /bench -->\nafter\n")
    assert "| a model of 25 MB pulled |  | 1.25 s (scp 20 s) |  |\n" in text
    assert "Measured on a laptop" in text
    assert "old" not in text
    assert summary(results) in text


def test_a_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- bench -->\nno end\n")
    show(Results({}, (), ()), tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == "<!-- bench -->\nno end\n"
