"""What `./run` does: the lab, real servers, and every client against them.

Steps are data: a step names its protocol, what to run and whether it is to get
through. A denied one passes when the client failed and no byte of `needle`
reached the server's interface.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from tests.lab import Lab, LabError, Namespace, clients, servers
from tests.lab.capture import Capture, payload_seen
from tests.lab.clients import V4, V6, Result


@dataclass(frozen=True, slots=True)
class Step:
    """One use of a service through the gateway."""

    protocol: str
    what: str
    run: Callable[[Lab], Result]
    allowed: bool = True
    # A denied step's payload: none of it may reach the server.
    needle: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    step: Step
    result: Result
    leaked: bool

    @property
    def ok(self) -> bool:
        """It ended as the rules want it."""
        return self.result.ok == self.step.allowed and not self.leaked


def steps() -> Iterator[Step]:
    """Every client, over IPv4 and IPv6."""
    for family, host in (("IPv4", V4), ("IPv6", V6)):

        def step(protocol: str, what: str, run: Callable[[Lab, str], Result], host: str = host) -> Step:
            return Step(protocol, f"{what}, {family}", lambda lab: run(lab, host))  # noqa: B023

        yield step("http", "curl", clients.http)
        yield step("tls", "curl https", clients.https)
        yield step("http2", "curl, prior knowledge", clients.http2)
        yield step("http2", "curl, Upgrade: h2c", clients.http2_upgrade)
        yield step("http2", "nghttp", clients.nghttp)
        yield step("dns", "dig over UDP", clients.dns)
        yield step("dns", "dig over TCP", lambda lab, host: clients.dns(lab, host, tcp=True))
        yield step("mysql", "mariadb", clients.mysql)
        yield step("redis", "redis-cli", clients.redis)
        yield step("redis", "redis-cli --pipe", clients.redis_pipeline)
        yield step("ssh", "ssh", clients.ssh)
        yield step(
            "grpc", "grpcio", lambda lab, host: clients.grpc(lab, host, ("lab.Echo/Say", "lab.Echo/Chat*20:20000"))
        )


def perform(lab: Lab, wanted: Sequence[Step]) -> list[Outcome]:
    """Run the steps one after the other, with a capture on the server's interface."""
    results: list[Result] = []
    with Capture(lab, Namespace.SERVER) as capture:
        for step in wanted:
            results.append(step.run(lab))
            mark = "." if results[-1].ok == step.allowed else "!"
            sys.stderr.write(mark)
            sys.stderr.flush()
    sys.stderr.write("\n")
    return [
        Outcome(step, result, leaked=bool(step.needle) and payload_seen(capture.file, step.needle))
        for step, result in zip(wanted, results, strict=True)
    ]


def show(outcomes: Sequence[Outcome], out: TextIO) -> None:
    """The table of protocols."""
    width = max(len(outcome.step.what) for outcome in outcomes)
    for outcome in outcomes:
        verdict = "leaked" if outcome.leaked else "ok" if outcome.ok else "FAILED"
        detail = "" if outcome.ok else f"  {outcome.result.detail}"
        out.write(
            f"{outcome.step.protocol:8} {outcome.step.what:{width}}  {verdict:6} "
            f"{outcome.result.seconds * 1000:7.0f} ms{detail}\n"
        )


Gateway = Callable[[Lab], AbstractContextManager[object]]


def demonstrate(gateway: Gateway, wanted: Sequence[Step], out: TextIO) -> bool:
    """Build the lab, put the gateway in, use every service; true when all went as the rules want it."""
    start = time.monotonic()
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        stack.enter_context(servers.running(lab))
        stack.enter_context(gateway(lab))
        out.write(f"lab {lab.prefix} is up after {time.monotonic() - start:.1f} s\n")
        out.flush()
        outcomes = perform(lab, wanted)
        show(outcomes, out)
    good = all(outcome.ok for outcome in outcomes)
    failed = sum(not outcome.ok for outcome in outcomes)
    out.write(
        f"{len(outcomes)} uses of services, {failed} not as the rules want them, {time.monotonic() - start:.1f} s\n"
    )
    return good


def interrupted(number: int, _frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP end the lab as Ctrl-C does: through its clean-up."""
    raise SystemExit(128 + number)


def plain_forwarding(_lab: Lab) -> AbstractContextManager[object]:
    """No gateway at all: the kernel forwards."""
    return nullcontext()


def main() -> int:
    """Entry of `./run`."""
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        return 0 if demonstrate(plain_forwarding, list(steps()), sys.stdout) else 1
    except KeyboardInterrupt:
        return 130
    except LabError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
