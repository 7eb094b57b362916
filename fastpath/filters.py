"""Filter options of the commands that list: the same flag repeated is OR, different flags are AND, --not excludes.

Here is what they are called and which values are legal. What a filter is asked of, records of the log or
sessions of the kernel, is the command's own. Standard library only, and little of it: the commands start fast.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import ipaddress

T = TypeVar("T")

L4_NAMES = ("tcp", "udp", "icmp", "icmp6")

_RULES = "The same flag repeated is OR, different flags are AND; --not excludes what the next filter matches."


@dataclass(frozen=True, slots=True)
class Flag(Generic[T]):
    """An option: `make` turns its value into a test, or raises ValueError that lists the legal ones."""

    name: str
    make: Callable[[str], T]
    metavar: str
    text: str


@dataclass(frozen=True, slots=True)
class Filter(Generic[T]):
    """One filter option as given."""

    flag: str
    negated: bool
    test: T


def wanted(filters: Iterable[Filter[T]]) -> list[list[T]]:
    """For each flag its tests: one of each list has to say yes."""
    groups: dict[str, list[T]] = {}
    for each in filters:
        if not each.negated:
            groups.setdefault(each.flag, []).append(each.test)
    return list(groups.values())


def excluded(filters: Iterable[Filter[T]]) -> list[T]:
    """Tests of which none may say yes."""
    return [each.test for each in filters if each.negated]


def add_filters(parser: argparse.ArgumentParser, flags: Iterable[Flag[T]]) -> None:
    """Declare filter options. They leave `filters` and `negate` in the namespace; `negate` still true
    afterwards means a --not with no filter behind it.
    """
    group = parser.add_argument_group("filters", _RULES)
    for flag in flags:
        group.add_argument(
            flag.name, action=_Append, make=flag.make, metavar=flag.metavar, help=flag.text, dest=flag.name,
            default=argparse.SUPPRESS,
        )  # fmt: skip
    group.add_argument("--not", dest="negate", action="store_true", help="exclude what the next filter matches")
    parser.set_defaults(filters=[], negate=False)


class _Append(argparse.Action):
    """Appends a Filter made by `make` to ``namespace.filters``."""

    def __init__(self, *args: Any, make: Callable[[str], Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._make = make

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Called by argparse for every occurrence."""
        del parser, option_string
        try:
            test = self._make(str(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        namespace.filters = [*(namespace.filters or ()), Filter(self.dest, namespace.negate, test)]
        namespace.negate = False


# What values mean. All raise ValueError with what is legal.


def read_choice(value: str, legal: Sequence[str]) -> str:
    """One of the names."""
    if value not in legal:
        raise ValueError(f"{value!r} is not one of {', '.join(legal)}")
    return value


def read_network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address or CIDR prefix; mapped IPv4 is IPv4."""
    import ipaddress  # noqa: PLC0415  # 5 ms of the start that most calls need not pay

    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is no address; legal are 10.0.0.1, 10.0.0.0/8, 2001:db8::1, 2001:db8::/32"
        ) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.IPv4Network((mapped, network.prefixlen - 96), strict=False)
    return network


def read_ports(value: str) -> tuple[int, int]:
    """First and last of N or N-M."""
    first, _, last = value.partition("-")
    legal = "a port is 0..65535, a range N-M"
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in (first, last or first)):
        raise ValueError(f"{value!r} is no port; {legal}")
    low, high = int(first), int(last or first)
    if not low <= high <= 65535:
        raise ValueError(f"{value!r} is no port; {legal}")
    return low, high


def read_pattern(value: str) -> Callable[[str], bool]:
    """A whole name, in which * stands for anything."""
    if not value:
        raise ValueError("must not be empty")
    if "*" not in value:
        return value.__eq__
    # Not fnmatch: brackets may stand in an id. Runs of stars would make the expression slow.
    pattern = re.compile(".*".join(map(re.escape, re.split(r"\*+", value))), re.DOTALL)
    return lambda name: pattern.fullmatch(name) is not None


def read_session(value: str) -> int:
    """A session id."""
    try:
        return int(value, 0)
    except ValueError:
        raise ValueError(f"{value!r} is no session id; legal are 0x1f and 31") from None
