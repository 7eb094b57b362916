"""Sizes and marks in the tables, for those who write them and those who read them."""

from __future__ import annotations

from ctypes import sizeof

from fastpath import abi
from fastpath.abi import Index, Limit

PAGE = int(Limit.POLICY_PAGE)
POLICY_WORDS = sizeof(abi.Policy) // 4
RULE_WORDS = sizeof(abi.Rule) // 4
WHERE_WORDS = sizeof(abi.Where) // 4
# Behind a record that names VLAN tags, a bit for each of them.
VLAN_WORDS = 128
CLASS_WORDS = sizeof(abi.Class) // 4
# Sets in a bucket of a class, and candidates in a block of a list.
BUCKET = 4
BLOCK = 8
# Words of a node of an index; of a leaf, half of them are values.
NODE = int(Index.NODE)
LEAF = NODE // 2

# In the place of a rule's number, that there is none; with the last one of a block, that another block follows.
NO_RULE = 0x7FFFFFFF
MORE = 0x80000000
# Number of all addresses, where a rule names none. It is no set: every class has its trees, and no candidate tests it.
ANYONE = 0


def rule_at(number: int) -> int:
    """Where a rule lies."""
    return POLICY_WORDS + RULE_WORDS * number


def aligned(count: int, align: int) -> int:
    """A count, or the next that is a multiple."""
    return -(-count // align) * align
