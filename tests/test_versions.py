"""Which TensorFlow uses which GPU."""

from __future__ import annotations

import pytest

from orchestrator.grades.versions import gpu_unused, newest_for


@pytest.mark.parametrize(
    ("gpu", "tensorflow", "is_unused"),
    [
        ("Tesla K80, 11441 MiB, driver 470.1", "2.14.1", False),
        ("Tesla K80, 11441 MiB, driver 470.1", "2.15.0", True),
        ("Tesla M60, 8 GiB", "2.16.2", False),
        ("Tesla M60, 8 GiB", "2.17.0", True),
        ("Tesla P4, 8 GiB", "2.21.0", False),
        ("Tesla T4, 15360 MiB, driver 550, compute capability 7.5", "2.21.0", False),
        ("NVIDIA A10G, 24 GiB", "2.21.0", False),
        ("Something New, 5 GiB, compute capability 3.0", "2.5.0", True),
        ("Something New, 5 GiB", "2.21.0", False),
        ("Tesla K80", "pytorch", False),
    ],
)
def test_a_gpu_is_idle_where_the_wheel_has_no_code_for_it(
    gpu: str, tensorflow: str, is_unused: bool
) -> None:
    assert bool(gpu_unused(gpu, f"tensorflow {tensorflow}")) is is_unused


def test_the_newest_version_that_uses_a_gpu_is_named() -> None:
    assert newest_for("Tesla K80") == "tensorflow<2.15"
    assert newest_for("Tesla M60") == "tensorflow<2.17"
    assert newest_for("Tesla T4") == ""
