"""A play with an attacker in it: rules to break, and what got through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fastpath.abi import Action, Protocol, Verdict
from fastpath.document import Problems
from parsers.base import Kind, Value
from parsers.registry import PARSERS, field_of
from slowpath.core.frame import SYN
from slowpath.core.model import Command, Decide, Judgement, Release, Write
from slowpath.replay import InspectAll, Replay
from slowpath.rules.fields import Subject
from slowpath.rules.match import All, Condition, Not, Test
from slowpath.rules.patterns import load_patterns
from slowpath.rules.ruleset import Rule, RuleFile, RuleSet, read_rule_file
from slowpath.rules.scan import Library
from tests.unit.slowpath.core.wire import Connection, Play, inspect

PATTERNS = Path(__file__).parents[2] / "configs" / "patterns.d"
# No play here is longer.
MOST = 1 << 20


def ruled(*texts: str) -> RuleSet:
    """Rule files, by their text; they may name the shipped patterns."""
    problems = Problems()
    library = Library()
    if any("pattern:" in text for text in texts):
        library = Library(load_patterns(sorted(PATTERNS.glob("*.yaml")), problems))
    files = [read_rule_file(text, "x.yaml", problems, library) for text in texts]
    problems.raise_if_any()
    library.compile()
    return RuleSet({each.name: each for each in files if each is not None})


def no_admin(name: str) -> RuleSet:
    """Rules of http or http2 that deny what is under /admin, and allow all other paths."""
    return ruled(f"""
name: {name}
protocol: {name}
rules:
  - {{id: no-admin, match: {{http.path: {{prefix: /admin}}}}, action: deny}}
  - {{id: rest, match: {{http.path: {{prefix: /}}}}, action: allow}}
""")


def judged(*names: str) -> dict[Protocol, Judgement]:
    """A policy that has these protocols judged by the rule file of their name; all else is denied."""
    return {Protocol[name.upper()]: inspect(name, log="all") for name in names}


def unit_by_unit(name: str, *denied: Mapping[str, Value]) -> RuleFile:
    """Rules of a protocol that deny units which say this, and allow all others, each by itself."""
    app = Protocol[name.upper()]
    asked = PARSERS["http2" if name == "grpc" else name].fields
    # A condition that always holds, on what may be said anew if the protocol has such.
    field = min((each for each in asked if not each.keyed), key=lambda each: (each.once, each.kind == Kind.NUMBER))
    rules = [Rule(f"no-{n}", Action.DENY, _says(app, fields)) for n, fields in enumerate(denied)]
    return RuleFile(name, frozenset((app,)), (*rules, Rule("rest", Action.ALLOW, Not(_never(field.name)))), name)


def _never(name: str) -> Test:
    if field_of(name).kind == Kind.NUMBER:
        return Test(name, ranges=((-1, -1),))
    return Test(name, exact=frozenset(("\0never",)))


def _says(app: Protocol, fields: Mapping[str, Value]) -> Condition:
    subject = Subject(app, fields)
    tests: list[Condition] = []
    for name in fields:
        if field_of(name).kind == Kind.NUMBER:
            number = subject.number(name)
            tests.append(Test(name, ranges=((number, number),)))
        elif texts := subject.texts(name):
            tests += [Test(name, exact=frozenset((text,))) for text in texts]
    return All(tests)


def through(play: Play | Watched, side: int = 0, connection: Connection | None = None) -> bytes:
    """What of a side's stream got through, put in order (missing bytes are NUL): what was released before the
    connection was denied. Of what is released behind that the kernel makes resets.
    """
    c = connection or play.connection
    key, port = c.key, (c.dport if side else c.sport)
    stream = bytearray()
    for command in play.done:
        if isinstance(command, Decide) and command.key == key and command.verdict == Verdict.DENY:
            break
        if isinstance(command, Release) and command.packet.sport == port and command.packet.payload:
            begins = command.packet.seq + bool(command.packet.tcp_flags & SYN)
            at = (begins - c.isn[side] - 1) & 0xFFFFFFFF
            data = bytes(command.packet.payload)
            if at + len(data) > MOST:
                continue  # of a connection before, or ahead of its window
            stream.extend(bytes(max(0, at + len(data) - len(stream))))
            stream[at : at + len(data)] = data
    return bytes(stream)


def rule_files(*files: RuleFile) -> RuleSet:
    """Rule files, by themselves."""
    return RuleSet({each.name: each for each in files})


def told(play: Play) -> list[dict[str, object]]:
    """Records, without what depends on time."""
    return [{k: v for k, v in record.items() if k not in {"ts", "latency"}} for record in play.records]


def verdicts(play: Play) -> Iterable[str]:
    """Of the decisions: allow connection, deny request."""
    return [f"{each.verdict.name.lower()} {each.scope.name.lower()}" for each in play.decisions]


class Watched(Replay):
    """A replay whose commands are kept."""

    def __init__(self, connection: Connection, rules: RuleSet, name: str) -> None:
        super().__init__(rules, InspectAll(name))
        self.connection = connection
        self.done: list[Command] = []

    def _do(self, commands: list[Command]) -> None:
        self.done += commands
        super()._do(commands)


class Quick(Play):
    """A play of many: records are not held against the schema."""

    def _did(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            if isinstance(command, Decide):
                self.kernel.decide(command)
            elif isinstance(command, Write):
                self.records.append(command.record)
        self.done += commands
        return commands
