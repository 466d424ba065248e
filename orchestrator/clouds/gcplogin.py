"""Tokens for Google's APIs: a file of credentials that the user names, or the user's `gcloud`.

Source: Application Default Credentials; `gcloud auth print-access-token`.
"""

from __future__ import annotations

import os
import shutil
import time

from orchestrator.clouds import program
from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudError, CloudRefused

_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GCLOUD_LIMIT_S = 60.0
# It does not say how long its token lasts. One that has ended is refused, and asked for anew.
_GCLOUD_TOKEN_S = 600.0


def gcp_login() -> Token:
    if os.environ.get(_FILE):
        return _file_login(os.environ[_FILE])
    if gcloud := shutil.which("gcloud"):
        return _gcloud_login(gcloud)
    raise CloudRefused(
        "there is no login for Google Cloud here",
        code="no-login",
        cause=f"{_FILE} is not set, and gcloud is not installed",
        fix="install the Google Cloud CLI, then: gcloud auth login",
    )


def _file_login(path: str) -> Token:
    try:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
    except ImportError:
        raise CloudRefused(
            f"{_FILE} is set, and what reads such files is not installed",
            code="no-google-auth",
            fix="pip install 'trainshed[gcp]'; or unset it, then: gcloud auth login",
        ) from None
    fix = f"check the file {path}, which {_FILE} names"
    try:
        # It goes by the same variable.
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    except (GoogleAuthError, ValueError) as error:
        # Its texts may quote the answer or the file.
        kind = type(error).__name__
        if getattr(error, "retryable", False):
            raise CloudError("Google's login could not be asked", cause=kind, fix=fix) from None
        raise CloudRefused(
            "Google does not accept this login", code=kind, cause=kind, fix=fix
        ) from None
    left = credentials.expiry
    ends_at = None if left is None else time.time() + _seconds_to(left)
    return Token(Secret(str(credentials.token)), ends_at)


def _seconds_to(naive_utc: object) -> float:
    from datetime import UTC, datetime

    assert isinstance(naive_utc, datetime)
    return (naive_utc.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def _gcloud_login(gcloud: str) -> Token:
    try:
        done = program.run([gcloud, "auth", "print-access-token", "--quiet"], _GCLOUD_LIMIT_S)
    except OSError as error:
        raise CloudError(f"cannot run {gcloud}") from error
    if done.code is None:
        message = f"gcloud gave no token in {_GCLOUD_LIMIT_S:.0f} s"
        raise CloudError(message, fix="gcloud auth login")
    token = program.last_line(done.out)
    if done.code or not token.isascii() or not token or " " in token:
        raise CloudRefused(
            "gcloud has no login",
            code="gcloud",
            cause=program.last_line(done.err),
            fix="gcloud auth login",
        )
    return Token(Secret(token), time.time() + _GCLOUD_TOKEN_S)
