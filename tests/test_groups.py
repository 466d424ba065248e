"""Tests that share what is dear to make are in one worker."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("groups")
def test_a_group_is_kept_together(request: pytest.FixtureRequest) -> None:
    """By its name in the node's id; pytest-xdist goes by nothing else."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("these tests are in one process")
    assert request.node.nodeid.endswith("@groups")
