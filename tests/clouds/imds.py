"""A stand-in for the metadata service of three clouds, as they document it, errors included.

`python -m tests.clouds.imds FILE` serves 169.254.169.254:80 (inside a network namespace that has
the address) by what is in FILE, a JSON object that may change at any time:

    cloud       azure | aws | gcp: whose answers are given; the others' questions get a 404
    name        the machine's
    identity    azure: whether it has one
    taken       the machine is about to be taken away
    others      azure: names of machines of the same set that are about to be taken away
    status      this status to everything
    raw         this text, with 200, to everything
    silent_s    so long is waited before an answer

Each question goes into FILE.log, a line each: method, path.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ADDRESS = "169.254.169.254"
TOKEN = "AQAEAL-token"
IDENTITY_TOKEN = "managed-identity-token"


class Handler(BaseHTTPRequestHandler):
    file: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        state = json.loads(self.file.read_text())
        with Path(f"{self.file}.log").open("a") as log:
            log.write(f"{self.command} {self.path}\n")
        time.sleep(state.get("silent_s", 0))
        if "status" in state:
            return self._say(state["status"], '{"error": "as the test wants it"}')
        if "raw" in state:
            return self._say(200, state["raw"])
        return {"azure": self._azure, "aws": self._aws, "gcp": self._gcp}[state["cloud"]](state)

    def _azure(self, state: dict[str, Any]) -> None:
        path, _, query = self.path.partition("?")
        name = state.get("name", "gpu1")
        if not path.startswith("/metadata/"):
            return self._say(404)
        if self.headers.get("Metadata") != "true":
            return self._say(400, {"error": "Bad request. Required metadata header not specified"})
        if "api-version=" not in query:
            return self._say(400, {"error": "Bad request. api-version is invalid or missing"})
        if path == "/metadata/instance":
            compute = {"subscriptionId": "0000-1111", "resourceGroupName": "rg 1", "name": name}
            return self._say(200, {"compute": {**compute, "priority": "Spot"}})
        if path == "/metadata/scheduledevents":
            taken = [*([name] if state.get("taken") else []), *state.get("others", [])]
            events = [_event(each) for each in taken]
            return self._say(200, {"DocumentIncarnation": len(events), "Events": events})
        if path == "/metadata/identity/oauth2/token":
            if not state.get("identity", True):
                text = {"error": "invalid_request", "error_description": "Identity not found"}
                return self._say(400, text)
            return self._say(200, {"access_token": IDENTITY_TOKEN, "token_type": "Bearer"})
        return self._say(404)

    def _aws(self, state: dict[str, Any]) -> None:
        if self.path == "/latest/api/token":
            wanted = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            is_fine = self.command == "PUT" and wanted
            return self._say(200, TOKEN) if is_fine else self._say(400)
        if not self.path.startswith("/latest/meta-data/"):
            return self._say(404)
        if self.headers.get("X-aws-ec2-metadata-token") != state.get("token", TOKEN):
            return self._say(401)
        if self.path.endswith("/spot/instance-action") and state.get("taken"):
            return self._say(200, {"action": "terminate", "time": "2026-09-18T08:22:00Z"})
        return self._say(404)

    def _gcp(self, state: dict[str, Any]) -> None:
        if not self.path.startswith("/computeMetadata/v1/"):
            return self._say(404)
        if self.headers.get("Metadata-Flavor") != "Google":
            return self._say(403, "Missing Metadata-Flavor:Google header.")
        if self.path.endswith("/instance/preempted"):
            return self._say(200, "TRUE" if state.get("taken") else "FALSE")
        if self.path.endswith("/instance/id"):
            return self._say(200, "4711")
        return self._say(404)

    def _say(self, status: int, content: object = "") -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _event(name: str) -> dict[str, object]:
    return {
        "EventId": f"event of {name}",
        "EventType": "Preempt",
        "ResourceType": "VirtualMachine",
        "Resources": [name],
        "EventStatus": "Scheduled",
        "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    }


def main(file: Path) -> None:
    Handler.file = file
    server = ThreadingHTTPServer((ADDRESS, 80), Handler)
    Path(f"{file}.up").touch()
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
