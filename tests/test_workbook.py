"""The book of what was measured: nothing in it is lost to a crash, or changed later."""

from __future__ import annotations

from pathlib import Path

from orchestrator.measuring.workbook import Workbook
from tests.forks import at_once
from tests.test_workload import CPU, K80, kept

ONE, TWO = kept(CPU, run="one"), kept(K80, run="two")


def test_figures_are_added_and_the_old_ones_stay(tmp_path: Path) -> None:
    book = Workbook(tmp_path)
    assert book.all() == ()
    book.add(ONE)
    before = book.path.read_bytes()
    book.add(TWO, kept(K80._replace(workload="text"), run="two"))
    assert book.path.read_bytes().startswith(before)
    assert [one.run_id for one in book.all()] == ["one", "two", "two"]


def test_the_same_run_brings_its_figures_once(tmp_path: Path) -> None:
    book = Workbook(tmp_path)
    book.add(ONE)
    book.add(ONE._replace(price_per_hour="9.00"), TWO)
    assert book.all() == (ONE, TWO)


def test_a_line_cut_at_any_byte_spoils_no_other(tmp_path: Path) -> None:
    book = Workbook(tmp_path)
    book.add(ONE)
    book.add(TWO)
    whole = book.path.read_bytes()
    for size in range(whole.rindex(b"\n", 0, -1) + 1, len(whole) - 1, 7):
        book.path.write_bytes(whole[:size])
        assert book.all() == (ONE,)
        book.add(TWO)
        assert book.all() == (ONE, TWO)


def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    book = Workbook(tmp_path)
    book.add(ONE._replace(price_per_hour="a lot"), kept(CPU._replace(workload="mining")), TWO)
    with book.path.open("ab") as file:
        file.write(b"\xff\n[]\n{}\n")
    assert book.all() == (TWO,)


def test_commands_that_add_at_once_add_all_and_nothing_twice(tmp_path: Path) -> None:
    def add(number: int) -> None:
        for turn in range(50):
            Workbook(tmp_path).add(ONE._replace(run_id=f"turn {turn}"))

    assert at_once(4, add) == [0] * 4
    assert len(Workbook(tmp_path).all()) == 50
    assert Workbook(tmp_path).path.read_bytes().count(b"{") == 50 * (2 + len(CPU.repeats))
