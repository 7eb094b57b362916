"""Reloads under packets: each is judged by the revision before or by the one after, whole."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from fastpath.abi import Verdict
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.model import Default, Log, Policy
from fastpath.word import Word
from tests.bpf.harness import Act, Flow, Kernel, rule, sk_buff

pytestmark = pytest.mark.root

RELOADS = 200
RULES = 500
FIRST_PORT = 1000
CAPACITY = 262_144


@pytest.fixture(scope="module")
def large() -> Iterator[Kernel]:
    kernel = Kernel(name="reload", capacity=CAPACITY)
    kernel.reset()
    yield kernel
    kernel.close()


def policies() -> list[Policy]:
    """Three, so that a slot never holds the same one twice in a row. Verdicts differ, or rules' numbers."""
    ports = range(FIRST_PORT, FIRST_PORT + RULES)
    allow = [rule(f"r{port}", "allow", tcp=port, log=Log.NONE) for port in ports]
    deny = [rule(f"r{port}", "deny", tcp=port, log=Log.NONE) for port in reversed(ports)]
    first = rule("first", "allow", udp=1, log=Log.NONE)
    return [Policy(tuple(rules), Default(log=Log.NONE)) for rules in (allow, deny, [first, *allow])]


def expected(port: int, which: int) -> tuple[int, Verdict]:
    """Number of the rule, and the verdict."""
    index = port - FIRST_PORT
    return ((index + 1, Verdict.ALLOW), (RULES - index, Verdict.DENY), (index + 2, Verdict.ALLOW))[which]


def openings(count: int) -> Iterator[bytes]:
    """SYNs of as many flows, each to the next of the ports."""
    frame = bytes(Flow(sport=0, dport=0).segment("S"))
    at = 14 + 20
    (check,) = struct.unpack_from(">H", frame, at + 16)
    for n in range(count):
        sport, dport = 1024 + n // RULES, FIRST_PORT + n % RULES
        # RFC 1624: what is added to the segment is taken from the sum's complement.
        total = (~check & 0xFFFF) + sport + dport
        total = (total & 0xFFFF) + (total >> 16)
        total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        ports, checked = struct.pack(">HH", sport, dport), struct.pack(">H", total)
        yield frame[:at] + ports + frame[at + 4 : at + 16] + checked + frame[at + 18 :]


def run_all(kernel: Kernel, frames: Iterable[bytes]) -> Iterator[int]:
    """What becomes of each; as long as it goes on, the thread is in the gateway's namespace."""
    context = sk_buff(0, kernel.namespace.ifindex["seg0"], 0, 0, 0)
    with kernel.namespace.inside():
        for frame in frames:
            yield kernel.programs["ms_ingress"].run(frame, context=context).value


def test_every_packet_is_judged_by_one_revision(large: Kernel) -> None:
    tables = [compile_policy(policy) for policy in policies()]
    revisions: dict[int, int] = {}

    def reload(which: int) -> None:
        revision = large.revisions.next()
        revisions[revision] = which
        large.revisions.apply(tables[which], revision)

    reload(0)
    over = threading.Event()
    sent = 0
    answers: dict[tuple[int, int], int] = {}

    def send() -> None:
        nonlocal sent
        for value in run_all(large, openings(CAPACITY // 2)):
            answers[1024 + sent // RULES, FIRST_PORT + sent % RULES] = value
            sent += 1
            if over.is_set():
                return
            if sent % 10 == 0:
                time.sleep(0.002)

    thread = threading.Thread(target=send)
    before = large.counters
    thread.start()
    for n in range(RELOADS):
        reload((n + 1) % 3)
    running = thread.is_alive()
    over.set()
    thread.join()
    assert running
    assert sent > 10 * RELOADS

    live = large.live()
    assert len(live) == sent
    judged: set[int] = set()
    for packed, session in live:
        # The client's address is the lower one.
        sport, dport = struct.unpack(">HH", packed[32:36])
        word = Word.unpack(session.verdict)
        which = revisions[word.revision]
        assert (word.rule, word.verdict) == expected(dport, which)
        assert answers[sport, dport] == (Act.DROP if which == 1 else Act.PASS)
        judged.add(word.revision)
    # Packets came between most of them.
    assert len(judged) > RELOADS / 2
    drops = {name: count - before.drops.get(name, 0) for name, count in large.counters.drops.items()}
    assert sum(drops.values()) == sum(value == Act.DROP for value in answers.values())
    assert not drops.get("no_policy")


def test_sessions_follow_at_their_next_packet(large: Kernel) -> None:
    large.reset()
    tables = [compile_policy(policy) for policy in policies()]
    frames = list(openings(3 * RULES))
    for n in range(20):
        large.revisions.apply(tables[n % 3], revision := large.revisions.next())
        # The same SYNs again: sent anew, they belong to the same sessions.
        values = set(run_all(large, frames))
        assert values == {Act.DROP if n % 3 == 1 else Act.PASS}
        words = [Word.unpack(session.verdict) for _, session in large.live()]
        assert len(words) == len(frames)
        assert {(word.revision, word.verdict) for word in words} == {
            (revision, Verdict.DENY if n % 3 == 1 else Verdict.ALLOW)
        }
        assert {word.rule for word in words} == {
            expected(port, n % 3)[0] for port in range(FIRST_PORT, FIRST_PORT + RULES)
        }
