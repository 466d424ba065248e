"""Tokens for Azure's management API: a program's own login, the user's `az`, or the VM's identity.

Source: Microsoft identity platform, client credentials flow; `az account get-access-token`;
managed identities, "How to use managed identities on an Azure VM to acquire an access token".
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from orchestrator.clouds import program
from orchestrator.clouds.exchange import METADATA_HOST
from orchestrator.clouds.rest import Patience, Rest
from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudError, CloudRefused

LOGIN = "https://login.microsoftonline.com"
METADATA = f"http://{METADATA_HOST}"

# Of a program's own login; all three, or none counts.
_NAMES = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_AZ_LIMIT_S = 60.0
# Outside of Azure nobody has this address, and often the first packet is lost without a word.
_METADATA_PATIENCE = Patience(limit_s=3.0, silence_s=2.0)


def azure_login(
    resource: str, subscription: str, login: str = LOGIN, metadata: str = METADATA
) -> Callable[[], Token]:
    """Gives tokens for `resource`, the management API's address."""

    def log_in() -> Token:
        if all(os.environ.get(name) for name in _NAMES):
            return _own_login(login, resource)
        if az := shutil.which("az"):
            return _az_login(az, resource, subscription)
        return _machine_login(metadata, resource)

    return log_in


def _own_login(login: str, resource: str) -> Token:
    tenant, client, secret = (os.environ[name] for name in _NAMES)
    if not re.fullmatch(r"[A-Za-z0-9.-]+", tenant):
        raise CloudRefused(
            "AZURE_TENANT_ID is no tenant's id or domain", fix="az account show --query tenantId"
        )
    fix = "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET; a secret may have ended"
    service = Rest("Azure's login", login, fixes=dict.fromkeys((400, 401, 404), fix))
    form: dict[str, str | Secret] = {
        "grant_type": "client_credentials",
        "client_id": client,
        "client_secret": Secret(secret),
        "scope": f"{resource}/.default",
    }
    return _token(service.post_form(f"/{tenant}/oauth2/v2.0/token", form).body, "Azure's login")


def _az_login(az: str, resource: str, subscription: str) -> Token:
    command = [az, "account", "get-access-token", "--output", "json", "--resource", resource]
    try:
        done = program.run([*command, "--subscription", subscription], _AZ_LIMIT_S)
    except OSError as error:
        raise CloudError(f"cannot run {az}") from error
    if done.code is None:
        raise CloudError(f"az gave no token in {_AZ_LIMIT_S:.0f} s", fix="az login")
    if done.code:
        raise CloudRefused(
            "az has no login for this subscription",
            code="az",
            cause=program.last_line(done.err),
            fix="az login; then: az account list",
        )
    try:
        answer = json.loads(done.out)
    except ValueError:
        answer = {}
    return _token(answer if isinstance(answer, dict) else {}, "az")


def _machine_login(metadata: str, resource: str) -> Token:
    service = Rest("Azure's metadata service", metadata, patience=_METADATA_PATIENCE)
    query = {"api-version": "2018-02-01", "resource": f"{resource}/"}
    try:
        answer = service.get("/metadata/identity/oauth2/token", query, headers={"Metadata": "true"})
    except CloudError as error:
        raise CloudRefused(
            "there is no login for Azure here",
            code="no-login",
            cause="AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are not all set, az is "
            "not installed, and this is no Azure machine with an identity",
            fix="install the Azure CLI, then: az login",
        ) from error
    return _token(answer.body, "Azure's metadata service")


def _token(answer: Mapping[str, Any], source: str) -> Token:
    secret = answer.get("access_token") or answer.get("accessToken")
    if not isinstance(secret, str) or not secret.isascii() or not secret.isprintable():
        raise CloudError(f"{source} answered without a token")
    return Token(Secret(secret), _end(answer))


def _end(answer: Mapping[str, Any]) -> float | None:
    """From seconds to go, seconds of the epoch, or the local time that old versions of az say."""
    for name, base in (("expires_in", time.time()), ("expires_on", 0.0)):
        number = str(answer.get(name, ""))
        if number.isdigit():
            return base + float(number)
    try:
        return datetime.fromisoformat(str(answer.get("expiresOn", ""))).astimezone().timestamp()
    except ValueError:
        return None
