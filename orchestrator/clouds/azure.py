"""A machine of Azure, by its Resource Manager.

Source: Azure REST API reference, Virtual Machines: Get, Start, Deallocate, Instance View; "Track
asynchronous Azure operations"; "States and billing status of Azure Virtual Machines".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from orchestrator.clouds.azurelogin import LOGIN, METADATA, azure_login
from orchestrator.clouds.azureprices import PRICES, azure_quote
from orchestrator.clouds.power import Machine, Power, Quote, SelfStop, Tariff
from orchestrator.clouds.rest import Patience, Rest, asked_pause, said
from orchestrator.clouds.secret import Token
from orchestrator.errors import CloudError, CloudRefused, NoCapacity

MANAGEMENT = "https://management.azure.com"

_COMPUTE = {"api-version": "2024-07-01"}
_NETWORK = {"api-version": "2024-05-01"}

# Whether there is room is told only after the order was taken, mostly within seconds. What comes
# later still is in the machine's status.
_ORDER_LIMIT_S = 20.0

_POWER = {
    "starting": Power.STARTING,
    "running": Power.RUNNING,
    "stopping": Power.STOPPING,
    # By its own system: the machine stays reserved, and paid for.
    "stopped": Power.STOPPED_BILLED,
    "deallocating": Power.STOPPING,
    "deallocated": Power.STOPPED_FREE,
}
_NO_ROOM = (
    "AllocationFailed",
    "ZonalAllocationFailed",
    "SkuNotAvailable",
    "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest",
)
_FIXES = {
    401: "az login; or check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    403: "this login needs the role Virtual Machine Contributor on the machine: az role assignment "
    "create --role 'Virtual Machine Contributor' --assignee WHO --scope MACHINE",
    404: "check subscription, resource_group and vm of the remote: az vm list --output table",
    409: "wait until what is under way there is done, then try again",
}


@dataclass(frozen=True)
class AzureMachine:
    """Where it is, in the three names that Azure gives it."""

    subscription: str
    resource_group: str
    vm: str

    @property
    def path(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/virtualMachines/{self.vm}"
        )


class Azure:
    """Args:
    log_in: None takes the login that is there.
    """

    def __init__(
        self,
        machine: AzureMachine,
        *,
        endpoint: str = MANAGEMENT,
        login_endpoint: str = LOGIN,
        metadata_endpoint: str = METADATA,
        prices_endpoint: str = PRICES,
        log_in: Callable[[], Token] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._machine = machine
        self._prices = prices_endpoint
        log_in = log_in or azure_login(
            endpoint.rstrip("/"), machine.subscription, login_endpoint, metadata_endpoint
        )
        self._rest = Rest("Azure", endpoint, log_in, fixes=_FIXES, patience=patience)

    @cached_property
    def tariff(self) -> Tariff:
        """By the second; one minute at least is what Azure is reported to take.

        `deallocating` is free, but shown as stopping like a shutdown, which is not.
        """
        billed = (Power.STARTING, Power.RUNNING, Power.STOPPING, Power.STOPPED_BILLED)
        return Tariff(60.0, 1.0, frozenset(billed))

    @property
    def tells_address(self) -> bool:
        return True

    @cached_property
    def self_stop(self) -> SelfStop:
        """By its own identity; off by itself it would still be paid for."""
        # Which machine it is it asks its own metadata service.
        return SelfStop("deallocate", (("arm", self._rest.endpoint), ("cloud", "azure")))

    def describe(self) -> Machine:
        query = {"$expand": "instanceView", **_COMPUTE}
        try:
            vm = self._rest.get(self._machine.path, query).body
        except CloudRefused as error:
            if error.code != "ResourceNotFound":
                raise
            words = f"Azure has no VM {self._machine.vm} in {self._machine.resource_group}"
            return Machine(Power.DELETED, reason=words)
        properties = _at(vm, "properties")
        statuses = _statuses(properties)
        power, since, reason = _power(statuses)
        up = power in (Power.STARTING, Power.RUNNING)
        return Machine(
            power,
            since=since,
            started_at=since if power is Power.RUNNING else None,
            address=self._address(properties) if up else "",
            size=_text(_at(properties, "hardwareProfile"), "vmSize"),
            region=_text(vm, "location"),
            spot=_text(properties, "priority") in ("Spot", "Low"),
            reason=reason,
        )

    def start(self) -> None:
        answer = self._order("start")
        link = answer.get("azure-asyncoperation")
        patience = self._rest.patience
        deadline = patience.monotonic() + _ORDER_LIMIT_S
        while link and patience.monotonic() < deadline:
            try:
                done = self._rest.follow(link)
            except CloudError:
                # The order stands, though this login may not read how it goes on.
                return
            status = _text(done.body, "status")
            if status in ("Failed", "Canceled"):
                code, words = said(done.body)
                raise self._refused(
                    CloudRefused(f"Azure did not do it ({code})", code=code, cause=words)
                )
            if status == "Succeeded":
                return
            pause = asked_pause(done)
            patience.sleep(2.0 if pause is None else min(5.0, max(0.1, pause)))

    def stop(self) -> None:
        self._order("deallocate")

    def quote(self) -> Quote | None:
        machine = self.describe()
        return azure_quote(machine.size, machine.region, spot=machine.spot, endpoint=self._prices)

    def _order(self, what: str) -> Mapping[str, str]:
        try:
            return self._rest.post(f"{self._machine.path}/{what}", _COMPUTE).headers
        except CloudRefused as error:
            raise self._refused(error) from None

    def _refused(self, error: CloudRefused) -> CloudRefused:
        if error.code not in _NO_ROOM:
            return error
        return NoCapacity(
            f"Azure has no room for {self._machine.vm} just now ({error.code})",
            code=error.code,
            cause=error.cause,
            fix="try again later, or give it a size or a region that has room",
        )

    def _address(self, properties: Mapping[str, Any]) -> str:
        """Its public one; empty where it has none, or may not be asked for."""
        cards = _at(properties, "networkProfile").get("networkInterfaces") or []
        # Without the word there is but one.
        main = [card for card in cards if _at(card, "properties").get("primary", len(cards) == 1)]
        try:
            for card in main or cards[:1]:
                for config in _at(self._resource(card), "properties").get("ipConfigurations") or []:
                    public = _at(_at(config, "properties"), "publicIPAddress")
                    if address := _text(_at(self._resource(public), "properties"), "ipAddress"):
                        return address
        except CloudRefused:
            pass
        return ""

    def _resource(self, named: Mapping[str, Any]) -> dict[str, Any]:
        path = _text(named, "id")
        return self._rest.get(path, _NETWORK).body if path.startswith("/subscriptions/") else {}


def _power(statuses: Mapping[str, Mapping[str, Any]]) -> tuple[Power, datetime | None, str]:
    code = next((code for code in statuses if code.startswith("PowerState/")), "")
    power = _POWER.get(code.partition("/")[2], Power.UNKNOWN)
    if power is Power.STOPPED_FREE and "HibernationState/Hibernated" in statuses:
        power = Power.HIBERNATED
    status = statuses.get(code, {})
    reason = _text(status, "displayStatus")
    told = _text(status, "time")
    # An order that was taken and then failed: `ProvisioningState/failed/AllocationFailed`.
    for failed, of in statuses.items():
        if failed.startswith("ProvisioningState/failed/"):
            reason = ": ".join(filter(None, (failed.rpartition("/")[2], _text(of, "message"))))
    if power.is_down and not told:
        # The last that was ordered of it, which is its stop, or later.
        told = _text(statuses.get("ProvisioningState/succeeded", {}), "time")
    return power, _time(told), reason


def _statuses(properties: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = _at(properties, "instanceView").get("statuses") or []
    return {_text(status, "code"): status for status in found if isinstance(status, dict)}


def _at(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = node.get(key)
    return found if isinstance(found, dict) else {}


def _text(node: Mapping[str, Any], key: str) -> str:
    found = node.get(key)
    return found if isinstance(found, str) else ""


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None
