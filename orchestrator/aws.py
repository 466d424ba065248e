"""A machine of Amazon EC2, by boto3, which knows all the ways to log in there.

Source: EC2 API reference: DescribeInstances, StartInstances, StopInstances,
DescribeInstanceAttribute; "Instance lifecycle"; "How billing works for On-Demand Instances".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from orchestrator.awsprices import Client, on_demand_quote, spot_quote
from orchestrator.errors import CloudError, CloudRefused, NoCapacity
from orchestrator.power import Machine, Power, Quote, SelfStop, Tariff

_POWER = {
    "pending": Power.STARTING,
    "running": Power.RUNNING,
    "stopping": Power.STOPPING,
    "stopped": Power.STOPPED_FREE,
    "shutting-down": Power.STOPPING,
    "terminated": Power.DELETED,
}
# `User initiated (2026-11-21 17:05:11 GMT)`
_WHEN = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
_NO_ROOM = ("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity")
_LOGIN = (
    *("AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("RequestExpired", "UnrecognizedClientException", "ExpiredTokenException"),
)
_RIGHTS = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
_LOGIN_FIX = "aws sts get-caller-identity; then aws sso login, or aws configure"
_MISSING = "InvalidInstanceID.NotFound"


class Aws:
    """Args:
    profile: of ~/.aws/config; empty takes the login that boto3 finds.
    endpoint: EC2's address; empty for Amazon's own.
    """

    def __init__(
        self, region: str, instance: str, *, profile: str = "", endpoint: str = ""
    ) -> None:
        self._region, self._instance = region, instance
        self._profile, self._endpoint = profile, endpoint

    @cached_property
    def tariff(self) -> Tariff:
        """By the second of `running`, a minute at least at every start."""
        return Tariff(60.0, 1.0, frozenset((Power.RUNNING,)), tells_starts=True)

    @property
    def self_stop(self) -> SelfStop:
        """Turning it off is enough.

        Raises:
            CloudRefused: it would be deleted then, disk and all.
        """
        self._refuse_if_one_time(self._found())
        with _translated(self._region):
            answer = self._ec2.describe_instance_attribute(
                InstanceId=self._instance, Attribute="instanceInitiatedShutdownBehavior"
            )
        behavior = answer["InstanceInitiatedShutdownBehavior"].get("Value")
        if behavior != "stop":
            raise CloudRefused(
                f"{self._instance} deletes itself when it is turned off from within",
                code="instanceInitiatedShutdownBehavior",
                cause=f"its instanceInitiatedShutdownBehavior is {behavior}",
                fix=f"aws ec2 modify-instance-attribute --region {self._region} --instance-id "
                f"{self._instance} --instance-initiated-shutdown-behavior stop",
            )
        return SelfStop("poweroff")

    def describe(self) -> Machine:
        try:
            found = self._found()
        except CloudRefused as error:
            if error.code != _MISSING:
                raise
            words = f"AWS has no {self._instance} in {self._region}"
            return Machine(Power.DELETED, reason=words)
        power = _POWER.get(found["State"]["Name"], Power.UNKNOWN)
        reason = found.get("StateReason") or {}
        if power is Power.STOPPED_FREE and "Hibernate" in reason.get("Code", ""):
            power = Power.HIBERNATED
        told = found.get("StateTransitionReason") or ""
        started_at = found.get("LaunchTime")
        return Machine(
            power,
            since=started_at if power in (Power.STARTING, Power.RUNNING) else _when(told),
            started_at=started_at,
            address=found.get("PublicIpAddress") or "",
            size=found.get("InstanceType") or "",
            region=self._region,
            spot=_is_spot(found),
            reason=reason.get("Message") or told,
        )

    def start(self) -> None:
        with _translated(self._region):
            self._ec2.start_instances(InstanceIds=[self._instance])

    def stop(self) -> None:
        self._refuse_if_one_time(self._found())
        with _translated(self._region):
            self._ec2.stop_instances(InstanceIds=[self._instance])

    def quote(self) -> Quote | None:
        found = self._found()
        size = found["InstanceType"]
        with _translated(self._region):
            if _is_spot(found):
                zone = found["Placement"]["AvailabilityZone"]
                return spot_quote(self._ec2, size, zone, self._region)
            # The price list is served from few regions, for all of them.
            return on_demand_quote(self._client("pricing", "us-east-1"), size, self._region)

    def _found(self) -> Mapping[str, Any]:
        with _translated(self._region):
            answer = self._ec2.describe_instances(InstanceIds=[self._instance])
        for reservation in answer.get("Reservations", ()):
            for instance in reservation.get("Instances", ()):
                assert isinstance(instance, dict)
                return instance
        raise CloudRefused(
            f"AWS has no {self._instance} in {self._region}",
            code=_MISSING,
            fix="check region and instance of the remote: aws ec2 describe-instances",
        )

    def _refuse_if_one_time(self, found: Mapping[str, Any]) -> None:
        if not _is_spot(found):
            return
        request = found.get("SpotInstanceRequestId")
        asked = {"SpotInstanceRequestIds": [request]} if request else {}
        with _translated(self._region):
            answer = self._ec2.describe_spot_instance_requests(**asked)
        mine = [r for r in answer["SpotInstanceRequests"] if r.get("InstanceId") == self._instance]
        if any(one["Type"] == "one-time" for one in mine):
            raise CloudRefused(
                f"{self._instance} is a one-time spot instance, which cannot be stopped",
                code="UnsupportedOperation",
                cause="it can only be terminated, and its disk with it",
                fix="pull what you need and terminate it by hand; ask for the next one with a "
                "persistent request and the interruption behavior stop",
            )

    @cached_property
    def _ec2(self) -> Client:
        return self._client("ec2", self._region, self._endpoint or None)

    def _client(self, service: str, region: str, endpoint: str | None = None) -> Client:
        with _translated(region):
            import boto3
            from botocore.config import Config

            session = boto3.Session(profile_name=self._profile or None, region_name=region)
            limits = Config(
                connect_timeout=10,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": 4},
            )
            return session.client(service, endpoint_url=endpoint, config=limits)


@contextmanager
def _translated(region: str) -> Iterator[None]:
    """Make botocore's errors ours."""
    try:
        from botocore import exceptions as aws
    except ImportError:
        raise CloudRefused(
            "AWS needs boto3, which is not installed",
            code="no-boto3",
            fix="pip install 'trainshed[aws]'",
        ) from None
    try:
        yield
    except aws.ClientError as error:
        raise _refusal(error.response, region) from None
    except (
        *(aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound),
        *(aws.UnauthorizedSSOTokenError, aws.SSOTokenLoadError, aws.TokenRetrievalError),
        *(aws.CredentialRetrievalError, aws.NoAuthTokenError),
    ) as error:
        kind = type(error).__name__
        raise CloudRefused(
            "there is no login for AWS here", code=kind, cause=str(error), fix=_LOGIN_FIX
        ) from None
    except aws.BotoCoreError as error:
        slow = isinstance(error, aws.ConnectTimeoutError | aws.ReadTimeoutError)
        message = (
            f"AWS ({region}) did not answer in time" if slow else f"cannot reach AWS ({region})"
        )
        fix = "check this computer's network, its proxy, and the remote's region"
        raise CloudError(message, cause=str(error), fix=fix) from None


def _refusal(answer: Mapping[str, Any], region: str) -> CloudError:
    code = str(answer.get("Error", {}).get("Code", ""))
    words = " ".join(str(answer.get("Error", {}).get("Message", "")).split())[:500]
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    shown = f" ({code})"
    if code in _NO_ROOM:
        fix = "try again later, or give it a size or an availability zone that has room"
        return NoCapacity(
            f"AWS has no room for it just now{shown}", code=code, cause=words, fix=fix
        )
    if code in _LOGIN:
        message = f"AWS does not accept this login{shown}"
        return CloudRefused(message, code=code, cause=words, fix=_LOGIN_FIX)
    if code in _RIGHTS:
        fix = (
            "this login needs ec2:DescribeInstances, ec2:DescribeInstanceAttribute, "
            "ec2:DescribeSpotInstanceRequests, ec2:StartInstances and ec2:StopInstances; "
            "for prices ec2:DescribeSpotPriceHistory and pricing:GetProducts"
        )
        message = f"AWS does not allow it to this login{shown}"
        # What it decodes to is for the account's owner, and long.
        return CloudRefused(message, code=code, cause=words.partition(" Encoded")[0], fix=fix)
    if code.startswith("InvalidInstanceID"):
        fix = (
            f"check region and instance of the remote: aws ec2 describe-instances --region {region}"
        )
        return CloudRefused(f"AWS knows no such instance{shown}", code=code, cause=words, fix=fix)
    if code == "IncorrectInstanceState":
        fix = "wait until what is under way there is done, then try again"
        return CloudRefused(f"AWS cannot do this now{shown}", code=code, cause=words, fix=fix)
    if status == 429 or "Throttling" in code or code == "RequestLimitExceeded":
        fix = "try again in a few minutes; other programs may ask as this login too"
        return CloudError(f"AWS is asked too often{shown}", cause=words, fix=fix)
    if status >= 500:
        fix = "try again later: https://health.aws.amazon.com/health/status"
        return CloudError(f"AWS is out of order{shown}", cause=words, fix=fix)
    return CloudRefused(f"AWS refused{shown}", code=code, cause=words)


def _is_spot(found: Mapping[str, Any]) -> bool:
    return found.get("InstanceLifecycle") == "spot"


def _when(told: str) -> datetime | None:
    match = _WHEN.search(told)
    if match is None:
        return None
    # Its fraction was cut off; a bill is never less than what it adds up to.
    return datetime.fromisoformat(match[1]).replace(tzinfo=UTC) + timedelta(seconds=1)
