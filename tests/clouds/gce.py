"""A stand-in for Compute Engine's REST API with one instance, as its reference describes it."""

from __future__ import annotations

from typing import Any

from tests.clouds.service import Asked, Reply, Service
from tests.clouds.world import Order, State, World, WrongState

PROJECT = "exam-123"
ZONE = "europe-west4-a"
INSTANCE = "gpu-1"
_BASE = "https://www.googleapis.com/compute/v1/projects/exam-123/zones/europe-west4-a"

_STATUS = {
    State.STARTING: "STAGING",
    State.RUNNING: "RUNNING",
    State.RELEASING: "STOPPING",
    State.RELEASED: "TERMINATED",
    State.SUSPENDING: "SUSPENDING",
    State.SUSPENDED: "SUSPENDED",
}


def error(status: int, reason: str, message: str) -> Reply:
    first = {"message": message, "domain": "global", "reason": reason}
    return Reply(status, {"error": {"code": status, "message": message, "errors": [first]}})


class Gce(Service):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.tokens: list[str] = []
        self.orders: dict[str, Order] = {}
        self.gpus: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return error(401, "authError", "Invalid Credentials")
        zone = f"/projects/{PROJECT}/zones/{ZONE}"
        instance = f"{zone}/instances/{INSTANCE}"
        where, _, what = asked.path.rpartition("/")
        if where == f"{zone}/operations" and asked.method == "GET":
            return Reply(200, self._operation(what))
        if self.world.state is not State.DELETED:
            if asked.path == instance and asked.method == "GET":
                return Reply(200, self._instance())
            if where == instance and asked.method == "POST":
                return self._order(what)
        return error(404, "notFound", f"The resource '{asked.path}' was not found")

    def _instance(self) -> dict[str, Any]:
        world = self.world
        config = {"natIP": world.address} if world.address else {}
        found: dict[str, Any] = {
            "name": INSTANCE,
            "status": _STATUS[world.state],
            "machineType": f"{_BASE}/machineTypes/{world.size}",
            "zone": _BASE,
            "guestAccelerators": self.gpus,
            "scheduling": {
                "provisioningModel": "SPOT" if world.spot else "STANDARD",
                "preemptible": world.spot,
            },
            "networkInterfaces": [{"networkIP": "10.0.0.2", "accessConfigs": [config]}],
        }
        for name, state in (
            ("lastStartTimestamp", State.RUNNING),
            ("lastStopTimestamp", State.RELEASED),
            ("lastSuspendedTimestamp", State.SUSPENDED),
        ):
            if (at := world.last(state)) is not None:
                found[name] = at.isoformat(timespec="milliseconds")
        return found

    def _order(self, what: str) -> Reply:
        asleep = self.world.state is State.SUSPENDED
        if (what == "resume") is not asleep and what != "stop":
            return error(400, "invalidRequest", f"Instance is {_STATUS[self.world.state]}")
        try:
            order = self.world.stop() if what == "stop" else self.world.start()
        except WrongState:
            return error(400, "resourceNotReady", "The resource is not ready")
        name = f"operation-{len(self.orders) + 1}"
        self.orders[name] = order
        return Reply(200, self._operation(name))

    def _operation(self, name: str) -> dict[str, Any]:
        order = self.orders[name]
        found: dict[str, Any] = {"kind": "compute#operation", "name": name, "status": "RUNNING"}
        if order.is_done(self.world.clock.now()):
            found["status"] = "DONE"
            if order.error:
                words = f"The zone '{ZONE}' does not have enough resources available."
                found["error"] = {"errors": [{"code": order.error, "message": words}]}
        return found
