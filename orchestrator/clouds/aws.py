"""A machine of Amazon EC2, by boto3, which knows all the ways to log in there.

Source: EC2 API reference: DescribeInstances, StartInstances, StopInstances,
DescribeInstanceAttribute; "Instance lifecycle"; "How billing works for On-Demand Instances".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from orchestrator.clouds.awserrors import MISSING, translated
from orchestrator.clouds.awsprices import Client, on_demand_quote, spot_quote
from orchestrator.clouds.power import Machine, Power, Quote, SelfStop, Tariff
from orchestrator.errors import CloudRefused

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
    def tells_address(self) -> bool:
        return True

    @property
    def self_stop(self) -> SelfStop:
        """Turning it off is enough.

        Raises:
            CloudRefused: it would be deleted then, disk and all.
        """
        self._refuse_if_one_time(self._found())
        with translated(self._region):
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
        return SelfStop("poweroff", (("cloud", "aws"), ("shutdown", behavior)))

    def describe(self) -> Machine:
        try:
            found = self._found()
        except CloudRefused as error:
            if error.code != MISSING:
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
        with translated(self._region):
            self._ec2.start_instances(InstanceIds=[self._instance])

    def stop(self) -> None:
        self._refuse_if_one_time(self._found())
        with translated(self._region):
            self._ec2.stop_instances(InstanceIds=[self._instance])

    def quote(self) -> Quote | None:
        found = self._found()
        size = found["InstanceType"]
        with translated(self._region):
            if _is_spot(found):
                zone = found["Placement"]["AvailabilityZone"]
                return spot_quote(self._ec2, size, zone, self._region)
            # The price list is served from few regions, for all of them.
            return on_demand_quote(self._client("pricing", "us-east-1"), size, self._region)

    def _found(self) -> Mapping[str, Any]:
        with translated(self._region):
            answer = self._ec2.describe_instances(InstanceIds=[self._instance])
        for reservation in answer.get("Reservations", ()):
            for instance in reservation.get("Instances", ()):
                assert isinstance(instance, dict)
                return instance
        raise CloudRefused(
            f"AWS has no {self._instance} in {self._region}",
            code=MISSING,
            fix="check region and instance of the remote: aws ec2 describe-instances",
        )

    def _refuse_if_one_time(self, found: Mapping[str, Any]) -> None:
        if not _is_spot(found):
            return
        request = found.get("SpotInstanceRequestId")
        asked = {"SpotInstanceRequestIds": [request]} if request else {}
        with translated(self._region):
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
        with translated(region):
            import boto3
            from botocore.config import Config

            session = boto3.Session(profile_name=self._profile or None, region_name=region)
            limits = Config(
                connect_timeout=10,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": 4},
            )
            return session.client(service, endpoint_url=endpoint, config=limits)


def _is_spot(found: Mapping[str, Any]) -> bool:
    return found.get("InstanceLifecycle") == "spot"


def _when(told: str) -> datetime | None:
    match = _WHEN.search(told)
    if match is None:
        return None
    # Its fraction was cut off; a bill is never less than what it adds up to.
    return datetime.fromisoformat(match[1]).replace(tzinfo=UTC) + timedelta(seconds=1)
