"""What a run's files say of its training, whatever stands in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.records import curves
from orchestrator.records.curves import Point, read_epochs, read_usage, series, thinned, versions
from orchestrator.sweeps.trial import last_value
from remote.record import to_bytes
from remote.usage import GpuUsage, Usage


def line(fit: int, epoch: int, **metrics: float | None) -> str:
    facts = {"fit": fit, "epoch": epoch, "epochs": 3, "at": "2024-05-01T10:00:00Z"}
    return json.dumps({**facts, "seconds": 1, "metrics": metrics}) + "\n"


def test_epochs_are_numbered_over_all_fits(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, 0, loss=3) + line(1, 1, loss=2, val_loss=4) + line(2, 0, loss=1))

    assert series(read_epochs(file)) == {
        "loss": (Point(1, 3.0), Point(2, 2.0), Point(3, 1.0)),
        "val_loss": (Point(2, 4.0),),
    }


def test_an_epoch_that_was_trained_again_counts_as_told_last(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, 0, loss=9) + line(1, 1, loss=8) + line(1, 1, loss=7))

    assert series(read_epochs(file))["loss"] == (Point(1, 9.0), Point(2, 7.0))


def test_a_value_that_is_no_number_is_a_gap(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, 0, loss=1) + line(1, 1, loss=None) + line(1, 2, loss=2))

    assert series(read_epochs(file))["loss"] == (Point(1, 1.0), Point(3, 2.0))


def test_what_is_as_good_as_infinite_is_a_gap_too(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, 0, loss=1e30) + line(1, 1, loss=1.7e308) + line(1, 2, loss=-1e31))

    assert series(read_epochs(file))["loss"] == (Point(1, 1e30),)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_loss_that_diverged_is_a_gap_and_not_the_epoch_before_it(
    tmp_path: Path, word: str
) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, 0, loss=1, acc=0.5) + line(1, 1, loss=float(word), acc=0.6))

    assert f'"loss": {word}' in file.read_text()
    assert series(read_epochs(file)) == {
        "loss": (Point(1, 1.0),),
        "acc": (Point(1, 0.5), Point(2, 0.6)),
    }
    assert last_value(read_epochs(file), "loss") is None


def test_a_script_needs_to_tell_no_more_than_the_epoch_and_its_metrics(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"epoch": 1, "metrics": {"loss": 1}}\n{"epoch": 0, "metrics": {"loss": 2}}\n')

    assert series(read_epochs(file)) == {"loss": (Point(1, 2.0), Point(2, 1.0))}


def test_what_keras_and_the_script_tell_of_one_epoch_stands_together(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    by_keras = {**json.loads(line(1, 0, loss=9, acc=0.5)), "versions": {"keras": "3.15"}}
    by_script = {"epoch": 0, "metrics": {"f1": 0.7, "acc": 0.6}}
    file.write_text(f"{json.dumps(by_keras)}\n{json.dumps(by_script)}\n")

    (epoch,) = read_epochs(file)
    assert epoch.metrics == {"loss": 9, "acc": 0.6, "f1": 0.7}
    assert (epoch.epochs, epoch.seconds, epoch.versions) == (3, 1.0, {"keras": "3.15"})


def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    wrong = [
        '{"fit": "1"}\n',
        *(f'{{"epoch": {word}, "metrics": {{}}}}\n' for word in ("NaN", '"2"', "2.5", "1" * 99)),
        *(f'{{"epoch": 2, "metrics": {word}}}\n' for word in ("[]", '{"a": {}}', '{"a": 1e999}')),
        "\xff\n",
        "[" * 9_000 + "\n",
        "\n",
        "x" * 200_000 + "\n",
    ]
    file.write_text(line(1, 0, loss=1) + "".join(wrong) + line(1, 1, loss=2) + '{"fit": 1, "ep')

    assert [epoch.epoch for epoch in read_epochs(file)] == [0, 1]


def test_of_a_file_without_end_the_last_lines_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [line(1, epoch, loss=1) for epoch in range(10)]
    file.write_text("".join(lines))
    monkeypatch.setattr(curves, "_FILE_LIMIT_BYTES", 3 * len(lines[0]) + 9)

    assert [epoch.epoch for epoch in read_epochs(file)] == [7, 8, 9]


def test_a_line_as_long_as_no_epochs_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, 0, **{"x" * 10_000: 1}))
    before = curves._parse.cache_info().misses

    assert len(read_epochs(file)) == 1
    assert curves._parse.cache_info().misses == before


def test_a_metrics_name_cannot_reach_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, 0, **{"\x1b[2Jloss": 1}))

    (name,) = series(read_epochs(file))
    assert "\x1b" not in name


def test_a_run_that_told_nothing_has_no_curves(tmp_path: Path) -> None:
    assert read_epochs(tmp_path / "metrics.jsonl") == ()
    assert read_usage(tmp_path / "usage.jsonl") == ()


def test_samples_of_use_come_as_they_were_written(tmp_path: Path) -> None:
    gpu = GpuUsage(0, 97.0, 10_000, 11_441, None, None)
    sample = Usage("2024-05-01T10:00:00Z", 150.0, 2**30, None, 0.5, None, (gpu,))
    (tmp_path / "usage.jsonl").write_bytes(to_bytes(sample) + b'{"at": 1}\n' + to_bytes(sample))

    assert read_usage(tmp_path / "usage.jsonl") == (sample, sample)


def test_the_frameworks_that_trained_are_told_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    first = {
        **json.loads(line(1, 0, loss=1)),
        "versions": {"tensorflow": "2.11.0", "\x1b[2Jk": "1"},
    }
    file.write_text(json.dumps(first) + "\n" + line(1, 1, loss=2))

    assert versions(read_epochs(file)) == (("k", "1"), ("tensorflow", "2.11.0"))


def test_what_is_thinned_keeps_its_ends() -> None:
    assert thinned(range(1000), 4) == (0, 333, 666, 999)
    assert thinned("abc", 3) == ("a", "b", "c")
