"""What squeue prints, and what is made of it, with a program in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote import slurm


def test_a_start_that_no_calendar_has_is_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["1893456000", "9" * 30, "²", "-1", "N/A", ""]
    lines = "".join(f"1|N/A|PENDING|{text}|Resources|run|a\n" for text in said)
    (tmp_path / "said").write_text(f"no line of ours\n{lines}")
    (tmp_path / "squeue").write_text(f"#!/bin/sh\nexec cat {tmp_path}/said\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    places = slurm.places(lambda: None)

    assert [place.starts_s for place in places] == [1893456000.0, None, None, None, None, None]
    assert {(place.name, place.reason) for place in places} == {("run|a", "Resources")}
