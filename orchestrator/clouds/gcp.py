"""A machine of Google Compute Engine, by its REST API.

Source: Compute Engine API v1, instances (get, start, resume, stop) and zoneOperations; "VM instance
life cycle"; "VM instance pricing".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from orchestrator.clouds.gcplogin import gcp_login
from orchestrator.clouds.power import Machine, Power, Quote, SelfStop, Tariff
from orchestrator.clouds.rest import Patience, Rest
from orchestrator.clouds.secret import Token
from orchestrator.errors import CloudError, CloudRefused, NoCapacity

COMPUTE = "https://compute.googleapis.com/compute/v1"

# Whether there is room is told only after the order was taken.
_ORDER_LIMIT_S = 60.0

_POWER = {
    "PROVISIONING": Power.STARTING,
    "STAGING": Power.STARTING,
    "RUNNING": Power.RUNNING,
    "PENDING_STOP": Power.STOPPING,
    "STOPPING": Power.STOPPING,
    "SUSPENDING": Power.STOPPING,
    "SUSPENDED": Power.HIBERNATED,
    # It can be started again.
    "TERMINATED": Power.STOPPED_FREE,
    "STOPPED": Power.STOPPED_FREE,
}
_SINCE = {
    Power.STARTING: "lastStartTimestamp",
    Power.RUNNING: "lastStartTimestamp",
    Power.STOPPED_FREE: "lastStopTimestamp",
    Power.HIBERNATED: "lastSuspendedTimestamp",
}
_FIXES = {
    401: "gcloud auth login; or check the file that GOOGLE_APPLICATION_CREDENTIALS names",
    403: "this login needs the role Compute Instance Admin in the project, and the project the "
    "Compute Engine API: gcloud services enable compute.googleapis.com",
    404: "check project, zone and instance of the remote: gcloud compute instances list",
    409: "wait until what is under way there is done, then try again",
}


@dataclass(frozen=True)
class GcpMachine:
    project: str
    zone: str
    instance: str

    @property
    def zone_path(self) -> str:
        return f"/projects/{self.project}/zones/{self.zone}"

    @property
    def path(self) -> str:
        return f"{self.zone_path}/instances/{self.instance}"


class Gcp:
    def __init__(
        self,
        machine: GcpMachine,
        *,
        endpoint: str = COMPUTE,
        log_in: Callable[[], Token] = gcp_login,
        patience: Patience | None = None,
    ) -> None:
        self._machine = machine
        self._rest = Rest("Google Cloud", endpoint, log_in, fixes=_FIXES, patience=patience)

    @cached_property
    def tariff(self) -> Tariff:
        """By the second, a minute at least. Suspended, its memory is stored, which costs little."""
        return Tariff(60.0, 1.0, frozenset((Power.RUNNING, Power.STOPPING)), tells_starts=True)

    @property
    def tells_address(self) -> bool:
        return True

    @cached_property
    def self_stop(self) -> SelfStop:
        return SelfStop("poweroff", (("cloud", "gcp"),))

    def describe(self) -> Machine:
        try:
            found = self._rest.get(self._machine.path).body
        except CloudRefused as error:
            if error.code != "notFound":
                raise
            words = f"Google Cloud has no {self._machine.instance} in {self._machine.zone}"
            return Machine(Power.DELETED, reason=words)
        power = _POWER.get(str(found.get("status")), Power.UNKNOWN)
        scheduling = found.get("scheduling") or {}
        started_at = _time(found.get("lastStartTimestamp"))
        return Machine(
            power,
            since=_time(found.get(_SINCE.get(power, ""))),
            started_at=started_at,
            stopped_at=_time(found.get("lastStopTimestamp")),
            address=_address(found),
            size=_size(found),
            region=self._machine.zone.rpartition("-")[0],
            spot=scheduling.get("provisioningModel") == "SPOT"
            or scheduling.get("preemptible") is True,
            reason=str(found.get("statusMessage") or found.get("status") or ""),
        )

    def start(self) -> None:
        asleep = self.describe().power is Power.HIBERNATED
        order = self._rest.post(f"{self._machine.path}/{'resume' if asleep else 'start'}").body
        patience = self._rest.patience
        deadline = patience.monotonic() + _ORDER_LIMIT_S
        while True:
            self._raise_failure(order)
            if order.get("status") == "DONE" or patience.monotonic() >= deadline:
                return
            patience.sleep(1.0)
            path = f"{self._machine.zone_path}/operations/{order.get('name')}"
            try:
                order = self._rest.get(path).body
            except CloudError:
                # The order stands, though this login may not read how it goes on.
                return

    def stop(self) -> None:
        self._raise_failure(self._rest.post(f"{self._machine.path}/stop").body)

    def quote(self) -> Quote | None:
        """None: its price list is by core, memory and GPU, and needs a key of its own."""
        return None

    def _raise_failure(self, order: Mapping[str, Any]) -> None:
        failures = (order.get("error") or {}).get("errors") or []
        if not failures:
            return
        code, words = str(failures[0].get("code", "")), str(failures[0].get("message", ""))[:500]
        name = self._machine.instance
        if "RESOURCE_POOL_EXHAUSTED" in code:
            raise NoCapacity(
                f"Google Cloud has no room for {name} just now ({code})",
                code=code,
                cause=words,
                fix="try again later, or move it to a zone that has room",
            )
        fix = "raise the quota of the project" if "QUOTA" in code else ""
        raise CloudRefused(f"Google Cloud did not do it ({code})", code=code, cause=words, fix=fix)


def _address(found: Mapping[str, Any]) -> str:
    for card in found.get("networkInterfaces") or []:
        for config in card.get("accessConfigs") or []:
            if address := config.get("natIP"):
                return str(address)
    return ""


def _size(found: Mapping[str, Any]) -> str:
    """Its type; with the GPUs where these are put to it: `n1-standard-4+1xnvidia-tesla-t4`."""
    size = _last(found.get("machineType"))
    if size.startswith(("n1-", "custom-")):
        for gpus in found.get("guestAccelerators") or []:
            size += f"+{gpus.get('acceleratorCount')}x{_last(gpus.get('acceleratorType'))}"
    return size


def _last(url: object) -> str:
    return str(url or "").rpartition("/")[2]


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else None
