"""TCP against a second opinion: every conversation of `tcp_sequences` goes through nf_conntrack (strict) and through
the programs; after each segment both must say the same of the connection's state and of the segment, or the
conversation names the RFC section by which the programs are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from fastpath import abi
from tests.bpf.conntrack import Conntrack, Seen
from tests.bpf.harness import Flow, Kernel, Outcome, rule
from tests.bpf.tcp_sequences import Sequence, Step, conversations

pytestmark = pytest.mark.root

SEQUENCES = list(conversations())
TOPICS = (
    "open",
    "simultaneous open",
    "close",
    "RST",
    "retransmit",
    "wrap",
    "TIME_WAIT reuse",
    "mid-stream",
    "window scale",
    "half-close",
    "SYN data",
    "keep-alive",
)


@pytest.fixture(scope="module")
def tracker() -> Iterator[Conntrack]:
    found = Conntrack()
    try:
        yield found
    finally:
        found.close()


def as_conntrack(states: tuple[str, str]) -> str:
    """The one state in which nf_conntrack keeps both ends."""
    ends = set(states)
    # By what was seen: SYN, SYN of both, SYN and ACK, their ACK; FIN, its ACK, FIN of both, its ACK.
    if ends == {"CLOSED"}:
        return "CLOSE"
    if ends <= {"TIME_WAIT", "CLOSED"}:
        return "TIME_WAIT"
    if states == ("SYN_SENT", "LISTEN"):
        return "SYN_SENT"
    if ends == {"SYN_SENT"}:
        return "SYN_SENT2"
    if "SYN_RECEIVED" in ends:
        return "SYN_RECV"
    if ends == {"ESTABLISHED"}:
        return "ESTABLISHED"
    if ends == {"FIN_WAIT_1", "ESTABLISHED"}:
        return "FIN_WAIT"
    if ends == {"FIN_WAIT_2", "CLOSE_WAIT"}:
        return "CLOSE_WAIT"
    if ends in ({"FIN_WAIT_1"}, {"CLOSING", "FIN_WAIT_2"}, {"FIN_WAIT_2", "LAST_ACK"}):
        return "LAST_ACK"
    raise AssertionError(f"no such pair: {states}")


def illegal(outcome: Outcome) -> str:
    """The statistic, or the reason of a drop, that tells why a segment was illegal."""
    kinds = [name for name in outcome.stats if name.startswith("tcp_")] or list(outcome.drops)
    return " ".join(kinds)


def test_every_topic_has_its_sequences() -> None:
    counts = Counter(sequence.topic for sequence in SEQUENCES)
    assert min(counts[topic] for topic in TOPICS) >= 3
    names = [str(sequence) for sequence in SEQUENCES]
    assert len(set(names)) == len(names)


def told(states: tuple[str, ...], kind: str) -> str:
    return " ".join([*states, kind]).strip()


@pytest.mark.parametrize("sequence", SEQUENCES, ids=str)
def test_a_conversation(kernel: Kernel, tracker: Conntrack, version: int, sequence: Sequence) -> None:
    kernel.policy(rule("any", "allow"))
    tracker.reset(loose=sequence.loose)
    flow = Flow(version)
    wrong = []
    for step in sequence.steps:
        packet = step.packet(flow, sequence.isn)
        outcome = kernel.send(packet)
        # A session that was deleted is one that has ended.
        states = outcome.session.tcp if outcome.session else (abi.Tcp.CLOSED, abi.Tcp.CLOSED)
        ours = told(tuple(abi.Tcp(state).name for state in states), illegal(outcome))
        seen = tracker.send(packet, back=step.back)
        wrong += complaints(step, ours, seen)
    assert not wrong, "\n".join(wrong)


def complaints(step: Step, ours: str, seen: Seen) -> list[str]:
    """What is not as the step says."""
    found = []
    if ours != told(step.states, step.illegal):
        found.append(f"{step.text}: the programs say {ours}")
    # A connection that was reset before any answer is forgotten at once.
    agreed = (seen.state or "CLOSE") == as_conntrack(step.states) and seen.valid == (not step.illegal)
    if agreed == bool(step.differs):
        theirs = f"nf_conntrack says {seen.state}, {'valid' if seen.valid else 'invalid'}"
        found.append(f"{step.text}: {theirs}, {'no RFC section named' if not agreed else 'as we do'}")
    return found
