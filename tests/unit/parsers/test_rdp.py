from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Switched
from parsers.rdp import RdpParser
from tests.contract.conversations.rdp import COOKIE, confirm, negotiation, request
from tests.unit.parsers.streams import fed, flooded, refused, said

CORRELATION = b"\6\0\x24\0" + bytes(range(16)) + bytes(16)
ASKED = (TO_SERVER, request(negotiation(3)))


@pytest.mark.parametrize(
    ("body", "unit"),
    [
        (b"", {"rdp.protocols": (b"rdp",)}),
        (negotiation(0), {"rdp.protocols": (b"rdp",)}),
        (negotiation(31), {"rdp.protocols": (b"tls", b"credssp", b"rdstls", b"credssp-ex", b"rdsaad")}),
        (COOKIE, {"rdp.cookie": b"WDeployAd", "rdp.protocols": (b"rdp",)}),
        (negotiation(1, flags=8) + CORRELATION, {"rdp.protocols": (b"tls",)}),
    ],
)
def test_requests(body: bytes, unit: dict[str, object]) -> None:
    assert said(fed(RdpParser(), (TO_SERVER, request(body)))) == [unit]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\2\0\0\x0b\6\xe0\0\0\0\0\0", "packet"),
        (b"\3\0\xff\xff\6\xe0\0\0\0\0\0", "packet"),
        (b"\3\0\0\5\0", "packet"),
        (b"\3\0\0\x0b\7\xe0\0\0\0\0\0", "packet"),
        (confirm(b""), "connection_request"),
        (b"\3\0\0\x0b\6\xe0\0\0\0\0\1", "connection_request"),
        (request(b"Cookie: mstshash=a"), "cookie"),
        (request(b"Cookie: mstshash=a\0b\r\n"), "cookie"),
        (request(negotiation(1)[:7]), "negotiation"),
        (request(b"\1\0\x09\0\0\0\0\0"), "negotiation"),
        (request(COOKIE + COOKIE), "negotiation"),
        (request(negotiation(1) + b"x"), "correlation"),
        (request(negotiation(1, flags=8)), "correlation"),
        (request(negotiation(1, flags=8) + CORRELATION[:-1]), "correlation"),
        (request(negotiation(1, flags=8) + CORRELATION + b"x"), "correlation"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    assert refused(RdpParser(), (TO_SERVER, data)) == (code, 0)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (request(b""), "connection_request"),
        (confirm(negotiation(8, 2)), "not_offered"),
        (confirm(negotiation(3, 2)), "not_offered"),
        (confirm(negotiation(1, 2) + b"x"), "not_offered"),
        (confirm(negotiation(1, 1)), "negotiation"),
        (b"\x16\3\1\0\5", "packet"),
    ],
)
def test_answers_refused(answer: bytes, code: str) -> None:
    assert refused(RdpParser(), ASKED, (TO_CLIENT, answer)) == (code, 0)


def test_server_does_not_begin() -> None:
    assert refused(RdpParser(), (TO_CLIENT, confirm(b"")))[0] == "order"


def test_tls() -> None:
    parser = RdpParser()
    fed(parser, ASKED, (TO_SERVER, b"\x16\3\1"))
    assert parser.blocked
    assert fed(parser, (TO_CLIENT, confirm(negotiation(1, 2)) + b"\x15")) == [Switched("tls", b"\x16\3\1", b"\x15")]


@pytest.mark.parametrize("answer", [b"", negotiation(0, 2), negotiation(5, 3)])
def test_behind_rdp_security_and_a_refusal_nothing_is_read(answer: bytes) -> None:
    parser = RdpParser()
    fed(parser, ASKED, (TO_SERVER, b"behind"), (TO_CLIENT, confirm(answer) + b"behind"))
    assert flooded(parser, bytes(65536), times=10) == ("", 0)
    assert flooded(parser, bytes(65536), TO_CLIENT, times=10) == ("", 0)
    assert not parser.pending(TO_SERVER)
    assert parser.gap(TO_SERVER, 100) == []


def test_pending_and_what_waits() -> None:
    parser = RdpParser()
    fed(parser, (TO_SERVER, ASKED[1][:-1]))
    assert parser.pending(TO_SERVER)
    fed(parser, (TO_SERVER, ASKED[1][-1:]))
    assert not parser.pending(TO_SERVER)
    assert flooded(parser, bytes(1000)) == ("unanswered", 65000)
