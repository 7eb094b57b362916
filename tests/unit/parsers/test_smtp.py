from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError, Switched
from parsers.smtp import Limits, SmtpParser
from tests.unit.parsers.streams import fed, flooded, refused, said

OK = b"250 OK\r\n"
DATA = ((TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, b"DATA\r\n"), (TO_CLIENT, b"354 go\r\n"))
TLS = b"\x16\x03\x01\0\5hello"


def command(line: bytes) -> dict[str, object]:
    (unit,) = said(fed(SmtpParser(), (TO_SERVER, line + b"\r\n")))
    return {name.removeprefix("smtp."): value for name, value in unit.items()}


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        (b"MAIL FROM:<a@b.example>", b"a@b.example"),
        (b"mail from:<a@b.example> SIZE=100 BODY=8BITMIME AUTH=<> SMTPUTF8", b"a@b.example"),
        (b"MAIL FROM: <a@b.example>", b"a@b.example"),
        (b"MAIL FROM:a@b.example SIZE=1", b"a@b.example"),
        (b"MAIL FROM:<>", b""),
        (b"MAIL FROM:<@x.example,@y.example:a@b.example>", b"a@b.example"),
        (b'MAIL FROM:<"a> b\\""@b.example>', b'"a> b\\""@b.example'),
        (b"MAIL FROM:<a@[IPv6:2001:db8::1]>", b"a@[IPv6:2001:db8::1]"),
        ("MAIL FROM:<jürgen@b.example> SMTPUTF8".encode(), "jürgen@b.example".encode()),
    ],
)
def test_senders(line: bytes, sender: bytes) -> None:
    assert command(line) == {"command": line[:4], "sender": sender}


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b" ",
        b" TO:<a@b>",
        b" FROM:",
        b" FROM:<a@b",
        b" FROM:a@b>",
        b" FROM:<a@b> <c@d>",
        b" FROM:<a@b>,<c@d>",
        b" FROM:<a@b> SIZE=a=b",
        b" FROM:<a b@c>",
        b' FROM:<"a@b>',
        b" FROM:<a\t@b>",
        b" FROM <a@b>",
        b' FROM:<"' + b"\\" * 5000 + b">",
    ],
)
def test_no_path(argument: bytes) -> None:
    assert refused(SmtpParser(), (TO_SERVER, b"MAIL" + argument + b"\r\n")) == ("path", 0)


def test_commands() -> None:
    assert command(b"EHLO [192.0.2.1] ") == {"command": b"EHLO", "helo": b"[192.0.2.1]"}
    assert command(b"HELO") == {"command": b"HELO", "helo": b""}
    assert command(b"RCPT TO:<Postmaster>") == {"command": b"RCPT", "recipient": b"Postmaster"}
    assert command(b"VRFY a") == {"command": b"VRFY"}
    assert command(b"XCLIENT ADDR=192.0.2.1") == {"command": b"XCLIENT"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"QUIT\n", "bare_lf"),
        (b"\n", "bare_lf"),
        (b"\r\n", "command"),
        (b"Host: a\r\n", "command"),
        (b"NOOP\rQUIT\r\n", "control"),
        (b"NOOP \0\r\n", "control"),
        (b" QUIT\r\n", "command"),
        (b"\x16\x03\x01\r\n", "command"),
        (b"LHLO a\r\n", "lhlo"),
        (b"turn\r\n", "turn"),
        (b"ATRN a\r\n", "atrn"),
        (b"BDAT\r\n", "chunk"),
        (b"BDAT -1\r\n", "chunk"),
        (b"BDAT 0x10\r\n", "chunk"),
        (b"BDAT 4294967297\r\n", "chunk"),
        (b"BDAT 99999999999999999999999999\r\n", "chunk"),
        (b"BDAT 1 FIRST\r\n", "chunk"),
    ],
)
def test_refused(line: bytes, code: str) -> None:
    assert refused(SmtpParser(), (TO_SERVER, b"NOOP\r\n" + line))[0] == code


@pytest.mark.parametrize(
    "reply", [b"hi\r\n", b"250\n", b"150 x\r\n", b"20\r\n", b"250-a\r\n251 b\r\n", b"+OK\r\n", b"2500 x\r\n"]
)
def test_no_reply(reply: bytes) -> None:
    code, _ = refused(SmtpParser(), (TO_SERVER, b"NOOP\r\nNOOP\r\n"), (TO_CLIENT, reply))
    assert code in {"reply", "bare_lf"}


def test_replies_are_counted() -> None:
    assert fed(SmtpParser(), (TO_CLIENT, b"220-hi\r\n220\r\n421 bye\r\n")) == []
    assert refused(SmtpParser(), (TO_CLIENT, b"220 hi\r\n"), (TO_CLIENT, OK)) == ("unasked_reply", 8)
    parser = SmtpParser(Limits(unanswered=10))
    fed(parser, (TO_SERVER, b"NOOP\r\n" * 9))
    assert refused(parser, (TO_SERVER, b"NOOP\r\n"))[0] == "unanswered"


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 1000])
def test_a_message_is_passed_without_being_kept(cut: int) -> None:
    parser = SmtpParser()
    fed(parser, *DATA)
    text = b"Subject: a\r\n\r\n..\r\n" + b"y" * 5000 + b"\r\n\r\n.x\r\n.\r\n"
    for at in range(0, len(text), cut):
        assert fed(parser, (TO_SERVER, text[at : at + cut])) == []
        assert parser.buffered == 0
        assert not parser.pending(TO_SERVER)
    found = fed(parser, (TO_SERVER, b"QUIT\r\n"))
    assert said(found) == [{"smtp.command": b"QUIT"}]


@pytest.mark.parametrize(
    ("text", "code", "at"),
    [
        (b"a\n.\n", "bare_lf", 1),
        (b"a\r\n.\nMAIL FROM:<x@y>\r\n.\r\n", "bare_lf", 4),
        (b"a\n.\r\nMAIL FROM:<x@y>\r\n", "bare_lf", 1),
        (b"a\r.\r\nMAIL FROM:<x@y>\r\n", "bare_cr", 1),
        (b"\n", "bare_lf", 0),
        (b"a\r\n.\r.\r\n", "bare_cr", 4),
    ],
)
def test_smuggling(text: bytes, code: str, at: int) -> None:
    assert refused(SmtpParser(), *DATA, (TO_SERVER, text)) == (code, 6 + at)
    parser = SmtpParser()
    fed(parser, *DATA)
    with pytest.raises(ParseError, match=code):
        fed(parser, *[(TO_SERVER, bytes((byte,))) for byte in text])


def test_what_follows_data_waits_for_the_answer() -> None:
    behind = b"RCPT TO:<x@y>\r\n.\r\nQUIT\r\n"
    for answer, commands in ((b"354 go\r\n", [b"QUIT"]), (b"554 no\r\n", [b"RCPT"])):
        parser = SmtpParser()
        fed(parser, (TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, b"DATA\r\n"))
        assert not parser.blocked
        assert fed(parser, (TO_SERVER, behind)) == []
        assert parser.blocked
        assert not parser.pending(TO_SERVER)
        if commands == [b"RCPT"]:
            assert refused(parser, (TO_CLIENT, answer))[0] == "command"
        else:
            assert [unit["smtp.command"] for unit in said(fed(parser, (TO_CLIENT, answer)))] == commands
            assert not parser.blocked


def test_what_waits_is_bounded() -> None:
    parser = SmtpParser()
    fed(parser, (TO_SERVER, b"DATA\r\n"))
    assert flooded(parser, b"x" * 1000) == ("unanswered", 65000)
    assert refused(SmtpParser(), (TO_SERVER, b"DATA\r\n" + b"x" * 65537))[0] == "unanswered"


def test_an_offset_is_of_the_direction_that_offends() -> None:
    answers = b"220 hi\r\n354 go\r\n250 OK\r\nbad\r\n"
    parts = (TO_SERVER, b"DATA\r\n"), (TO_SERVER, b"x\r\n.\r\nNOOP\r\n")
    assert refused(SmtpParser(), *parts, (TO_CLIENT, answers)) == ("reply", 24)
    parts = (TO_SERVER, b"DATA\r\n"), (TO_SERVER, b"x\r\n.\r\n\r\n")
    assert refused(SmtpParser(), *parts, (TO_CLIENT, answers)) == ("command", 12)


def test_data_needs_its_own_answer() -> None:
    assert refused(SmtpParser(), *DATA[:2], (TO_CLIENT, OK))[0] == "reply"
    assert refused(SmtpParser(), *DATA[:2], (TO_CLIENT, b"334 go\r\n"))[0] == "reply"
    assert refused(SmtpParser(), (TO_SERVER, b"NOOP\r\n"), (TO_CLIENT, b"220 hi\r\n354 go\r\n"))[0] == "reply"


def test_secrets_are_no_commands() -> None:
    parser = SmtpParser()
    fed(parser, (TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, b"AUTH PLAIN\r\n"), (TO_CLIENT, b"334 \r\n"))
    assert fed(parser, (TO_SERVER, b"QUIT")) == []
    assert not parser.pending(TO_SERVER)
    assert fed(parser, (TO_SERVER, b"\r\n"), (TO_CLIENT, b"334 \r\n"), (TO_SERVER, b"*\r\n")) == []
    assert said(fed(parser, (TO_CLIENT, b"501 no\r\n"), (TO_SERVER, b"QUIT\r\n"))) == [{"smtp.command": b"QUIT"}]


def test_starttls() -> None:
    parser = SmtpParser()
    fed(parser, (TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, b"STARTTLS\r\n"))
    fed(parser, (TO_SERVER, TLS[:3]), (TO_SERVER, TLS[3:]))
    assert parser.blocked
    assert fed(parser, (TO_CLIENT, b"220 go\r\n\x15")) == [Switched("tls", TLS, b"\x15")]
    assert not parser.blocked
    assert parser.buffered == 0
    assert refused(parser, (TO_SERVER, b"\x16"))[0] == "after_switch"


def test_starttls_refused() -> None:
    parser = SmtpParser()
    fed(parser, (TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, b"STARTTLS\r\n"), (TO_CLIENT, b"454 no\r\n"))
    assert said(fed(parser, (TO_SERVER, b"QUIT\r\n"))) == [{"smtp.command": b"QUIT"}]


def test_commands_behind_starttls() -> None:
    assert refused(SmtpParser(), (TO_SERVER, b"STARTTLS\r\nRSET\r\n")) == ("behind_starttls", 10)


def test_a_second_mail_needs_the_end_of_the_first() -> None:
    mail = b"MAIL FROM:<a@b>\r\n"
    assert refused(SmtpParser(), (TO_SERVER, mail + mail)) == ("nested_mail", len(mail))
    for end, answer in (
        (b"", b"250 OK\r\n"),
        (b"EHLO a\r\n", b"250 OK\r\n501 no\r\n"),
        (b"BDAT 0 LAST\r\n", b"250 OK\r\n503 no\r\n"),
        (b"RSET x\r\n", b"250 OK\r\n501 no\r\n"),
    ):
        parts = (TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, mail + end), (TO_CLIENT, answer), (TO_SERVER, mail)
        assert refused(SmtpParser(), *parts)[0] == "nested_mail", end
    for end, answer in (
        (b"", b"550 no\r\n"),
        (b"RSET\r\n", b""),
        (b"HELO a\r\n", OK * 2),
        (b"BDAT 0 LAST\r\n", OK * 2),
    ):
        parser = SmtpParser()
        fed(parser, (TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, mail + end), (TO_CLIENT, answer))
        (unit,) = said(fed(parser, (TO_SERVER, b"RCPT TO:<c@d>\r\n")))
        assert "smtp.sender" not in unit
        assert len(said(fed(parser, (TO_SERVER, mail)))) == 1


def test_a_message_ends_its_transaction() -> None:
    parser = SmtpParser()
    mail = b"MAIL FROM:<a@b>\r\n"
    fed(parser, (TO_CLIENT, b"220 hi\r\n"), (TO_SERVER, mail + b"DATA\r\n"), (TO_CLIENT, OK + b"354 go\r\n"))
    assert [unit["smtp.command"] for unit in said(fed(parser, (TO_SERVER, b"x\r\n.\r\n" + mail)))] == [b"MAIL"]


def test_lines_are_bounded() -> None:
    line = b"NOOP " + b"x" * 12281 + b"\r\n"
    assert len(said(fed(SmtpParser(), (TO_SERVER, line)))) == 1
    assert refused(SmtpParser(), (TO_SERVER, b"x" + line))[0] == "line_too_long"
    code, most = flooded(SmtpParser(), b"x" * 100)
    assert code == "line_too_long"
    assert most <= 12288
    assert flooded(SmtpParser(), b"2" * 100, TO_CLIENT)[0] == "line_too_long"


def test_gap() -> None:
    parser = SmtpParser()
    fed(parser, (TO_SERVER, b"BDAT 1000\r\n"))
    assert parser.gap(TO_SERVER, 1000) == []
    with pytest.raises(ParseError, match="gap at byte 1011"):
        parser.gap(TO_SERVER, 1)
    parser = SmtpParser()
    fed(parser, *DATA)
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_SERVER, 1)
