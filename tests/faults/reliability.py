"""The table of docs/reliability.md, from what a whole run of the faults has told.

python -m tests.faults.reliability REPORT docs/reliability.md
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
_HEAD = "| fault or input | points tried | what holds |\n| --- | --: | --- |"


def main() -> None:
    report, page = Path(sys.argv[1]), Path(sys.argv[2])
    text = page.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        sys.exit(f"error: {page} has no {BEGIN} and {END}")
    day, points = datetime.now(UTC).date().isoformat(), os.environ["TRAINSHED_FAULT_POINTS"]
    said = f"The run of {day}, with up to {points} points a sweep:"
    table = "\n".join([_HEAD, *rows(report.read_text("utf-8").splitlines())])
    page.write_text(f"{before}{BEGIN}\n{said}\n\n{table}\n{END}{after}", "utf-8")


def rows(lines: list[str]) -> list[str]:
    """A row for each fault, sorted; what was tried in parts, by several tests, is one sum.

    A test that failed for one of its parameters has a row that says so, and no other.
    """
    told = [json.loads(line) for line in lines]
    failed = {entry["test"] for entry in told if "failed" in entry}
    broken = {entry["fault"] for entry in told if "fault" in entry and entry["test"] in failed}
    found: dict[str, tuple[int, str]] = {}
    for entry in told:
        if "fault" in entry and entry["fault"] not in broken:
            tried, _ = found.get(entry["fault"], (0, ""))
            found[entry["fault"]] = tried + entry["tried"], entry["holds"]
    held = [f"| {fault} | {tried:,} | {holds} |" for fault, (tried, holds) in found.items()]
    return sorted(held + [f"| `{test}` | | **did not hold** |" for test in failed])


if __name__ == "__main__":
    main()
