"""A machine of EC2, against moto's server; and what moto never says, against the bare protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from orchestrator.clouds.aws import Aws
from orchestrator.clouds.awsprices import Client
from orchestrator.clouds.power import Power
from orchestrator.errors import CloudError, CloudRefused, NoCapacity
from tests.clouds.service import Asked, Reply, Service
from tests.servers import free_port

# One that moto has.
IMAGE = "ami-12c6146b"
REGION = "eu-central-1"
KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI-very-secret"

# One server for all of them.
pytestmark = pytest.mark.xdist_group("moto")


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(url, timeout=10).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield url
        process.terminate()


@pytest.fixture(scope="module", autouse=True)
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This one, and nobody's own; in a folder for the files of others."""
    folder = tmp_path_factory.mktemp("aws")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        patch.setenv("HOME", str(folder))
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        yield folder


@pytest.fixture(scope="module")
def ec2(moto: str, login: Path) -> Client:
    return boto3.client("ec2", region_name=REGION, endpoint_url=moto)


def launch(ec2: Client, **more: str) -> str:
    asked = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1, "InstanceType": "g4dn.xlarge", **more}
    return str(ec2.run_instances(**asked)["Instances"][0]["InstanceId"])


def test_a_machine_is_stopped_started_and_found(ec2: Client, moto: str) -> None:
    instance = launch(ec2)
    aws = Aws(REGION, instance, endpoint=moto)
    up = aws.describe()
    assert (up.power, up.size, up.region, up.spot) == (Power.RUNNING, "g4dn.xlarge", REGION, False)
    assert up.address
    assert up.since == up.started_at
    assert up.started_at is not None
    assert datetime.now(UTC) - up.started_at < timedelta(minutes=1)
    assert aws.self_stop.how == "poweroff"

    aws.stop()
    down = aws.describe()
    assert (down.power, down.address) == (Power.STOPPED_FREE, "")
    assert down.since is not None
    assert abs(datetime.now(UTC) - down.since) < timedelta(minutes=1)
    assert "User" in down.reason

    aws.start()
    again = aws.describe()
    assert again.power is Power.RUNNING
    assert again.address


def test_a_machine_that_would_delete_itself_when_off_is_not_to_stop_itself(
    ec2: Client, moto: str
) -> None:
    aws = Aws(REGION, launch(ec2, InstanceInitiatedShutdownBehavior="terminate"), endpoint=moto)

    with pytest.raises(CloudRefused, match="deletes itself when it is turned off") as refused:
        _ = aws.self_stop

    assert refused.value.code == "instanceInitiatedShutdownBehavior"
    assert "--instance-initiated-shutdown-behavior stop" in refused.value.fix


@pytest.mark.parametrize("kind", ["one-time", "persistent"])
def test_a_one_time_spot_machine_cannot_be_stopped(ec2: Client, moto: str, kind: str) -> None:
    made = ec2.request_spot_instances(
        SpotPrice="1",
        Type=kind,
        LaunchSpecification={"ImageId": IMAGE, "InstanceType": "g4dn.xlarge"},
    )
    request = made["SpotInstanceRequests"][0]["SpotInstanceRequestId"]
    found = ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request])
    aws = Aws(REGION, found["SpotInstanceRequests"][0]["InstanceId"], endpoint=moto)
    assert aws.describe().spot

    if kind == "persistent":
        aws.stop()
        assert aws.describe().power is Power.STOPPED_FREE
        return
    for order in (aws.stop, lambda: aws.self_stop):
        with pytest.raises(CloudRefused, match="one-time spot instance") as refused:
            order()
        assert "persistent" in refused.value.fix
    assert aws.describe().power is Power.RUNNING


def test_a_machine_that_is_gone_is_deleted(ec2: Client, moto: str) -> None:
    instance = launch(ec2)
    ec2.terminate_instances(InstanceIds=[instance])
    assert Aws(REGION, instance, endpoint=moto).describe().power is Power.DELETED

    never = Aws(REGION, "i-0123456789abcdef0", endpoint=moto)
    found = never.describe()
    assert found.power is Power.DELETED
    assert found.reason == "AWS has no i-0123456789abcdef0 in eu-central-1"
    with pytest.raises(CloudRefused, match=r"knows no such instance \(InvalidInstanceID.NotFound"):
        never.start()


def test_a_profile_is_taken_and_an_unknown_one_said(
    ec2: Client, moto: str, login: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = launch(ec2)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    keys = f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (login / "credentials").write_text(f"[exam]\n{keys}")

    assert Aws(REGION, instance, profile="exam", endpoint=moto).describe().power is Power.RUNNING
    with pytest.raises(CloudRefused, match="no login for AWS here") as refused:
        Aws(REGION, instance, profile="exams", endpoint=moto).describe()
    assert "exams" in refused.value.cause
    with pytest.raises(CloudRefused, match="no login for AWS here") as refused:
        Aws(REGION, instance, endpoint=moto).describe()
    assert refused.value.code == "NoCredentialsError"


class Bare(Service):
    """EC2 and the price list, which say what they are told to."""

    def answer(self, asked: Asked) -> Reply:
        instance = "<item><instanceId>i-1</instanceId><instanceType>p3.2xlarge</instanceType>"
        state = "<instanceState><code>80</code><name>stopped</name></instanceState>"
        reason = (
            "<reason>User initiated (2026-11-21 10:00:00 GMT)</reason>"
            "<stateReason><code>Client.UserInitiatedHibernate</code></stateReason></item>"
        )
        found = f"<instancesSet>{instance}{state}{reason}</instancesSet>"
        reservation = f"<reservationSet><item>{found}</item></reservationSet>"
        answer = f"<DescribeInstancesResponse>{reservation}</DescribeInstancesResponse>"
        return Reply(200, answer.encode(), {"Content-Type": "text/xml"})


def error(status: int, code: str, message: str = "x") -> Reply:
    inner = f"<Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
    body = f"<Response>{inner}<RequestID>1</RequestID></Response>"
    return Reply(status, body.encode(), {"Content-Type": "text/xml"})


@pytest.fixture(scope="module")
def bare(login: Path) -> Iterator[Bare]:
    service = Bare()
    with service.serving(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_PRICING", service.url)
        patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
        yield service


@pytest.fixture(scope="module")
def aws(bare: Bare) -> Aws:
    """One for all: to make a client takes half a second."""
    return Aws(REGION, "i-1", endpoint=bare.url)


def test_a_hibernated_machine_and_its_time_are_read(aws: Aws) -> None:
    found = aws.describe()

    assert found.power is Power.HIBERNATED
    assert found.since == datetime(2026, 11, 21, 10, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fault", "words", "fix"),
    [
        (error(401, "AuthFailure"), "this login (AuthFailure)", "aws sts get-caller"),
        (error(400, "RequestExpired"), "this login (RequestExpired)", "aws sso login"),
        (error(403, "UnauthorizedOperation"), "does not allow it", "ec2:StartInstances"),
        (error(400, "InvalidInstanceID.Malformed"), "no such instance", "describe-instances"),
        (error(400, "IncorrectInstanceState"), "cannot do this now", "wait until"),
        (error(503, "RequestLimitExceeded"), "asked too often", "again in a few"),
        (error(500, "InternalError"), "out of order", "again later"),
    ],
)
def test_what_aws_refuses_is_said_with_what_to_do(
    bare: Bare, aws: Aws, fault: Reply, words: str, fix: str
) -> None:
    bare.faults = [fault] * 9

    with pytest.raises(CloudError) as failed:
        aws.start()

    bare.faults.clear()
    assert words in str(failed.value)
    assert fix in failed.value.fix
    assert SECRET not in failed.value.render()
    assert isinstance(failed.value, CloudRefused) is (fault.status < 500)


def test_no_room_is_told_from_other_failures(bare: Bare, aws: Aws) -> None:
    bare.faults = [error(500, "InsufficientInstanceCapacity", "not now")] * 9

    with pytest.raises(NoCapacity) as short:
        aws.start()

    bare.faults.clear()
    assert short.value.retryable
    assert short.value.cause == "not now"


def test_no_network_is_an_error_of_ours() -> None:
    with pytest.raises(CloudError, match=r"cannot reach AWS \(eu-central-1\)") as failed:
        Aws(REGION, "i-1", endpoint=f"http://127.0.0.1:{free_port()}").describe()

    assert not isinstance(failed.value, CloudRefused)


def product(price: str, unit: str = "Hrs") -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
    return json.dumps({"terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}}})


def test_the_list_price_is_asked_for_and_nothing_is_unknown(bare: Bare, aws: Aws) -> None:
    rows = [product("3.823"), product("0.0000000000"), product("99", "Quantity")]
    bare.faults = [None, Reply(200, {"PriceList": rows})]

    quote = aws.quote()

    assert quote is not None
    assert (quote.per_hour, quote.currency) == (Decimal("3.823"), "USD")
    assert (quote.source, quote.region, quote.spot) == ("AWS Price List", REGION, False)
    filters = {one["Field"]: one["Value"] for one in json.loads(bare.asked[-1].body)["Filters"]}
    assert filters == {
        "instanceType": "p3.2xlarge",
        "regionCode": REGION,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    for rows in ([], [product("0")]):
        bare.faults = [None, Reply(200, {"PriceList": rows})]
        assert aws.quote() is None


def test_a_spot_machine_is_priced_by_its_market(ec2: Client, moto: str) -> None:
    made = ec2.request_spot_instances(
        SpotPrice="1", LaunchSpecification={"ImageId": IMAGE, "InstanceType": "g4dn.xlarge"}
    )
    request = made["SpotInstanceRequests"][0]["SpotInstanceRequestId"]
    found = ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request])
    aws = Aws(REGION, found["SpotInstanceRequests"][0]["InstanceId"], endpoint=moto)

    quote = aws.quote()

    assert quote is not None
    assert (quote.spot, quote.source) == (True, "AWS spot price history")
    assert quote.per_hour > 0


def test_without_boto3_the_extra_is_named(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["boto3"] = sys.modules["botocore"] = None
from orchestrator.clouds.aws import Aws
from orchestrator.clouds.awsprices import Client
from orchestrator.errors import CloudRefused
try:
    Aws("eu-central-1", "i-1").describe()
except CloudRefused as error:
    print(error.render())
"""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )

    assert "AWS needs boto3, which is not installed" in done.stdout
    assert "fix:   pip install 'trainshed[aws]'" in done.stdout
