"""A machine of Azure, against the stand-in for its Resource Manager."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.clouds.azure import Azure, AzureMachine
from orchestrator.clouds.power import Machine, Power
from orchestrator.clouds.rest import Patience
from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudError, CloudRefused, NoCapacity
from tests.clouds import arm
from tests.clouds.clock import MovedClock
from tests.clouds.service import Reply
from tests.clouds.tools import Tools
from tests.clouds.world import AZURE, Shortage, State, World


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def cloud(clock: MovedClock) -> Iterator[arm.Arm]:
    service = arm.Arm(World(clock, AZURE))
    with service.serving():
        yield service


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    return Tools(tmp_path, monkeypatch)


def machine(cloud: arm.Arm, clock: MovedClock, vm: str = arm.VM, group: str = arm.GROUP) -> Azure:
    """With a login that is there already."""
    return Azure(
        AzureMachine(arm.SUBSCRIPTION, group, vm),
        endpoint=cloud.url,
        prices_endpoint=cloud.url,
        log_in=lambda: Token(Secret(cloud.new_token())),
        patience=Patience(60, 5, clock.monotonic, clock.sleep),
    )


def logging_in(cloud: arm.Arm) -> Azure:
    return Azure(
        AzureMachine(arm.SUBSCRIPTION, arm.GROUP, arm.VM),
        endpoint=cloud.url,
        login_endpoint=cloud.url,
        metadata_endpoint=cloud.url,
    )


def test_a_machine_is_started_found_and_stopped_so_that_it_costs_nothing(
    cloud: arm.Arm, clock: MovedClock
) -> None:
    azure = machine(cloud, clock)
    assert azure.describe().power is Power.STOPPED_FREE

    azure.start()
    assert azure.describe().power is Power.STARTING
    clock.sleep(60)
    up = azure.describe()
    assert up == Machine(
        Power.RUNNING,
        since=cloud.world.since,
        started_at=cloud.world.since,
        address=cloud.world.address,
        size="Standard_NC6",
        region="westeurope",
        reason="VM running",
    )
    assert up.address.startswith("203.0.113.")

    azure.stop()
    assert azure.describe().power is Power.STOPPING
    clock.sleep(60)
    down = azure.describe()
    assert down.power is Power.STOPPED_FREE
    assert down.since == cloud.world.last(State.RELEASED)
    assert down.address == ""
    assert "deallocate" in {one.path.rpartition("/")[2] for one in cloud.asked}


def test_off_by_its_own_system_is_still_billed(cloud: arm.Arm, clock: MovedClock) -> None:
    cloud.world = World(clock, AZURE, first=State.RUNNING, spot=True)
    azure = machine(cloud, clock)
    assert azure.describe().spot

    cloud.world.shut_down()
    assert azure.describe().power is Power.STOPPING
    clock.sleep(30)

    found = azure.describe()
    assert found.power is Power.STOPPED_BILLED
    assert not found.power.is_down
    assert found.power in azure.tariff.billed


def test_hibernated_is_told_from_stopped(cloud: arm.Arm, clock: MovedClock) -> None:
    cloud.world = World(clock, AZURE, first=State.SUSPENDED)

    assert machine(cloud, clock).describe().power is Power.HIBERNATED


def test_a_time_that_azure_does_not_tell_is_none(cloud: arm.Arm, clock: MovedClock) -> None:
    cloud.power_times = False
    cloud.world = World(clock, AZURE, first=State.RUNNING)

    found = machine(cloud, clock).describe()

    assert (found.since, found.started_at) == (None, None)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("code", ["AllocationFailed", "ZonalAllocationFailed", "SkuNotAvailable"])
def test_no_room_is_told_whenever_azure_says_so(
    cloud: arm.Arm, clock: MovedClock, code: str, at_once: bool
) -> None:
    cloud.world.shortage = Shortage(code, at_once, clock.now() + timedelta(minutes=5))
    azure = machine(cloud, clock)

    with pytest.raises(NoCapacity) as short:
        azure.start()

    assert str(short.value) == f"Azure has no room for gpu-1 just now ({code})"
    assert short.value.retryable
    assert "capacity" in short.value.cause
    clock.sleep(300)
    azure.start()


def test_no_room_that_is_found_late_is_in_what_the_machine_is_described_with(
    cloud: arm.Arm, clock: MovedClock
) -> None:
    cloud.world.shortage = Shortage("AllocationFailed")
    object.__setattr__(cloud.world.timings, "refusal_s", 90.0)
    azure = machine(cloud, clock)

    before = clock.now()
    azure.start()
    assert (clock.now() - before).total_seconds() < 30
    clock.sleep(90)

    found = azure.describe()
    assert found.power is Power.STOPPED_FREE
    assert found.reason == "AllocationFailed: Allocation failed."


def test_an_order_stands_though_nobody_may_read_how_it_goes_on(
    cloud: arm.Arm, clock: MovedClock
) -> None:
    cloud.faults = [None, arm.error(403, "AuthorizationFailed", "operations/read")]
    azure = machine(cloud, clock)

    azure.start()

    assert azure.describe().power is Power.STARTING


@pytest.mark.parametrize(
    ("fault", "words", "fix"),
    [
        (arm.error(401, "ExpiredAuthenticationToken", "x"), "this login (Expired", "az login"),
        (arm.error(403, "AuthorizationFailed", "x"), "does not allow it", "Contributor"),
        (arm.error(404, "ResourceGroupNotFound", "x"), "no such thing (Resource", "az vm list"),
        (arm.error(409, "OperationNotAllowed", "x"), "cannot do this now", "wait until"),
        (arm.error(429, "TooManyRequests", "x"), "asked too often", "again in a few"),
        (arm.error(500, "InternalServerError", "x"), "out of order", "again later"),
    ],
)
def test_what_azure_refuses_is_said_with_what_to_do(
    cloud: arm.Arm, clock: MovedClock, fault: Reply, words: str, fix: str
) -> None:
    for order in ("describe", "start", "stop"):
        cloud.faults = [fault] * 9
        with pytest.raises(CloudError) as failed:
            getattr(machine(cloud, clock), order)()

        assert words in str(failed.value)
        assert fix in failed.value.fix
        assert failed.value.cause == "x"
        refused = isinstance(failed.value, CloudRefused)
        assert refused is (fault.status not in (429, 500))


def test_silence_is_an_error_in_bounded_time(cloud: arm.Arm) -> None:
    cloud.faults = [Reply(hang=True)] * 9
    azure = Azure(
        AzureMachine(arm.SUBSCRIPTION, arm.GROUP, arm.VM),
        endpoint=cloud.url,
        log_in=lambda: Token(Secret(cloud.new_token())),
        patience=Patience(0.4, 0.2),
    )

    with pytest.raises(CloudError, match="did not answer in time"):
        azure.describe()


def test_a_machine_that_is_gone_is_deleted_and_another_groups_name_is_a_mistake(
    cloud: arm.Arm, clock: MovedClock
) -> None:
    cloud.world.delete()
    found = machine(cloud, clock).describe()
    assert found.power is Power.DELETED
    assert found.reason == "Azure has no VM gpu-1 in exam"
    with pytest.raises(CloudRefused, match="ResourceGroupNotFound"):
        machine(cloud, clock, group="exams").describe()


def test_an_address_that_may_not_be_asked_for_is_left_out(
    cloud: arm.Arm, clock: MovedClock
) -> None:
    cloud.world = World(clock, AZURE, first=State.RUNNING)
    cloud.faults = [None, arm.error(403, "AuthorizationFailed", "no network rights")]

    found = machine(cloud, clock).describe()

    assert (found.power, found.address) == (Power.RUNNING, "")


def test_the_guard_is_told_whom_to_stop_and_no_secret(cloud: arm.Arm, clock: MovedClock) -> None:
    stop = machine(cloud, clock).self_stop

    assert stop.how == "deallocate"
    assert dict(stop.options) == {"arm": cloud.url, "cloud": "azure"}


# The login.


def test_a_programs_own_login_is_taken_first(
    cloud: arm.Arm, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.put("az", "echo az was asked >&2; exit 1")
    monkeypatch.setenv("AZURE_TENANT_ID", arm.TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", arm.CLIENT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", cloud.client_secret)

    assert logging_in(cloud).describe().power is Power.STOPPED_FREE

    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong~secret")
    with pytest.raises(CloudRefused) as refused:
        logging_in(cloud).describe()
    assert refused.value.code == "invalid_client"
    assert "provided: [secret]" in refused.value.cause
    assert "AZURE_CLIENT_SECRET" in refused.value.fix
    assert "wrong~secret" not in refused.value.render()
    assert not tools.seen.exists()


def test_the_users_az_is_asked_and_told_no_secret(cloud: arm.Arm, tools: Tools) -> None:
    token = cloud.new_token()
    answer = {"accessToken": token, "expiresOn": "2099-01-01 00:00:00.000000"}
    tools.put("az", f"cat <<'END'\n{json.dumps(answer)}\nEND")

    assert logging_in(cloud).describe().power is Power.STOPPED_FREE

    seen = tools.seen.read_text()
    assert f"get-access-token --output json --resource {cloud.url} --subscription" in seen
    assert token not in seen
    assert cloud.client_secret not in seen


def test_an_az_without_login_says_what_to_do(cloud: arm.Arm, tools: Tools) -> None:
    tools.put("az", "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1")

    with pytest.raises(CloudRefused) as refused:
        logging_in(cloud).describe()

    assert refused.value.cause == "ERROR: Please run 'az login' to setup account."
    assert refused.value.fix.startswith("az login")

    tools.put("az", "echo '[]'")
    with pytest.raises(CloudError, match="az answered without a token"):
        logging_in(cloud).describe()


def test_the_machines_own_identity_is_the_last_to_be_asked(cloud: arm.Arm, tools: Tools) -> None:
    with pytest.raises(CloudRefused, match="no login for Azure here") as refused:
        logging_in(cloud).describe()
    assert "az login" in refused.value.fix

    cloud.has_identity = True
    assert logging_in(cloud).describe().power is Power.STOPPED_FREE


def test_a_lost_token_is_got_anew(cloud: arm.Arm, tools: Tools) -> None:
    cloud.has_identity = True
    azure = logging_in(cloud)
    azure.describe()

    cloud.tokens.clear()

    assert azure.describe().power is Power.STOPPED_FREE


def test_no_credential_is_in_the_programs_arguments_or_output(
    cloud: arm.Arm, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", arm.TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", arm.CLIENT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", cloud.client_secret)
    code = f"""
import logging, sys
logging.basicConfig(level=logging.DEBUG)
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from orchestrator.clouds.azure import Azure, AzureMachine
azure = Azure(AzureMachine({arm.SUBSCRIPTION!r}, "exam", "gpu-1"),
    endpoint={cloud.url!r}, login_endpoint={cloud.url!r})
print(azure.describe(), vars(azure), vars(azure._rest))
print(open("/proc/self/cmdline").read())
azure._machine = AzureMachine({arm.SUBSCRIPTION!r}, "other", "gpu-1")
azure.start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "ResourceGroupNotFound" in done.stderr
    everything = done.stdout + done.stderr
    assert "stopped-free" in everything
    for secret in (cloud.client_secret, *cloud.tokens):
        assert secret not in everything


# Prices, rows as the price list has them.


def row(sku: str, price: float, **more: object) -> dict[str, object]:
    return {
        "serviceName": "Virtual Machines",
        "armRegionName": "westeurope",
        "armSkuName": "Standard_NC6",
        "productName": "Virtual Machines NC Series",
        "skuName": sku,
        "type": "Consumption",
        "unitOfMeasure": "1 Hour",
        "currencyCode": "USD",
        "retailPrice": price,
        "isPrimaryMeterRegion": True,
        "effectiveStartDate": "2024-01-01T00:00:00Z",
        **more,
    }


ROWS = [
    row("NC6", 9.99, productName="Virtual Machines NC Series Windows"),
    row("NC6", 9.98, productName="Virtual Machines NCadsH100v5 Win"),
    row("NC6 Low Priority", 0.18),
    row("NC6", 0.0),
    row("NC6", 5.0, type="Reservation"),
    row("NC6", 7.0, isPrimaryMeterRegion=False),
    row("NC6", 6.0, productName="NC Series Cloud Services"),
    row("NC6", 8.0, effectiveStartDate="2999-01-01T00:00:00Z"),
    row("NC6", 1.5, effectiveStartDate="2020-01-01T00:00:00Z"),
    row("NC6", 3.0, armRegionName="eastus"),
    row("NC6", 1.166),
    row("NC6 Spot", 0.2332),
]


@pytest.mark.parametrize(("spot", "price"), [(False, "1.166"), (True, "0.2332")])
def test_the_list_price_is_found_among_the_rows_that_do_not_count(
    cloud: arm.Arm, clock: MovedClock, spot: bool, price: str
) -> None:
    cloud.prices = ROWS
    cloud.world.spot = spot

    quote = machine(cloud, clock).quote()

    assert quote is not None
    assert (quote.per_hour, quote.currency) == (Decimal(price), "USD")
    assert (quote.source, quote.region, quote.spot) == ("Azure Retail Prices", "westeurope", spot)
    assert datetime.now(UTC) - quote.fetched_at < timedelta(minutes=1)


def test_a_price_that_is_absent_or_nothing_is_unknown(cloud: arm.Arm, clock: MovedClock) -> None:
    assert machine(cloud, clock).quote() is None
    cloud.prices = [row("NC6", 0.0)]
    assert machine(cloud, clock).quote() is None
