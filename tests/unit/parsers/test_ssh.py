from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError, Unit
from parsers.ssh import SshParser
from tests.contract.conversations.ssh import CLIENT, EXCHANGE, KEXINIT, LISTS, NEWKEYS, SERVER, kexinit, packet
from tests.unit.parsers.streams import fed, flooded, refused, said


def test_what_is_still_to_be_said() -> None:
    parts = ((TO_SERVER, CLIENT), (TO_CLIENT, SERVER), (TO_SERVER, KEXINIT), (TO_CLIENT, KEXINIT))
    units = [event for event in fed(SshParser(), *parts) if isinstance(event, Unit)]
    assert [len(unit.later) for unit in units] == [11, 10, 5, 0]
    assert [unit.direction for unit in units] == [TO_SERVER, TO_CLIENT, TO_SERVER, TO_CLIENT]
    assert units[2].later == {f"ssh.server_{name}" for name in ("kex", "host_key", "ciphers", "macs", "hassh")}


def test_nothing_offered() -> None:
    (_, unit) = said(fed(SshParser(), (TO_SERVER, CLIENT + kexinit(*[b""] * 10))))
    assert unit["ssh.kex"] == ()


@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-1.5-OpenSSH\r\n",
        b"SSH-2.0-\r\n",
        b"SSH-2.0--x\r\n",
        b"SSH-2.0- x\r\n",
        b"SSH-2.0-a\0b\r\n",
        b"SSH-2.0-a\rb\r\n",
        b"SSH-2.0\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\r\nSSH-2.0-a\r\n",
    ],
)
def test_no_banner(banner: bytes) -> None:
    assert refused(SshParser(), (TO_SERVER, banner)) == ("banner", 0)


def test_no_banner_is_told_by_its_first_wrong_byte() -> None:
    parser = SshParser()
    assert fed(parser, (TO_SERVER, b"S")) == []
    assert refused(parser, (TO_SERVER, b"S\n")) == ("banner", 0)


def test_banner_of_255_bytes() -> None:
    assert said(fed(SshParser(), (TO_SERVER, b"SSH-2.0-" + b"a" * 245 + b"\r\n"))) == [{"ssh.client": b"a" * 245}]
    assert refused(SshParser(), (TO_SERVER, b"SSH-2.0-" + b"a" * 246 + b"\r\n")) == ("banner_too_long", 255)


def test_lines_before_the_banner_are_bounded_and_not_kept() -> None:
    assert flooded(SshParser(), b"x" * 70 + b"\r\n", TO_CLIENT) == ("lines_before_banner", 0)
    parser = SshParser()
    fed(parser, (TO_CLIENT, (b"x" * 62 + b"\r\n") * 1024))
    assert len(said(fed(parser, (TO_CLIENT, SERVER)))) == 1
    code, most = flooded(SshParser(), b"x" * 1000, TO_CLIENT)
    assert code == "line_too_long"
    assert most <= 8192


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xff\xff\xff\x04\x14", "packet"),
        (b"\0\0\x88\xbc\x04\x14", "packet"),  # 35004: whole blocks, but more than 35000
        (b"\0\0\0\x04\x04\x14", "packet"),
        (b"\0\0\0\x0d\x04\x14", "packet"),
        (b"\0\0\0\x0c\x03\x14", "packet"),
        (b"\0\0\0\x0c\x0b\x14", "packet"),
        (packet(b"\x14" + bytes(16)), "kexinit"),
        (kexinit(*LISTS[:9]), "kexinit"),
        (kexinit(*LISTS, b""), "kexinit"),
        (kexinit(b"a,,b", *LISTS[1:]), "kexinit"),
        (kexinit(b",a", *LISTS[1:]), "kexinit"),
        (kexinit(b"a b", *LISTS[1:]), "kexinit"),
        (kexinit(b"a\0", *LISTS[1:]), "kexinit"),
        (packet(b"\x14" + bytes(16) + b"\xff\xff\xff\xff" + bytes(50)), "kexinit"),
        (NEWKEYS, "message"),
        (EXCHANGE, "message"),
        (packet(b"\x05\0"), "message"),
    ],
)
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
def test_no_packet(data: bytes, code: str, direction: int) -> None:
    assert refused(SshParser(), (direction, CLIENT + data)) == (code, len(CLIENT))


def test_kexinit_twice() -> None:
    assert refused(SshParser(), (TO_SERVER, CLIENT + KEXINIT + KEXINIT))[0] == "message"


def test_only_what_is_judged_is_pending() -> None:
    parser = SshParser()
    assert not parser.pending(TO_SERVER)
    fed(parser, (TO_SERVER, CLIENT[:9]))
    assert parser.pending(TO_SERVER)
    assert not parser.pending(TO_CLIENT)
    fed(parser, (TO_SERVER, CLIENT[9:] + KEXINIT[:-1]))
    assert parser.pending(TO_SERVER)
    fed(parser, (TO_SERVER, KEXINIT[-1:] + EXCHANGE[:5]))
    assert not parser.pending(TO_SERVER)


def test_behind_newkeys_nothing_is_read_nor_kept() -> None:
    parser = SshParser()
    fed(parser, (TO_SERVER, CLIENT + KEXINIT + EXCHANGE + NEWKEYS))
    assert flooded(parser, b"\xff" * 65536, times=10) == ("", 0)
    assert parser.gap(TO_SERVER, 10**9) == []
    assert fed(parser, (TO_SERVER, KEXINIT)) == []


def test_a_gap_in_what_is_judged() -> None:
    parser = SshParser()
    fed(parser, (TO_SERVER, CLIENT))
    with pytest.raises(ParseError, match="gap at byte 41"):
        parser.gap(TO_SERVER, 1)


def test_a_gap_in_an_exchange() -> None:
    parser = SshParser()
    fed(parser, (TO_SERVER, CLIENT + KEXINIT + EXCHANGE[:10]))
    parser.gap(TO_SERVER, len(EXCHANGE) - 10)
    assert fed(parser, (TO_SERVER, NEWKEYS + b"?")) == []


def test_offset_and_what_came_before() -> None:
    parser = SshParser()
    fed(parser, (TO_SERVER, CLIENT[:20]))
    with pytest.raises(ParseError, match="message") as error:
        parser.feed(TO_SERVER, CLIENT[20:] + NEWKEYS)
    assert error.value.offset == len(CLIENT)
    assert said(error.value.events) == [{"ssh.client": CLIENT[8:-2]}]
