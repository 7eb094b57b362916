"""Public captures of MySQL and MariaDB."""

from __future__ import annotations

from typing import Any

import pytest

from parsers.base import Event, Switched, Unit
from parsers.mysql import MysqlParser
from tests.captures.streams import CapturedFlow, flows


def read(flow: CapturedFlow) -> list[Event]:
    """Up to where it goes on in TLS."""
    parser = MysqlParser()
    events: list[Event] = []
    for direction, data in flow.parts:
        events += parser.feed(direction, data)
        if events and isinstance(events[-1], Switched):
            break
    return events


def said(flow: CapturedFlow) -> list[dict[str, Any]]:
    return [
        {name.removeprefix("mysql."): value for name, value in event.fields.items()}
        for event in read(flow)
        if isinstance(event, Unit)
    ]


FLOWS = flows("mysql", agree=False)


def of(name: str) -> CapturedFlow:
    return next(flow for flow in FLOWS if name in str(flow))


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_it_is_read_without_an_error(flow: CapturedFlow) -> None:
    events = read(flow)
    if flow.truth.get("final") == "tls":
        assert [type(event) for event in events] == [Switched]
    else:
        assert isinstance(events[0], Unit)
        assert events[0].fields["mysql.command"] == b"login"


def test_what_the_client_of_mysql_5_0_asked() -> None:
    units = said(of("zeek__mysql__mysql.pcap"))
    assert {unit["server"] for unit in units} == {b"5.0.54"}
    assert {unit["user"] for unit in units} == {b"tfoerste"}
    asked = [(unit["verb"], unit["tables"]) for unit in units if unit["command"] == b"query"]
    foo = (b"test.foo",)
    assert asked[:4] == [((b"select",), ()), ((b"select",), ()), ((b"show",), ()), ((b"show",), ())]
    assert [b" ".join(verbs).decode() for verbs, tables in asked[4:] if tables == foo] == [
        "create", "insert", "insert", "select", "delete", "delete", "select", "select", "delete", "drop",
    ]  # fmt: skip
    assert [unit["database"] for unit in units if unit["command"] == b"init_db"] == [b"test"]
    assert not any(unit.get("unsure") for unit in units)


def test_what_the_client_of_mariadb_asked() -> None:
    login, query = said(of("nDPI__mysql.pcapng:36732"))
    assert (login["user"], login["program"], login["plugin"]) == (b"admin", b"mysql", b"mysql_native_password")
    assert query["server"] == b"5.5.5-10.6.12-MariaDB-0ubuntu0.22.04.1"
