"""FTP of the public captures."""

from __future__ import annotations

import pytest

from parsers.base import Event, Switched, Unit
from parsers.ftp import FtpParser
from tests.captures.streams import CapturedFlow, flows

FLOWS = flows("ftp")


def told(flow: CapturedFlow) -> list[Event]:
    """Up to the switch, and that the next byte is TLS."""
    parser, found = FtpParser(), list[Event]()
    for at, (direction, data) in enumerate(flow.parts):
        found += parser.feed(direction, data)
        if found and isinstance(found[-1], Switched):
            assert flow.parts[at + 1][1][:2] == b"\x16\x03"
            break
    assert parser.buffered == 0
    return found


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_every_flow_is_read(flow: CapturedFlow) -> None:
    assert any(isinstance(event, Unit) for event in told(flow))


def test_what_is_said() -> None:
    by_file = {flow.truth["file"]: told(flow) for flow in FLOWS}
    units = [event.fields for event in by_file["nDPI__ftp.pcap"] if isinstance(event, Unit)]
    assert len(units) == 16
    assert {unit["ftp.user"] for unit in units} == {b"anonymous"}
    assert units[2] == {"ftp.command": b"PWD", "ftp.user": b"anonymous"}
    for name in ("nDPI__ftp-start-tls.pcap", "zeek__ftp__ftp-auth-tls.pcap"):
        assert by_file[name][-1] == Switched("tls")
