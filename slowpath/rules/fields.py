"""How rules see the fields of units: which protocols have them, and what of a value is compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from fastpath.abi import Action, Protocol
from parsers import registry
from parsers.base import Field, Kind, Unit, Value
from parsers.registry import PARSERS, field_of
from slowpath.rules import normal
from slowpath.rules.patterns import Pattern
from slowpath.rules.scan import Found, Scanner

# What rule files may be about. gRPC is told by what HTTP/2 carries.
PROTOCOLS: Final = tuple(Protocol[name.upper()] for name in (*PARSERS, "grpc"))
_BY_NAME: Final = {protocol.name.lower(): protocol for protocol in PROTOCOLS}
# What `?` and `*` of a glob do not match; in other fields they match anything.
SEPARATORS: Final = {
    "http.path": "/", "http.host": ".", "grpc.service": ".", "dns.qname": ".", "tls.sni": ".", "tls.certificate": ".",
    "mqtt.topic": "/", "mqtt.topics": "/",
}  # fmt: skip
# Protocols that have other protocols' fields, by what stands before the dot.
_SHARED: Final = {
    "http": {Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC},
    # gRPC-Web is what HTTP carries, of any version.
    "grpc": {Protocol.GRPC, Protocol.HTTP2, Protocol.HTTP},
    "tls": {Protocol.TLS, Protocol.QUIC},
}

# RFC 9110 §5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Texts = tuple[str, ...]


def protocols_of(name: str) -> set[Protocol]:
    """Those whose units may have a field."""
    prefix = name.partition(".")[0]
    return _SHARED.get(prefix) or {Protocol[prefix.upper()]}


def text_of(value: bytes) -> str:
    """UTF-8, and bytes that are none such that no other text equals them."""
    return value.decode("utf-8", "surrogateescape")


class Subject:
    """A unit as rules see it. Values are looked at when a rule asks. `over_budget`: patterns were asked for that would
    have cost too much; `on_budget` says what that means (design section 4).
    """

    __slots__ = ("_fields", "_found", "_seen", "later", "on_budget", "over_budget", "protocol")

    def __init__(self, protocol: Protocol, fields: Mapping[str, Value], later: frozenset[str] = frozenset()) -> None:
        self.protocol = protocol
        self.later = later
        self._fields = fields
        self._seen: dict[str, Texts | None] = {}
        self._found: dict[tuple[str, Scanner], tuple[Found, ...]] = {}
        self.on_budget = Action.DENY
        self.over_budget = False

    @classmethod
    def of(cls, unit: Unit, said: Mapping[str, Value] = MappingProxyType({})) -> Subject:
        """What a parser told; `said`: what it told before of what a connection says once."""
        fields = {**said, **unit.fields} if said else unit.fields
        later = unit.later
        return cls(_BY_NAME[unit.protocol], fields, later - said.keys() if later else later)

    def __iter__(self) -> Iterator[str]:
        """Names of what the unit says."""
        return iter(self._fields)

    def has(self, name: str) -> bool:
        """The unit says it."""
        return name in self._fields

    def number(self, name: str) -> int:
        """Value of a field that the unit has."""
        value = self._fields[name]
        assert isinstance(value, int)
        return value

    def texts(self, name: str) -> Texts | None:
        """Values of a field that the unit has; None where servers read them in more than one way."""
        seen = self._seen
        if name not in seen:
            seen[name] = _texts(field_of(name), self._fields[name])
        return seen[name]

    def found(self, name: str, scanner: Scanner) -> tuple[Found, ...]:
        """Patterns in each value, as sent, of a field that the unit has."""
        key = name, scanner
        if key not in self._found:
            value = self._fields[name]
            values = value if isinstance(value, tuple) else (value,)
            self._found[key] = scanner.scan_each([each for each in values if isinstance(each, bytes)])
        return self._found[key]

    def patterns(self) -> tuple[Pattern, ...]:
        """All that were found, by id."""
        if not self._found:
            return ()
        found = {
            pattern.id: pattern
            for (_, scanner), several in self._found.items()
            for each in several
            for pattern in scanner.named(each.ids)
        }
        return tuple(found[name] for name in sorted(found))


def _texts(field: Field, value: Value) -> Texts | None:
    if isinstance(value, bytes):
        if field.name == "http.path":
            path = normal.path(value)
            return None if path.ambiguous else (path.text,)
        if field.name == "http.host":
            return (normal.host(value),)
        return (text_of(value.lower() if field.folded else value),)
    values = value if isinstance(value, tuple) else ()
    return tuple(text_of(each.lower() if field.folded else each) for each in values)


def is_list(name: str) -> bool:
    """The field may have several values."""
    return field_of(name).kind == Kind.LIST


def known() -> list[str]:
    """Names that rules and samples may have, families with a placeholder for their keys."""
    return [f"{name}.NAME" if field.keyed else name for name, field in registry.FIELDS.items()]


def is_keyed(name: str) -> bool:
    """It is one of a family, or means to be."""
    return registry.family_of(name) is not None


def wrong_key(name: str) -> str | None:
    """Why no unit could ever say a name."""
    if not is_keyed(name):
        return None
    key = ".".join(name.split(".")[2:])
    if not key:
        return f"{name} needs a name behind it: {name.rstrip('.')}.NAME"
    if not _TOKEN.fullmatch(key):
        return f"{key!r} is no name of a header"
    return f"names of headers are compared in lower case: write {name.lower()}" if key != key.lower() else None
