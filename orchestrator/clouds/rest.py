"""JSON over HTTPS, asked of a cloud: the one door to its web services.

A token goes to the service it is for and nowhere else, and is shown in no error, even where the
service's own answer quotes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from orchestrator.clouds.exchange import Answer, Question, check_address, origin, send
from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudError, CloudRefused

_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
# These are said by what stands before a service as well, and pass.
_PASSING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long a question may take, with all its repeats.

    Attributes:
        silence_s: how long the service may say nothing.
    """

    limit_s: float = 60.0
    silence_s: float = 20.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Rest:
    """One service.

    Args:
        name: as messages call it.
        endpoint: its address; paths are put after it.
        log_in: gives a token for it; None asks without. Called again for one that ends or is
            refused.
        fixes: what the user can do about a status.

    Every method raises `CloudRefused` where the service says no, and `CloudError` where it could
    not be asked or went on saying that it is busy or broken.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        log_in: Callable[[], Token] | None = None,
        *,
        fixes: Mapping[int, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.name = name
        self.endpoint = endpoint.rstrip("/")
        self._log_in = log_in
        self._fixes = fixes or {}
        self.patience = patience or Patience()
        self._token: Token | None = None
        check_address(name, self.endpoint)

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, headers: Mapping[str, str] = {}
    ) -> Answer:
        return self._ask(Question("GET", self._url(path, query), headers))

    def post(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """With an empty body, as orders to a machine have it."""
        return self._ask(Question("POST", self._url(path, query)))

    def post_form(self, path: str, form: Mapping[str, str | Secret]) -> Answer:
        secrets = [value for value in form.values() if isinstance(value, Secret)]
        plain = {k: v.reveal() if isinstance(v, Secret) else v for k, v in form.items()}
        data = urlencode(plain).encode()
        return self._ask(Question("POST", self._url(path, None), {}, data, secrets))

    def follow(self, link: str) -> Answer:
        """Ask for an address that the service gave.

        Raises:
            CloudError: it leads elsewhere.
        """
        if origin(link) != origin(self.endpoint):
            where = urlsplit(link).hostname
            raise CloudError(f"{self.name} points to {where}, which is not {self.name}'s address")
        return self._ask(Question("GET", link))

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return self.endpoint + path + ("?" + urlencode(query) if query else "")

    def _ask(self, question: Question) -> Answer:
        patience, again = self.patience, iter(_PAUSES_S)
        deadline = patience.monotonic() + patience.limit_s
        renewed = False
        while True:
            token = self._fresh_token()
            secrets = [*question.secrets, *([token.secret] if token else [])]
            pause: float | None = None
            try:
                answer = send(question, token, patience.silence_s, deadline, patience.monotonic)
            except (OSError, ValueError) as error:
                wrong = _unreached(self.name, self.endpoint, error)
            else:
                if answer.status < 300:
                    return answer
                wrong = self._refusal(answer, secrets)
                if answer.status == 401 and self._log_in and not renewed:
                    # Revoked, or ended early: once more with a new one.
                    self._token, renewed = None, True
                    continue
                if answer.status not in _PASSING:
                    raise wrong
                pause = asked_pause(answer)
            pause = pause if pause is not None else next(again, None)
            if pause is None or patience.monotonic() + pause >= deadline:
                raise wrong
            patience.sleep(pause)

    def _fresh_token(self) -> Token | None:
        if self._log_in is None:
            return None
        token = self._token
        # The clocks of both sides may differ, and the order is yet to be checked over there.
        if token is None or (token.ends_at is not None and token.ends_at < time.time() + 120):
            token = self._token = self._log_in()
        return token

    def _refusal(self, answer: Answer, secrets: Iterable[Secret]) -> CloudError:
        code, words = said(answer.body)
        for secret in secrets:
            code, words = secret.hide_in(code), secret.hide_in(words)
        status, name = answer.status, self.name
        shown = f" ({code})" if code else f" (HTTP {status})"
        fix = self._fixes.get(status, "")
        match status:
            case 401:
                return _no(f"{name} does not accept this login{shown}", code, words, fix)
            case 403:
                return _no(f"{name} does not allow it to this login{shown}", code, words, fix)
            case 404:
                return _no(f"{name} knows no such thing{shown}", code, words, fix)
            case 409:
                return _no(f"{name} cannot do this now{shown}", code, words, fix)
            case 429:
                fix = fix or "try again in a few minutes; other programs may ask as this login too"
                return CloudError(f"{name} is asked too often{shown}", cause=words, fix=fix)
            case _ if status in _PASSING:
                fix = fix or f"try again later; {name} publishes its health on its status page"
                return CloudError(f"{name} is out of order{shown}", cause=words, fix=fix)
            case _ if 300 <= status < 400:
                words = "redirects are not followed: a token could end up with someone else"
                return _no(f"{name} sent us elsewhere{shown}", code, words, fix)
            case _:
                return _no(f"{name} refused{shown}", code, words, fix)


def said(body: Mapping[str, Any]) -> tuple[str, str]:
    """The code and the words of an error, in any of the forms that clouds have for it."""
    error = body.get("error", body)
    if isinstance(error, str):
        # OAuth's.
        return error, _line(body.get("error_description", ""))
    if not isinstance(error, dict):
        return "", ""
    inner = error.get("errors")
    first = inner[0] if isinstance(inner, list) and inner and isinstance(inner[0], dict) else {}
    # Google's code is the number that we have already.
    code = error.get("code", "")
    if not isinstance(code, str):
        code = first.get("reason") or first.get("code") or error.get("status") or ""
    return _line(code), _line(error.get("message") or first.get("message") or "")


def _line(text: object) -> str:
    """In one line, and not a page of it: some append a trace."""
    return " ".join(str(text).split())[:500]


def _no(message: str, code: str, cause: str, fix: str) -> CloudRefused:
    return CloudRefused(message, code=code, cause=cause, fix=fix)


def _unreached(name: str, endpoint: str, error: Exception) -> CloudError:
    host = urlsplit(endpoint).hostname
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        message = f"{name} ({host}) did not answer in time"
    else:
        message = f"cannot reach {name} ({host})"
    words = str(reason)
    if isinstance(reason, OSError) and reason.strerror:
        words = reason.strerror.lower()
    fix = f"check this computer's network, its proxy and its clock; then: curl -I {endpoint}"
    return CloudError(message, cause=_line(words), fix=fix)


def asked_pause(answer: Answer) -> float | None:
    """Seconds, where the service names them; a date is read as well."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text[:9])
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
