"""Public captures of PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from parsers.base import Event, Switched, Unit
from parsers.postgres import PostgresParser
from tests.captures.streams import CapturedFlow, flows

FLOWS = flows("postgres", agree=False)
# A request for encryption that is declined, and no more.
DECLINED = "nDPI__ossfuzz_seed_fake_traces_2.pcapng"


def read(flow: CapturedFlow) -> list[Event]:
    """Up to where it goes on in TLS."""
    parser = PostgresParser()
    events: list[Event] = []
    for direction, data in flow.parts:
        events += parser.feed(direction, data)
        if events and isinstance(events[-1], Switched):
            break
    return events


def said(name: str) -> list[dict[str, Any]]:
    flow = next(flow for flow in FLOWS if name in str(flow))
    return [
        {name.removeprefix("postgres."): value for name, value in event.fields.items()}
        for event in read(flow)
        if isinstance(event, Unit)
    ]


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_it_is_read_without_an_error(flow: CapturedFlow) -> None:
    events = read(flow)
    if flow.truth["file"] == DECLINED:
        assert events == []
    elif flow.truth.get("final") == "tls":
        assert [type(event) for event in events] == [Switched]
    else:
        assert isinstance(events[0], Unit)
        assert events[0].fields["postgres.command"] in {b"startup", b"cancel"}


def test_what_clients_said() -> None:
    assert said("psql-login")[0] == {
        "command": b"startup", "user": b"zeek", "database": b"zeek", "application": b"psql",
    }  # fmt: skip
    assert [unit["command"] for unit in said("ssl-disable-15432")] == [b"startup", b"query"]
    assert said("cancel-request__input.pcap:39706") == [{"command": b"cancel"}]
    (replica,) = said("upgrade-tls__input.pcap:60359")
    assert (replica["application"], replica["replication"]) == (b"walreceiver", b"true")
