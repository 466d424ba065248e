"""A line to the VM: loopback, or two network namespaces with a distance between them.

The distance is our own delay line between two tunnel devices and not the kernel's netem, which
many kernels lack. A tunnel takes and gives segments uncut, as network cards do, while TCP on both
sides counts in packets of 1,500 bytes; so the line is fast, and slow start is what it is outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.namespace import Namespace, ip

DEVICE = "line"
_NEAR, _FAR = "10.83.0.1", "10.83.0.2"
_MTU_BYTES = 1500
# Longer than any program keeps in flight, so that the line never drops.
_QUEUE_PACKETS = "100000"
# Source: linux/if_tun.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02


@dataclass(frozen=True)
class Line:
    """Two ends.

    Attributes:
        rtt_ms: asked for; `proof.py` measures it.
        host: the far end's address.
        near, far: enter an end: what this thread starts or opens there is at that end.
        device: of the near end.
    """

    rtt_ms: float
    host: str
    near: Callable[[], AbstractContextManager[None]]
    far: Callable[[], AbstractContextManager[None]]
    device: str


LOOPBACK = Line(0, "127.0.0.1", contextlib.nullcontext, contextlib.nullcontext, "lo")


@contextlib.contextmanager
def distant(rtt_ms: float) -> Iterator[Line]:
    """A line that is this long, until the block ends."""
    with contextlib.ExitStack() as stack:
        near, far = Namespace(), Namespace()
        stack.callback(near.close)
        stack.callback(far.close)
        ends = [_tunnel(near, _NEAR, _FAR), _tunnel(far, _FAR, _NEAR)]
        program = Path(__file__).with_name("delay.py")
        process = subprocess.Popen(
            [sys.executable, program, *map(str, ends), str(rtt_ms / 2000)], pass_fds=ends
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        for end in ends:
            os.close(end)
        # A line that waits for a processor is longer than asked.
        os.setpriority(os.PRIO_PROCESS, process.pid, -20)
        yield Line(rtt_ms, _FAR, near.entered, far.entered, DEVICE)


def why_none() -> str:
    """What keeps this user from having a distance; empty if nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return ""


def _tunnel(namespace: Namespace, own: str, peer: str) -> int:
    """A tunnel device in the namespace; the file that its packets come from and go to."""
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    with namespace.entered():
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), flags))
        fcntl.ioctl(file, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
        ip("address", "add", own, "peer", peer, "dev", DEVICE)
        ip("link", "set", DEVICE, "mtu", str(_MTU_BYTES), "txqueuelen", _QUEUE_PACKETS, "up")
    return file
