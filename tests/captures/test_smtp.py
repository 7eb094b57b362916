"""SMTP of the public captures."""

from __future__ import annotations

import pytest

from parsers.base import Event, Switched, Unit
from parsers.smtp import SmtpParser
from tests.captures.streams import CapturedFlow, flows

# Tools disagree on whether these are SMTP or the TLS that they become.
FLOWS = flows("smtp", agree=False)
NAMES = {b"xxxxxxxxxxxxx.xxx.com", b"[IPv6:2003:de:2016:125:fc36:8317:4e86:cb72]", b"openssl.client.net"}


def told(flow: CapturedFlow) -> list[Event]:
    """Up to the switch, and that the next byte is TLS."""
    parser, found = SmtpParser(), list[Event]()
    for at, (direction, data) in enumerate(flow.parts):
        found += parser.feed(direction, data)
        if found and isinstance(found[-1], Switched):
            assert flow.parts[at + 1][1][:3] == b"\x16\x03\x01"
            break
    return found


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_starttls(flow: CapturedFlow) -> None:
    found = told(flow)
    assert found[-1] == Switched("tls")
    assert [event.fields["smtp.command"] for event in found if isinstance(event, Unit)] == [b"EHLO", b"STARTTLS"]


def test_names() -> None:
    first = [told(flow)[0] for flow in FLOWS]
    assert {event.fields["smtp.helo"] for event in first if isinstance(event, Unit)} == NAMES
