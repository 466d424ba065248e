"""Durations as a person writes them: `40m`, `1h30m`, `90s`. Pure."""

from __future__ import annotations

import re

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_FORM = re.compile(" *".join(f"(?:([0-9]{{1,9}}){unit})?" for unit, _ in _UNITS))


def parse_duration(text: str) -> float:
    """Seconds in `text`: days, hours, minutes and seconds in this order, each at most once.

    Raises:
        ValueError: any other form, a bare number among them: its unit would be a guess.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration such as 40m, 1h30m or 90s")
    return float(
        sum(int(count or 0) * size for count, (_, size) in zip(match.groups(), _UNITS, strict=True))
    )
