"""From a remote's `cloud:` to the provider that starts and stops it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.clouds.power import Provider
from orchestrator.errors import ConfigError
from orchestrator.settings.node import nearest
from orchestrator.settings.spec import Remote


@dataclass(frozen=True)
class _Form:
    """The options of one provider, each with an example."""

    needed: Mapping[str, str]
    possible: Mapping[str, str]


_FORMS = {
    "azure": _Form(
        {
            "subscription": "00000000-0000-0000-0000-000000000000",
            "resource_group": "exam",
            "vm": "gpu-1",
        },
        {
            "endpoint": "https://management.azure.com",
            "login_endpoint": "https://login.microsoftonline.com",
            "prices_endpoint": "https://prices.azure.com",
        },
    ),
    "aws": _Form(
        {"region": "eu-central-1", "instance": "i-0123456789abcdef0"},
        {"profile": "exam", "endpoint": "https://ec2.eu-central-1.amazonaws.com"},
    ),
    "gcp": _Form(
        {"project": "exam-123", "zone": "europe-west4-a", "instance": "gpu-1"},
        {"endpoint": "https://compute.googleapis.com/compute/v1"},
    ),
    "command": _Form(
        {"start": "./gpu up", "stop": "./gpu down", "status": "./gpu status"},
        {"stop_itself": "sudo poweroff"},
    ),
    "none": _Form({}, {}),
}
PROVIDERS = tuple(_FORMS)


def open_provider(remote: Remote) -> Provider | None:
    """Who starts and stops the machine; None where nothing is said of its cloud.

    No cloud is asked yet.

    Raises:
        ConfigError: the provider or an option is unknown, or one is missing.
        CloudRefused: an endpoint is no safe one.
    """
    if remote.cloud is None:
        return None
    options = dict(remote.cloud.options)
    _check(remote.name, remote.cloud.provider, options)
    match remote.cloud.provider:
        case "azure":
            from orchestrator.clouds import azure, azurelogin, azureprices

            return azure.Azure(
                azure.AzureMachine(
                    options["subscription"], options["resource_group"], options["vm"]
                ),
                endpoint=options.get("endpoint", azure.MANAGEMENT),
                login_endpoint=options.get("login_endpoint", azurelogin.LOGIN),
                prices_endpoint=options.get("prices_endpoint", azureprices.PRICES),
            )
        case "aws":
            from orchestrator.clouds.aws import Aws

            return Aws(
                options["region"],
                options["instance"],
                profile=options.get("profile", ""),
                endpoint=options.get("endpoint", ""),
            )
        case "gcp":
            from orchestrator.clouds import gcp

            return gcp.Gcp(
                gcp.GcpMachine(options["project"], options["zone"], options["instance"]),
                endpoint=options.get("endpoint", gcp.COMPUTE),
            )
        case "command":
            from orchestrator.clouds.owncommand import Command

            return Command(
                remote.name,
                options["start"],
                options["stop"],
                options["status"],
                options.get("stop_itself", ""),
            )
        case _:
            from orchestrator.clouds.owncommand import Nothing

            return Nothing(remote.name)


def _check(remote: str, provider: str, options: Mapping[str, str]) -> None:
    where = f"cloud of the remote {remote}"
    if provider not in _FORMS:
        raise ConfigError(
            f"{where}: there is no provider {provider!r}{_meant(provider, PROVIDERS)}",
            fix=f"one of {', '.join(PROVIDERS)}",
        )
    form = _FORMS[provider]
    known = {**form.needed, **form.possible}
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{where}: {provider} has no option {name!r}{_meant(name, tuple(known))}",
                fix=f"its options are {', '.join(known)}" if known else "leave it out",
            )
    missing = [name for name in form.needed if name not in options]
    if missing:
        example = ", ".join(f"{name}: {text}" for name, text in form.needed.items())
        raise ConfigError(
            f"{where}: {provider} needs {', '.join(missing)} as well",
            fix=f"cloud: {{provider: {provider}, {example}}}",
        )
    for name, text in options.items():
        # Names become parts of addresses and of commands' arguments.
        if provider in ("azure", "aws", "gcp") and not (text.isascii() and _is_plain(text, name)):
            raise ConfigError(
                f"{where}: {name} is {text!r}, which is no name that {provider} gives",
                fix=f"{name}: {known[name]}",
            )


def _is_plain(text: str, name: str) -> bool:
    if name.endswith("endpoint"):
        return True
    return not text.startswith("-") and all(c.isalnum() or c in "-_.():" for c in text)


def _meant(word: str, known: tuple[str, ...]) -> str:
    near = nearest(word, known)
    return f"; is {near!r} meant?" if near else ""
