"""WebSocket of the public captures: SSH in a tunnel, and a chat whose beginning is missing."""

from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, Unit, Upgraded
from parsers.http1 import Http1Parser
from parsers.websocket import WebSocketParser
from tests.captures.streams import CapturedFlow, flows

FLOWS = flows("http")
TUNNELS = [flow for flow in FLOWS if flow.truth["file"] == "zeek__websocket__wstunnel-ssh.pcap"]


def behind_upgrade(flow: CapturedFlow) -> list[tuple[int, Event]]:
    """With their directions."""
    http, parser = Http1Parser(), WebSocketParser()
    found: list[tuple[int, Event]] = []
    upgraded = False
    for direction, data in flow.parts:
        if upgraded:
            found += [(direction, event) for event in parser.feed(direction, data)]
            continue
        for event in http.feed(direction, data):
            if isinstance(event, Upgraded):
                assert event.protocol == b"websocket"
                upgraded = True
                found += [(TO_SERVER, each) for each in parser.feed(TO_SERVER, event.to_server)]
                found += [(TO_CLIENT, each) for each in parser.feed(TO_CLIENT, event.to_client)]
    assert not parser.pending(TO_SERVER)
    assert not parser.pending(TO_CLIENT)
    return found


@pytest.mark.parametrize("flow", TUNNELS, ids=str)
def test_tunnel(flow: CapturedFlow) -> None:
    units = [(direction, event.fields) for direction, event in behind_upgrade(flow) if isinstance(event, Unit)]
    assert len(units) > 10
    assert {fields["websocket.kind"] for _, fields in units} == {b"binary"}
    banner = len(b"SSH-2.0-OpenSSH_8.2p1 Ubuntu-4ubuntu0.5\r\n")
    assert {direction: fields["websocket.size"] for direction, fields in reversed(units)} == {0: banner, 1: banner}


def test_chat() -> None:
    (flow,) = (flow for flow in FLOWS if flow.truth["file"] == "nDPI__websocket.pcap")
    parser = WebSocketParser()
    # Its first packet is the server's.
    events = [event for direction, data in flow.parts for event in parser.feed(1 - direction, data)]
    assert [event.fields["websocket.text"] for event in events if isinstance(event, Unit)] == [
        b"Welcome, 192.168.43.1 !",
        b"test message",
        b"21:33:52 ('192.168.43.1', 50999) say: test message",
        b"hello websocket",
        b"21:34:53 ('192.168.43.1', 50999) say: hello websocket",
    ]
