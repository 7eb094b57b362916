"""Which sessions count as observed, of the table and of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastpath import abi
from fastpath.abi import Protocol, Reason, Scope, SessionFlag, Verdict
from fastpath.observe import Intake, observe_records, observe_sessions, open_log
from fastpath.policy.model import ICMP, TCP, UDP
from fastpath.policy.observed import INCLUDABLE, REASONS, Amount
from fastpath.selection import Batch, RuleNames, address
from fastpath.word import Word
from slowpath.record.write import encode
from tests.unit.fastpath.test_selection import entry
from tests.unit.slowpath.record.sample import T0, end, record

PAIR = type(abi.Session().packets)
LIVES = {"packets": (5, 4), "bytes": (300, 200), "last_jiffies": 1000}


def batch_of(*sessions: tuple[bytes, Any]) -> Batch:
    for number, (_, session) in enumerate(sessions, 1):
        session.id = number
    keys, values = (b"".join(map(bytes, column)) for column in zip(*sessions, strict=True))
    return Batch(len(sessions), keys, values, RuleNames(Path("/nonexistent")))


def seen(intake: Intake) -> list[tuple[str, str, int, int, int]]:
    """Of each endpoint its clients, itself, and what it was told to be."""
    return [
        (",".join(map(address, each.clients)), address(each.server), each.l4, each.port, each.apps)
        for each in intake.observed.endpoints()
    ]


def test_sessions() -> None:
    intake = Intake()
    batch = batch_of(
        entry("10.0.0.1", 40000, "10.1.0.1", 443, protocol=Protocol.TLS, **LIVES),
        entry("10.0.0.2", 40000, "10.1.0.1", 443, server_is_a=True, protocol=Protocol.TLS, **LIVES),
        entry("fd00::1", 40000, "fd00::2", 53, l4=UDP, **LIVES),
        # An echo's id is no port.
        entry("10.0.0.1", 77, "10.1.0.1", 77, l4=ICMP, protocol=Protocol.ICMP, **LIVES),
        entry("10.0.0.9", 40000, "10.1.0.1", 443, **LIVES | {"last_jiffies": 999}),
    )
    # The whole batch twice: entries move while the table is read.
    assert observe_sessions([batch, batch], intake, 1000) == {1, 2, 3, 4, 5}
    assert seen(intake) == [
        ("10.0.0.1", "10.1.0.1", ICMP, 0, 1 << Protocol.ICMP),
        ("10.0.0.1,10.0.0.2", "10.1.0.1", TCP, 443, 1 << Protocol.TLS),
        ("fd00::1", "fd00::2", UDP, 53, 1 << Protocol.NONE),
    ]
    assert intake.amount == Amount(4, 36, 2000)
    assert intake.left_out == {}


def word(verdict: Verdict, reason: Reason = Reason.POLICY, **fields: Any) -> int:
    return Word(verdict, reason=reason, **fields).pack()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"verdict": word(Verdict.ALLOW)}, None),
        ({"verdict": word(Verdict.UNDECIDED, Reason.PENDING)}, None),
        ({"verdict": word(Verdict.DENY, Reason.DEFAULT)}, "denied"),
        ({"verdict": word(Verdict.DENY, Reason.DEFAULT, monitor=True)}, None),
        ({"verdict": word(Verdict.DENY, Reason.CLOSED)}, "denied"),
        ({"verdict": word(Verdict.ALLOW, Reason.HOST)}, "outside"),
        ({"verdict": word(Verdict.ALLOW, Reason.FAILSAFE)}, "outside"),
        ({"flags": SessionFlag.MIDSTREAM}, "midstream"),
        ({"packets": PAIR(1, 1)}, "unanswered"),  # a SYN, refused by a reset
        ({"packets": PAIR(3, 0)}, "unanswered"),
        ({"packets": PAIR(2, 1)}, None),
    ],
)
def test_what_is_left_out(fields: dict[str, Any], why: str | None) -> None:
    def intake(*include: str) -> Intake:
        result = Intake(include)
        key, session = entry("10.0.0.1", 40000, "10.1.0.1", 443, **LIVES)
        for name, value in fields.items():
            setattr(session, name, value)
        observe_sessions([batch_of((key, session))], result, 0)
        return result

    assert list(intake().left_out) == ([] if why is None else [why])
    assert intake().amount.sessions == (why is None)
    everything = intake(*INCLUDABLE)
    assert everything.amount.sessions == (why != "outside")
    assert set(INCLUDABLE) < set(REASONS)


def test_udp_needs_no_answer() -> None:
    intake = Intake()
    observe_sessions([batch_of(entry("10.0.0.1", 5000, "10.1.0.1", 514, l4=UDP, packets=(1, 0)))], intake, 0)
    assert intake.amount.sessions == 1


def test_inspected_sessions_are_counted() -> None:
    intake = Intake()
    for verdict in (word(Verdict.INSPECT), word(Verdict.ALLOW, scope=Scope.REQUEST), word(Verdict.ALLOW)):
        key, session = entry("10.0.0.1", 40000, "10.1.0.1", 443, **LIVES)
        session.verdict = verdict
        observe_sessions([batch_of((key, session))], intake, 0)
    assert (intake.amount.sessions, intake.amount.inspected) == (3, 2)


# -- the log -----------------------------------------------------------------------------------------------------------


def observed(tmp_path: Path, *records: Any, since: float = 0, known: set[int] | None = None) -> tuple[Intake, int]:
    """As the inspector writes them."""
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(each if isinstance(each, bytes) else encode(each) for each in records))
    intake = Intake()
    files = open_log(path)
    unreadable = observe_records(files, intake, since, known or set())
    for file in files:
        file.close()
    return intake, unreadable


def test_ended_sessions(tmp_path: Path) -> None:
    intake, unreadable = observed(tmp_path, record(1), end(1), record(2), end(2), end(3))
    assert seen(intake) == [("10.0.0.1", "10.0.1.2", TCP, 50051, 1 << Protocol.GRPC)]
    assert intake.amount == Amount(3, 66, 29400)
    assert unreadable == 0


def test_since_and_live_ones(tmp_path: Path) -> None:
    intake, _ = observed(tmp_path, *map(end, range(10)), since=T0 + 4, known={7, 8})
    assert intake.amount.sessions == 4


def test_records_are_judged_as_sessions_are(tmp_path: Path) -> None:
    flow = {"src": "fd00::1", "sport": 1, "dst": "fd00::2", "dport": 2, "l4": "icmp6"}
    intake, unreadable = observed(
        tmp_path,
        end(1, verdict="deny", enforced=True),
        end(2, verdict="deny", enforced=False, flow=flow, protocol="icmp"),
        end(3, packets={"to_server": 1, "to_client": 1}),
        end(4, reason="failsafe"),
        end(5, reason="midstream"),
        end(6, scope="request"),
    )
    assert {why: amount.sessions for why, amount in intake.left_out.items()} == dict.fromkeys(REASONS, 1)
    assert (intake.amount.sessions, intake.amount.inspected, unreadable) == (2, 1, 0)
    assert seen(intake)[1][:4] == ("fd00::1", "fd00::2", 58, 0)


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"end"\n',
        b'{"v":1,"event":"end"}\n',
        b'["event":"end"]\n',
        encode(end(1, flow={"src": "10.0.0.1", "dst": "fd00::1", "sport": 1, "dport": 2, "l4": "tcp"})),
        encode(end(1, flow={"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 1, "dport": 65536, "l4": "tcp"})),
        encode(end(1, packets={"to_server": -1, "to_client": 1})),
        encode(end(1, bytes={"to_server": 1 << 70, "to_client": 1})),
        encode(end(1, protocol="none")),
        encode(end(1))[:-3] + b" " * (1 << 20) + b"}\n",
        b"[" * 100_000 + b'"event":"end"\n',
    ],
)
def test_lines_that_are_no_records(tmp_path: Path, line: bytes) -> None:
    intake, unreadable = observed(tmp_path, line, end(2))
    assert (intake.amount.sessions, unreadable) == (1, 1)


def test_rotated_logs(tmp_path: Path) -> None:
    for number, suffix in enumerate((".1", ".2")):
        (tmp_path / f"records.jsonl{suffix}").write_bytes(encode(end(number)))
    assert observed(tmp_path, end(5))[0].amount.sessions == 3
    # Written to before: nothing of it can be newer.
    assert observed(tmp_path, end(5), since=4e9)[0].amount.sessions == 0


def test_no_log(tmp_path: Path) -> None:
    assert open_log(tmp_path / "records.jsonl") == []
