"""Records as text. Everything but JSON is escaped: the text comes from those being inspected."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator

from fastpath.text import escape
from slowpath.record import Record

FORMATS = ("compact", "table", "dict", "json")

WIDTH = 120
MAX_VALUE = 1000  # columns of a value in `dict`

Formatter = Callable[[bytes, Record], str]

_COLOURS = {"allow": "\x1b[32m", "deny": "\x1b[31m", "inspect": "\x1b[33m"}
_PLAIN = "\x1b[0m"


def formatter(name: str, *, colour: bool, utc: bool, now: float) -> Formatter:
    """Formatter of that name: takes a line and its record, returns text with its newlines."""
    if name == "json":
        return as_json
    if name == "dict":
        return functools.partial(as_dict, utc=utc)
    if name == "table":
        return Table(colour=colour, utc=utc)
    return Compact(colour=colour, utc=utc, now=now)


def as_json(line: bytes, record: Record) -> str:
    """The line as it is; spelled in ASCII if it was not."""
    return (line.decode("ascii") if line.isascii() else json.dumps(record, separators=(",", ":"))) + "\n"


def as_dict(_: bytes, record: Record, *, utc: bool) -> str:
    """A block of ``key: value`` lines and a rule below."""
    lines = [f"time: {_moment(record['ts'], utc=utc)}"]
    lines += [f"{escape(key, 100)}: {escape(text, MAX_VALUE)}" for key, text in _flatten(record)]
    return "\n".join(lines) + "\n" + "-" * 12 + "\n"


class Compact:
    """One line of at most `WIDTH` columns; the date stands before the time if it is not today's."""

    def __init__(self, *, colour: bool, utc: bool, now: float) -> None:
        self._colour = colour
        self._utc = utc
        self._today = _date(int(now), utc)

    def __call__(self, _: bytes, record: Record) -> str:
        """The line."""
        second, milli = _split(record["ts"])
        date = _date(second, self._utc)
        when = f"{_clock(second, self._utc)}.{milli:03d}"
        if date != self._today:
            same_year = date[:5] == self._today[:5]
            when = f"{date[5:] if same_year else date} {when}"
        verdict = _verdict(record)
        head = f"{when} {verdict:<8}{_word(record.get('protocol')):<6} "
        tail = f" {_word(record.get('rule'), 24)} {_word(record.get('reason'))} {_word(record.get('path'))}"
        if detail := _detail(record):
            tail += f" {detail}"
        flow = _flow(record, None)
        # Long IPv6 addresses give way to the rule and the reason, not the other way round.
        if len(head) + len(flow) + len(tail) > WIDTH:
            flow = _flow(record, 28)
        line = _bound(head + flow + tail, WIDTH)
        if self._colour:
            line = line[: len(when) + 1] + _coloured(verdict, line[len(when) + 1 :])
        return line + "\n"


class Table:
    """Columns that widen as they need to; nothing is held back, so it works while following."""

    COLUMNS = (
        ("TIME", 23, 23),
        ("EVENT", 7, 7),
        ("VERDICT", 8, 8),
        ("PROTOCOL", 8, 10),
        ("SOURCE", 21, 47),
        ("DESTINATION", 21, 47),
        ("L4", 4, 5),
        ("RULE", 12, 32),
        ("REASON", 10, 18),
        ("PATH", 9, 9),
        ("SESSION", 10, 18),
        ("DETAIL", 0, 60),
    )

    def __init__(self, *, colour: bool, utc: bool) -> None:
        self._colour = colour
        self._utc = utc
        self._widths = [least for _, least, _ in self.COLUMNS]
        self._headed = False

    def __call__(self, _: bytes, record: Record) -> str:
        """The row, before the first one the header."""
        flow = record["flow"]
        verdict = _verdict(record)
        cells = [
            _moment(record["ts"], utc=self._utc)[:23],
            _word(record.get("event")),
            verdict,
            _word(record.get("protocol")),
            _endpoint(flow, "src", "sport", None),
            _endpoint(flow, "dst", "dport", None),
            _word(flow.get("l4")),
            _word(record.get("rule"), 32),
            _word(record.get("reason")),
            _word(record.get("path")),
            _session(record),
            _detail(record),
        ]
        cells = [_bound(cell, most) for cell, (_, _, most) in zip(cells, self.COLUMNS, strict=True)]
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)]
        header = ""
        if not self._headed:
            self._headed = True
            header = self._row([name for name, _, _ in self.COLUMNS]) + "\n"
        row = self._row(cells)
        if self._colour:
            start = self._widths[0] + self._widths[1] + 4
            row = row[:start] + _coloured(verdict, row[start:])
        return f"{header}{row}\n"

    def _row(self, cells: list[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()


@functools.lru_cache(maxsize=64)
def _clock(second: int, utc: bool) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(second) if utc else time.localtime(second))


@functools.lru_cache(maxsize=64)
def _date(second: int, utc: bool) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(second) if utc else time.localtime(second))


@functools.lru_cache(maxsize=64)
def _zone(second: int, utc: bool) -> str:
    if utc:
        return "Z"
    zone = time.strftime("%z", time.localtime(second))
    return f"{zone[:3]}:{zone[3:]}"


def _moment(ts: float, *, utc: bool) -> str:
    second, milli = _split(ts)
    return f"{_date(second, utc)}T{_clock(second, utc)}.{milli:03d}{_zone(second, utc)}"


def _split(ts: float) -> tuple[int, int]:
    # By way of microseconds: 1700000000.002 is a little less than that as a float.
    return divmod(round(ts * 1e6) // 1000, 1000)


def _word(value: object, width: int = 18) -> str:
    """A name in a column: no spaces, never empty."""
    return escape(str(value), width).replace(" ", "\\x20") if value not in (None, "") else "-"


def _verdict(record: Record) -> str:
    """The verdict, starred when monitor mode did not enforce it."""
    verdict = _word(record.get("verdict"), 7)
    return verdict if record.get("enforced") is not False else f"{verdict}*"


def _session(record: Record) -> str:
    number = record.get("session")
    return f"{number:#x}" if isinstance(number, int) and 0 <= number < 1 << 64 else "-"


def _endpoint(flow: Record, address: str, port: str, width: int | None) -> str:
    host = _word(flow.get(address), 45)
    number = _word(flow.get(port), 6)
    if ":" in host:
        host = f"[{host}]"
    if width is not None and (excess := len(host) + 1 + len(number) - width) > 0:
        keep = len(host) - excess - 2
        host = f"{host[: keep - keep // 2]}..{host[len(host) - keep // 2 :]}"
    return f"{host}:{number}"


def _flow(record: Record, width: int | None) -> str:
    flow = record["flow"]
    return f"{_endpoint(flow, 'src', 'sport', width)} > {_endpoint(flow, 'dst', 'dport', width)}"


def _detail(record: Record) -> str:
    """What the parser found, and how it ended."""
    parts = []
    if isinstance(grpc := record.get("grpc"), dict):
        parts.append(f"/{_found(grpc, 'service')}/{_found(grpc, 'method')}")
    elif isinstance(http := record.get("http"), dict):
        parts.append(f"{_found(http, 'method')} {_found(http, 'host')}{_found(http, 'path')}".strip())
    parts += _said(record)
    if "severity" in record:
        parts.append(f"severity={_word(record['severity'])}")
    if isinstance(patterns := record.get("patterns"), list):
        parts.append("patterns=" + ",".join(escape(str(each), 80) for each in patterns))
    if record.get("event") == "end":
        parts.append(f"{_word(record.get('end'))} {_seconds(record.get('duration'))}")
        parts += [f"{_pair(record.get('packets'))} pkts", f"{_pair(record.get('bytes'))} B"]
    return " ".join(parts)


# Objects of an end record that are no fields.
_COUNTERS = ("packets", "bytes", "held")


def _said(record: Record) -> Iterator[str]:
    """Fields of other protocols' parsers."""
    for name, fields in record.items():
        if name not in {"flow", "http", "grpc", *_COUNTERS} and isinstance(fields, dict):
            for field, value in fields.items():
                text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                yield f"{escape(str(field), 40)}={escape(text, 80)}".replace(" ", "\\x20")


def _found(finding: Record, name: str) -> str:
    value = finding.get(name)
    return escape(value, 80).replace(" ", "\\x20") if isinstance(value, str) else ""


def _seconds(value: object) -> str:
    return f"{value:.3f}s" if isinstance(value, int | float) and abs(value) < 1e15 else "-"


def _pair(value: object) -> str:
    if not isinstance(value, dict):
        return "-"
    return f"{_word(value.get('to_server'))}/{_word(value.get('to_client'))}"


def _flatten(record: Record, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        if isinstance(value, dict) and not prefix:
            yield from _flatten(value, f"{key}.")
        elif key == "session" and not prefix:
            yield key, _session(record)
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _bound(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _coloured(verdict: str, text: str) -> str:
    """`text`, which begins with the verdict, with that in its colour."""
    colour = _COLOURS.get(verdict.rstrip("*"))
    return f"{colour}{verdict}{_PLAIN}{text[len(verdict) :]}" if colour else text
