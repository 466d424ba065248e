"""What goes over the near end of a line, packet by packet: the kernel's own copy, no tcpdump."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.line import Line

_EVERY_PROTOCOL = 0x0003  # Source: linux/if_ether.h
_OUTGOING = 4  # Source: linux/if_packet.h
_TCP = 6
# Room for what comes while this thread waits for a processor.
_BUFFER_BYTES = 2**24
_HEADERS_BYTES = 120


@dataclass(frozen=True)
class Packet:
    """A packet of a TCP connection.

    Attributes:
        at_s: of the monotonic clock.
        outgoing: from the near end to the far one.
        payload_bytes: 0 where a connection is opened or closed, and for an acknowledgement alone.
    """

    at_s: float
    outgoing: bool
    payload_bytes: int


def round_trips(packets: Sequence[Packet], rtt_s: float) -> int:
    """How often, one after the other, something left and what may have been its answer came.

    Nothing that comes sooner than a round trip after can be an answer. Acknowledgements are
    answers: Nagle's algorithm and a full window wait for them. What follows the last payload is
    not counted. While data streams, each round trip's worth of time counts, so this tells most
    where little is sent; there it agrees with how the time grows with the distance.
    """
    last = max((at for at, packet in enumerate(packets) if packet.payload_bytes), default=-1)
    count, asked_s = 0, None
    for packet in packets[: last + 1]:
        if packet.outgoing and asked_s is None:
            asked_s = packet.at_s
        elif not packet.outgoing and asked_s is not None and packet.at_s >= asked_s + rtt_s:
            count, asked_s = count + 1, None
    return count


@contextlib.contextmanager
def traced(line: Line) -> Iterator[list[Packet]]:
    """The packets since the block began, still growing inside it. Needs root."""
    with line.near():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(_EVERY_PROTOCOL))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    tap.bind((line.device, _EVERY_PROTOCOL))
    tap.settimeout(0.05)
    packets: list[Packet] = []
    done = threading.Event()
    thread = threading.Thread(target=_listen, args=(tap, packets, done))
    thread.start()
    try:
        yield packets
    finally:
        done.set()
        thread.join()
        tap.close()


def _listen(tap: socket.socket, packets: list[Packet], done: threading.Event) -> None:
    while True:
        try:
            data, address = tap.recvfrom(_HEADERS_BYTES)
        except TimeoutError:
            if done.is_set():
                return
            continue
        packet = _parse(data, outgoing=address[2] == _OUTGOING)
        if packet is not None:
            packets.append(packet)


def _parse(data: bytes, *, outgoing: bool) -> Packet | None:
    """Source: RFC 791 and RFC 9293, the headers' formats."""
    if len(data) < 40 or data[0] >> 4 != 4 or data[9] != _TCP:
        return None
    ip_bytes = (data[0] & 15) * 4
    tcp_bytes = (data[ip_bytes + 12] >> 4) * 4
    payload_bytes = int.from_bytes(data[2:4]) - ip_bytes - tcp_bytes
    return Packet(time.monotonic(), outgoing, payload_bytes)
