"""Records of rules and of where they hold, and what a policy as a whole says of zones and ethertypes."""

from __future__ import annotations

import functools
import itertools
import operator
from array import array
from collections.abc import Iterable, Mapping

from fastpath import abi
from fastpath.abi import Limit
from fastpath.document import Problem
from fastpath.policy.compiler.layout import POLICY_WORDS, RULE_WORDS, VLAN_WORDS, WHERE_WORDS, rule_at
from fastpath.policy.compiler.pages import Pages
from fastpath.policy.compiler.tables import PolicyTooLargeError
from fastpath.policy.model import ANY_APP, Default, Policy, Rule
from fastpath.policy.where import HOST, MAX_ZONES, Where

_ETHERTYPES = abi.Policy.ethertypes.offset // 4


def put_rule(policy: Policy, number: int, places: dict[Where, int], pages: Pages) -> None:
    """A rule's record in its place, and what says where it holds, if that is not in `places`."""
    rule = policy.decider(number)
    words = _rule_words(rule)
    if isinstance(rule, Rule) and rule.where is not None:
        if rule.where not in places:
            said = _where_words(rule.where, policy.zone_numbers)
            places[rule.where] = pages.make_room(len(said), WHERE_WORDS)
            pages.put(said)
        words[abi.Rule.where.offset // 4] = places[rule.where]
    at = rule_at(number)
    pages.words[at : at + RULE_WORDS] = words


def put_zones(policy: Policy, pages: Pages) -> None:
    """What the policy as a whole says of zones."""
    numbers = policy.zone_numbers
    count = max(numbers.values()) + 1
    if count > abi.Zone.FIRST + MAX_ZONES:
        message = f"{count - abi.Zone.FIRST} zones; {MAX_ZONES} is the most"
        raise PolicyTooLargeError([Problem(policy.file, 0, "rules", message)])
    root = abi.Policy(asks_for_zones=policy.asks_for_zones, zones=count)
    if policy.defaults:
        table = array("I", bytes(4 * count * count))
        anywhere = [number for zone, number in numbers.items() if zone != HOST]
        # The first that fits is written last.
        for number, each in reversed([*enumerate(policy.defaults, len(policy.rules) + 1)]):
            from_zones = [numbers[each.from_zone]] if each.from_zone else anywhere
            to_zones = [numbers[each.to_zone]] if each.to_zone else numbers.values()
            for one, other in itertools.product(from_zones, to_zones):
                table[one * count + other] = number
        root.defaults = pages.make_room(len(table), 1)
        pages.put(table)
    pages.words[:POLICY_WORDS] = array("I", bytes(root))


def put_ethertypes(policy: Policy, pages: Pages) -> None:
    """Ethertypes of frames that pass though they are no IP."""
    count = int(Limit.POLICY_ETHERTYPES)
    row = array("H", (*policy.ethertypes, *[0] * (count - len(policy.ethertypes))))
    pages.words[_ETHERTYPES:POLICY_WORDS] = array("I", row.tobytes())


def _rule_words(rule: Rule | Default) -> array[int]:
    apps, meaning = (rule.apps, rule.hash) if isinstance(rule, Rule) else (ANY_APP, 0)
    words = array("I")
    words.frombytes(bytes(abi.Rule(apps=apps, hash=meaning, action=rule.action, flags=rule.flags)))
    return words


def _where_words(where: Where, numbers: Mapping[str | None, int]) -> array[int]:
    from_zones, to_zones = ([numbers[zone] for zone in zones] for zones in (where.from_zones, where.to_zones))
    record = abi.Where(courses=_mask(where.courses, 32)[0], vlans=WHERE_WORDS if where.vlans else 0)
    record.from_zones[:] = _mask(from_zones, 256)
    record.to_zones[:] = _mask(to_zones, 256)
    words = array("I", bytes(record))
    if where.vlans:
        words.extend(_mask([each for low, high in where.vlans for each in range(low, high + 1)], 32 * VLAN_WORDS))
    return words


def _mask(numbers: Iterable[int], bits: int) -> list[int]:
    """Words with these bits set, all of them where there are no numbers."""
    whole = functools.reduce(operator.or_, (1 << number for number in numbers), 0) or (1 << bits) - 1
    return [whole >> at & 0xFFFFFFFF for at in range(0, bits, 32)]
