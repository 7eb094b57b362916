"""What each part of a session hit costs, nanoseconds: the programs without it, beside the whole.

The parts are left out of the source's text, where each must be found exactly once. One hot flow of TCP over
IPv4; floors of interleaved rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

from bench import testrun
from bench.packet_cost import OPEN, handshake, segment
from bench.programs import peers
from bench.results import Result
from bench.rounds import interleaved
from fastpath.libbpf import Program
from fastpath.loader.source import flatten
from tests.bpf.harness import Kernel, rule

# Part: (text, what stands in its place); on the short way of predict.h, which is all that a hit takes.
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "window": (
        ("\t\t\tif (tcp_outside(s, &p, dir))\n\t\t\t\treturn MS_LONG_WAY;\n", ""),
        ("\t\t\ttcp_advance(s, &p, p.seq + p.payload_len, dir, s->scale[dir & 1]);\n", ""),
    ),
    "session_counters": (
        ("__sync_fetch_and_add(&s->packets[dir & 1], p->segments);", ""),
        ("__sync_fetch_and_add(&s->bytes[dir & 1], p->ip_len);", ""),
    ),
    "statistics": (
        ("\tstruct ms_counters *counters = stats_get();\n\tif (!s || !counters)\n", "\tif (!s)\n"),
        ("\tcounters->stats[MS_STAT_PACKETS] += p.segments;\n\tcounters->stats[MS_STAT_BYTES] += p.ip_len;\n\tif (de",
         "\tif (de"),
        ("\tcounters->stats[MS_STAT_FAST] += p.segments;\n", ""),
    ),
    "clock": (
        ("\t__u64 now = bpf_jiffies64();\n\tint reason;", "\t__u64 now = 1;\n\tint reason;"),
        ("return now - s->last_jiffies > cfg->timeouts[s->timeout & (MS_TIMEOUT_MAX - 1)] && now > s->last_jiffies;",
         "return 0;"),
    ),
    "revision": (
        ("\tif (word_revision(word) != cfg->revision || expired(", "\tif (expired("),
    ),
    "ip_checksum": (
        (" ||\n\t\t    !ipv4_checksum_ok(skb, ip, ETH_HLEN, sizeof(*ip)))", ")"),
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
    """The whole, and each part by itself: what the hit costs less without it. The key's size is that of the minimal
    program's: with this key, and with one of 16 bytes, which is enough for IPv4 alone.
    """
    with ExitStack() as stack:
        subjects = {}
        for name in ("whole", *PARTS, "all"):
            parts = () if name == "whole" else tuple(PARTS) if name == "all" else (name,)
            kernel = stack.enter_context(closing(Kernel(without(*parts), name)))
            subjects[name] = _hit(kernel)
        for name, flags in (("key", ()), ("short_key", ("-DSHORT_KEY",))):
            bed = stack.enter_context(peers(cflags=flags))
            bed.minimal.run(segment(OPEN).data)
            subjects[name] = partial(testrun.hot, bed.minimal, segment(OPEN))
        floors = {name: min(values) for name, values in interleaved(subjects).items()}
    yield Result("hit_parts.whole", "ns", floors["whole"])
    for name in (*PARTS, "all"):
        yield Result(f"hit_parts.{name}", "ns", floors["whole"] - floors[name])
    yield Result("hit_parts.key_size", "ns", floors["key"] - floors["short_key"])
