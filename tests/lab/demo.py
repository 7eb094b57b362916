"""What `./run` does: the lab with the gateway in its middle, real servers, and every client against them.

Steps are data: a step names its protocol, what to run and whether it is to get
through. A denied one passes when the client failed and no byte of `needle`
reached the server's interface.
"""

from __future__ import annotations

import itertools
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from tests.lab import Lab, LabError, Namespace, clients, servers
from tests.lab.capture import Capture, payload_seen
from tests.lab.clients import V4, V6, Result
from tests.lab.gateway import SLOWPATH, Gateway

# Characters whose Huffman codes are longer than they are: HPACK leaves them as they stand.
NEEDLE = "{~}|^<>{~}|^<>{~}"


@dataclass(frozen=True, slots=True)
class Step:
    """One use of a service through the gateway."""

    protocol: str
    what: str
    run: Callable[[Lab], Result]
    allowed: bool = True
    # A denied step's payload, and the port it went to: none of it may reach the server.
    needle: bytes = b""
    port: int | None = None


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

    @property
    def verdict(self) -> str:
        """For people."""
        if self.leaked:
            return "LEAKED"
        if not self.ok:
            return "FAILED"
        return "passed" if self.step.allowed else "denied"


def steps() -> Iterator[Step]:
    """Every client, over IPv4 and IPv6; what the policy allows."""
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


def denied_steps() -> Iterator[Step]:
    """What the policy and the rule files refuse."""
    for family, host in (("IPv4", V4), ("IPv6", V6)):

        def step(
            protocol: str, what: str, needle: bytes, port: int, run: Callable[[Lab, str], Result], host: str = host
        ) -> Step:
            return Step(protocol, f"{what}, {family}", lambda lab: run(lab, host), False, needle, port)  # noqa: B023

        yield step(
            "http", "port without a rule", b"GET ", 81, lambda lab, host: clients.http(lab, host, port=81, timeout=1)
        )
        yield step("ssh", "SSH on the web port", b"SSH-", 80, lambda lab, host: clients.ssh(lab, host, port=80))
        yield step(
            *("http", "PUT, no rule for it", NEEDLE.encode(), 8081),
            lambda lab, host: clients.http(lab, host, "/", "-X", "PUT", "--data", NEEDLE, port=8081),
        )
        yield step(
            *("http2", "/admin, HTTP/2", NEEDLE.encode(), 8080),
            lambda lab, host: clients.http2(lab, host, "/admin", "-H", f"x-needle: {NEEDLE}"),
        )
        yield step(
            *("grpc", "lab.Admin/Wipe", b"lab.Admin/Wipe 00000000", 50051),
            lambda lab, host: clients.grpc(lab, host, ("lab.Admin/Wipe:40",)),
        )


def perform(lab: Lab, wanted: Sequence[Step]) -> list[Outcome]:
    """Run the steps one after the other, with a capture on the server's interface."""
    with Capture(lab, Namespace.SERVER) as capture:
        results = [step.run(lab) for step in wanted]
    return [
        Outcome(step, result, leaked=bool(step.needle) and payload_seen(capture.file, step.needle, step.port))
        for step, result in zip(wanted, results, strict=True)
    ]


def show(outcomes: Sequence[Outcome], out: TextIO) -> None:
    """One line for each step."""
    width = max(len(outcome.step.what) for outcome in outcomes)
    for outcome in outcomes:
        detail = "" if outcome.ok else f"  {outcome.result.detail}"
        out.write(
            f"{outcome.step.protocol:8} {outcome.step.what:{width}}  {outcome.verdict:6} "
            f"{outcome.result.seconds * 1000:7.0f} ms{detail}\n"
        )


def summary(records: Sequence[dict[str, Any]], sessions: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table of protocols: from the inspection log, and packets from the session table."""
    last: dict[int, dict[str, Any]] = {}
    latencies: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record["event"] == "verdict" and record["session"]:
            last[record["session"]] = record
            if "latency" in record:
                latencies[record["protocol"]].append(record["latency"])
    packets = {session["session"]: (sum(session["packets"]), sum(session["held"])) for session in sessions}
    line = "{:<9} {:>8} {:>7} {:>10} {:>6} {:>6} {:>9} {:>10} {:>16}"
    yield line.format(
        "protocol", "sessions", "kernel", "inspector", "allow", "deny", "packets", "fast path", "time to verdict"
    )
    ordered = sorted(last.values(), key=lambda record: record["protocol"])
    for protocol, group in itertools.groupby(ordered, key=lambda record: record["protocol"]):
        rows = list(group)
        paths, verdicts = (Counter(row[key] for row in rows) for key in ("path", "verdict"))
        seen = [packets[row["session"]] for row in rows if row["session"] in packets]
        total, held = sum(number for number, _ in seen), sum(number for _, number in seen)
        waits = latencies.get(protocol)
        yield line.format(
            protocol, len(rows), paths["kernel"], paths["inspector"], verdicts["allow"], verdicts["deny"], total,
            f"{100 * (1 - held / total):.0f} %" if total else "-",
            f"{statistics.median(waits) * 1000:.2f} ms" if waits else "at once",
        )  # fmt: skip


@contextmanager
def scrolling_log(gateway: Gateway) -> Iterator[None]:
    """`microseg-slowpath inspect --follow` on the terminal, as long as the block lasts."""
    argv: list[str | Path] = [
        *(Path(sys.executable).with_name(SLOWPATH), "inspect", "--follow", "-o", "compact"),
        *("--input-file", gateway.records),
    ]
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        yield
        time.sleep(0.5)  # the writer's and the reader's intervals
    finally:
        child.terminate()  # SIGINT may be ignored, as in a background job
        child.wait()


def demonstrate(wanted: Sequence[Step], out: TextIO) -> bool:
    """Build the lab, put the gateway in, use every service; true when all went as the rules want it."""
    start = time.monotonic()
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        gateway = Gateway(lab)
        gateway.start_early()
        stack.callback(gateway.close)
        stack.enter_context(servers.running(lab))
        gateway.wait_ready()
        out.write(f"lab {lab.prefix} is up after {time.monotonic() - start:.1f} s; the inspection log:\n\n")
        out.flush()
        with scrolling_log(gateway):
            outcomes = perform(lab, wanted)
        out.write("\n")
        show(outcomes, out)
        out.write("\n")
        for line in summary(gateway.read_records(), gateway.sessions()):
            out.write(f"{line}\n")
        out.flush()
    failed = sum(not outcome.ok for outcome in outcomes)
    out.write(
        f"\n{len(outcomes)} uses of services, {failed} not as the rules want them, "
        f"{time.monotonic() - start:.1f} s; everything is unloaded\n"
    )
    return not failed


def interrupted(number: int, _frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP end the lab as Ctrl-C does: through its clean-up."""
    raise SystemExit(128 + number)


def main() -> int:
    """Entry of `./run`."""
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        return 0 if demonstrate([*steps(), *denied_steps()], sys.stdout) else 1
    except KeyboardInterrupt:
        return 130
    except LabError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
