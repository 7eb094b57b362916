"""The table of TCP transitions, read from bpf/lib/tcp.h; `python -m tests.bpf.tcp_table` draws it (Mermaid)."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "bpf/lib/tcp.h"
ILLEGAL = "XXX"

# event, state -> next state, or None where the event is illegal
Table = dict[tuple[str, str], str | None]


def read(text: str) -> Table:
    """The rows of the macros; ValueError if a row has not one cell for each state."""
    names = dict(re.findall(r"^#define (\w{3}) MS_TCP_(\w+)$", text, re.MULTILINE))
    (heading,) = re.findall(r"^/\* +((?:\w{3} +){11})\*/$", text, re.MULTILINE)
    states = [names[short] for short in heading.split()]
    table: Table = {}
    for event, row in re.findall(r"^#define MS_TCP_ROW_(\w+) +MS_TCP_ROW\(([^)]*)\)$", text, re.MULTILINE):
        cells = [cell.strip() for cell in row.split(",")]
        for state, cell in zip(states, cells, strict=True):
            table[event, state] = None if cell == ILLEGAL else names[cell]
    return table


def mermaid(table: Table) -> str:
    """A state diagram of what changes a state."""
    arrows = [f"    {state} --> {then}: {event}" for (event, state), then in table.items() if then not in {None, state}]
    return "\n".join(["stateDiagram-v2", *sorted(arrows)])


if __name__ == "__main__":
    print(mermaid(read(SOURCE.read_text())))
