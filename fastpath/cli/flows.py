"""Flows as JSON Lines of `from, to, proto, sport, port, type, app`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

from fastpath.lines import read_lines
from fastpath.policy.explain import Flow, read_flow

MAX_LINE = 64 * 1024
FIELDS = ("from", "to", "proto", "sport", "port", "type", "app", "from_zone", "to_zone", "vlan")
_TEXTS = frozenset(FIELDS) - {"sport", "port"}  # `vlan` may be `none`


def read_flows(stream: IO[bytes], zones: Collection[str] = ()) -> Iterator[Flow | ValueError]:
    """A flow for each line, or what is wrong with it."""
    for line in read_lines(stream, MAX_LINE):
        try:
            yield _read_line(line, zones)
        except ValueError as error:
            yield error


def flow_of(given: Mapping[str, Any], zones: Collection[str] = ()) -> Flow:
    """A flow of its fields' texts, None where there is none; `zones` are those that there are. ValueError says what is
    wrong with it.
    """
    return read_flow(
        source=given["from"], destination=given["to"], proto=given["proto"], sport=given["sport"],
        port=given["port"], kind=given["type"], app=given["app"], from_zone=given["from_zone"],
        to_zone=given["to_zone"], vlan=given["vlan"], zones=zones,
    )  # fmt: skip


def _read_line(line: bytes, zones: Collection[str]) -> Flow:
    """ValueError says what is wrong with it."""
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} bytes")
    try:
        given = json.loads(line.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deep") from None
    if not isinstance(given, dict):
        raise ValueError(f"expected an object with {', '.join(FIELDS)}")  # noqa: TRY004  # the line's fault
    if unknown := sorted(given.keys() - set(FIELDS)):
        raise ValueError(f"unknown field {unknown[0][:60]!r}; known here: {', '.join(FIELDS)}")
    for name in FIELDS:
        value = given.setdefault(name)
        if value is None and name in {"from", "to", "proto"}:
            raise ValueError(f"missing {name}")
        # Not isinstance: true is no port.
        if type(value) is int and name in {"proto", "sport", "port", "type", "vlan"}:
            given[name] = str(value)
        elif value is not None and not (isinstance(value, str) and name in _TEXTS):
            raise ValueError(f"{name}: expected {'text' if name in _TEXTS else 'a number'}")
    return flow_of(given, zones)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise ValueError(f"{name[:60]!r} is given twice")
        given[name] = value
    return given
