"""The inspection log: one JSON object a line, a `verdict` and an `end` for every logged session.

`model` builds records, `write` appends them to a rotated file, `read` streams
them back. `schema.json` is the contract; every record is held against it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

VERSION = 1

# A line beyond this is no record: the longest one the builders can make is a tenth of it.
MAX_LINE = 1 << 20

Record = dict[str, Any]


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record."""
    text = (Path(__file__).with_name("schema.json")).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def names(field: str) -> tuple[str, ...]:
    """Legal values of an enumerated field, in the schema's order.

    They come from the schema, not from `fastpath.abi`, so that the reading side
    need not load ctypes; a test keeps both equal.
    """
    return tuple(schema()["$defs"][field]["enum"])
