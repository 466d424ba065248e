"""A stand-in for Azure: Resource Manager, the login, the metadata service and the price list.

It speaks the documented protocol for one VM: orders are taken with 202 and followed by
Azure-AsyncOperation, errors are `{"error": {"code": ..., "message": ...}}`.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

from tests.clouds.service import Asked, Reply, Service
from tests.clouds.world import NoRoom, Order, State, World, WrongState

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "exam"
VM = "gpu-1"
TENANT = "contoso.example"
CLIENT = "99999999-8888-7777-6666-555555555555"

_POWER = {
    State.STARTING: "starting",
    State.RUNNING: "running",
    State.HALTING: "stopping",
    State.HALTED: "stopped",
    State.RELEASING: "deallocating",
    State.RELEASED: "deallocated",
    State.SUSPENDED: "deallocated",
}


def error(status: int, code: str, message: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"code": code, "message": message}}, named)


class Arm(Service):
    """Attributes:
    client_secret: of the program that may log in.
    tokens: all that were given and are still good.
    prices: rows of the price list.
    power_times: whether the power state's time is told; it is optional there.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.client_secret = f"own~{secrets.token_urlsafe(30)}"
        self.tokens: list[str] = []
        self.orders: dict[str, Order] = {}
        self.prices: list[dict[str, Any]] = []
        self.power_times = True
        self.has_identity = False
        self.page = 3

    def new_token(self) -> str:
        self.tokens.append(f"eyJ0eXAi.{secrets.token_urlsafe(40)}")
        return self.tokens[-1]

    def answer(self, asked: Asked) -> Reply:
        if asked.path == f"/{TENANT}/oauth2/v2.0/token":
            return self._log_in(asked)
        if asked.path == "/metadata/identity/oauth2/token":
            return self._machine_login(asked)
        if asked.path == "/api/retail/prices":
            return self._price_page(asked)
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return error(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if "api-version" not in asked.query:
            return error(400, "MissingApiVersionParameter", "The api-version is required.")
        return self._manage(asked)

    def _log_in(self, asked: Asked) -> Reply:
        form = asked.form
        if form.get("client_id") != CLIENT or form.get("client_secret") != self.client_secret:
            words = f"AADSTS7000215: Invalid client secret provided: {form.get('client_secret')}."
            body = {"error": "invalid_client", "error_description": words}
            return Reply(401, body)
        if form.get("scope") != f"{self.url}/.default":
            return Reply(400, {"error": "invalid_scope", "error_description": "AADSTS70011"})
        return Reply(200, {"access_token": self.new_token(), "expires_in": 3599})

    def _machine_login(self, asked: Asked) -> Reply:
        if asked.headers.get("metadata") != "true" or not self.has_identity:
            return Reply(
                400, {"error": "invalid_request", "error_description": "Identity not found"}
            )
        return Reply(200, {"access_token": self.new_token(), "expires_in": "86399"})

    def _price_page(self, asked: Asked) -> Reply:
        if "authorization" in asked.headers:
            return error(400, "BadRequest", "no login is needed here")
        wanted = dict(term.split(" eq ") for term in asked.query["$filter"].split(" and "))
        rows = [
            row
            for row in self.prices
            if all(
                str(row.get(key)) == value.strip("'")
                for key, value in wanted.items()
                if key not in ("priceType",)
            )
        ]
        skip = int(asked.query.get("$skip", "0"))
        link = None
        if len(rows) > skip + self.page:
            query = f"$filter={quote(asked.query['$filter'])}&$skip={skip + self.page}"
            link = f"{self.url}/api/retail/prices?{query}"
        return Reply(200, {"Items": rows[skip : skip + self.page], "NextPageLink": link})

    def _manage(self, asked: Asked) -> Reply:
        providers = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
        vm = f"{providers}/Microsoft.Compute/virtualMachines/{VM}"
        where, _, order = asked.path.rpartition("/")
        if asked.path == vm.lower() and asked.method == "GET":
            if self.world.state is State.DELETED:
                return error(404, "ResourceNotFound", f"The Resource '{VM}' was not found.")
            return Reply(200, self._vm(vm, providers, view="$expand" in asked.query))
        if where == vm.lower() and asked.method == "POST":
            return self._order(order)
        if where.endswith("/operations"):
            return self._operation(order)
        if asked.path.endswith("/networkinterfaces/nic-1"):
            public = {"id": f"{providers}/Microsoft.Network/publicIPAddresses/ip-1"}
            config = {"properties": {"privateIPAddress": "10.0.0.4", "publicIPAddress": public}}
            return Reply(200, {"properties": {"ipConfigurations": [config]}})
        if asked.path.endswith("/publicipaddresses/ip-1"):
            address = self.world.address
            return Reply(200, {"properties": {"ipAddress": address} if address else {}})
        return error(404, "ResourceGroupNotFound", "Resource group 'other' could not be found.")

    def _vm(self, vm: str, providers: str, *, view: bool) -> dict[str, Any]:
        world = self.world
        properties: dict[str, Any] = {
            "hardwareProfile": {"vmSize": world.size},
            "priority": "Spot" if world.spot else "Regular",
            "networkProfile": {
                "networkInterfaces": [
                    {"id": f"{providers}/Microsoft.Network/networkInterfaces/nic-1"}
                ]
            },
        }
        if view:
            power = {"code": f"PowerState/{_POWER[world.state]}", "level": "Info"}
            power["displayStatus"] = f"VM {_POWER[world.state]}"
            if self.power_times:
                power["time"] = world.since.isoformat()
            failed = next((o.error for o in self.orders.values() if o.error == world.why), "")
            # Of the last order that was carried out, or later.
            provisioning = {
                "code": "ProvisioningState/succeeded",
                "time": world.since.isoformat(),
            }
            if failed:
                provisioning["code"] = f"ProvisioningState/failed/{failed}"
                provisioning["message"] = "Allocation failed."
            statuses = [provisioning, power]
            if world.state is State.SUSPENDED:
                statuses.append({"code": "HibernationState/Hibernated"})
            properties["instanceView"] = {"statuses": statuses}
        return {"id": vm, "name": VM, "location": world.region, "properties": properties}

    def _order(self, what: str) -> Reply:
        try:
            order = self.world.start() if what == "start" else self.world.stop()
        except NoRoom as short:
            return error(409, str(short), "Allocation failed. There is not enough capacity.")
        except WrongState:
            words = "The VM is being changed by another operation."
            return error(409, "OperationNotAllowed", words)
        name = str(len(self.orders) + 1)
        self.orders[name] = order
        where = f"{self.url}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute"
        link = f"{where}/locations/{self.world.region}/operations/{name}?api-version=2024-07-01"
        return Reply(202, None, {"Azure-AsyncOperation": link, "Retry-After": "1"})

    def _operation(self, name: str) -> Reply:
        order = self.orders[name]
        if not order.is_done(self.world.clock.now()):
            return Reply(200, {"name": name, "status": "InProgress"}, {"Retry-After": "1"})
        if not order.error:
            return Reply(200, {"name": name, "status": "Succeeded"})
        words = "Allocation failed. We do not have sufficient capacity in this region."
        failed = {"code": order.error, "message": words}
        return Reply(200, {"name": name, "status": "Failed", "error": failed})
