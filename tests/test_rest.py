"""The door to web services: refusals in words, patience, and where a token may go."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from orchestrator.clouds.rest import Patience, Rest
from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudError, CloudRefused
from tests.clouds.clock import MovedClock
from tests.clouds.service import Asked, Reply, Service

TOKEN = "eyJ-very-secret-token"


class Echo(Service):
    def answer(self, asked: Asked) -> Reply:
        return Reply(200, {"path": asked.path})


@pytest.fixture
def service() -> Iterator[Echo]:
    echo = Echo()
    with echo.serving():
        yield echo


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


def rest(service: Service, clock: MovedClock | None = None, limit_s: float = 60.0) -> Rest:
    patience = Patience(limit_s, 5.0)
    if clock is not None:
        patience = Patience(limit_s, 5.0, clock.monotonic, clock.sleep)
    return Rest("Cloud", service.url, lambda: Token(Secret(TOKEN)), patience=patience)


def refusal(status: int, code: str = "SomeCode") -> Reply:
    return Reply(status, {"error": {"code": code, "message": f"because {code}"}})


def test_an_answer_is_an_object_with_exact_numbers(service: Echo) -> None:
    service.faults = [Reply(200, b'{"price": 0.9000000000000000001}')]

    assert rest(service).get("/x").body == {"price": Decimal("0.9000000000000000001")}
    assert service.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Cloud refused (SomeCode)"),
        (401, "Cloud does not accept this login (SomeCode)"),
        (403, "Cloud does not allow it to this login (SomeCode)"),
        (404, "Cloud knows no such thing (SomeCode)"),
        (409, "Cloud cannot do this now (SomeCode)"),
    ],
)
def test_a_no_is_said_with_the_services_code_and_reason(
    service: Echo, status: int, words: str
) -> None:
    service.faults = [refusal(status), refusal(status)]

    with pytest.raises(CloudRefused) as refused:
        rest(service).get("/x")

    assert str(refused.value) == words
    assert (refused.value.code, refused.value.cause) == ("SomeCode", "because SomeCode")
    assert not refused.value.retryable


@pytest.mark.parametrize(
    ("status", "words"),
    [(429, "Cloud is asked too often (Busy)"), (500, "Cloud is out of order (Busy)")],
)
def test_what_passes_is_tried_again_and_in_the_end_said(
    service: Echo, clock: MovedClock, status: int, words: str
) -> None:
    service.faults = [refusal(status, "Busy"), refusal(status, "Busy")]
    assert rest(service, clock).get("/a").body == {"path": "/a"}

    service.faults = [refusal(status, "Busy")] * 50
    with pytest.raises(CloudError) as failed:
        rest(service, clock).get("/x")

    assert not isinstance(failed.value, CloudRefused)
    assert str(failed.value) == words
    assert failed.value.retryable
    assert failed.value.fix


def test_a_pause_that_the_service_asks_for_is_made_and_bounded(
    service: Echo, clock: MovedClock
) -> None:
    started = clock.now()
    busy = Reply(429, {"error": {"code": "Busy", "message": ""}}, {"Retry-After": "17"})
    service.faults = [busy, busy]
    rest(service, clock).get("/x")
    assert (clock.now() - started).total_seconds() == 34

    service.faults = [Reply(503, None, {"Retry-After": "86400"})]
    with pytest.raises(CloudError, match="out of order"):
        rest(service, clock).get("/x")
    assert (clock.now() - started).total_seconds() == 34

    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    service.faults = [
        Reply(503, None, {"Retry-After": date}),
        Reply(503, None, {"Retry-After": "?"}),
    ]
    assert rest(service, clock).get("/y").body == {"path": "/y"}


def test_an_order_that_is_busy_for_ever_ends_by_the_deadline(
    service: Echo, clock: MovedClock
) -> None:
    started = clock.now()
    service.faults = [Reply(429, None, {"Retry-After": "1"})] * 100

    with pytest.raises(CloudError, match="asked too often"):
        rest(service, clock, limit_s=10).get("/x")

    assert (clock.now() - started).total_seconds() < 10


def test_silence_and_dripping_end_in_time(service: Echo) -> None:
    service.faults = [Reply(hang=True)] * 9
    patient = Rest("Cloud", service.url, patience=Patience(0.4, 0.2))

    started = time.monotonic()
    with pytest.raises(CloudError, match=r"Cloud \(127.0.0.1\) did not answer in time") as failed:
        patient.get("/x")

    assert time.monotonic() - started < 15
    assert "proxy" in failed.value.fix

    with socket.create_server(("127.0.0.1", 0)) as dripping:
        import threading

        def drip() -> None:
            line, _ = dripping.accept()
            with line:
                try:
                    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
                    while True:
                        line.sendall(b" ")
                        time.sleep(0.02)
                except OSError:
                    pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{dripping.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(CloudError, match="did not answer in time"):
            Rest("Cloud", url, patience=Patience(0.4, 5.0)).get("/x")
        assert time.monotonic() - started < 15
        thread.join(5)


def test_no_network_is_said_with_the_host(clock: MovedClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    patience = Patience(60, 5, clock.monotonic, clock.sleep)

    with pytest.raises(CloudError, match=r"cannot reach Cloud \(127.0.0.1\)") as failed:
        Rest("Cloud", f"http://127.0.0.1:{port}", patience=patience).get("/x")

    assert failed.value.cause == "connection refused"


def test_a_broken_or_endless_answer_is_an_error_not_a_crash(
    service: Echo, clock: MovedClock
) -> None:
    service.faults = [Reply(200, b"{}", {"Content-Length": "99"})] * 9
    with pytest.raises(CloudError, match="cannot reach Cloud") as failed:
        rest(service, clock).get("/x")
    assert failed.value.cause == "the answer broke off"

    service.faults = [Reply(200, b" " * (9 << 20))] * 9
    with pytest.raises(CloudError) as failed:
        rest(service, clock).get("/x")
    assert "longer than 8 MiB" in failed.value.cause

    for body in (b"<html>a hotel's login page</html>", b"[" * 100_000, b"[]"):
        service.faults = [Reply(200, body)] * 9
        with pytest.raises(CloudError) as failed:
            rest(service, clock).post("/order")
        assert failed.value.cause == "the answer is no JSON"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://management.azure.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "https://me:word@example.com",
        "ftp://127.0.0.1",
        "management.azure.com",
    ],
)
def test_a_token_is_sent_over_https_or_to_this_machine_only(endpoint: str) -> None:
    with pytest.raises(CloudRefused, match="cannot be asked") as refused:
        Rest("Cloud", endpoint)

    assert "word" not in str(refused.value)


def test_a_token_goes_to_no_other_host(service: Echo) -> None:
    other = Echo()
    with other.serving():
        for status in (301, 302, 307, 308):
            service.faults = [Reply(status, None, {"Location": f"{other.url}/steal"})]
            with pytest.raises(CloudRefused, match="sent us elsewhere"):
                rest(service).get("/x")
        with pytest.raises(CloudError, match="points to 127"):
            rest(service).follow(f"{other.url}/steal")

    assert other.asked == []


def test_a_refused_token_is_asked_for_anew_once(service: Echo) -> None:
    given = iter(f"token-{n}" for n in range(9))
    asking = Rest("Cloud", service.url, lambda: Token(Secret(next(given))))

    service.faults = [refusal(401)]
    asking.get("/x")
    assert [one.headers["authorization"] for one in service.asked] == [
        "Bearer token-0",
        "Bearer token-1",
    ]

    service.faults = [refusal(401), refusal(401)]
    with pytest.raises(CloudRefused, match="does not accept"):
        asking.get("/x")


def test_a_token_that_ends_soon_is_not_used(service: Echo) -> None:
    ends = iter([time.time() + 60, time.time() + 3600])
    asking = Rest("Cloud", service.url, lambda: Token(Secret("t"), next(ends)))

    for _ in range(3):
        asking.get("/x")

    assert next(ends, None) is None


def test_no_secret_is_in_an_error_a_log_or_a_repr(
    service: Echo, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    words = f"the token {TOKEN} and the word hunter2 are wrong"
    said = []
    for status in (400, 401, 403, 404, 409, 429, 500):
        body = {"error": {"code": f"Bad-{TOKEN}", "message": words}}
        asking = rest(service, clock)
        for form in ({}, {"secret": Secret("hunter2")}):
            service.faults = [Reply(status, body)] * 9
            with pytest.raises(CloudError) as failed:
                asking.post_form("/x", form) if form else asking.get("/x")
            error: BaseException | None = failed.value
            while error is not None:
                text = f"{error!r} {error} {vars(error)}"
                assert not form or "hunter2" not in text
                said.append(text)
                error = error.__cause__ or error.__context__
        said.append(f"{asking!r} {vars(asking)}")

    everything = "\n".join([*said, caplog.text])
    assert TOKEN not in everything
    assert "[secret]" in everything


def test_nothing_of_http_is_loaded_before_something_is_asked() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom orchestrator.clouds import aws, azure, gcp, provider\nprint(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "orchestrator.clouds.rest" in loaded
    assert not {"http", "http.client", "ssl", "urllib.request", "boto3", "google.auth"} & set(
        loaded
    )
