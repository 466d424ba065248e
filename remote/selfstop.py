"""How a machine stops itself so that its cost ends, and whether it can, tried without harm.

`deallocate`: Azure. The machine's own identity asks the resource manager to deallocate it; a
power-off alone would leave it billed. Options: `arm`, the resource manager's address (sovereign
clouds have others), `client_id` of a user-assigned identity.

`poweroff`: AWS and Google Cloud, where a machine that is off is not billed. Options: `shutdown`,
what AWS does with a machine that powers itself off, as the laptop has read it there
(instanceInitiatedShutdownBehavior): anything but `stop` would delete it.

`command`: the user's own. Options: `command`, and `check`, one that only finds out whether it
would work.

Sources: learn.microsoft.com/rest/api/compute/virtual-machines/deallocate, .../rest/api/
authorization/permissions/list-for-resource; learn.microsoft.com/entra/identity/
managed-identities-azure-resources/how-to-use-vm-token; docs.aws.amazon.com/AWSEC2/latest/
UserGuide/Using_ChangingInstanceInitiatedShutdownBehavior.html.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, List, Mapping

from remote.metadata import NotThere, ask_azure, azure_machine, find_cloud

ARM = "https://management.azure.com"
_ARM_S = 30.0
_COMMAND_S = 60.0
_DEALLOCATE = "Microsoft.Compute/virtualMachines/deallocate/action"
_SAID = 200
_ROLE = "give it the role Virtual Machine Contributor on the machine"

Options = Mapping[str, str]


class CannotStop(Exception):
    """Why not, in words for the user."""


def check(how: str, options: Options) -> str:
    """Why the machine could not stop itself, or would not end its cost; empty where it can."""
    try:
        if how == "deallocate":
            _check_deallocate(options)
        elif how == "poweroff":
            _check_poweroff(options)
        elif how == "command":
            _check_command(options)
        else:
            return "no way to stop itself is known for it"
    except CannotStop as no:
        return str(no)
    return ""


def stop(how: str, options: Options) -> str:
    """Ask for the stop. Who lives long after that was not stopped.

    Returns:
        Why it was refused; empty where it was accepted.
    """
    try:
        if how == "deallocate":
            arm = options.get("arm", ARM)
            _arm("POST", f"{_machine(arm)}/deallocate?api-version=2024-07-01", arm, options)
        elif how == "poweroff":
            _execute([*_as_root(), *_poweroff()])
        elif how == "command":
            _execute(["/bin/sh", "-c", options.get("command", "")])
        else:
            return "no way to stop itself is known for it"
    except CannotStop as no:
        return str(no)
    return ""


def _check_deallocate(options: Options) -> None:
    arm = options.get("arm", ARM)
    machine = _machine(arm)
    _arm("GET", f"{machine}?api-version=2024-07-01", arm, options)
    listing = f"{machine}/providers/Microsoft.Authorization/permissions?api-version=2022-04-01"
    try:
        permissions = _arm("GET", listing, arm, options)["value"]
        granted = any(_grants(permission) for permission in permissions)
    except (KeyError, TypeError, AttributeError):
        raise CannotStop(f"{arm} does not say what the machine's identity may do") from None
    if not granted:
        raise CannotStop(f"the machine's identity may not deallocate it; {_ROLE}")


def _grants(permission: Mapping[str, Any]) -> bool:
    """Whether one of the identity's roles lets it deallocate; the names have no case."""

    def is_in(patterns: List[str]) -> bool:
        return any(fnmatch.fnmatchcase(_DEALLOCATE.lower(), p.lower()) for p in patterns)

    return is_in(permission["actions"]) and not is_in(permission.get("notActions", []))


def _machine(arm: str) -> str:
    """This machine's address at the resource manager."""
    try:
        found = azure_machine()
        names = [found[key] for key in ("subscriptionId", "resourceGroupName", "name")]
    except (NotThere, KeyError) as no:
        raise CannotStop(f"it does not find itself on Azure: {no}") from None
    subscription, group, name = (urllib.parse.quote(str(name), safe="") for name in names)
    return (
        f"{arm}/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.Compute/virtualMachines/{name}"
    )


class _Stay(urllib.request.HTTPRedirectHandler):
    """A token goes to nobody but whom it is for: a redirect is an error."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = urllib.request.build_opener(_Stay)
_LIMIT_BYTES = 2**20


def _token(arm: str, options: Options) -> str:
    wanted = {"api-version": "2018-02-01", "resource": f"{arm}/"}
    if options.get("client_id"):
        wanted["client_id"] = options["client_id"]
    try:
        query = urllib.parse.urlencode(wanted)
        return str(ask_azure(f"/metadata/identity/oauth2/token?{query}", 10.0)["access_token"])
    except (NotThere, KeyError, TypeError) as no:
        why = "the machine has no identity that can ask for it to be deallocated"
        raise CannotStop(f"{why}: {no}; switch its identity on and {_ROLE}") from None


def _arm(method: str, url: str, arm: str, options: Options) -> Any:  # noqa: ANN401  # JSON
    headers = {"Authorization": f"Bearer {_token(arm, options)}"}
    data = b"" if method == "POST" else None
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    try:
        with _opener.open(request, timeout=_ARM_S) as answer:
            return json.loads(answer.read(_LIMIT_BYTES) or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            said = _reason(error.read(_LIMIT_BYTES))
        fix = f"; {_ROLE}" if error.code in (401, 403) else ""
        raise CannotStop(f"{arm} answers {error.code} {said}{fix}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", error)
        raise CannotStop(f"{arm} does not answer: {reason}") from None


def _reason(body: bytes) -> str:
    """The code and message of an error of the resource manager."""
    try:
        error = json.loads(body)["error"]
        return f"{error['code']}: {error['message']}"[:_SAID]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:_SAID].decode("utf-8", "replace")


def _check_poweroff(options: Options) -> None:
    cloud = find_cloud()
    if cloud == "azure":
        raise CannotStop("a machine of Azure that powers itself off is billed on; use `deallocate`")
    if cloud == "aws" and options.get("shutdown") != "stop":
        what = options.get("shutdown") or "nobody has checked what"
        raise CannotStop(
            f"a power-off may delete this instance (its shutdown behaviour: {what}); "
            "set instanceInitiatedShutdownBehavior to stop"
        )
    root, command = _as_root(), _poweroff()
    if root:
        # Says whether sudo would let it, and does nothing.
        try:
            _execute(["sudo", "-n", "-l", *command])
        except CannotStop as no:
            raise CannotStop(f"this user may not power the machine off: {no}") from None


def _poweroff() -> List[str]:
    # Never halt: the machine would stand still and be billed.
    has_systemd = Path("/run/systemd/system").is_dir()
    for command in (["systemctl", "poweroff"], ["shutdown", "-h", "-P", "now"]):
        if (command[0] != "systemctl" or has_systemd) and shutil.which(command[0], path=_path()):
            return command
    raise CannotStop("it has neither systemctl nor shutdown")


def _as_root() -> List[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise CannotStop("this user is not root, and there is no sudo")
    return ["sudo", "-n"]


def _check_command(options: Options) -> None:
    if not options.get("command", "").strip():
        raise CannotStop("no command is given that stops it")
    if options.get("check"):
        _execute(["/bin/sh", "-c", options["check"]])


def _execute(command: List[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": _path()},
            timeout=_COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotStop(f"`{' '.join(command)}`: {error}") from None
    if done.returncode:
        said = done.stdout[-_SAID:].decode("utf-8", "replace").strip()
        raise CannotStop(f"`{' '.join(command)}` ends with {done.returncode}: {said}")


def _path() -> str:
    """With the folders of programs for root, which cron and SSH leave out for others."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
