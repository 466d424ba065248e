"""The table claims nothing of a test that failed."""

from __future__ import annotations

import json

from tests.faults.points import name_of
from tests.faults.reliability import rows


def test_a_test_that_failed_for_one_parameter_has_no_row_that_claims_it_held() -> None:
    told = [
        {"test": "test_cut", "fault": "cut, upwards", "tried": 3, "holds": "finished"},
        {"test": "test_full", "fault": "disk full", "tried": 2, "holds": "said"},
        {"test": "test_cut", "failed": True},
        {"test": "test_full", "fault": "disk full", "tried": 4, "holds": "said"},
    ]
    assert rows([json.dumps(line) for line in told]) == [
        "| `test_cut` | | **did not hold** |",
        "| disk full | 6 | said |",
    ]


def test_a_test_is_named_without_its_file_parameters_and_group() -> None:
    for node_id in ("a.py::test_a[x-1]@a group (call)", "a.py::test_a", "a::test_a@b (setup)"):
        assert name_of(node_id) == "test_a"
