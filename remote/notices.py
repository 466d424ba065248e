"""Notices that a spot machine is about to be taken away, as its cloud gives them: best effort.

Azure says so about 30 s before (scheduled events: the first call may take two minutes, and one a
day keeps them switched on), AWS two minutes (spot/instance-action, 404 until then), Google about
30 s (instance/preempted).

Sources: learn.microsoft.com/azure/virtual-machines/linux/scheduled-events;
docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html;
docs.cloud.google.com/compute/docs/instances/spot.
"""

from __future__ import annotations

import json
import threading
from typing import Callable, Dict, Optional

from remote import metadata
from remote.metadata import NotThere

POLL_S = 5.0
_FIRST_AZURE_S = 150.0

Ask = Callable[[], str]


class Notices(threading.Thread):
    """Asks on and on, so that the guard never waits for it.

    Args:
        cloud: `azure`, `aws` or `gcp`.
        heard: called with each new notice, and with nothing when it is taken back.
        say: for the log; called when there is something new to say.
    """

    def __init__(
        self, cloud: str, heard: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        super().__init__(name="notices", daemon=True)
        self._ask = _CLOUDS[cloud]()
        self._heard = heard
        self._say = say
        self._ended = threading.Event()

    def run(self) -> None:
        notice, trouble = "", ""
        while not self._ended.is_set():
            try:
                found, no = self._ask(), ""
            except NotThere as error:
                found, no = notice, str(error)
            if found != notice:
                self._heard(found)
            if no and no != trouble:
                self._say(f"spot notices cannot be read: {no}")
            notice, trouble = found, no
            self._ended.wait(POLL_S)

    def end(self) -> None:
        """No more of them; a question that is under way is left to itself."""
        self._ended.set()


def azure_notices() -> Ask:
    """What asks Azure; empty for no notice."""
    name: Optional[str] = None

    def ask() -> str:
        nonlocal name
        limit_s = _FIRST_AZURE_S if name is None else POLL_S
        document = metadata.ask_azure("/metadata/scheduledevents?api-version=2020-07-01", limit_s)
        name = name or str(metadata.azure_machine().get("name"))
        try:
            for event in document["Events"]:
                # Those of the whole scale set or availability set are told to each of its machines.
                if event["EventType"] == "Preempt" and name in event["Resources"]:
                    return f"spot notice: Azure takes it away, not before {event['NotBefore']}"
        except (KeyError, TypeError):
            raise NotThere("Azure's scheduled events are not as documented") from None
        return ""

    return ask


def aws_notices() -> Ask:
    """What asks AWS; empty for no notice."""
    token = ""

    def ask() -> str:
        nonlocal token
        token = token or metadata.aws_token()
        try:
            said = metadata.ask_aws("/latest/meta-data/spot/instance-action", token)
            action: Dict[str, str] = json.loads(said)
            return f"spot notice: AWS will {action['action']} it at {action['time']}"
        except NotThere as no:
            if no.status == 404:
                return ""
            token = ""  # perhaps it has expired
            raise
        except (ValueError, KeyError, TypeError):
            raise NotThere("AWS's spot/instance-action is not as documented") from None

    return ask


def gcp_notices() -> Ask:
    """What asks Google Cloud; empty for no notice."""

    def ask() -> str:
        is_taken = metadata.ask_gcp("instance/preempted").strip() == "TRUE"
        return "spot notice: Google Cloud takes it away" if is_taken else ""

    return ask


_CLOUDS: Dict[str, Callable[[], Ask]] = {
    "azure": azure_notices,
    "aws": aws_notices,
    "gcp": gcp_notices,
}
