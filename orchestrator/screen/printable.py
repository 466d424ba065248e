"""Text from elsewhere, made harmless for a terminal."""

from __future__ import annotations

import re

_LINE_CHARACTERS = 400
# Longer than any line that helps; a VM could fill the screen for hours.
_LONGEST_CHARACTERS = 10_000

# C0 and C1 controls but tab, DEL, and the marks that reorder text on the screen (bidi overrides,
# "Trojan Source", CVE-2021-42574).
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Colours and cursor movements leave nothing behind; their letters alone would be litter.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def printable(text: str) -> str:
    """`text` as one line without control characters: sequences vanish, the rest is escaped, and
    what is beyond 10,000 characters is cut off.
    """
    shown = _UNSAFE.sub(lambda found: _escape(found.group()), _SEQUENCE.sub("", text))
    cut = shown[:_LONGEST_CHARACTERS]
    return shown if shown == cut else f"{cut[:-4]} ..."


def printable_lines(text: str, lines: int = 20) -> str:
    """The last `lines` lines of `text`, each made printable."""
    return "\n".join(printable(line) for line in text.splitlines()[-lines:])


def one_line(text: str, characters: int = _LINE_CHARACTERS) -> str:
    """`text` made safe for a terminal: one line, printable, cut in the middle when too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= characters:
        return line
    half = (characters - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
