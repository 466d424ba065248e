"""What the figures of a workload come to, reckoned by hand here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from orchestrator.measuring.workload import Kept, complaints, is_sound, newest
from remote.measured import Measured, Repeat

# 1000, 500, 800, 2000 and 400 samples a second.
REPEATS = tuple(Repeat(2000, seconds) for seconds in (2.0, 4.0, 2.5, 1.0, 5.0))
CPU = Measured("digits", "2026-11-20T10:00:00Z", 20.0, REPEATS, "3.11.7", "2.21.0", (), 2)
K80 = CPU._replace(
    tensorflow="2.10.1",
    framework_gpus=("/device:GPU:0",),
    gpu="Tesla K80",
    driver="470.256.02",
    gpu_percent=(40.0, 50.0, 90.0),
    temperature_c=61.0,
)


def kept(measured: Measured, remote: str = "k80", price: str = "0.90", run: str = "r") -> Kept:
    return Kept(remote, run, False, price, "USD" if price else "", measured)


def test_the_rate_is_the_median_of_the_repeats() -> None:
    assert kept(CPU).rate == 800.0
    assert (min(kept(CPU).rates), max(kept(CPU).rates)) == (400.0, 2000.0)


def test_the_time_to_five_is_the_start_and_the_known_epochs_at_the_measured_rate() -> None:
    # 4000 samples, 12 epochs: 48000 / 800 = 60 s, and 20 s of start.
    assert kept(CPU).to_five_s == 80.0
    # At $0.90 an hour a second is $0.00025.
    assert kept(CPU).to_five_cost == Decimal("0.02")


def test_a_million_samples_cost_the_time_they_take() -> None:
    # 1,000,000 / 800 = 1250 s.
    assert kept(CPU).per_million == Decimal("0.3125")


def test_what_an_unknown_price_makes_is_unknown_and_never_nothing() -> None:
    assert kept(CPU, price="").per_million is None
    assert kept(CPU, price="").to_five_cost is None


def test_the_use_of_the_gpu_is_the_median_of_what_its_driver_told() -> None:
    assert kept(K80).gpu_percent == 50.0
    assert kept(CPU).gpu_percent is None


def test_a_machine_without_a_gpu_is_called_one() -> None:
    assert list(complaints(kept(CPU))) == ["no GPU: CPU figures"]
    assert kept(CPU).device == "CPU, 2 cores"


def test_of_a_gpu_that_worked_alone_and_undisturbed_there_is_nothing_to_say() -> None:
    assert list(complaints(kept(K80))) == []
    assert kept(K80).device == "Tesla K80"


def test_a_framework_that_ignores_the_gpu_is_named_with_the_reason_where_it_is_known() -> None:
    t4 = K80._replace(gpu="Tesla T4", framework_gpus=())
    assert list(complaints(kept(t4, "t4"))) == [
        "tensorflow 2.10.1 does not see the Tesla T4 and trained on the CPU at the GPU's price; "
        "see: train doctor t4"
    ]
    too_new = K80._replace(tensorflow="2.21.0", framework_gpus=())
    (told,) = complaints(kept(too_new))
    assert told.startswith("tensorflow 2.21.0 has no code for Tesla K80 (compute capability 3.7")
    assert kept(too_new).device == "CPU, 2 cores"


def test_a_shared_and_a_throttled_gpu_are_told() -> None:
    spoilt = K80._replace(others=("python3", "Xorg"), slowed=("power brake",))
    assert list(complaints(kept(spoilt))) == [
        "the Tesla K80 was shared with python3, Xorg; alone it would be faster",
        "the Tesla K80 was throttled at 61 °C: power brake",
    ]


def test_what_a_vm_calls_its_gpu_cannot_steer_a_terminal() -> None:
    evil = K80._replace(gpu="K80\x1b]0;owned\x07\n", others=("a\x1b[2Jb\rc",))
    text = kept(evil).device + "".join(complaints(kept(evil)))
    assert text.isprintable()


@pytest.mark.parametrize(
    "wrong",
    [
        {"workload": "mining"},
        {"at": "yesterday"},
        {"start_s": -1.0},
        {"repeats": ()},
        {"repeats": (Repeat(0, 1.0),)},
        {"repeats": (Repeat(10, 0.0),)},
        {"repeats": (Repeat(10**400, 1.0),)},
        {"repeats": REPEATS * 100},
    ],
    ids=str,
)
def test_figures_that_no_machine_can_have_are_refused(wrong: dict[str, Any]) -> None:
    assert is_sound(CPU)
    assert not is_sound(CPU._replace(**wrong))


def test_the_newest_figures_of_each_workload_on_each_remote_count() -> None:
    # Whatever the machine's clock said when the old ones were measured.
    old, new = kept(CPU._replace(at="2099-01-01T10:00:00Z")), kept(CPU, run="s")
    other = kept(CPU, remote="t4")
    assert newest([old, other, new]) == {("k80", "digits"): new, ("t4", "digits"): other}
