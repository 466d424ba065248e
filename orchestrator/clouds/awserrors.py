"""What botocore raises, as errors of ours with what to do about each.

Source: "Error codes for the Amazon EC2 API".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import CloudError, CloudRefused, NoCapacity

MISSING = "InvalidInstanceID.NotFound"

_NO_ROOM = ("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity")
_LOGIN = (
    *("AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("RequestExpired", "UnrecognizedClientException", "ExpiredTokenException"),
)
_RIGHTS = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
_LOGIN_FIX = "aws sts get-caller-identity; then aws sso login, or aws configure"


@contextmanager
def translated(region: str) -> Iterator[None]:
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
