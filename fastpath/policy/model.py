"""Rules in priority order, as everything else of the policy package sees them."""

from __future__ import annotations

import enum
import functools
import hashlib
import ipaddress
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

from fastpath.abi import Action, Protocol, RuleFlag
from fastpath.document import Network
from fastpath.policy.where import HOST, Context, Where, zone_numbers

ICMP = 1
TCP = 6
UDP = 17
ICMP6 = 58
PROTOCOL_NUMBERS = {
    "icmp": ICMP, "tcp": TCP, "udp": UDP, "icmp6": ICMP6, "gre": 47, "esp": 50, "ah": 51, "sctp": 132,
}  # fmt: skip

# Of what is read at all; the compiler knows what fits.
MAX_RULES = 1_000_000
MAX_PRIORITY = 65535
DEFAULT_PRIORITY = 1000
# `Rule.apps` of a rule that names no application protocol.
ANY_APP = 0xFFFFFFFF
# How records call the default rule, and begin to call those of pairs of zones; no other rule may have such an id.
DEFAULT_ID = "default"

# What `app` may name: all that identification can answer, and what a connection may turn into.
RECOGNISED = tuple(app for app in Protocol if app not in {Protocol.NONE, Protocol.ICMP, Protocol.MAX})

_APPS = sum(1 << app for app in Protocol if app not in {Protocol.NONE, Protocol.MAX})
_TCP_APPS = _APPS & ~(1 << Protocol.ICMP | 1 << Protocol.QUIC)
_UDP_APPS = 1 << Protocol.UNKNOWN | 1 << Protocol.DNS | 1 << Protocol.QUIC | 1 << Protocol.MEMCACHED

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}
_NUMBER = re.compile(r"[0-9]{1,3}")


def protocol_name(l4: int) -> str:
    """An IP protocol as the policy file calls it."""
    return _PROTOCOL_NAMES.get(l4, str(l4))


def protocol_number(text: str) -> int:
    """The reverse. ValueError says what may stand there."""
    if text in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[text]
    if not _NUMBER.fullmatch(text) or int(text) > 255:
        raise ValueError(f"{text[:64]!r} is not one of {', '.join(PROTOCOL_NUMBERS)} or a number within 0..255")
    return int(text)


def all_protocols(l4: int) -> int:
    """What a flow of IP protocol `l4` may turn out to be before a byte of payload is seen:
    a mask of ``1 << Protocol``. The same as `all_protocols` in bpf/lib/policy.h.
    """
    if l4 in {ICMP, ICMP6}:
        return 1 << Protocol.ICMP
    if l4 == TCP:
        return _TCP_APPS
    return _UDP_APPS if l4 == UDP else 1 << Protocol.UNKNOWN


class Mode(enum.Enum):
    """Whether denials are carried out, or recorded only."""

    ENFORCE = enum.auto()
    MONITOR = enum.auto()


class DenyWith(enum.Enum):
    """What the ends of a denied TCP connection hear."""

    RESET = enum.auto()
    DROP = enum.auto()


class Log(enum.StrEnum):
    """Which verdicts get a record."""

    NONE = "none"
    DENY = "deny"
    ALL = "all"

    @property
    def flags(self) -> int:
        """As `RuleFlag` bits."""
        return {
            Log.NONE: 0,
            Log.DENY: int(RuleFlag.LOG_DENY),
            Log.ALL: RuleFlag.LOG_ALL | RuleFlag.LOG_DENY,
        }[self]


@dataclass(frozen=True, slots=True)
class RuleFileUse:
    """A rule file that an `inspect` rule names, and the digest of what it said when it was read."""

    name: str
    digest: str


class Networks(Sequence[Network]):
    """What `from` or `to` comes to, equal to the tuple of the same networks."""

    __slots__ = ("_digest", "_networks", "_parts", "_versions")

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        """As they are: one part."""
        self._networks: tuple[Network, ...] | None = tuple(networks)
        self._parts: tuple[Networks, ...] = ()
        self._digest = b""
        self._versions: set[int] | None = None

    @classmethod
    def union(cls, parts: Iterable[Networks]) -> Networks:
        """The fewest that hold the addresses of several parts, IPv4 first."""
        made = cls()
        # Worked out when somebody asks: pairs of groups are many more than groups.
        made._networks, made._parts = None, tuple(parts)
        return made

    @property
    def parts(self) -> tuple[Networks, ...]:
        """The same addresses by what was named, a group each and the prefixes together: rules that name one group, by
        itself or among others, have the same object there.
        """
        return self._parts or (self,)

    @property
    def versions(self) -> set[int]:
        """Of the addresses: 4, 6."""
        if self._versions is None:
            self._versions = (
                set[int]().union(*(part.versions for part in self._parts))
                if self._parts
                else {network.version for network in self}
            )
        return self._versions

    @property
    def digest(self) -> bytes:
        """The same for parts of the same networks, in whatever order these and those stand."""
        if not self._digest:
            said = sorted({part.digest for part in self._parts}) if self._parts else sorted(map(str, self))
            self._digest = hashlib.sha256(repr(said).encode()).digest()
        return self._digest

    def _all(self) -> tuple[Network, ...]:
        if self._networks is None:
            networks = [network for part in self._parts for network in part]
            self._networks = (
                *ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network)),
                *ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network)),
            )
        return self._networks

    @overload
    def __getitem__(self, index: int) -> Network: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Network, ...]: ...
    def __getitem__(self, index: int | slice) -> Network | tuple[Network, ...]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def __bool__(self) -> bool:
        return bool(self._parts or self._networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Networks):
            return self is other or self._all() == other._all()
        return self._all() == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


ANYWHERE = Networks()


@dataclass(frozen=True)
class Rule:
    """One rule. An empty tuple means "any"; conditions of different fields must all hold.

    `protocols` are IP protocol numbers; `ports` are destination ports of TCP and UDP, inclusive ranges, and do not
    concern the others; `udp_ports` are UDP's where they differ from TCP's. `icmp_types` and `icmp6_types` are inclusive
    ranges of ``type << 8 | code``. `apps` is a mask of ``1 << Protocol``.
    Networks may be given as a tuple; they are without host bits, and none lies within ::ffff:0:0/96.
    `line` of `file` is its place, 1-based, 0 = unknown.
    """

    id: str
    action: Action
    sources: Networks = ANYWHERE
    destinations: Networks = ANYWHERE
    protocols: tuple[int, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    udp_ports: tuple[tuple[int, int], ...] | None = None
    icmp_types: tuple[tuple[int, int], ...] = ()
    icmp6_types: tuple[tuple[int, int], ...] = ()
    apps: int = ANY_APP
    where: Where | None = None
    rule_files: tuple[RuleFileUse, ...] = ()
    reset: bool = False
    log: Log = Log.DENY
    monitor: bool = False
    down_allow: bool = False
    priority: int = DEFAULT_PRIORITY
    description: str = ""
    line: int = 0
    file: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.sources, tuple):
            object.__setattr__(self, "sources", Networks(self.sources))
        if isinstance(self.destinations, tuple):
            object.__setattr__(self, "destinations", Networks(self.destinations))

    def at(self, file: str, line: int) -> Rule:
        """The same rule in another place, with what was worked out of it."""
        if self.line == line and self.file == file:
            return self
        moved = object.__new__(Rule)
        moved.__dict__.update(self.__dict__, file=file, line=line)
        return moved

    def ports_of(self, l4: int) -> tuple[tuple[int, int], ...]:
        """Destination ports over TCP or UDP, ``type << 8 | code`` over ICMP and ICMPv6, inclusive ranges; all of them
        where the rule names none.
        """
        if l4 in {ICMP, ICMP6}:
            ports = self.icmp_types if l4 == ICMP else self.icmp6_types
        else:
            ports = self.udp_ports if l4 == UDP and self.udp_ports is not None else self.ports
        return ports or ((0, 65535),)

    @property
    def identify(self) -> bool:
        """`inspect` without rule files: find out the protocol, then walk the policy again."""
        return self.action == Action.INSPECT and not self.rule_files

    @property
    def candidate(self) -> bool:
        """A walk that meets the rule may have to go on behind it, depending on the application protocol or on where the
        flow comes from and goes to.
        """
        return self.identify or self.apps != ANY_APP or self.where is not None

    @cached_property
    def flags(self) -> int:
        """`ms_rule.flags`."""
        return (
            _attributes(self.log, self.reset, self.monitor)
            | (RuleFlag.DOWN_ALLOW if self.down_allow else 0)
            | (RuleFlag.FILES if self.rule_files else 0)
            | (RuleFlag.IDENTIFY if self.identify else 0)
        )

    @cached_property
    def hash(self) -> int:
        """32 bits, never 0, over what the rule means: its conditions, action, attributes and the contents of its
        rule files, whatever its name or place in the policy. A session judged by a rule of the same hash is
        not judged again after a reload.
        """
        meaning = hashlib.sha256(self.sources.digest + self.destinations.digest)
        meaning.update(_traffic(self.protocols, self.ports, self.udp_ports, self.icmp_types, self.icmp6_types))
        # In order: the first rule that matches decides, across the files.
        files = [(use.name, use.digest) for use in self.rule_files]
        where = None if self.where is None else self.where.meaning
        meaning.update(repr((self.apps, int(self.action), self.flags, files, where)).encode())
        return int.from_bytes(meaning.digest()[:4], "big") or 1


@functools.lru_cache(4096)
def _traffic(protocols: tuple[int, ...], *ranges: tuple[tuple[int, int], ...] | None) -> bytes:
    """Protocols with their ports and types, the same for those that mean the same."""
    return repr((sorted(set(protocols)), [None if each is None else merged(each) for each in ranges])).encode()


@dataclass(frozen=True)
class Default:
    """What happens to a flow that no rule matches."""

    action: Action = Action.DENY
    reset: bool = False
    log: Log = Log.DENY
    monitor: bool = False

    @property
    def flags(self) -> int:
        """`ms_rule.flags` of the rules map's entry 0."""
        return _attributes(self.log, self.reset, self.monitor)


@dataclass(frozen=True)
class PairDefault(Default):
    """What happens to a flow from one zone to another that no rule matches; a zone left out, "", is any. The gateway's
    own traffic it only concerns where `from_zone` says so.
    """

    from_zone: str = ""
    to_zone: str = ""
    line: int = 0
    file: str = ""

    @property
    def id(self) -> str:
        """How records call it."""
        return f"{DEFAULT_ID}:{self.from_zone or '*'}>{self.to_zone or '*'}"

    def fits(self, context: Context) -> bool:
        """It is about such a flow."""
        from_zone = not self.from_zone and context.from_zone != HOST
        return (from_zone or context.from_zone == self.from_zone) and self.to_zone in {"", context.to_zone}


@dataclass(frozen=True)
class Policy:
    """Rules, the first to match first. Given in any order; equal priorities keep the order given. `defaults`: where no
    rule matches, the first that fits, else `default`. `ethertypes` are those of frames neither IP nor ARP that pass.

    A number in a verdict word is 0 for `default`, 1 + index of a rule, or behind those 1 + index of `defaults`.
    `zones` are those of gateway.yaml in order; `file` may be a folder of files.
    """

    rules: tuple[Rule, ...] = ()
    default: Default = Default()
    file: str = ""
    defaults: tuple[PairDefault, ...] = ()
    zones: tuple[str, ...] = ()
    ethertypes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(sorted(self.rules, key=operator.attrgetter("priority"))))

    @property
    def last(self) -> int:
        """The highest number."""
        return len(self.rules) + len(self.defaults)

    @property
    def ids(self) -> list[str]:
        """By number, from 1 on."""
        return [*(rule.id for rule in self.rules), *(each.id for each in self.defaults)]

    def decider(self, number: int) -> Rule | Default:
        """By its number. IndexError where there is none."""
        if not number:
            return self.default
        own = number - len(self.rules)
        return self.rules[number - 1] if own <= 0 else self.defaults[own - 1]

    def default_of(self, context: Context) -> int:
        """Number of what decides where no rule matches."""
        fitting = (number for number, each in enumerate(self.defaults, len(self.rules) + 1) if each.fits(context))
        return next(fitting, 0)

    @cached_property
    def _wheres(self) -> list[Where]:
        """Conditions of rules on where they hold, each once, in order."""
        return [where for where in dict.fromkeys(rule.where for rule in self.rules) if where is not None]

    @property
    def asks_for_zones(self) -> bool:
        """The gateway has to look up where flows go."""
        return bool(self.defaults) or any(where.asks_for_zones for where in self._wheres)

    @cached_property
    def zone_numbers(self) -> dict[str | None, int]:
        """What stands for zones in the kernel; None is no zone. Names that gateway.yaml lacks, where any will do, come
        behind its own.
        """
        named = [
            *(zone for where in self._wheres for zone in (*where.from_zones, *where.to_zones)),
            *(zone for each in self.defaults for zone in (each.from_zone, each.to_zone) if zone),
        ]
        return zone_numbers([*self.zones, *named])


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Inclusive ranges, sorted, those that overlap or touch made one."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return result


def is_default(rule_id: str) -> bool:
    """What records call a default."""
    return rule_id == DEFAULT_ID or rule_id.startswith(f"{DEFAULT_ID}:")


def is_mapped(network: ipaddress.IPv6Network) -> bool:
    """The network holds nothing but IPv4-mapped addresses (RFC 4291 2.5.5.2), ::ffff:0:0/96."""
    return network.prefixlen >= 96 and int(network.network_address) >> 32 == 0xFFFF


def _attributes(log: Log, reset: bool, monitor: bool) -> int:
    return log.flags | (RuleFlag.RESET if reset else 0) | (RuleFlag.MONITOR if monitor else 0)
