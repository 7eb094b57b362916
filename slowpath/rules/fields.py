"""How rules see the fields of units: which protocols have them, and what of a value is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from fastpath.abi import Action, Protocol
from parsers.base import Field, Kind, Unit, Value
from parsers.registry import FIELDS, PARSERS
from slowpath.rules import normal
from slowpath.rules.scan import Found, Scanner

# What rule files may be about. gRPC is told by what HTTP/2 carries.
PROTOCOLS: Final = tuple(Protocol[name.upper()] for name in (*PARSERS, "grpc"))
# What `?` and `*` of a glob do not match; in other fields they match anything.
SEPARATORS: Final = {
    "http.path": "/", "http.host": ".", "grpc.service": ".", "dns.qname": ".", "tls.sni": ".", "tls.certificate": ".",
    "mqtt.topic": "/", "mqtt.topics": "/",
}  # fmt: skip
# Protocols that have other protocols' fields, by what stands before the dot.
_SHARED: Final = {
    "http": {Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC},
    "tls": {Protocol.TLS, Protocol.QUIC},
}

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
        return cls(Protocol[unit.protocol.upper()], fields, unit.later - said.keys())

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
        if name not in self._seen:
            self._seen[name] = _texts(FIELDS[name], self._fields[name])
        return self._seen[name]

    def found(self, name: str, scanner: Scanner) -> tuple[Found, ...]:
        """Patterns in each value, as sent, of a field that the unit has."""
        key = name, scanner
        if key not in self._found:
            value = self._fields[name]
            values = value if isinstance(value, tuple) else (value,)
            self._found[key] = tuple(scanner.scan(each) for each in values if isinstance(each, bytes))
        return self._found[key]


def _texts(field: Field, value: Value) -> Texts | None:
    if field.name == "http.path":
        assert isinstance(value, bytes)
        path = normal.path(value)
        return None if path.ambiguous else (path.text,)
    if field.name == "http.host":
        assert isinstance(value, bytes)
        return (normal.host(value),)
    values = value if isinstance(value, tuple) else (value,)
    return tuple(text_of(each.lower() if field.folded else each) for each in values if isinstance(each, bytes))


def is_list(name: str) -> bool:
    """The field may have several values."""
    return FIELDS[name].kind == Kind.LIST
