"""Many lives of rented machines, and what was promised of the ledger, held against the clouds.

`python -m tests.money.simulation [SESSIONS] [--seed N ...] [--write FILE]` prints the tables, and
ends with 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.money.fronts import KINDS
from tests.money.judge import SLACK_S, STEP_S, Record
from tests.money.life import Cast, Life

# The last session of each machine, after which nobody comes back, is one of many.
_SESSIONS_EACH = 25
_HEAD = """machines with their users and all that goes wrong, by the rules of each cloud, with a
moved clock. Seconds are of price. `unknowable` is what the ledger itself calls an estimate at the
end, with what the meter has in that time. Mostly it is more: a machine that tells no times and
whose guard does not come back is counted until it was found off, or its guard would have stopped
it. `known` is the ratio of all the rest. `unmarked below` is the worst of all stints at all
reports: each that is not called an estimate must be worth what the meter has from its start to the
next one's.

What is not held against the guard or the ledger:

- A clock that is set back while its machine reboots hides that time from the guard: no clock of the
  machine knows of it, and the session's hard end comes so much later.
- A machine of the user's own (`command`) is paid for until it is off; a cloud's by its own rules.
- A command in which nobody could be asked tells the ledger nothing, so it is not judged after it.
- A budget may be overrun, and a lease, while the machine boots: no guard can be there yet.
- One second for each stint: clouds count in whole ones, and tell some of their times in them."""


@dataclass(frozen=True)
class Found:
    """Of many lives, by provider."""

    seed: int
    by_provider: dict[str, Record]

    @property
    def whole(self) -> Record:
        whole = Record()
        for record in self.by_provider.values():
            whole.add(record)
        return whole

    def broken(self) -> Iterator[str]:
        """The promises that did not hold."""
        whole = self.whole
        if abs(whole.ratio - 1) > 0.01:
            yield f"the ledger is {whole.ratio:.4f} of the meter"
        if abs(whole.known - 1) > 0.01:
            yield f"the ledger is {whole.known:.4f} of the meter in what could be known"
        if whole.unmarked_s > STEP_S:
            yield f"it was {whole.unmarked_s:.1f} s of price below the meter and did not say so"
        if whole.overrun_s > SLACK_S:
            yield f"a budget was overrun by {whole.overrun_s:.0f} s of price"
        if whole.left:
            yield f"{whole.left} machines were on beyond their lease"
        if whole.given < whole.needed:
            yield f"{whole.needed - whole.given} of {whole.needed} warnings were not given"


def simulate(sessions: int, seed: int, each: int = _SESSIONS_EACH) -> Found:
    """Lives of machines of each provider in turn, until there were so many sessions."""
    found: dict[str, Record] = {name: Record() for name in KINDS}
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        for number in range(-(-sessions // each)):
            provider = tuple(KINDS)[number % len(KINDS)]
            home = Path(folder, str(number))
            home.mkdir()
            found[provider].add(Life(Cast(seed * 10_000 + number, provider, each), home).play())
    return Found(seed, found)


def table(found: Found) -> str:
    """For people, in Markdown."""
    lines = [
        "| provider | sessions | ledger | meter | ratio | known | unknowable (meter)"
        " | reports | unmarked below | budget overrun | beyond lease | warned |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, record in (*found.by_provider.items(), ("all", found.whole)):
        lines.append(
            f"| {name} | {record.sessions} | {float(record.ledger):.2f} | {float(record.meter):.2f}"
            f" | {record.ratio:.4f} | {record.known:.4f} | {float(record.guessed):.2f}"
            f" ({float(record.guessed_meter):.2f}) | {record.contacts}"
            f" | {max(0.0, record.unmarked_s):.1f} s"
            f" | {max(0.0, record.overrun_s):.1f} s | {record.left}"
            f" | {record.given} of {record.needed} |"
        )
    events = sorted(found.whole.events.items())
    told = ", ".join(f"{count} x {what}" for what, count in events)
    return "\n".join([*lines, "", f"What happened: {told}."])


def plain(found: Found) -> dict[str, object]:
    """For programs."""
    return {
        "seed": found.seed,
        "providers": {
            name: {
                "sessions": record.sessions,
                "ledger": round(float(record.ledger), 6),
                "meter": round(float(record.meter), 6),
                "ratio": round(record.ratio, 6),
                "known_ratio": round(record.known, 6),
                "unknowable": round(float(record.guessed), 6),
                "unknowable_meter": round(float(record.guessed_meter), 6),
                "reports": record.contacts,
                "unmarked_below_s": round(max(0.0, record.unmarked_s), 3),
                "budget_overrun_s": round(max(0.0, record.overrun_s), 3),
                "beyond_lease": record.left,
                "warnings_needed": record.needed,
                "warnings_given": record.given,
                "events": dict(sorted(record.events.items())),
            }
            for name, record in (*found.by_provider.items(), ("all", found.whole))
        },
    }


def page(found: Sequence[Found], date: str) -> str:
    """All of it, with what did not hold."""
    parts = [f"# The ledger against the clouds' bills\n\n`make money`, {date}: {_HEAD}"]
    for one in found:
        broken = list(one.broken())
        verdict = f"Not held: {'; '.join(broken)}." if broken else "Every promise held."
        parts.append(f"## Seed {one.seed}\n\n{verdict}\n\n{table(one)}")
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("sessions", type=int, nargs="?", default=1000, help="of each seed")
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--write", type=Path, help="a .md; the figures go beside it as .json")
    asked = parser.parse_args(arguments)
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(partial(simulate, asked.sessions), asked.seed))
    date = datetime.now(UTC).date().isoformat()
    sys.stdout.write(page(found, date))
    for one in found:
        for line in one.whole.broken[:20]:
            sys.stderr.write(f"{line}\n")
    if asked.write:
        asked.write.write_text(page(found, date), encoding="utf-8")
        figures = {"date": date, "seeds": [plain(one) for one in found]}
        asked.write.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if any(next(one.broken(), "") for one in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
