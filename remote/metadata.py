"""The address from which a cloud tells a machine about itself.

Sources: learn.microsoft.com/azure/virtual-machines/instance-metadata-service;
docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html (IMDSv2);
docs.cloud.google.com/compute/docs/metadata/querying-metadata.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Callable, Mapping, Optional

ADDRESS = "http://169.254.169.254"
_SHORT_S = 3.0
_LIMIT_BYTES = 2**20

# Never through a proxy: the address is this machine's own.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotThere(Exception):
    """No answer, or one that says no.

    Attributes:
        status: of HTTP; 0 where there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Silent(NotThere):
    """Nobody is at the address: no cloud's machine."""


def ask(
    path: str, headers: Mapping[str, str], *, method: str = "GET", timeout_s: float = _SHORT_S
) -> str:
    """What stands there.

    Raises:
        NotThere: nobody answers, or not with what was asked for.
    """
    request = urllib.request.Request(ADDRESS + path, headers=dict(headers), method=method)  # noqa: S310
    try:
        with _opener.open(request, timeout=timeout_s) as answer:
            return str(answer.read(_LIMIT_BYTES).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(300).decode("utf-8", "replace").strip()
        raise NotThere(
            f"{path.partition('?')[0]} answers {error.code} {said}", error.code
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Silent(f"the metadata address does not answer: {reason}") from None


def ask_azure(path: str, timeout_s: float = _SHORT_S) -> Any:  # noqa: ANN401  # JSON
    """The JSON at an Azure path.

    Raises:
        NotThere: as `ask`.
    """
    said = ask(path, {"Metadata": "true"}, timeout_s=timeout_s)
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        raise NotThere(f"{path.partition('?')[0]} does not answer with JSON") from None


def azure_machine() -> Mapping[str, Any]:
    """The `compute` part of Azure's instance document.

    Raises:
        NotThere: as `ask`; also where another cloud answers.
    """
    found = ask_azure("/metadata/instance?api-version=2021-02-01")
    compute = found.get("compute") if isinstance(found, dict) else None
    if not isinstance(compute, dict):
        raise NotThere("the metadata do not describe an Azure machine")
    return compute


def aws_token() -> str:
    """What each question to AWS must bring, for six hours.

    Raises:
        NotThere: as `ask`.
    """
    wanted = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
    return ask("/latest/api/token", wanted, method="PUT")


def ask_aws(path: str, token: str) -> str:
    """Raises:
    NotThere: as `ask`.
    """
    return ask(path, {"X-aws-ec2-metadata-token": token})


def ask_gcp(path: str) -> str:
    """Raises:
    NotThere: as `ask`.
    """
    return ask(f"/computeMetadata/v1/{path}", {"Metadata-Flavor": "Google"})


def find_cloud() -> Optional[str]:
    """`azure`, `gcp` or `aws`, by who answers; None where nobody does."""
    questions: Mapping[str, Callable[[], object]] = {
        "azure": azure_machine,
        "gcp": lambda: ask_gcp("instance/id"),
        "aws": aws_token,
    }
    for cloud, question in questions.items():
        try:
            question()
        except Silent:
            return None
        except NotThere:
            continue
        return cloud
    return None
