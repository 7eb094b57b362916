from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Switched
from parsers.ftp import FtpParser, Limits
from tests.contract.conversations.ftp import GREETING
from tests.unit.parsers.streams import fed, flooded, refused, said

TLS = b"\x16\x03\x01\0\5hello"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"QUIT\n", "bare_lf"),
        (b"\n", "bare_lf"),
        (b"\r\n", "command"),
        (b" QUIT\r\n", "command"),
        (b"STOR a\rDELE b\r\n", "control"),
        (b"STOR a\0\r\n", "control"),
        (b"STOR\ta\r\n", "command"),
        (b"QU1T\r\n", "command"),
        (b"Content-Length: 3\r\n", "command"),
        (b"ENC abc=\r\n", "protected"),
        (b"mic abc=\r\n", "protected"),
        (b"\xff\xfbABOR\r\n", "command"),
    ],
)
def test_refused(line: bytes, code: str) -> None:
    before = b"NOOP\r\n"
    assert refused(FtpParser(), (TO_SERVER, before + line))[0] == code


@pytest.mark.parametrize("reply", [b"hi\r\n", b"22\r\n", b"700 x\r\n", b"2200\r\n", b"220x\r\n", b"220 x\n"])
def test_no_reply(reply: bytes) -> None:
    assert refused(FtpParser(), (TO_CLIENT, reply))[0] in {"reply", "bare_lf"}


def test_secrets_are_not_kept() -> None:
    parser = FtpParser()
    units = said(fed(parser, (TO_SERVER, b"pass secret\r\nACCT secret\r\nADAT secret\r\nCWD open\r\n")))
    assert [unit.get("ftp.argument") for unit in units] == [None, None, None, b"open"]
    assert parser.buffered == 0


def test_user_is_the_one_of_the_login() -> None:
    parser = FtpParser()
    steps = (
        (b"CWD a", b"530 no", None),
        (b"USER a", b"331 go on", b"a"),
        (b"PASS x", b"530 no", b"a"),
        (b"USER b", b"331 go on", b"b"),
        (b"PASS x", b"230 hi", b"b"),
        (b"USER b", b"230 hi", b"b"),
        (b"CWD a", b"250 ok", b"b"),
        (b"REIN", b"220 bye", b"b"),
        (b"CWD a", b"530 no", None),
        (b"USER", b"501 no", b""),
    )
    fed(parser, (TO_CLIENT, GREETING))
    for command, reply, user in steps:
        (unit,) = said(fed(parser, (TO_SERVER, command + b"\r\n"), (TO_CLIENT, reply + b"\r\n")))
        assert unit.get("ftp.user") == user, command


@pytest.mark.parametrize(
    "replies", [b"", b"331 go on\r\n", b"331 go on\r\n230 hi\r\n", b"331 go on\r\n230 hi\r\n502 no\r\n"]
)
def test_a_second_user(replies: bytes) -> None:
    parts = (TO_CLIENT, GREETING), (TO_SERVER, b"USER a\r\nPASS x\r\nREIN\r\n"), (TO_CLIENT, replies)
    assert refused(FtpParser(), *parts, (TO_SERVER, b"USER b\r\n"))[0] == "second_user"


def test_a_command_is_pending_up_to_its_end() -> None:
    parser = FtpParser()
    fed(parser, (TO_SERVER, b"CWD a\r"))
    assert parser.pending(TO_SERVER)
    fed(parser, (TO_SERVER, b"\n"), (TO_CLIENT, b"22"))
    assert not parser.pending(TO_SERVER)
    assert not parser.pending(TO_CLIENT)


def test_replies_of_many_lines() -> None:
    parser = FtpParser()
    fed(parser, (TO_SERVER, b"AUTH TLS\r\n"))
    fed(parser, (TO_CLIENT, b"220-a\r\n234 b\r\n220-c\r\n2200\r\n 220 d\r\n\r\n220 e\r\n"))
    assert fed(parser, (TO_CLIENT, b"234-x\r\n500 y\r\n234\r\nz")) == [Switched("tls", b"", b"z")]


def test_what_answers_what() -> None:
    parser = FtpParser()
    fed(parser, (TO_CLIENT, GREETING + b"421 bye\r\n226 late\r\n"))
    assert refused(parser, (TO_CLIENT, b"200 ok\r\n"))[0] == "unasked_reply"
    parser = FtpParser(Limits(unanswered=10))
    fed(parser, (TO_SERVER, b"NOOP\r\n" * 9))
    assert refused(parser, (TO_SERVER, b"NOOP\r\n")) == ("unanswered", 54)


def test_tls() -> None:
    parser = FtpParser()
    # An answer that another one follows, and one to the command before, are not AUTH's.
    fed(parser, (TO_CLIENT, GREETING), (TO_SERVER, b"NOOP\r\nAUTH TLS\r\n"), (TO_SERVER, TLS))
    assert parser.blocked
    assert fed(parser, (TO_CLIENT, b"150 wait\r\n234 no\r\n")) == []
    assert fed(parser, (TO_CLIENT, b"234 go\r\n")) == [Switched("tls", TLS)]


def test_plain_commands_behind_auth() -> None:
    assert refused(FtpParser(), (TO_SERVER, b"AUTH TLS\r\nUSER a\r\n")) == ("behind_auth", 10)
    parser = FtpParser()
    fed(parser, (TO_CLIENT, GREETING), (TO_SERVER, b"AUTH TLS\r\n"), (TO_SERVER, TLS))
    assert fed(parser, (TO_CLIENT, b"500 no\r\n")) == []
    assert refused(parser, (TO_SERVER, b"\r\n"))[0] == "control"


def test_lines_are_bounded() -> None:
    assert len(said(fed(FtpParser(), (TO_SERVER, b"CWD " + b"x" * 4096 + b"\r\n")))) == 1
    code, most = flooded(FtpParser(), b"x" * 100)
    assert code == "line_too_long"
    assert most <= 4224
    assert flooded(FtpParser(), b"2" * 100, TO_CLIENT)[0] == "line_too_long"
    assert flooded(FtpParser(), b"220-x\r\n", TO_CLIENT) == ("", 0)
    parser = FtpParser()
    fed(parser, (TO_SERVER, b"AUTH TLS\r\n\x16"))
    assert flooded(parser, b"x" * 1000)[0] == "unanswered"
