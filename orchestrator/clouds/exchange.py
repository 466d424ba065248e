"""One request over HTTP and its answer: short, JSON, in bounded time.

Redirects are not followed and plain HTTP is spoken to this machine and its metadata service only:
a token could end up with someone else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudRefused

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from urllib.request import OpenerDirector, Request

METADATA_HOST = "169.254.169.254"
_PLAIN_HOSTS = ("127.0.0.1", "::1", "localhost", METADATA_HOST)

# A page of a thousand prices is under one.
_MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class Answer:
    """Attributes:
    headers: by their names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Question:
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    form: bytes | None = None
    secrets: list[Secret] = field(default_factory=list)

    def request(self, token: Token | None) -> Request:
        from urllib.request import Request

        data = self.form if self.form is not None else (b"" if self.method == "POST" else None)
        headers = {"Accept": "application/json", **self.headers}
        if data is not None:
            kind = "application/x-www-form-urlencoded" if self.form else "application/json"
            headers["Content-Type"] = kind
        request = Request(self.url, data, headers, method=self.method)  # noqa: S310  # see check_address
        if token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {token.secret.reveal()}")
        return request


def send(
    question: Question,
    token: Token | None,
    silence_s: float,
    deadline: float,
    monotonic: Callable[[], float],
) -> Answer:
    """Whatever the status is.

    Args:
        silence_s: how long nothing may come.
        deadline: by `monotonic`.

    Raises:
        OSError: it did not get through, or not in time.
        ValueError: the answer is too long, or the address is none.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError

    left = max(0.01, min(silence_s, deadline - monotonic()))
    try:
        try:
            response: Any = _opener(question.url).open(question.request(token), timeout=left)
        except HTTPError as error:
            response = error
        with response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            body = _object(_read(response, headers, deadline, monotonic))
            if body is None and response.status < 300:
                # A proxy's or a hotel's page, and not an order that was taken.
                raise ValueError("the answer is no JSON")
            return Answer(response.status, headers, body or {})
    except HTTPException as error:
        raise ConnectionError(f"the answer broke off ({type(error).__name__})") from None


def _read(
    response: HTTPResponse,
    headers: Mapping[str, str],
    deadline: float,
    monotonic: Callable[[], float],
) -> bytes:
    length = headers.get("content-length", "")
    whole = int(length) if length.isdigit() and len(length) < 16 else None
    data = b""
    while whole is None or len(data) < whole:
        # Not read(), to which a server may drip for ever without ever being silent.
        piece = response.read1(1 << 16)
        data += piece
        if not piece:
            break
        if len(data) > _MOST_BYTES:
            raise ValueError(f"the answer is longer than {_MOST_BYTES >> 20} MiB")
        if monotonic() > deadline:
            raise TimeoutError("timed out")
    # read1() takes an early end for the end.
    if whole is not None and len(data) < whole:
        raise ConnectionError("the answer broke off")
    return data


def check_address(name: str, url: str) -> None:
    """Raises:
    CloudRefused: a token sent there could be read on the way.
    """
    parts = urlsplit(url)
    plain = parts.scheme == "http" and parts.hostname in _PLAIN_HOSTS
    if not parts.hostname or parts.username or not (parts.scheme == "https" or plain):
        raise CloudRefused(
            f"{name} cannot be asked at {url.rpartition('@')[2]}",
            fix="an endpoint begins with https:// and holds no password",
        )


def origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _opener(url: str) -> OpenerDirector:
    from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    # A proxy is told neither of this machine's metadata nor of its own services.
    near = urlsplit(url).hostname in _PLAIN_HOSTS
    return build_opener(Stay, *([ProxyHandler({})] if near else []))


def _object(data: bytes) -> dict[str, Any] | None:
    """Prices in it are exact. Empty for nothing; None where it is no JSON object."""
    if not data.strip():
        return {}
    try:
        found = json.loads(data, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
