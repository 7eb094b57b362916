"""Records to test with."""

from __future__ import annotations

from typing import Any

from fastpath import abi
from fastpath.word import Word
from slowpath.record import Record, model

T0 = 1_700_000_000


def record(number: int = 0, **changes: Any) -> Record:
    """A valid `verdict` record, `number` seconds after T0."""
    made = model.verdict_record(
        ts=T0 + number + 0.25,
        session=number,
        flow=model.make_flow("10.0.0.1", 1024 + number % 60000, "10.0.1.2", 50051, "tcp"),
        first=abi.Protocol.HTTP2,
        protocol=abi.Protocol.GRPC,
        word=Word(abi.Verdict.DENY, abi.Scope.REQUEST, reason=abi.Reason.NO_RULE, rule=1, revision=7),
        rule="rule_x",
        path="inspector",
        findings=model.Findings(latency=0.0012, fields={"grpc.service": "lab.Admin", "grpc.method": "Wipe"}),
    )
    return {**made, **changes}


def end(number: int = 0, **changes: Any) -> Record:
    """A valid `end` record."""
    made = model.end_record(
        ts=T0 + number + 0.5,
        session=number,
        flow=model.make_flow("10.0.0.1", 1024 + number % 60000, "10.0.1.2", 50051, "tcp"),
        first=abi.Protocol.HTTP2,
        protocol=abi.Protocol.GRPC,
        word=Word(abi.Verdict.ALLOW, abi.Scope.CONNECTION, reason=abi.Reason.RULE, rule=1, revision=7),
        rule="rule_x",
        path="inspector",
        packets=(12, 10),
        octets=(800, 9000),
        held=(3, 2),
        duration=1.234,
        end=abi.End.CLOSED,
    )
    return {**made, **changes}
