"""A policy file to review, made of suggested rules: what each of them explains, and what none of them does."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastpath.policy.defined import Defined, Ranges
from fastpath.policy.describe import port_text
from fastpath.policy.groups import MAX_GROUPS, MAX_NETWORKS
from fastpath.policy.model import MAX_RULES, protocol_name
from fastpath.policy.observed import MAX_ENDPOINTS, REASONS, Amount, total
from fastpath.policy.suggest import Suggested, size
from fastpath.selection import address
from fastpath.text import escape

WIDTH = 116
_PLAIN = re.compile(r"[0-9]+(-[0-9]+)?|[0-9]+(\.[0-9]+){3}(/[0-9]+)?|[A-Za-z][A-Za-z0-9_.-]*")
# YAML 1.1 reads more into these.
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


@dataclass(frozen=True, slots=True)
class Account:
    """What was looked at: the period in seconds since 1970 UTC (`since` None: all there is), what of it is explained,
    and what is left out, by why. `notes` are sentences.
    """

    since: float | None
    until: float
    observed: Amount
    left_out: Mapping[str, Amount]
    notes: list[str] = field(default_factory=list)


class Draft:
    """A policy of suggested rules in the order given, by the names of `defined` where they fit exactly. What a policy
    cannot hold is left out from the end; `unexplained` is what was observed and no rule allows.
    """

    def __init__(self, rules: list[Suggested], defined: Defined, account: Account) -> None:
        self.account = account
        self._defined = defined
        self._groups: dict[str, Ranges] = {}
        self._names = dict(defined.groups)
        self._prefixes: dict[Ranges, list[str]] = {}
        self._services: dict[str, dict[str, Any]] = {}
        kept = self._fitting(rules)
        self.unexplained = account.observed - total(rule.amount for rule in kept)
        self._rules = [(self._rule(rule), rule) for rule in kept]

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON; ``policy`` is one that `load_policy` reads."""
        account = self.account
        return {
            "since": account.since,
            "until": account.until,
            "observed": _amount(account.observed),
            "left_out": {why: _amount(amount) for why, amount in account.left_out.items()},
            "unexplained": _amount(self.unexplained),
            "notes": account.notes,
            "policy": self._policy() | {"rules": [fields for fields, _ in self._rules]},
            "rules": [
                {
                    "id": fields["id"],
                    **_amount(rule.amount),
                    "sessions_percent": _percent(rule.amount.sessions, account.observed.sessions),
                    "bytes_percent": _percent(rule.amount.bytes, account.observed.bytes),
                    "clients": {"allowed": size(rule.clients), "seen": rule.clients_seen},
                    "ports": {"allowed": size(rule.ports), "seen": rule.ports_seen} if rule.ports else None,
                }
                for fields, rule in self._rules
            ],
        }

    def lines(self) -> Iterator[str]:
        """The policy file."""
        for text in self._header():
            # Paths and names stay whole.
            yield from textwrap.wrap(
                text,
                WIDTH,
                initial_indent="# ",
                subsequent_indent="#   ",
                break_on_hyphens=False,
                break_long_words=False,
            )
        policy = self._policy()
        yield ""
        yield f"default: {policy['default']}"
        for name in ("groups", "services"):
            if name in policy:
                yield ""
                yield f"{name}:"
                for key, value in policy[name].items():
                    yield from _field(key, value, indent="  ")
        yield ""
        yield "rules:" if self._rules else "rules: []"
        for fields, _ in self._rules:
            begin = "  - "
            for key, value in fields.items():
                yield from _field(key, value, indent=begin)
                begin = "    "

    def _header(self) -> Iterator[str]:
        account = self.account
        yield "Suggested by `microseg-fastpath policy suggest`, for review. Nothing of it is in force."
        since = "all there is" if account.since is None else _moment(account.since)
        yield f"Period: {since}, until {_moment(account.until)}."
        yield f"Explained by {len(self._rules)} rules: {_text(account.observed - self.unexplained)}."
        yield "A rule allows each of its clients each of its ports on each of its servers. All else would be denied."
        for why, amount in account.left_out.items():
            yield f"Left out: {_text(amount)}: {REASONS[why]}."
        if self.unexplained.sessions:
            yield (
                f"Left out: {_text(self.unexplained)}: the least used, as a policy holds {MAX_RULES} rules and "
                f"{MAX_NETWORKS} prefixes, and rules are made of {MAX_ENDPOINTS} ports of servers at most."
            )
        yield from (escape(note) for note in account.notes)

    def _fitting(self, rules: list[Suggested]) -> list[Suggested]:
        networks = 0
        for number, rule in enumerate(rules):
            networks += len(self._texts(rule.clients)) + len(self._texts(rule.servers))
            if number == MAX_RULES or networks > MAX_NETWORKS:
                return rules[:number]
        return rules

    def _policy(self) -> dict[str, Any]:
        """All but the rules."""
        policy: dict[str, Any] = {"default": "deny"}
        if self._groups:
            policy["groups"] = {name: _one_or_all(self._texts(ranges)) for name, ranges in self._groups.items()}
        if self._services:
            policy["services"] = self._services
        return policy

    def _rule(self, rule: Suggested) -> dict[str, Any]:
        """Fields as the policy file has them."""
        over = self._service(rule)
        if over is None:
            fields = {"proto": _one_or_all([protocol_name(l4) for l4 in rule.protocols])}
            if rule.ports:
                fields["ports"] = _one_or_all([port_text(low, high) for low, high in rule.ports])
        else:
            fields = {"service": over}
        if rule.app is not None:
            fields["app"] = rule.app.name.lower()
        # The lowest port of the lowest server is in no other rule, and stays the same from one suggestion to the next.
        ports = (str(low) for low, _ in rule.ports[:1])
        return {
            "id": "-".join([protocol_name(rule.protocols[0]), *ports, address(rule.servers[0][0])]),
            "description": self._description(rule),
            "from": self._members(rule.clients),
            "to": self._members(rule.servers),
            **fields,
            "action": "allow",
        }

    def _description(self, rule: Suggested) -> str:
        amount, observed = rule.amount, self.account.observed
        text = (
            f"{_plural(amount.sessions, 'session')} ({_percent(amount.sessions, observed.sessions)} %), "
            f"{_plural(amount.packets, 'packet')}, {_plural(amount.bytes, 'byte')} "
            f"({_percent(amount.bytes, observed.bytes)} %)"
        )
        if amount.inspected:
            text += f"; of {amount.inspected} the requests are judged now, and would not be"
        if rule.clients_seen != size(rule.clients):
            text += f"; widened: {rule.clients_seen} of {size(rule.clients)} client addresses were seen"
        if rule.ports and rule.ports_seen != size(rule.ports):
            text += f"; widened: {rule.ports_seen} of {size(rule.ports)} ports were seen"
        return text

    def _members(self, ranges: Ranges) -> str | list[str]:
        """`from` or `to`: the name of a group, or the only prefix."""
        texts = self._texts(ranges)
        if ranges not in self._names:
            if len(texts) == 1:
                return texts[0]
            if len(self._groups) == MAX_GROUPS:
                return texts
            taken = {*self._groups, *self._defined.groups.values()}
            self._names[ranges] = next(name for n in range(1, MAX_GROUPS * 2) if (name := f"hosts-{n}") not in taken)
        name = self._names[ranges]
        self._groups[name] = ranges
        return name

    def _service(self, rule: Suggested) -> str | None:
        """The name of a service that is just this, and its definition."""
        name = self._defined.services.get(tuple((l4, rule.ports) for l4 in rule.protocols))
        if name is not None:
            self._services[name] = {"proto": _one_or_all([protocol_name(l4) for l4 in rule.protocols])}
            if rule.ports:
                self._services[name]["ports"] = _one_or_all([port_text(low, high) for low, high in rule.ports])
        return name

    def _texts(self, ranges: Ranges) -> list[str]:
        if ranges not in self._prefixes:
            self._prefixes[ranges] = [text for low, high in ranges for text in _prefixes(low, high)]
        return self._prefixes[ranges]


def _prefixes(low: int, high: int) -> Iterator[str]:
    """The fewest prefixes that hold a range of addresses."""
    while low <= high:
        bits = min((low & -low).bit_length() - 1 if low else 128, (high - low + 1).bit_length() - 1)
        length = 128 - bits - (96 if low >> 32 == 0xFFFF else 0)
        yield address(low) if not bits else f"{address(low)}/{length}"
        low += 1 << bits


def _one_or_all(texts: list[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else texts


def _field(key: str, value: Any, *, indent: str) -> Iterator[str]:
    begin = f"{indent}{_scalar(key)}: "
    if isinstance(value, str):
        yield begin + _scalar(value)
    elif isinstance(value, dict):
        yield begin + "{" + ", ".join(f"{name}: {_flow(each)}" for name, each in value.items()) + "}"
    elif len(line := begin + _flow(value)) <= WIDTH:
        yield line
    else:
        yield begin + "["
        yield from _wrapped(map(_scalar, value), " " * (len(indent) + 2))
        yield " " * len(indent) + "]"


def _wrapped(texts: Iterable[str], indent: str) -> Iterator[str]:
    line = indent
    for text in texts:
        if len(line) + len(text) > WIDTH:
            yield line.rstrip()
            line = indent
        line += f"{text}, "
    yield line.rstrip()


def _flow(value: str | list[str]) -> str:
    return _scalar(value) if isinstance(value, str) else f"[{', '.join(map(_scalar, value))}]"


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text)


def _amount(amount: Amount) -> dict[str, int]:
    return {
        "sessions": amount.sessions,
        "packets": amount.packets,
        "bytes": amount.bytes,
        "inspected": amount.inspected,
    }


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _text(amount: Amount) -> str:
    return f"{_plural(amount.sessions, 'session')}, {_plural(amount.bytes, 'byte')}"


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
