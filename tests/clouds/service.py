"""A web service on loopback that answers JSON, keeps what it was asked, and can be made to fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request. `path` and the keys of `headers` are in lower case, as Azure and HTTP take them.

    Attributes:
        form: its body, where that is a form.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    form: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """Attributes:
    body: JSON, or bytes as they are.
    hang: nothing is ever answered.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False


class Service:
    """Subclasses answer.

    Attributes:
        faults: answered instead, the first first; None lets one request through.
        asked: all requests so far.
    """

    def __init__(self) -> None:
        self.faults: list[Reply | None] = []
        self.asked: list[Asked] = []
        self.url = ""
        self.closing = threading.Event()

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def ask(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        fault = self.faults.pop(0) if self.faults else None
        return fault or self.answer(asked)

    @contextmanager
    def serving(self) -> Iterator[None]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self._respond()

            def do_POST(self) -> None:
                self._respond()

            def _respond(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_form = "urlencoded" in self.headers.get("Content-Type", "")
                reply = service.ask(
                    Asked(
                        self.command,
                        parts.path.lower(),
                        {key: values[0] for key, values in parse_qs(parts.query).items()},
                        {key.lower(): value for key, value in self.headers.items()},
                        {k: v[0] for k, v in parse_qs(body.decode()).items()} if is_form else {},
                        body,
                    )
                )
                if reply.hang:
                    service.closing.wait(30)
                    self.close_connection = True
                    return
                data = reply.body
                if not isinstance(data, bytes):
                    data = b"" if data is None else json.dumps(data).encode()
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", **reply.headers}
                headers.setdefault("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()
            thread.join()
