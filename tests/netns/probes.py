"""Short questions to the gateway and the hosts behind it: does a port answer, does an echo come back."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterable

from tests.lab import Lab, Namespace
from tests.lab.clients import V4
from tests.lab.gateway import Gateway


def use(gateway: Gateway, text: str) -> None:
    """Make another policy current."""
    if gateway.policy.read_text() == text:
        return
    before = gateway.status()["policy"]["revision"]
    gateway.write_policy(text)
    assert gateway.reload() > before


def family(host: str) -> socket.AddressFamily:
    """Of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def attempt(
    lab: Lab, port: int, host: str = V4, timeout: float = 1.0, namespace: Namespace = Namespace.CLIENT
) -> tuple[str, int]:
    """What becomes of a TCP connection (open, refused, silent), and the client's port."""

    def connect() -> tuple[str, int]:
        with socket.socket(family(host)) as sock:
            sock.settimeout(timeout)
            sock.bind(("", 0))
            sport: int = sock.getsockname()[1]
            try:
                sock.connect((host, port))
            except ConnectionRefusedError:
                return "refused", sport
            except TimeoutError:
                return "silent", sport
            return "open", sport

    return lab.call(namespace, connect)


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    content += bytes(len(content) % 2)
    total = sum(struct.unpack(f">{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ping(lab: Lab, host: str, namespace: Namespace = Namespace.CLIENT, timeout: float = 1.0, tries: int = 1) -> bool:
    """The answer to an ICMP echo request comes back (of `tries`, to one at least)."""
    version6 = ":" in host
    request, reply = (128, 129) if version6 else (8, 0)
    identifier = int.from_bytes(os.urandom(2))

    def ask() -> bool:
        proto = socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP
        with socket.socket(family(host), socket.SOCK_RAW, proto) as sock:
            for number in range(tries):
                message = struct.pack(">BBHHH", request, 0, 0, identifier, number) + b"echo"
                # The kernel sums ICMPv6, which covers the addresses, itself.
                message = message[:2] + struct.pack(">H", 0 if version6 else checksum(message)) + message[4:]
                with contextlib.suppress(OSError):
                    sock.sendto(message, (host, 0))
                deadline = time.monotonic() + timeout
                while (left := deadline - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
                    answer = sock.recv(2048)
                    if not version6:
                        answer = answer[(answer[0] & 15) * 4 :]
                    if answer[0] == reply and answer[4:6] == struct.pack(">H", identifier):
                        return True
        return False

    return lab.call(namespace, ask)


def mac(lab: Lab, namespace: Namespace, interface: str = "eth0") -> str:
    """Link address of an interface."""
    return lab.run(namespace, ["cat", f"/sys/class/net/{interface}/address"]).stdout.strip()


def send_frames(lab: Lab, namespace: Namespace, frames: Iterable[bytes], interface: str = "eth0") -> None:
    """Put frames on the wire as they are."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((interface, 0))
            for frame in frames:
                sock.send(frame)

    lab.call(namespace, send)
