"""Where a flow comes from and goes to, as conditions of rules and of defaults: zones, the gateway itself, VLAN tags.

A zone is a set of interfaces that gateway.yaml names. What begins or ends at the gateway itself is in the zone `host`
on that side, and what has an interface that is in no zone is in none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from fastpath.abi import Course, Zone
from fastpath.document import Node
from fastpath.policy.fields import Fields, is_name

HOST = "host"
# What a session remembers is a byte, and some of its values mean something else.
MAX_ZONES = 250
MAX_VLAN = 4094
# What stands for no tag; a tag of the id 0 carries a priority only (IEEE 802.1Q 9.6).
UNTAGGED = 0

WHERE_FIELDS = ("from_zone", "to_zone", "direction", "vlan")

_VLANS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


_COURSES = {each.name.lower().replace("_", "-"): each for each in (Course.TO_HOST, Course.FROM_HOST, Course.THROUGH)}
_COURSE_NAMES = {each: name for name, each in _COURSES.items()}


def course_text(course: Course) -> str:
    """As the policy file has it."""
    return _COURSE_NAMES[course]


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy can ask of a flow besides its addresses and protocols: names of zones, None for none, and the id of
    the outer VLAN tag.
    """

    from_zone: str | None = None
    to_zone: str | None = None
    vlan: int = UNTAGGED

    @property
    def course(self) -> Course:
        """To the gateway itself, from it, or through it."""
        if self.from_zone == HOST:
            return Course.FROM_HOST
        return Course.TO_HOST if self.to_zone == HOST else Course.THROUGH


NOWHERE = Context()


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions that must all hold; an empty tuple means "any". `vlans` are inclusive ranges in order."""

    from_zones: tuple[str, ...] = ()
    to_zones: tuple[str, ...] = ()
    courses: tuple[Course, ...] = ()
    vlans: tuple[tuple[int, int], ...] = ()

    def holds(self, context: Context) -> bool:
        """For a flow."""
        return (
            (not self.from_zones or context.from_zone in self.from_zones)
            and (not self.to_zones or context.to_zone in self.to_zones)
            and (not self.courses or context.course in self.courses)
            and (not self.vlans or any(low <= context.vlan <= high for low, high in self.vlans))
        )

    @property
    def asks_for_zones(self) -> bool:
        """The gateway has to look up where a flow goes."""
        return bool(self.from_zones or self.to_zones or self.courses)

    @property
    def meaning(self) -> tuple[object, ...]:
        """The same for conditions that say the same, in whatever order."""
        zones = (sorted(set(self.from_zones)), sorted(set(self.to_zones)))
        return (*zones, sorted(set(self.courses)), self.vlans)

    def covers(self, other: Where | None) -> bool:
        """Wherever `other` holds, this one does; False also where that is not plain."""
        return all(not mine or (its and its <= mine) for mine, its in self._beside(other))

    def may_meet(self, other: Where | None) -> bool:
        """Both may hold for one flow; True also where that takes more than a look at each condition by itself."""
        return all(not mine or not its or its & mine for mine, its in self._beside(other))

    @property
    def may_be_hosts(self) -> bool:
        """The gateway's own traffic is named."""
        return HOST in self.from_zones or Course.FROM_HOST in self.courses

    def _beside(self, other: Where | None) -> Iterator[tuple[frozenset[object], frozenset[object]]]:
        return zip(_sets(self), _sets(other or ANYWHERE), strict=True)


ANYWHERE = Where()


def zone_numbers(names: Iterable[str]) -> dict[str | None, int]:
    """What stands for zones in the kernel; None is no zone."""
    numbers: dict[str | None, int] = {None: int(Zone.NONE), HOST: int(Zone.HOST)}
    for name in names:
        numbers.setdefault(name, int(Zone.FIRST) - 2 + len(numbers))
    return numbers


@functools.cache
def _sets(where: Where) -> tuple[frozenset[object], ...]:
    vlans = frozenset(each for low, high in where.vlans for each in range(low, high + 1))
    return frozenset(where.from_zones), frozenset(where.to_zones), frozenset(where.courses), vlans


def read_where(fields: Fields, zones: Collection[str] | None) -> Where | None:
    """The fields of `WHERE_FIELDS`; None where a rule has none of them. `zones` are those that gateway.yaml names, None
    where any name will do.
    """
    read_zone = zone_reader(zones)
    vlans = fields.some("vlan", _vlan)
    where = Where(
        fields.some("from_zone", read_zone),
        fields.some("to_zone", read_zone),
        fields.some("direction", _course),
        _in_order(vlans),
    )
    if where == ANYWHERE:
        return None
    if not _possible(where):
        name = next(name for name in ("direction", "to_zone") if name in fields)
        fields.report(name, "never matches: no flow has such a direction between these zones")
    return where


def zone_reader(zones: Collection[str] | None) -> Callable[[Node], str]:
    """What reads the name of a zone, or `host`."""

    def read(node: Node) -> str:
        name = node.text(max_length=128)
        if name != HOST and not is_name(name):
            raise node.fail(f"{name[:40]!r} is no name of a zone")
        if name != HOST and zones is not None and name not in zones:
            raise node.fail(f"gateway.yaml has no zone {name!r}")
        return name

    return read


def vlan_text(low: int, high: int) -> str:
    """A VLAN id, a range of them, or `none`."""
    if low == UNTAGGED:
        return "none"
    return str(low) if low == high else f"{low}-{high}"


def vlan_texts(vlans: Iterable[tuple[int, int]]) -> list[str]:
    """Of all of them."""
    return [vlan_text(low, high) for low, high in vlans]


def read_vlan(text: str) -> int:
    """An id, or `none`. ValueError says what may stand there."""
    if text == "none":
        return UNTAGGED
    if not _VLANS.fullmatch(text) or "-" in text or not 1 <= int(text) <= MAX_VLAN:
        raise ValueError(f"{text[:40]!r} is not a VLAN id, 1..{MAX_VLAN}, or none")
    return int(text)


def _vlan(node: Node) -> tuple[int, int]:
    text = node.text(max_length=64)
    if text == "none":
        return UNTAGGED, UNTAGGED
    match = _VLANS.fullmatch(text)
    if not match:
        raise node.fail(f"{text!r} is not a VLAN id, a range like 100-199, or none")
    low, high = int(match[1]), int(match[2] or match[1])
    for each in (low, high):
        if not 1 <= each <= MAX_VLAN:
            raise node.fail(f"VLAN {each} is not within 1..{MAX_VLAN}")
    if low > high:
        raise node.fail(f"the range is upside down; write {high}-{low}")
    return low, high


def _course(node: Node) -> Course:
    text = node.text(max_length=64)
    if text not in _COURSES:
        raise node.fail(f"{text!r} is not one of {', '.join(_COURSES)}")
    return _COURSES[text]


def _in_order(vlans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges that overlap or touch made one; `none` stays apart."""
    tagged: list[tuple[int, int]] = []
    untagged = False
    for low, high in sorted(vlans):
        if low == UNTAGGED:
            untagged = True
        elif tagged and low <= tagged[-1][1] + 1:
            tagged[-1] = (tagged[-1][0], max(high, tagged[-1][1]))
        else:
            tagged.append((low, high))
    return (*([(UNTAGGED, UNTAGGED)] * untagged), *tagged)


def _possible(where: Where) -> bool:
    """Some flow has such zones and such a direction. From the gateway to itself nothing goes by."""
    froms, tos = (zones or (HOST, None) for zones in (where.from_zones, where.to_zones))
    courses = where.courses or tuple(Course)
    return any(Context(one, other).course in courses for one in froms for other in tos if (one, other) != (HOST, HOST))
