"""Packets that are lost while the policy is applied again and again, and the longest gap between two of them.

A steady stream of datagrams goes through the lab's gateway, of eight flows that stay, and one packet in eight of a new
one. Meanwhile another process has the daemon apply two policies in turn, which differ in the rule that allows the
stream, so that every reload judges its flows anew. Then the same without reloads, for as long. The stream has one CPU;
daemon and reloads have the other.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import FASTPATH, Gateway
from bench.policies import COUNTS, Sizes, generate
from bench.policy_load import PATIENCE
from bench.results import Result
from bench.rounds import ROUNDS, one_cpu
from bench.traffic import FLOWS, PORT, SERVER, make
from fastpath.admin_client import request_change
from fastpath.exit import CommandError
from tests.lab.namespaces import Address, Lab, LabError, Namespace

RELOADS = 50 if ROUNDS > 3 else 10
INTERVAL = 100e-6  # seconds
SILENCE = 0.2  # seconds after which nothing comes any more
RULE = "  - {{id: lab, priority: 0, from: 10.77.0.0/16, to: {to}, action: allow}}\n"
POLICIES = tuple(RULE.format(to=to) for to in ("10.77.0.0/16", "10.77.2.0/24"))
# New flows go from ports below those of the ones that stay, and from addresses that nobody has.
STAYING_PORTS = range(40_000, 40_000 + FLOWS)
NEW_PORTS = range(1024, 40_000)
NEW_CLIENTS = [f"10.77.1.{n}" for n in range(100, 200)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one stream; times in seconds."""

    sent: int
    lost: int
    longest_gap: float
    duration: float


class Stream:
    """Datagrams through one lab from one thread that owns both ends, as in bench/traffic.py."""

    def __init__(self, lab: Lab) -> None:
        self._to = lab.call(Namespace.SERVER, lambda: make(socket.SOCK_DGRAM))
        self._to.bind(SERVER)
        self._to.setblocking(False)
        self._from = lab.call(
            Namespace.CLIENT, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        )
        staying = itertools.cycle([_datagram(str(Address.CLIENT4), port) for port in STAYING_PORTS])
        new = (_datagram(client, port) for client in NEW_CLIENTS for port in NEW_PORTS)
        self._next = itertools.chain.from_iterable(
            [*itertools.islice(staying, FLOWS - 1), opening] for opening in new
        ).__next__

    def close(self) -> None:
        """Both ends."""
        self._from.close()
        self._to.close()

    def run(self, going: Callable[[], bool]) -> Outcome:
        """Send as long as it is `going`, which is asked every 64 packets."""
        clock, send, receive = time.perf_counter, self._from.sendto, self._to.recv
        sent = received = 0
        gap = 0.0
        start = due = last = clock()
        while sent % 64 or going():
            due += INTERVAL
            while clock() < due:
                pass
            send(self._next(), SERVER)
            sent += 1
            # Here already, for its whole way runs in the call that sends it.
            with contextlib.suppress(BlockingIOError):
                receive(64)
                received += 1
                now = clock()
                gap = max(gap, now - last)
                last = now
        duration = clock() - start
        time.sleep(SILENCE)
        with contextlib.suppress(BlockingIOError):
            while receive(64):
                received += 1
        return Outcome(sent, sent - received, gap, duration)


def _datagram(client: str, port: int) -> bytes:
    """From the IP header on, whose checksum is the kernel's business; 8 bytes of payload."""
    ends = socket.inet_aton(client) + socket.inet_aton(SERVER[0])
    head = struct.pack(">BBHHHBB2x", 0x45, 0, 36, 0, 0x4000, 64, socket.IPPROTO_UDP) + ends
    return head + struct.pack(">HHHH", port, PORT, 16, 0) + bytes(8)


def bench() -> Iterator[Result]:
    """Packets, and microseconds."""
    for count in sorted({*COUNTS[1:2], COUNTS[-1]}):
        reloaded, quiet = _streams(count)
        name = f"reload_under_load.{count}"
        yield Result(f"{name}.sent", "packets", reloaded.sent)
        yield Result(f"{name}.lost", "packets", reloaded.lost, target=0)
        yield Result(f"{name}.longest_gap", "us", reloaded.longest_gap * 1e6, quiet.longest_gap * 1e6)


def _streams(count: int) -> tuple[Outcome, Outcome]:
    """With reloads and without."""
    text = generate(Sizes.of(count)).text
    cpu = min(os.sched_getaffinity(0))
    with Lab() as lab, Gateway(lab, text + POLICIES[0], {"watch": False}, inspector=False) as gateway:
        os.sched_setaffinity(gateway.children[FASTPATH].pid, {cpu})
        before = gateway.status()["policy"]["revision"]
        with closing(Stream(lab)) as stream, one_cpu():
            arguments = (gateway.directory / "run" / "fastpath.sock", gateway.policy, text, POLICIES, cpu)
            reloads = multiprocessing.get_context("spawn").Process(target=reload, args=arguments)
            reloads.start()
            reloaded = stream.run(reloads.is_alive)
            if reloads.exitcode:
                raise LabError(f"the reloads ended with status {reloads.exitcode}")
            end = time.monotonic() + reloaded.duration
            quiet = stream.run(lambda: time.monotonic() < end)
        if (made := gateway.status()["policy"]["revision"] - before) != RELOADS:
            raise LabError(f"{made} reloads instead of {RELOADS}")
    return reloaded, quiet


def reload(daemon: Path, policy: Path, text: str, rules: Sequence[str], cpu: int) -> None:
    """Have the daemon apply the text with one of the rules and another, again and again."""
    os.sched_setaffinity(0, {cpu})
    for number in range(RELOADS):
        policy.write_text(text + rules[(number + 1) % len(rules)])
        code, answer = request_change(daemon, "/policy/apply", timeout=PATIENCE)
        if code != 200:
            raise CommandError(f"reload: {answer}")
