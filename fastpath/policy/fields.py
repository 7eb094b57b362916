"""How the policy language's mappings are read: fields that fail one by one, and names that a policy defines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from fastpath.document import Node

T = TypeVar("T")

# Begins with a letter and has no colon: no address does both.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")


class Fields:
    """Fields of a mapping; a broken one is reported and counts as absent, so that the others are read too."""

    def __init__(self, fields: dict[str, Node]) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def report(self, name: str, message: str) -> None:
        """Add a problem at a field that is there."""
        self._fields[name].report(message)

    def one(self, name: str, read: Callable[[Node], T], absent: T) -> T:
        """Value of a field; `absent` when there is none, or none that can be read."""
        value = self._fields[name].attempt(read) if name in self._fields else None
        return absent if value is None else value

    def some(self, name: str, read: Callable[[Node], T]) -> tuple[T, ...]:
        """Values of a list, or of a single value; () when absent. An empty list would read as "any" or as "none"."""
        return some(self._fields[name], read) if name in self._fields else ()


def some(
    node: Node, read: Callable[[Node], T], *, empty: str = "the list is empty: leave the field out"
) -> tuple[T, ...]:
    """Values of a list, `empty` being what is wrong with one of none, or of a single value; broken ones left out."""
    if node.is_empty:
        node.report(empty)
    return tuple(node.collect(read))


def is_name(text: str) -> bool:
    """A legal name of a group or service."""
    return _NAME.fullmatch(text) is not None


def place(node: Node, *, seen_from: Node) -> str:
    """Where something stands, for a message about `seen_from`."""
    return f"line {node.line}" if node.file == seen_from.file else f"{node.file}:{node.line}"


def definitions(nodes: Iterable[Node], limit: int) -> dict[str, Node]:
    """What mappings of one kind define, by name. Bad names and names that are given twice are reported."""
    found: dict[str, Node] = {}
    for node in nodes:
        for name, value in (node.attempt(lambda node: node.mapping(optional=None)) or {}).items():
            if not is_name(name):
                value.report(
                    f"{name[:40]!r} is no name: up to 128 letters, digits, `_`, `-` and `.`, the first one a letter"
                )
            elif name in found:
                value.report(f"{name!r} is defined in {place(found[name], seen_from=value)} already")
            else:
                found[name] = value
        if len(found) > limit:
            node.report(f"{len(found)} names; {limit} is the most")
            break
    return found
