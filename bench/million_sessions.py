"""What `policy suggest` and `policy diff --sessions` take for 1,000,000 sessions, seconds.

`tiers`: 50,000 clients, each uses some of the 100 servers of its tier. `distinct`: every session a client and a
port of its own, as when somebody tries all of them.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.results import Result
from fastpath import abi
from fastpath.abi import Action, Reason, Verdict
from fastpath.observe import Intake, observe_sessions
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.defined import Defined
from fastpath.policy.draft import Account, Draft
from fastpath.policy.model import TCP, Policy, Rule
from fastpath.policy.suggest import Widening, suggest
from fastpath.rejudge import rejudge, tally
from fastpath.selection import Batch, RuleNames
from fastpath.word import Word

SESSIONS = 1_000_000
BATCH = 4096
CLIENTS, SERVERS, TIERS = 50_000, 2_000, 20
PORTS = ((80, 443), (5432,), (6379, 26379), (9200, 9300), (53,), (22,), (8080, 8443, 9090))
NAMES = RuleNames(Path("/nonexistent"))

Flow = tuple[int, int, int]


def tiers() -> Iterator[Flow]:
    choose = random.Random(1)
    clients = [[choose.randrange(1 << 20) for _ in range(CLIENTS // TIERS)] for _ in range(TIERS)]
    for _ in range(SESSIONS):
        server = choose.randrange(SERVERS)
        yield choose.choice(clients[server % TIERS]), server, choose.choice(PORTS[server % len(PORTS)])


def distinct() -> Iterator[Flow]:
    return ((n, n % SERVERS, 1 + n // SERVERS) for n in range(SESSIONS))


def batches(flows: Iterator[Flow]) -> list[Batch]:
    """Sessions that only monitor mode let pass."""
    word = Word(Verdict.DENY, reason=Reason.DEFAULT, monitor=True, revision=1).pack()
    session = abi.Session(verdict=word, packets=(5, 5), bytes=(500, 5000))
    made: list[Batch] = []
    keys: list[bytes] = []
    values: list[bytes] = []
    for number, (client, server, port) in enumerate(flows, 1):
        session.id = number
        keys.append(_mapped(10 << 24 | client) + _mapped(11 << 24 | server) + struct.pack("!HHB3x", 1024, port, TCP))
        values.append(bytes(session))
        if len(keys) == BATCH or number == SESSIONS:
            made.append(Batch(len(keys), b"".join(keys), b"".join(values), NAMES))
            keys, values = [], []
    return made


def _mapped(address: int) -> bytes:
    return bytes(10) + b"\xff\xff" + address.to_bytes(4, "big")


def suggested(found: list[Batch]) -> None:
    intake = Intake()
    observe_sessions(found, intake, 0)
    rules = suggest(intake.observed, Widening())
    list(Draft(rules, Defined(), Account(None, 0, intake.amount, {})).lines())


def rejudged(found: list[Batch], tables: Tables) -> None:
    rejudge(tally(found), tables, NAMES, Action.DENY)


def thousand_rules() -> Tables:
    rules = (
        Rule(f"r{n}", Action.ALLOW, protocols=(TCP,), ports=((n + 1, n + 1), (n + 443, n + 443))) for n in range(1000)
    )
    return compile_policy(Policy(tuple(rules)))


def bench() -> Iterator[Result]:
    tables = thousand_rules()
    for flows in (tiers, distinct):
        found = batches(flows())
        name = f"million_sessions.{flows.__name__}"
        yield Result(f"{name}.suggest", "s", _seconds(suggested, found))
        yield Result(f"{name}.diff", "s", _seconds(rejudged, found, tables))


def _seconds(run: Callable[..., None], *arguments: Any) -> float:
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start
