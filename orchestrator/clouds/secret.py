"""Secrets, and the tokens that clouds let one in with. Neither shows what it holds."""

from __future__ import annotations

from dataclasses import dataclass


class Secret:
    """A text that is shown by `reveal` alone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def hide_in(self, text: str) -> str:
        """`text` without this secret in it."""
        return text.replace(self._text, "[secret]") if self._text else text

    def __repr__(self) -> str:
        return "[secret]"


@dataclass(frozen=True)
class Token:
    """Attributes:
    ends_at: in seconds of `time.time()`; None where nobody says.
    """

    secret: Secret
    ends_at: float | None = None
