"""A run's log, curves and use as the live view has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records.curves import Epoch
from orchestrator.records.mirror import Mirror
from orchestrator.watch.board import Chart, Curve
from orchestrator.watch.chart import draw
from orchestrator.watch.rundetail import charts, epoch_text, left_text, run_detail, usage_lines
from remote.usage import GpuUsage, Usage

SAMPLE = Usage("2026-01-01T12:00:00Z", 150.0, 10**9, 3 * 10**9, None, None, ())


def epochs(count: int, of: int | None = 10, **metrics: float) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(n, {k: v / (n + 1) for k, v in metrics.items()}, 1, of, "2026-01-01T12:00:00Z", 4.0)
        for n in range(count)
    )


def test_progress_is_of_the_last_fit() -> None:
    again = Epoch(0, {}, 2, 5, "2026-01-01T12:00:00Z", 1.0)

    assert epoch_text((*epochs(10, loss=1), again)) == "1 of 5"
    assert epoch_text(epochs(3, of=None, loss=1)) == "3"
    assert epoch_text(()) == ""


def test_what_is_left_takes_as_long_as_the_last_epochs() -> None:
    assert left_text(epochs(3, loss=1)) == "28 s left"
    assert left_text(epochs(10, loss=1)) == left_text(epochs(3, of=None, loss=1)) == ""


@pytest.mark.parametrize("seconds", [1e300, 1.7e308, 0.0, -5.0])
def test_no_time_that_a_vm_tells_makes_a_time_left_that_nobody_waits_for(seconds: float) -> None:
    assert left_text(tuple(one._replace(seconds=seconds) for one in epochs(3, loss=1))) == ""


def test_each_metric_has_a_chart_with_its_validation_and_the_earlier_runs() -> None:
    made = charts(epochs(2, acc=1, loss=4, val_loss=8), epochs(1, loss=9, val_loss=6), "best")

    assert made == (
        Chart(
            "loss",
            (
                Curve("training", ((1, 4), (2, 2))),
                Curve("validation", ((1, 8), (2, 4))),
                Curve("best", ((1, 6),)),
            ),
        ),
        Chart("acc", (Curve("training", ((1, 1), (2, 0.5))),)),
    )


def test_a_metric_that_is_only_validated_has_a_chart_of_its_own() -> None:
    (made,) = charts(epochs(1, val_auc=1), (), "")

    assert made == Chart("val_auc", (Curve("validation", ((1, 1),)),))


def test_use_is_a_line_for_each_gpu_and_one_for_the_rest() -> None:
    gpus = (GpuUsage(0, 97.0, 1000, 2000, 61.0, 118.0), GpuUsage(1, None, None, None, None, None))

    assert usage_lines((SAMPLE, SAMPLE._replace(cpu_percent=50.0, gpus=gpus))) == (
        "gpu 0 97 % █, memory 1.0 GB of 2.1 GB, 61 °C, 118 W",
        "gpu 1",
        "cpu 50 % █▃, memory 1.0 GB, 3.0 GB left",
    )


def test_no_load_that_a_vm_tells_is_too_much_for_its_bar() -> None:
    gpu = GpuUsage(0, 1.7e308, None, None, None, None)
    lines = usage_lines((SAMPLE._replace(cpu_percent=1.7e308, gpus=(gpu,)),))

    assert [line.count("█") for line in lines] == [1, 1]


def test_a_driver_that_fails_is_named() -> None:
    assert usage_lines((SAMPLE._replace(gpus=None),))[0] == "gpu: its driver does not answer"
    assert usage_lines(()) == ()


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path)


def test_the_log_ends_with_the_line_that_is_being_drawn(mirror: Mirror) -> None:
    mirror.log.write_bytes(b"".join(b"line %d\n" % n for n in range(1000)) + b"1/9 \r2/9 ")

    log = run_detail(mirror, None, "").log
    assert log[-2:] == ("line 999", "2/9")
    assert len(log) < 300


def test_a_log_without_line_feeds_is_read_from_near_its_end(mirror: Mirror) -> None:
    mirror.log.write_bytes(b"x\r" * 10**6 + b"the end")

    assert run_detail(mirror, None, "").log == ("the end",)


def test_a_log_cannot_steer_the_terminal(mirror: Mirror) -> None:
    mirror.log.write_bytes(b"\x1b[2J\x9b2Jhello\x07\n")

    (line,) = run_detail(mirror, None, "").log
    assert line.isprintable()


@pytest.mark.parametrize("values", [(1.0,), (0.5, 0.5), (1e-7, 2e-7), (1e9, -1e9), (1e30, -1e30)])
def test_any_curve_fits_its_place(values: tuple[float, ...]) -> None:
    points = tuple(enumerate(values, 1))
    drawn = draw(Chart("loss", (Curve("training", points),)), 40, 8).plain.splitlines()

    assert len(drawn) == 8
    assert all(len(line) <= 40 for line in drawn)


def test_a_long_training_is_drawn_to_its_last_epoch() -> None:
    points = tuple((step, 1.0) for step in range(1, 20_001))

    assert "20000" in draw(Chart("loss", (Curve("training", points),)), 60, 10).plain
