"""Well-formed conversations, a module for each protocol, that test_parsers.py holds its parser to.

A new module needs nothing but `CONVERSATIONS`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from parsers.base import TCP, Parser, Value
from parsers.registry import make_parser


@dataclass(frozen=True, slots=True)
class Conversation:
    """`parts` are (direction, bytes) in the order of time, over UDP a datagram each; `units` what they say, of each
    unit its protocol and all of its fields; `asked` what is asked for of what is told on demand.
    """

    name: str
    parser: str
    parts: tuple[tuple[int, bytes], ...]
    units: tuple[tuple[str, Mapping[str, Value]], ...]
    l4: int = TCP
    asked: frozenset[str] = frozenset()

    def begin(self) -> Parser:
        """A new parser for it."""
        parser = make_parser(self.parser, self.l4)
        assert parser is not None, f"{self.parser} does not run over that"
        if self.asked:
            parser.asked = self.asked
        return parser

    def __str__(self) -> str:
        return f"{self.parser}-{self.name}".replace(" ", "-")


def conversations() -> Iterator[Conversation]:
    """Those of all modules here."""
    for module in pkgutil.iter_modules(__path__):
        yield from importlib.import_module(f"{__name__}.{module.name}").CONVERSATIONS
