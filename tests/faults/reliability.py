"""The table of docs/reliability.md, from what a run of the faults has told.

    python -m tests.faults.reliability REPORT docs/reliability.md

Rows of faults that this run did not try stay as they were: a part of the suite can be run alone.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
_HEAD = ("| fault or input | points tried | what holds | last tried |", "| --- | --: | --- | --- |")


def main() -> None:
    report, page = Path(sys.argv[1]), Path(sys.argv[2])
    text = page.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    if not after:
        sys.exit(f"error: {page} has no {BEGIN} and {END}")
    rows = {row.split("|")[1].strip(): row for row in old.splitlines() if row.startswith("| ")}
    for head in _HEAD:
        rows.pop(head.split("|")[1].strip(), None)
    rows |= told(report, datetime.now(UTC).date().isoformat())
    table = "\n".join([*_HEAD, *(rows[fault] for fault in sorted(rows))])
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")


def told(report: Path, day: str) -> dict[str, str]:
    """A row for each fault; what was tried in parts, by several tests, is one sum."""
    found: dict[str, tuple[int, str]] = {}
    for line in report.read_text("utf-8").splitlines():
        entry = json.loads(line)
        tried, _ = found.get(entry["fault"], (0, ""))
        found[entry["fault"]] = tried + entry["tried"], entry["holds"]
    return {
        fault: f"| {fault} | {tried:,} | {holds} | {day} |"
        for fault, (tried, holds) in found.items()
    }


if __name__ == "__main__":
    main()
