from __future__ import annotations

from typing import ClassVar

import pytest
from scapy.fields import ByteField, NetBIOSNameField, XShortField
from scapy.layers.netbios import NBTSession
from scapy.packet import Packet

from parsers.base import TO_CLIENT, TO_SERVER, ParseError
from parsers.smb import SmbParser
from tests.contract.conversations.smb import (
    CLOSE,
    CREATE,
    NEGOTIATE_1,
    PATH,
    REQUEST,
    TREE_CONNECT_1,
    chosen,
    negotiate,
    netbios,
    new,
    old,
    session,
    tree_connect,
)
from tests.unit.parsers.streams import fed, flooded, refused, said


def told(*messages: bytes) -> list[dict[str, object]]:
    return [dict(unit) for unit in said(fed(SmbParser(), *[(TO_SERVER, session(each)) for each in messages]))]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\1\0\0\0", "session"),
        (b"\x82\0\0\0", "session"),
        (b"\x81\0\1\xff", "session"),
        (b"\x81\1\0\x44" + REQUEST[4:], "session"),
        (REQUEST[:3] + b"\x43" + REQUEST[4:], "session"),
        (REQUEST[:3] + b"\x45" + REQUEST[4:] + b"\0", "session"),
        (REQUEST[:3] + b"\0", "session"),
        (REQUEST[:4] + b"\x1f" + REQUEST[5:], "session"),
        (REQUEST[:-2] + b"Q\0", "session"),
        (REQUEST[:-1] + b"\1", "session"),
        (REQUEST + REQUEST, "session"),
        (REQUEST + b"\x85\0\0\1x", "session"),
        (REQUEST + b"\0\2\0\0" + new(9, b""), "message"),
        (session(b"\xffSMB" + bytes(30)), "message"),
        (session(b"\xfbSMB" + bytes(60)), "message"),
        (session(b"\xfeSMB" + bytes(59)), "message"),
        (session(b"\xfeSMB" + bytes(60)), "header"),
        (session(new(5, b"", answer=True)), "header"),
        (session(old(0x72, answer=True)), "header"),
        (session(new(5, bytes(100), after=60)), "compound"),
        (session(new(5, bytes(100), after=68)), "compound"),
        (session(new(5, bytes(100), after=0xFFFFFFF8)), "compound"),
        (session(CREATE + b"\xffSMB" + bytes(60)), "header"),
        (session(CREATE + CLOSE[:60]), "message"),
        (session(new(0, b"\x25\0\1\0" + bytes(34))), "negotiate"),
        (session(new(0, b"\x24\0\xff\xff" + bytes(34))), "negotiate"),
        (session(new(0, b"")), "message"),
        (session(new(3, b"\x09\0\0\0\x48\0\xff\xff")), "tree_connect"),
        (session(new(3, b"\x09\0\0\0\x48\0\x03\0abc")), "tree_connect"),
        (session(new(3, b"\x09\0\0\0\0\0\2\0ab")), "tree_connect"),
        (session(new(3, b"\x09\0\4\0\x48\0\2\0ab")), "tree_connect"),
        (session(new(3, b"\x09\0\0\0\x48\0\2\0\0\xd8")), "utf16"),
        (session(old(0x72, b"", b"NT LM 0.12\0")), "negotiate"),
        (session(old(0x72, b"", b"\2NT LM 0.12")), "negotiate"),
        (session(NEGOTIATE_1[:-1]), "message"),
        (session(old(0x75, b"\xff\0\0\0", b"x")), "tree_connect"),
        (session(old(0x75, b"\xff\0\0\0\0\0\xff\xff", b"\0" + PATH)), "tree_connect"),
        (session(old(0x70, b"", b"x")), "tree_connect"),
        (session(old(0x73, b"\x75\0\0\0" + bytes(22))), "andx"),
        (session(old(0x73, b"\x75\0\x20\0" + bytes(22))), "andx"),
        (session(old(0x73, b"\x75\0\xff\xff" + bytes(22))), "andx"),
        (session(old(0x73)), "andx"),
        (b"\0\xff\xff\xff" + negotiate(0x311), "command_too_long"),
        (b"\0\xff\xff\xff" + NEGOTIATE_1, "command_too_long"),
        (b"\0\xff\xff\xff" + old(0x2F, b"\x75" + bytes(27)), "command_too_long"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    assert refused(SmbParser(), (TO_SERVER, data))[0] == code
    with pytest.raises(ParseError, match=code):
        fed(SmbParser(), *[(TO_SERVER, bytes((byte,))) for byte in data])


POSITIVE, KEEPALIVE = session(b"", 0x82), session(b"", 0x85)


def test_session_packets_are_as_scapy_makes_them() -> None:
    class Names(Packet):
        fields_desc: ClassVar = [
            each
            for number in range(2)
            for each in (
                NetBIOSNameField(f"name{number}", b""),
                XShortField(f"kind{number}", 0),
                ByteField(f"end{number}", 0),
            )
        ]

    names = Names(name0=b"*SMBSERVER", kind0=0x4341, name1=b"WINXP", kind1=0x4141)
    assert bytes(NBTSession(TYPE=0x81) / names) == REQUEST
    parser = SmbParser()
    parts = [
        (TO_SERVER, REQUEST),
        (TO_CLIENT, bytes(NBTSession(TYPE=0x82))),
        (TO_SERVER, bytes(NBTSession(TYPE=0x85)) + bytes(NBTSession() / CLOSE) + bytes(NBTSession(TYPE=0x85))),
        (TO_CLIENT, bytes(NBTSession(TYPE=0x85))),
        (TO_SERVER, bytes(NBTSession() / CLOSE)),
    ]
    assert [unit["smb.command"] for unit in said(fed(parser, *parts))] == [b"close", b"close"]
    assert parser.buffered == 0


@pytest.mark.parametrize(("last", "good"), [(1, True), (28, True), (29, False)])
def test_a_request_with_a_scope(last: int, *, good: bool) -> None:
    """Up to 255 bytes with its NUL."""
    scope = (b"\x3f" + b"s" * 63) * 3 + bytes((last,)) + b"t" * last
    data = session(netbios(b"FILES")[:-1] + scope + b"\0" + netbios(b"WINXP", 0), 0x81) + session(CLOSE)
    if good:
        assert said(fed(SmbParser(), (TO_SERVER, data))) == [{"smb.command": b"close"}]
    else:
        assert refused(SmbParser(), (TO_SERVER, data))[0] == "session"


@pytest.mark.parametrize("size", range(1, len(REQUEST)))
def test_a_request_may_be_cut_anywhere(size: int) -> None:
    parser = SmbParser()
    assert fed(parser, (TO_SERVER, REQUEST[:size])) == []
    assert (parser.pending(TO_SERVER), parser.buffered) == (True, size)
    assert len(fed(parser, (TO_SERVER, REQUEST[size:] + session(CLOSE)))) == 1


@pytest.mark.parametrize(
    "data",
    [
        POSITIVE + POSITIVE,
        KEEPALIVE + POSITIVE,
        chosen(0x311) + POSITIVE,
        b"\x82\0\0\1x",
        b"\x83\0\0\0",
        b"\x83\0\0\2",
        b"\x84\0\0\5",
        b"\x85\0\0\1",
        REQUEST,
    ],
)
def test_a_server_says_once_whether_there_is_a_session(data: bytes) -> None:
    for sizes in ((len(data),), (1,) * len(data)):
        parser = SmbParser()
        fed(parser, (TO_SERVER, REQUEST))
        with pytest.raises(ParseError, match="session"):
            fed(parser, *[(TO_CLIENT, data[sum(sizes[:n]) :][:size]) for n, size in enumerate(sizes)])


@pytest.mark.parametrize("answer", [b"\x83\0\0\1\x82", b"\x84\0\0\6\x0a\0\0\5\0\x8b"])
def test_a_refused_session_is_over(answer: bytes) -> None:
    for parts in ([answer], [bytes((byte,)) for byte in answer]):
        for more in ((TO_SERVER, session(CLOSE)), (TO_CLIENT, KEEPALIVE)):
            parser = SmbParser()
            assert fed(parser, (TO_SERVER, REQUEST), *[(TO_CLIENT, part) for part in parts]) == []
            assert parser.buffered == 0
            assert refused(parser, more)[0] == "session"


def test_lengths_of_more_than_17_bits_are_tcps_alone() -> None:
    big = b"\0\2\0\0" + new(8, b"", answer=True)
    assert fed(SmbParser(), (TO_CLIENT, big)) == []
    assert refused(SmbParser(), (TO_SERVER, REQUEST), (TO_CLIENT, POSITIVE + big))[0] == "message"
    just = b"\0\1\xff\xff" + new(9, b"")
    assert len(fed(SmbParser(), (TO_SERVER, REQUEST + just))) == 1


def test_names() -> None:
    assert told(new(8, b""), new(0x77, b""), old(0x2D, b"\xff" + bytes(29)), old(0xC0)) == [
        {"smb.command": b"read"},
        {"smb.command": b"119"},
        {"smb.command": b"open", "smb.version": b"1"},
        {"smb.command": b"192", "smb.version": b"1"},
    ]
    assert told(b"\xfcSMB" + bytes(60))[0] == {"smb.command": b"compressed"}
    (unit,) = told(negotiate(0x311, 0x999))
    assert unit["smb.dialects"] == (b"3.1.1", b"2457")


def test_shares() -> None:
    assert [unit["smb.share"] for unit in told(tree_connect("\\\\a\\b"), tree_connect(""))] == [b"\\\\a\\b", b""]
    (unit,) = told(old(0x70, b"", b"\4" + PATH + b"\0\0\4\0\0\4?????\0"))
    assert unit["smb.share"] == "\\\\files\\PÜB".encode()
    ascii_path = TREE_CONNECT_1[:10] + b"\0\0" + TREE_CONNECT_1[12:44] + b"\\\\A\\B\0?????\0"
    ascii_path = ascii_path[:41] + (len(ascii_path) - 43).to_bytes(2, "little") + ascii_path[43:]
    (unit,) = told(ascii_path)
    assert unit["smb.share"] == b"\\\\A\\B"
    # Two zeros that are no NUL: the last character's upper half, and half of the NUL.
    (unit,) = told(old(0x75, b"\xff\0\0\0\x08\0\1\0", b"\0" + "ĀĀa".encode("utf-16-le") + b"\0\0?\0"))
    assert unit["smb.share"] == "ĀĀa".encode()


def test_a_chain_hides_nothing() -> None:
    setup = old(0x73, b"\x75\0\x40\0" + bytes(22), b"abc")
    assert len(setup) == 64
    tail = b"\4\xff\0\0\0\x08\0\1\0" + (len(PATH) + 3).to_bytes(2, "little") + b"\0" + PATH + b"\0\0?\0"
    units = told(setup + tail)
    assert [unit["smb.command"] for unit in units] == [b"session_setup", b"tree_connect"]
    # 64 + 1 + 8 + 2 + 1: aligned as well.
    assert units[1]["smb.share"] == "\\\\files\\PÜB".encode()


def test_a_chain_is_bounded() -> None:
    message = old(0x24, b"\x24\0\x27\0", b"")
    for at in range(0x27, 0x27 + 7 * 20, 7):
        message += b"\2\x24\0" + (at + 7).to_bytes(2, "little") + b"\0\0"
    assert refused(SmbParser(), (TO_SERVER, session(message)))[0] == "chain_too_long"


def test_a_compound_is_told_command_by_command() -> None:
    parser = SmbParser()
    connect = tree_connect("\\\\a\\bcde", after=88)
    assert len(connect) == 88
    data = session(CREATE + connect + CLOSE)
    assert [unit["smb.command"] for unit in said(fed(parser, (TO_SERVER, data[:68])))] == [b"create"]
    assert not parser.pending(TO_SERVER)
    assert fed(parser, (TO_SERVER, data[68 : 4 + 120 + 87])) == []
    assert parser.pending(TO_SERVER)
    commands = [unit["smb.command"] for unit in said(fed(parser, (TO_SERVER, data[4 + 120 + 87 :])))]
    assert commands == [b"tree_connect", b"close"]


def test_version_is_what_the_server_chose() -> None:
    for answer, version in (
        (chosen(0x302), b"3.0.2"),
        (chosen(0x2FF), None),
        (session(new(0, bytes(65), answer=True, status=0xC00000BB)), None),
        (session(new(1, b"\x41\0\1\0\x11\3" + bytes(58), answer=True)), None),
    ):
        parser = SmbParser()
        fed(parser, (TO_CLIENT, answer))
        (unit,) = said(fed(parser, (TO_SERVER, session(CLOSE))))
        assert unit.get("smb.version") == version


def test_what_is_written_is_passed() -> None:
    parser = SmbParser()
    assert len(fed(parser, (TO_SERVER, b"\0\xff\xff\xff" + new(9, b"")))) == 1
    assert flooded(parser, bytes(65536), times=100) == ("", 0)
    assert not parser.pending(TO_SERVER)
    assert parser.gap(TO_SERVER, 0xFFFFFF - 64 - 6553600) == []
    assert len(fed(parser, (TO_SERVER, session(CLOSE)))) == 1
    parser = SmbParser()
    fed(parser, (TO_CLIENT, b"\0\xff\xff\xff" + new(8, b"", answer=True)))
    assert flooded(parser, bytes(65536), TO_CLIENT, times=100) == ("", 0)


def test_what_is_kept_is_bounded() -> None:
    parser = SmbParser()
    fed(parser, (TO_SERVER, b"\0\1\x80\0" + negotiate(0x311)))
    _, most = flooded(parser, b"\0" * 1000, times=97)
    assert most <= 98304
