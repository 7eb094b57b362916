"""Text from traffic and files made safe to print.

Only printable ASCII passes. Control characters drive terminals, bidirectional
and zero-width ones lie about what stands where, and letters of a right-to-left
script reorder a line without any control character at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def escape(text: str, width: int | None = None) -> str:
    """`text` in printable ASCII, everything else as an escape, unambiguous (a backslash is
    doubled). With `width`, at most that many columns; what was cut ends in ``...``.
    """
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text if width is None or len(text) <= width else _cut([*text[: width + 1]], width)
    # A character is at least one column, so those beyond `width` can be left alone.
    shown = text if width is None else text[: width + 1]
    pieces = [_escape(character) for character in shown]
    return "".join(pieces) if width is None else _cut(pieces, width)


def _escape(character: str) -> str:
    if short := _SHORT.get(character):
        return short
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return character
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _cut(pieces: list[str], width: int) -> str:
    """Whole pieces only: half an escape would read as another character."""
    if sum(map(len, pieces)) <= width:
        return "".join(pieces)
    if width <= 3:
        return "..."[:width]
    kept: list[str] = []
    room = width - 3
    for piece in pieces:
        if len(piece) > room:
            break
        kept.append(piece)
        room -= len(piece)
    return "".join(kept) + "..."


def aligned(status: Mapping[str, Any]) -> str:
    """Aligned ``name  value`` lines, nested names joined by dots."""
    rows = [(escape(name, 60), escape(text, 200)) for name, text in _flatten(status, "")]
    width = max((len(name) for name, _ in rows), default=0)
    return "".join(f"{name:<{width}}  {text}\n" for name, text in rows)


def _flatten(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{name}.")
        elif isinstance(item, list):
            texts = [each if isinstance(each, str) else json.dumps(each) for each in item]
            yield name, ", ".join(texts) or "none"
        elif isinstance(item, bool):
            yield name, "yes" if item else "no"
        elif isinstance(item, float):
            yield name, f"{item:.6g}" if abs(item) < 1e6 else f"{item:.0f}"
        else:
            yield name, "none" if item is None else str(item)
