"""As much of Azure's resource manager as a machine needs that deallocates itself.

`python -m tests.clouds.armlite FILE` serves 127.0.0.1:8001 by what is in FILE, a JSON object:

    actions, notActions     what the machine's identity may do
    errors                  by the end of a path: [status, code, message]
    redirect                whether it sends who asks about the machine elsewhere

Each question goes into FILE.log, a line each: method, path. An accepted deallocation leaves a file
FILE.deallocated.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.clouds.imds import IDENTITY_TOKEN

PORT = 8001
MACHINE = (
    "/subscriptions/0000-1111/resourceGroups/rg%201/providers/Microsoft.Compute"
    "/virtualMachines/gpu1"
)


class Handler(BaseHTTPRequestHandler):
    file: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        state = json.loads(self.file.read_text())
        path, _, query = self.path.partition("?")
        with Path(f"{self.file}.log").open("a") as log:
            log.write(f"{self.command} {path}\n")
        if state.get("redirect") and path.startswith(MACHINE):
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{PORT}/elsewhere")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.headers.get("Authorization") != f"Bearer {IDENTITY_TOKEN}":
            return self._fail(401, "AuthenticationFailed", "Authentication failed.")
        if "api-version=" not in query:
            return self._fail(400, "MissingApiVersionParameter", "The api-version is required.")
        for end, error in state.get("errors", {}).items():
            if path.endswith(end):
                return self._fail(*error)
        if not path.startswith(MACHINE):
            return self._fail(404, "ResourceNotFound", "The Resource was not found.")
        what = self.command, path[len(MACHINE) :]
        if what == ("GET", ""):
            return self._say(200, {"name": "gpu1", "properties": {}})
        if what == ("GET", "/providers/Microsoft.Authorization/permissions"):
            permission = {key: state.get(key, []) for key in ("actions", "notActions")}
            return self._say(200, {"value": [permission]})
        if what == ("POST", "/deallocate"):
            Path(f"{self.file}.deallocated").touch()
            return self._say(202, None)
        return self._fail(404, "InvalidResourceType", "The resource type could not be found.")

    def _fail(self, status: int, code: str, message: str) -> None:
        self._say(status, {"error": {"code": code, "message": message}})

    def _say(self, status: int, content: object) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(file: Path) -> None:
    Handler.file = file
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    Path(f"{file}.up").touch()
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
