"""A machine of Compute Engine, against the stand-in for its API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from orchestrator.clouds.gcp import Gcp, GcpMachine
from orchestrator.clouds.power import Machine, Power
from orchestrator.clouds.rest import Patience
from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudError, CloudRefused, NoCapacity
from tests.clouds import gce
from tests.clouds.clock import MovedClock
from tests.clouds.service import Asked, Reply, Service
from tests.clouds.tools import Tools
from tests.clouds.world import GCE, Shortage, State, World


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def cloud(clock: MovedClock) -> Iterator[gce.Gce]:
    world = World(clock, GCE, size="g2-standard-4", region="europe-west4")
    service = gce.Gce(world)
    service.tokens.append("ya29.good")
    with service.serving():
        yield service


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    return Tools(tmp_path, monkeypatch)


def machine(cloud: gce.Gce, clock: MovedClock) -> Gcp:
    """With a login that is there already."""
    return Gcp(
        GcpMachine(gce.PROJECT, gce.ZONE, gce.INSTANCE),
        endpoint=cloud.url,
        log_in=lambda: Token(Secret("ya29.good")),
        patience=Patience(60, 5, clock.monotonic, clock.sleep),
    )


def logging_in(cloud: gce.Gce) -> Gcp:
    return Gcp(GcpMachine(gce.PROJECT, gce.ZONE, gce.INSTANCE), endpoint=cloud.url)


def test_a_machine_is_started_found_and_stopped_so_that_it_costs_nothing(
    cloud: gce.Gce, clock: MovedClock
) -> None:
    gcp = machine(cloud, clock)
    assert gcp.describe().power is Power.STOPPED_FREE

    gcp.start()
    up = gcp.describe()
    assert up == Machine(
        Power.RUNNING,
        since=cloud.world.since,
        started_at=cloud.world.since,
        stopped_at=cloud.world.last(State.RELEASED),
        address=cloud.world.address,
        size="g2-standard-4",
        region="europe-west4",
        reason="RUNNING",
    )

    gcp.stop()
    assert gcp.describe().power is Power.STOPPING
    clock.sleep(60)
    down = gcp.describe()
    assert (down.power, down.since) == (Power.STOPPED_FREE, cloud.world.last(State.RELEASED))
    assert (down.started_at, down.address) == (up.started_at, "")


def test_turned_off_from_within_it_is_free(cloud: gce.Gce, clock: MovedClock) -> None:
    cloud.world = World(clock, GCE, first=State.RUNNING, spot=True)
    gcp = machine(cloud, clock)
    assert gcp.self_stop.how == "poweroff"
    assert gcp.describe().spot

    cloud.world.shut_down()
    clock.sleep(60)

    assert gcp.describe().power is Power.STOPPED_FREE


def test_a_suspended_machine_is_resumed(cloud: gce.Gce, clock: MovedClock) -> None:
    cloud.world = World(clock, GCE, first=State.SUSPENDED)
    gcp = machine(cloud, clock)
    found = gcp.describe()
    assert (found.power, found.since) == (Power.HIBERNATED, cloud.world.since)

    gcp.start()

    assert gcp.describe().power is Power.RUNNING


def test_gpus_that_are_put_to_a_type_are_in_its_size(cloud: gce.Gce, clock: MovedClock) -> None:
    gpus = {"acceleratorType": "https://x/acceleratorTypes/nvidia-tesla-t4", "acceleratorCount": 2}
    cloud.gpus = [gpus]
    assert machine(cloud, clock).describe().size == "g2-standard-4"
    cloud.world.size = "n1-standard-8"
    assert machine(cloud, clock).describe().size == "n1-standard-8+2xnvidia-tesla-t4"


def test_no_room_is_found_in_the_order_that_was_taken(cloud: gce.Gce, clock: MovedClock) -> None:
    code = "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    cloud.world.shortage = Shortage(code, until=clock.now() + timedelta(minutes=5))
    gcp = machine(cloud, clock)

    with pytest.raises(NoCapacity) as short:
        gcp.start()

    assert str(short.value) == f"Google Cloud has no room for gpu-1 just now ({code})"
    assert short.value.retryable
    assert gcp.describe().power is Power.STOPPED_FREE
    clock.sleep(300)
    gcp.start()
    assert gcp.describe().power is Power.RUNNING


def test_a_quota_is_not_taken_for_a_lack_of_room(cloud: gce.Gce, clock: MovedClock) -> None:
    cloud.world.shortage = Shortage("QUOTA_EXCEEDED")

    with pytest.raises(CloudRefused) as refused:
        machine(cloud, clock).start()

    assert not isinstance(refused.value, NoCapacity)
    assert "quota" in refused.value.fix


def test_an_order_that_takes_long_is_not_waited_out(cloud: gce.Gce, clock: MovedClock) -> None:
    object.__setattr__(cloud.world.timings, "start_s", 900.0)
    before = clock.now()

    machine(cloud, clock).start()

    assert (clock.now() - before).total_seconds() < 90
    assert machine(cloud, clock).describe().power is Power.STARTING


def test_an_order_stands_though_nobody_may_read_how_it_goes_on(
    cloud: gce.Gce, clock: MovedClock
) -> None:
    cloud.faults = [None, None, gce.error(403, "forbidden", "compute.zoneOperations.get")]
    gcp = machine(cloud, clock)

    gcp.start()

    assert gcp.describe().power is Power.STARTING


@pytest.mark.parametrize(
    ("fault", "words", "fix"),
    [
        (gce.error(401, "authError", "x"), "this login (authError)", "gcloud auth login"),
        (gce.error(403, "accessNotConfigured", "x"), "does not allow it", "gcloud services"),
        (gce.error(404, "notFound", "x"), "no such thing (notFound)", "instances list"),
        (gce.error(409, "resourceInUseByAnotherResource", "x"), "cannot do this", "wait until"),
        (gce.error(429, "rateLimitExceeded", "x"), "asked too often", "again in a few"),
        (gce.error(500, "backendError", "x"), "out of order (backendError)", "again later"),
    ],
)
def test_what_google_refuses_is_said_with_what_to_do(
    cloud: gce.Gce, clock: MovedClock, fault: Reply, words: str, fix: str
) -> None:
    for order in ("start", "stop"):
        # Starting looks first whether it sleeps.
        cloud.faults = [*([None] if order == "start" else []), *[fault] * 9]
        with pytest.raises(CloudError) as failed:
            getattr(machine(cloud, clock), order)()

        assert words in str(failed.value)
        assert fix in failed.value.fix
        assert isinstance(failed.value, CloudRefused) is (fault.status not in (429, 500))


def test_a_machine_that_is_gone_is_deleted(cloud: gce.Gce, clock: MovedClock) -> None:
    cloud.world.delete()

    found = machine(cloud, clock).describe()

    assert found.power is Power.DELETED
    assert found.reason == "Google Cloud has no gpu-1 in europe-west4-a"
    with pytest.raises(CloudRefused, match="notFound"):
        machine(cloud, clock).stop()


def test_the_users_gcloud_is_asked_and_told_no_secret(cloud: gce.Gce, tools: Tools) -> None:
    with pytest.raises(CloudRefused, match="no login for Google Cloud here") as refused:
        logging_in(cloud).describe()
    assert "gcloud auth login" in refused.value.fix

    tools.put("gcloud", "echo WARNING: update me >&2; echo ya29.good")
    assert logging_in(cloud).describe().power is Power.STOPPED_FREE
    seen = tools.seen.read_text()
    assert "gcloud auth print-access-token" in seen
    assert "ya29.good" not in seen

    tools.put("gcloud", "echo ERROR: no active account >&2; exit 1")
    with pytest.raises(CloudRefused) as refused:
        logging_in(cloud).describe()
    assert (refused.value.cause, refused.value.fix) == (
        "ERROR: no active account",
        "gcloud auth login",
    )


class Login(Service):
    """Google's login, which a file of credentials names."""

    def answer(self, asked: Asked) -> Reply:
        if "assertion" not in asked.form:
            return Reply(400, {"error": "invalid_request"})
        return Reply(200, {"access_token": "ya29.good", "expires_in": 3599})


def test_a_file_of_credentials_goes_first(
    cloud: gce.Gce, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.put("gcloud", "exit 1")
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path / "account.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    login = Login()
    with login.serving():
        account = {
            "type": "service_account",
            "client_email": "me@exam-123.iam.gserviceaccount.com",
            "private_key": key.decode(),
            "token_uri": login.url,
        }
        file.write_text(json.dumps(account))
        assert logging_in(cloud).describe().power is Power.STOPPED_FREE

        login.faults = [Reply(400, {"error": "invalid_grant", "error_description": "ya29 no"})]
        with pytest.raises(CloudRefused, match="Google does not accept this login") as refused:
            logging_in(cloud).describe()
        assert str(file) in refused.value.fix
        assert "PRIVATE KEY" not in refused.value.render()

    file.write_text("{}")
    with pytest.raises(CloudRefused, match="does not accept this login"):
        logging_in(cloud).describe()
    assert not tools.seen.exists()
