"""What each part of a session hit costs, nanoseconds: the programs without it, beside the whole.

The parts are left out of the source's text, where each must be found exactly once. One hot flow of TCP over
IPv4; floors of interleaved rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

from bench import testrun
from bench.packet_cost import OPEN, handshake, segment
from bench.results import Result
from bench.rounds import interleaved
from fastpath.libbpf import Program
from fastpath.loader.source import flatten
from tests.bpf.harness import Kernel, rule

_REVISION = "\tif (word_revision(s->verdict) != cfg->revision)\n\t\treturn tail(skb, &p, MS_PROG_JUDGE, hook, 0);\n"
_BEHIND_IT = "\tif (p.l4 == MS_IP_TCP && !word_blocks"

# Part: (text, what stands in its place).
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "window": (
        ("reason = tcp_outside(s, &p, dir);", "reason = 0;"),
        ("tcp_advance(s, &p, p.seq + p.payload_len, dir, s->scale[dir & 1]);", ""),
    ),
    "session_counters": (
        ("__sync_fetch_and_add(&s->packets[dir & 1], p->segments);", ""),
        ("__sync_fetch_and_add(&s->bytes[dir & 1], p->ip_len);", ""),
    ),
    "statistics": (
        ("struct ms_counters *counters = stats_get();\n\tif (counters) {\n\t\tcounters->stats[MS_STAT_PACKETS]",
         "struct ms_counters *counters = 0;\n\tif (counters) {\n\t\tcounters->stats[MS_STAT_PACKETS]"),
        ("\tcount_n(stat, p->segments);", ""),
    ),
    "clock": (
        ("\t__u64 now = bpf_jiffies64();\n\n\tif (!cfg)\n\t\treturn MS_DROP;\n\t/* Seen only",
         "\t__u64 now = 1;\n\n\tif (!cfg)\n\t\treturn MS_DROP;\n\t/* Seen only"),
        ("return now - s->last_jiffies > cfg->timeouts[s->timeout & (MS_TIMEOUT_MAX - 1)] && now > s->last_jiffies;",
         "return 0;"),
    ),
    "revision": (
        (f"{_REVISION}{_BEHIND_IT}", _BEHIND_IT),
    ),
}  # fmt: skip


def without(*parts: str) -> str:
    """The source less some parts."""
    text = flatten()
    for part in parts:
        for old, new in PARTS[part]:
            if text.count(old) != 1:
                raise RuntimeError(f"{part}: {old!r} stands {text.count(old)} times in the source")
            text = text.replace(old, new)
    return text


def _hit(kernel: Kernel) -> Callable[[], float]:
    kernel.policy(rule("open", "allow", tcp=OPEN))
    kernel.settings()
    program: Program = kernel.programs["ms_ingress"]
    for frame in handshake(OPEN):
        if program.run(frame.data).value != -1:
            raise RuntimeError("the handshake does not pass")
    return lambda: testrun.hot(program, segment(OPEN))


def bench() -> Iterator[Result]:
    """The whole, and each part by itself: what the hit costs less without it."""
    with ExitStack() as stack:
        subjects = {}
        for name in ("whole", *PARTS, "all"):
            parts = () if name == "whole" else tuple(PARTS) if name == "all" else (name,)
            kernel = stack.enter_context(closing(Kernel(without(*parts), name)))
            subjects[name] = _hit(kernel)
        floors = {name: min(values) for name, values in interleaved(subjects).items()}
    yield Result("hit_parts.whole", "ns", floors["whole"])
    for name in (*PARTS, "all"):
        yield Result(f"hit_parts.{name}", "ns", floors["whole"] - floors[name])
