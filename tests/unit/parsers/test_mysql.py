from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Switched, Unit
from parsers.mysql import Limits, MysqlParser

PROTOCOL_41, SSL, SECURE, WITH_DB, PLUGIN, ATTRS = 1 << 9, 1 << 11, 1 << 15, 1 << 3, 1 << 19, 1 << 20
COMPRESS, LENENC, DEPRECATE_EOF, OPTIONAL, ZSTD, ATTRIBUTES = 1 << 5, 1 << 21, 1 << 24, 1 << 25, 1 << 26, 1 << 27
ALL = 0xFFFFFFFF
OK = b"\0\0\0\2\0\0\0"
EOF = b"\xfe\0\0\2\0"
ERROR = b"\xff\x28\x04#42000no"


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes((number & 0xFF,)) + payload


def greeting(offered: int = ALL, version: bytes = b"8.0.36", status: int = 2, extended: int = 0) -> bytes:
    low, high = (offered & 0xFFFF).to_bytes(2, "little"), (offered >> 16 & 0xFFFF).to_bytes(2, "little")
    middle = b"\xff" + status.to_bytes(2, "little") + high + b"\x15" + b"\0" * 6 + extended.to_bytes(4, "little")
    return packet(0, b"\n" + version + b"\0" + b"\7\0\0\0" + b"saltsalt\0" + low + middle + b"s" * 12 + b"\0plugin\0")


def login(
    asked: int = PROTOCOL_41 | SECURE, *, user: bytes = b"app", rest: bytes = b"", charset: int = 255, number: int = 1
) -> bytes:
    flags = (asked & ALL).to_bytes(4, "little")
    head = flags + b"\0\0\0\1" + bytes((charset,)) + b"\0" * 19 + (asked >> 32).to_bytes(4, "little")
    return packet(number, head + user + b"\0\4hash" + rest)


def query(text: bytes, number: int = 0) -> bytes:
    return packet(number, b"\3" + text)


class Talk:
    """A conversation from the greeting on."""

    def __init__(self, asked: int = PROTOCOL_41 | SECURE, offered: int = ALL, **more: Any) -> None:
        self.parser = MysqlParser(more.pop("limits", None))
        status, extended = more.pop("status", 2), more.pop("extended", 0)
        self.server(greeting(offered, status=status, extended=extended))
        self.client(login(asked, **more))
        self.server(packet(2, b"\0\0\0" + status.to_bytes(2, "little") + b"\0\0"))

    def client(self, data: bytes) -> list[Event]:
        return self.parser.feed(TO_SERVER, data)

    def server(self, data: bytes) -> list[Event]:
        return self.parser.feed(TO_CLIENT, data)

    def said(self, data: bytes) -> dict[str, Any]:
        (unit,) = self.client(data)
        return named(unit)

    def asks(self, text: bytes) -> dict[str, Any]:
        return self.said(query(text))

    def refused(self, data: bytes, direction: int = TO_SERVER) -> str:
        with pytest.raises(ParseError) as error:
            self.parser.feed(direction, data)
        return error.value.code


def fed(parser: MysqlParser, parts: Iterable[tuple[int, bytes]], events: list[Event] | None = None) -> None:
    for direction, data in parts:
        fresh = parser.feed(direction, data)
        if events is not None:
            events += fresh


def named(unit: Event) -> dict[str, Any]:
    assert isinstance(unit, Unit)
    return {name.removeprefix("mysql."): value for name, value in unit.fields.items()}


def result(columns: int = 1, rows: Sequence[bytes] = (b"\1x",), *, status: int = 2, eof: bool = True) -> bytes:
    packets = [bytes((columns,)), *[b"\3defcolumn"] * columns, *([EOF] if eof else []), *rows]
    packets.append(b"\xfe\0\0" + status.to_bytes(2, "little") + (b"" if eof else b"\0\0"))
    return b"".join(packet(number, each) for number, each in enumerate(packets, 1))


def test_login() -> None:
    parser = MysqlParser()
    assert parser.feed(TO_CLIENT, greeting()) == []
    asked = PROTOCOL_41 | SECURE | WITH_DB | PLUGIN | ATTRS
    attributes = b"\x0cprogram_name\4shop\4_pid\x011"
    rest = b"db\0caching_sha2_password\0" + bytes((len(attributes),)) + attributes
    (unit,) = parser.feed(TO_SERVER, login(asked, rest=rest))
    assert named(unit) == {
        "command": b"login", "user": b"app", "database": b"db", "plugin": b"caching_sha2_password",
        "program": b"shop", "server": b"8.0.36",
    }  # fmt: skip


def test_login_with_a_long_answer() -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    head = (PROTOCOL_41 | LENENC | WITH_DB).to_bytes(4, "little") + b"\0\0\0\1\xff" + b"\0" * 23
    (unit,) = parser.feed(TO_SERVER, packet(1, head + b"u\0\xfc\x00\x01" + b"h" * 256 + b"d\0"))
    assert (named(unit)["user"], named(unit)["database"]) == (b"u", b"d")


def test_login_of_old() -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    (unit,) = parser.feed(TO_SERVER, packet(1, WITH_DB.to_bytes(2, "little") + b"\0\0\1root\0hash\0db\0"))
    assert (named(unit)["user"], named(unit)["database"]) == (b"root", b"db")


def test_a_server_that_refuses() -> None:
    parser = MysqlParser()
    assert parser.feed(TO_CLIENT, packet(0, b"\xff\x10\x04Too many connections")) == []
    with pytest.raises(ParseError, match="after_the_end"):
        parser.feed(TO_SERVER, login())
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    parser.feed(TO_SERVER, login())
    assert parser.feed(TO_CLIENT, packet(2, ERROR)) == []
    with pytest.raises(ParseError, match="after_the_end"):
        parser.feed(TO_SERVER, query(b"SELECT 1"))


def test_tls() -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    request = packet(1, (PROTOCOL_41 | SSL).to_bytes(4, "little") + b"\0\0\0\1\xff" + b"\0" * 23)
    assert parser.feed(TO_SERVER, request + b"\x16\x03\x01") == [Switched("tls", b"\x16\x03\x01")]
    with pytest.raises(ParseError, match="after_switch"):
        parser.feed(TO_SERVER, b"x")


@pytest.mark.parametrize("bit", [SSL, COMPRESS, ZSTD])
def test_what_the_server_did_not_offer_is_refused(bit: int) -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting(ALL & ~bit))
    with pytest.raises(ParseError, match="capability"):
        parser.feed(TO_SERVER, login(PROTOCOL_41 | SECURE | bit))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (login(number=2), "sequence"),
        (packet(1, b"\0\2"), "length"),
        (packet(1, b"\0\x82\0\0" + b"\0" * 28 + b"user"), "unterminated"),
        (packet(1, login()[4:-1]), "length"),
        (packet(1, b"\0" * 70000), "login_too_long"),
        (login(PROTOCOL_41 | SECURE | SSL), "ssl_request"),
        (login(PROTOCOL_41 | SECURE | ATTRS, rest=b"\4\x0cab"), "length"),
    ],
)
def test_logins_that_lie(data: bytes, code: str) -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    with pytest.raises(ParseError) as error:
        parser.feed(TO_SERVER, data)
    assert error.value.code == code


def test_greetings_that_are_none() -> None:
    for data, code in (
        (packet(0, b"\x09" + b"5\0" * 20), "version"),
        (packet(0, b"\n8.0"), "unterminated"),
        (packet(0, b"\n8.0\0abc"), "length"),
        (packet(0, b"\n" * 2000), "greeting"),
    ):
        with pytest.raises(ParseError) as error:
            MysqlParser().feed(TO_CLIENT, data)
        assert error.value.code == code
    with pytest.raises(ParseError, match="before_greeting at byte 4"):
        MysqlParser().feed(TO_SERVER, login())


def test_an_authentication_exchange_is_no_unit() -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    parser.feed(TO_SERVER, login())
    parts = (
        (TO_CLIENT, packet(2, b"\xfecaching_sha2_password\0salt")),
        (TO_SERVER, packet(3, b"hash")),
        (TO_CLIENT, packet(4, b"\1\4")),
        (TO_SERVER, packet(5, b"secret\0")),
        (TO_CLIENT, packet(6, OK)),
    )
    for direction, data in parts:
        assert parser.feed(direction, data[:4]) == []
        assert not parser.pending(TO_SERVER)
        assert parser.feed(direction, data[4:]) == []
    (unit,) = parser.feed(TO_SERVER, query(b"SELECT 1"))
    assert named(unit)["verb"] == (b"select",)


def test_nothing_follows_a_login_before_it_is_through() -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    with pytest.raises(ParseError, match="early_command") as error:
        parser.feed(TO_SERVER, login() + query(b"DROP TABLE x"))
    assert [named(unit)["command"] for unit in error.value.events] == [b"login"]


def test_exchanges_are_bounded() -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    parser.feed(TO_SERVER, login())
    parts = [(number % 2, packet(number, b"\1?")) for number in range(2, 200)]
    with pytest.raises(ParseError, match="exchange_too_long"):
        fed(parser, [(TO_SERVER if number else TO_CLIENT, data) for number, data in parts])


def test_query() -> None:
    talk = Talk(PROTOCOL_41 | SECURE | WITH_DB, rest=b"shop\0")
    assert talk.asks(b"SELECT * FROM orders JOIN hr.salaries") == {
        "command": b"query", "verb": (b"select",), "tables": (b"shop.orders", b"hr.salaries"), "unsure": 0, "cut": 0,
        "user": b"app", "database": b"shop", "server": b"8.0.36",
    }  # fmt: skip


def test_a_command_waits_for_its_last_byte() -> None:
    talk = Talk()
    data = query(b"SELECT 1")
    for byte in data[:-1]:
        assert talk.client(bytes((byte,))) == []
        assert talk.parser.pending(TO_SERVER)
    assert talk.client(data[-1:])
    assert not talk.parser.pending(TO_SERVER)


def test_what_is_no_unit_is_not_waited_for() -> None:
    talk = Talk()
    for data in (packet(0, b"\x18" + b"\1\0\0\0\0\0" + b"x" * 100), packet(0, b"\x19\1\0\0\0"), packet(0, b"\x1c" * 9)):
        assert talk.client(data[:7]) == []
        assert not talk.parser.pending(TO_SERVER)
        assert talk.client(data[7:]) == []
    assert talk.client(packet(0, b"\x0e")) == []
    assert talk.server(packet(1, EOF) + packet(1, OK)) == []


def test_every_command_has_its_answer() -> None:
    answers = {
        0x02: OK, 0x05: OK, 0x06: ERROR, 0x07: OK, 0x08: EOF, 0x09: b"Uptime: 1", 0x0C: OK, 0x0D: EOF, 0x15: OK,
        0x1B: EOF, 0x1F: OK, 0x1D: ERROR,
    }  # fmt: skip
    talk = Talk()
    for code, answer in answers.items():
        assert talk.said(packet(0, bytes((code,)) + b"name"))["command"]
        assert talk.server(packet(1, answer)) == []
    assert talk.said(packet(0, b"\x04t\0%"))["tables"] == (b"name.t",)
    assert talk.server(packet(1, b"\3def") + packet(2, EOF)) == []
    assert talk.said(packet(0, b"\x0a"))["command"] == b"process_info"
    assert talk.server(result()) == []
    assert talk.refused(packet(1, OK), TO_CLIENT) == "unasked_answer"


def test_commands_that_are_none() -> None:
    assert Talk().refused(packet(0, b"\x99")) == "unknown_command"
    assert Talk().refused(packet(0, b"")) == "empty_command"
    assert Talk().refused(query(b"SELECT 1", number=1)) == "sequence"
    assert Talk().refused(packet(0, b"\2" + b"x" * 2000)) == "name_too_long"
    assert Talk().refused(packet(0, b"\x17\1")) == "length"
    talk = Talk()
    assert talk.client(packet(0, b"\1")) == []
    assert talk.refused(query(b"SELECT 1")) == "after_the_end"


def test_answers_that_are_none() -> None:
    for answer in (b"\xfe\1\0", b"\xfc\0\0", b"\xfd"):
        talk = Talk()
        talk.asks(b"SELECT 1")
        assert talk.refused(packet(1, answer), TO_CLIENT) in {"column_count", "length"}
    talk = Talk()
    talk.asks(b"SELECT 1")
    assert talk.refused(packet(1, b""), TO_CLIENT) == "empty_answer"
    talk = Talk()
    talk.asks(b"SELECT 1")
    assert talk.refused(packet(1, b"\1") + packet(2, b"\3def") + packet(3, b"\1x"), TO_CLIENT) == "column_count"
    talk = Talk()
    assert talk.server(packet(0, ERROR)) == []  # why it closes
    talk.client(packet(0, b"\x16SELECT 1"))
    assert talk.refused(packet(1, b"\1" + b"\0" * 11), TO_CLIENT) == "prepare_answer"


def test_results_are_stepped_over_up_to_their_end() -> None:
    rows = [b"\xfb", b"\xfb\xfb", b"\1x", b"\xfc" + b"\x00\x02" + b"x" * 512]
    for eof, asked in ((True, 0), (False, DEPRECATE_EOF)):
        talk = Talk(PROTOCOL_41 | SECURE | asked)
        talk.asks(b"SELECT 1; SELECT 2")
        more = [b"\xfe" + b"x" * 600] if eof else []
        assert talk.server(result(2, rows + more, status=10, eof=eof) + packet(9, b"\0\0\0\2\0\0\0")) == []
        assert not talk.parser.buffered
        assert talk.asks(b"SELECT 3")["unsure"] == 0
        assert talk.server(packet(1, b"\xff\xff\xff\1stage")) == []  # MariaDB: progress
        assert talk.server(result(eof=eof)) == []
        assert talk.refused(packet(1, OK), TO_CLIENT) == "unasked_answer"


def test_metadata_that_is_left_out() -> None:
    talk = Talk(PROTOCOL_41 | SECURE | OPTIONAL | DEPRECATE_EOF)
    talk.asks(b"SELECT 1")
    talk.server(packet(1, b"\2\0") + packet(2, b"\1x\1y") + packet(3, b"\xfe\0\0\2\0\0\0"))
    assert talk.refused(packet(1, OK), TO_CLIENT) == "unasked_answer"
    talk = Talk((PROTOCOL_41 | SECURE | 1 << 36) & ~1, ALL & ~1, extended=1 << 4)
    talk.asks(b"SELECT 1")
    talk.server(packet(1, b"\1\0") + packet(2, EOF) + packet(3, b"\1x") + packet(4, EOF))
    assert talk.refused(packet(1, OK), TO_CLIENT) == "unasked_answer"


def test_payloads_of_many_packets() -> None:
    talk = Talk()
    text = b"INSERT INTO db.t VALUES ('" + b"x" * (1 << 24) + b"')"
    whole = b"\3" + text
    data = packet(0, whole[:0xFFFFFF]) + packet(1, whole[0xFFFFFF:])
    events: list[Event] = []
    for at in range(0, len(data), 100000):
        events += talk.client(data[at : at + 100000])
        assert talk.parser.buffered < 70000
        assert talk.parser.pending(TO_SERVER) == (at + 100000 < len(data))
    (unit,) = events
    assert (named(unit)["tables"], named(unit)["cut"], named(unit)["unsure"]) == ((b"db.t",), 1, 1)
    assert talk.server(packet(2, OK)) == []
    exact = b"\3" + b"SELECT 1 -- " + b"x" * (0xFFFFFF - 13)
    assert len(talk.client(packet(0, exact) + packet(1, b""))) == 1
    assert talk.refused(packet(0, exact) + packet(2, b"")) == "sequence"
    assert Talk(limits=Limits(command=1000)).refused(query(b"x" * 1000)) == "too_long"


def test_prepared_statements() -> None:
    talk = Talk()
    assert talk.said(packet(0, b"\x16DELETE FROM db.t WHERE a = ?"))["command"] == b"stmt_prepare"
    assert talk.server(packet(1, b"\0\7\0\0\0\0\0\1\0\0\0\0") + packet(2, b"\3def?") + packet(3, EOF)) == []
    run = packet(0, b"\x17\7\0\0\0\0\1\0\0\0" + b"\0\1\3\0\5\0\0\0")
    unit = talk.said(run)
    assert (unit["command"], unit["verb"], unit["tables"]) == (b"stmt_execute", (b"delete",), (b"db.t",))
    assert unit["unsure"] == 0
    talk.server(packet(1, OK))
    talk.client(packet(0, b"\x19\7\0\0\0"))
    unit = talk.said(run)
    assert unit["unsure"] == 1
    assert "verb" not in unit


def test_a_statement_with_results_and_a_cursor() -> None:
    talk = Talk()
    talk.said(packet(0, b"\x16SELECT a FROM db.t WHERE a = ?"))
    definitions = packet(2, b"\3def?") + packet(3, EOF) + packet(4, b"\3defa") + packet(5, EOF)
    talk.server(packet(1, b"\0\1\0\0\0\1\0\1\0\0\0\0") + definitions)
    talk.said(packet(0, b"\x17\1\0\0\0\1\1\0\0\0"))
    talk.server(packet(1, b"\1") + packet(2, b"\3defa") + packet(3, b"\xfe\0\0\x42\0"))
    assert talk.client(packet(0, b"\x1c\1\0\0\0\2\0\0\0")) == []
    talk.server(packet(1, b"\0\0\1x") + packet(2, b"\xfe\0\0\xc2\0"))
    assert talk.refused(packet(1, OK), TO_CLIENT) == "unasked_answer"


def test_the_statement_prepared_last() -> None:
    talk = Talk()
    events = talk.client(packet(0, b"\x16UPDATE db.t SET a = ?") + packet(0, b"\x17\xff\xff\xff\xff\0\1\0\0\0"))
    assert [named(unit)["tables"] for unit in events] == [(b"db.t",), (b"db.t",)]
    talk.server(packet(1, ERROR))
    assert talk.said(packet(0, b"\x17\xff\xff\xff\xff\0\1\0\0\0"))["unsure"] == 1


def test_statements_of_before_a_reset_are_forgotten() -> None:
    talk = Talk()
    talk.client(packet(0, b"\x16SELECT 1") + packet(0, b"\x1f"))
    talk.server(packet(1, b"\0\1\0\0\0\0\0\0\0\0\0\0"))
    assert talk.said(packet(0, b"\x17\1\0\0\0\0\1\0\0\0"))["unsure"] == 1


def test_statements_are_kept_up_to_a_size() -> None:
    talk = Talk()
    for number in range(1000):
        talk.client(packet(0, b"\x16SELECT 1 FROM " + b"t%d" % number * 100))
        talk.server(packet(1, b"\0" + number.to_bytes(4, "little") + b"\0" * 7))
        assert talk.parser.buffered <= 160 * 1024
    assert talk.said(packet(0, b"\x17\0\0\0\0\0\1\0\0\0"))["unsure"] == 1
    assert talk.said(packet(0, b"\x17\xe7\3\0\0\0\1\0\0\0"))["unsure"] == 0


def test_commands_without_answers_are_bounded() -> None:
    talk = Talk()
    assert talk.refused(packet(0, b"\x0e") * 2000) == "unanswered"


def test_databases() -> None:
    talk = Talk()
    assert talk.said(packet(0, b"\2hr"))["database"] == b"hr"
    unit = talk.asks(b"SELECT * FROM t")  # the server has not agreed yet
    assert (unit["unsure"], unit["tables"]) == (1, (b"t",))
    assert "database" not in unit
    talk.server(packet(1, OK) + result())
    assert talk.asks(b"SELECT * FROM t")["tables"] == (b"hr.t",)
    talk.server(result())
    assert talk.asks(b"USE shop; SELECT * FROM t")["tables"] == (b"shop.t",)
    talk.server(packet(1, b"\0\0\0\x0a\0\0\0") + result())
    assert talk.asks(b"SELECT 1 FROM t") | {"unsure": 0} == talk.asks(b"SELECT 1 FROM t")
    talk.server(result() + result())
    talk.said(packet(0, b"\2nosuch"))
    talk.server(packet(1, ERROR))
    unit = talk.asks(b"SELECT 1 FROM t")
    assert (unit["database"], unit["tables"], unit["unsure"]) == (b"shop", (b"shop.t",), 0)
    talk.server(result())
    talk.asks(b"USE a; SELEC; USE b")
    talk.server(packet(1, b"\0\0\0\x0a\0\0\0") + packet(2, ERROR))
    unit = talk.asks(b"SELECT 1 FROM t")
    assert "database" not in unit
    assert (unit["tables"], unit["unsure"]) == ((b"t",), 1)


def test_text_that_nobody_has_seen() -> None:
    talk = Talk(PROTOCOL_41 | SECURE | WITH_DB, rest=b"shop\0")
    assert talk.asks(b"EXECUTE IMMEDIATE @x")["unsure"] == 1
    talk.server(packet(1, OK))
    assert talk.asks(b"SELECT 1 FROM a.b")["unsure"] == 1
    talk.server(result())
    talk.said(packet(0, b"\x11root\0\4hashhr\0"))
    talk.server(packet(1, OK))
    unit = talk.asks(b"SELECT 1 FROM t")
    assert (unit["unsure"], unit["user"], unit["tables"]) == (0, b"root", (b"hr.t",))


def test_another_user() -> None:
    talk = Talk(PROTOCOL_41 | SECURE | PLUGIN)
    unit = talk.said(packet(0, b"\x11root\0\4hashhr\0\xff\0mysql_native_password\0"))
    assert (unit["command"], unit["user"], unit["plugin"]) == (b"change_user", b"root", b"mysql_native_password")
    talk.server(packet(1, b"\xfemysql_native_password\0salt"))
    assert talk.client(packet(2, b"hash")) == []
    talk.server(packet(3, OK))
    assert talk.asks(b"SELECT 1")["user"] == b"root"
    talk.server(result())
    talk.said(packet(0, b"\x11nobody\0\0x\0"))
    talk.server(packet(1, ERROR))
    unit = talk.asks(b"SELECT 1")
    assert (unit["user"], unit["database"]) == (b"root", b"hr")
    talk.server(result())
    talk.asks(b"USE shop")
    talk.said(packet(0, b"\x11nobody\0\0x\0"))
    talk.server(packet(1, OK) + packet(1, ERROR))
    unit = talk.asks(b"SELECT 1")
    assert unit["user"] == b"root"
    assert "database" not in unit
    talk.server(result())
    assert talk.refused(packet(0, b"\x11nobody\0\0x\0") + query(b"SELECT 1")) == "early_command"


def test_quotes_by_the_mode_of_the_session() -> None:
    text = b"SELECT 'a\\' FROM t -- '"
    talk = Talk(PROTOCOL_41 | SECURE | WITH_DB, rest=b"d\0")
    assert talk.asks(text)["tables"] == ()
    talk.server(result())
    talk.asks(b"SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
    assert talk.asks(text)["unsure"] == 1
    talk.server(packet(1, b"\0\0\0\x02\x02\0\0") + result(status=0x202))
    unit = talk.asks(text)
    assert (unit["tables"], unit["unsure"]) == ((b"d.t",), 0)
    assert Talk(PROTOCOL_41 | SECURE | WITH_DB, rest=b"d\0", status=0x202).asks(text)["tables"] == (b"d.t",)


def test_encodings() -> None:
    text = b"SELECT 1 FROM\xa0t"
    assert Talk(charset=255).asks(text)["unsure"] == 0
    assert Talk(charset=8).asks(text)["unsure"] == 1
    talk = Talk(charset=8)
    talk.asks(b"SET NAMES utf8mb4")
    talk.server(packet(1, OK))
    assert talk.asks(text)["unsure"] == 0


def test_a_file_that_the_server_asks_for() -> None:
    talk = Talk()
    talk.asks(b"LOAD DATA LOCAL INFILE '/tmp/x' INTO TABLE d.t")
    request = packet(1, b"\xfb/tmp/x")
    assert talk.server(request[:-1]) == []
    assert talk.parser.pending(TO_CLIENT)
    (unit,) = talk.server(request[-1:])
    assert isinstance(unit, Unit)
    assert unit.direction == TO_CLIENT
    assert (named(unit)["command"], named(unit)["infile"]) == (b"infile", b"/tmp/x")
    # Numbers begin again behind 255: data with number 0 are no command.
    for number in range(2, 2 + 300):
        assert talk.client(packet(number, b"\3DROP TABLE x")) == []
        assert not talk.parser.pending(TO_SERVER)
    assert talk.client(packet(302, b"")) == []
    talk.server(packet(303, OK))
    assert talk.asks(b"SELECT 1")["command"] == b"query"


def test_files_are_sent_where_asked_only() -> None:
    talk = Talk()
    talk.asks(b"SELECT NULL")
    talk.server(packet(1, b"\1") + packet(2, b"\3def") + packet(3, EOF) + packet(4, b"\xfb") + packet(5, EOF))
    assert talk.refused(packet(6, b"data")) == "sequence"
    talk = Talk()
    talk.asks(b"SELECT 1")
    talk.server(packet(1, b"\xfb/etc/passwd"))
    assert talk.refused(query(b"DROP TABLE x")) == "sequence"
    talk = Talk()
    talk.asks(b"SELECT 1")
    assert talk.refused(packet(1, b"\xfb" + b"x" * 5000), TO_CLIENT) == "path_too_long"


@pytest.mark.parametrize("kind", [3, 6, 7, 8, 254])
def test_attributes_of_a_query(kind: int) -> None:
    value = {3: b"\1\0\0\0", 6: b"", 7: b"\4\xe8\7\1\1", 8: b"\1" * 8, 254: b"\3abc"}[kind]
    talk = Talk(PROTOCOL_41 | SECURE | ATTRIBUTES)
    named_ = bytes((kind, 0)) + b"\1n"
    assert talk.asks(b"\1\1\0\1" + named_ + value + b"SELECT 1 FROM d.t")["tables"] == (b"d.t",)
    assert talk.asks(b"\2\1\1\1" + named_ + named_ + value + b"DROP TABLE d.t")["verb"] == (b"drop",)
    assert talk.asks(b"\0\1SELECT 1")["verb"] == (b"select",)


def test_attributes_that_lie() -> None:
    for attributes in (b"\1\2", b"\1\1\0\0", b"\xfe" + b"\xff" * 8 + b"\1", b"\1\1\0\1\xfe\0\1n\x7fx"):
        assert Talk(PROTOCOL_41 | SECURE | ATTRIBUTES).refused(query(attributes)) in {"attributes", "length"}


def test_attributes_that_the_server_did_not_offer() -> None:
    talk = Talk(PROTOCOL_41 | SECURE | ATTRIBUTES, offered=ALL & ~ATTRIBUTES)
    assert talk.asks(b"SELECT 1 FROM t")["tables"] == (b"t",)
    talk.server(result())
    # A server that takes them after all would not run what a comment hides here.
    assert talk.refused(query(b"#\1\nSELECT 1 /*")) == "attributes"
    assert Talk(PROTOCOL_41 | SECURE | ATTRIBUTES, offered=ALL & ~ATTRIBUTES).refused(query(b"\0\1X")) == "attributes"


def squeezed(plain: bytes, number: int = 0, *, says: int | None = None) -> bytes:
    body = zlib.compress(plain)
    size = len(plain) if says is None else says
    return len(body).to_bytes(3, "little") + bytes((number,)) + size.to_bytes(3, "little") + body


def test_compression() -> None:
    talk = Talk(PROTOCOL_41 | SECURE | COMPRESS)
    text = query(b"SELECT 1 FROM d.t")
    assert talk.said(squeezed(text))["tables"] == (b"d.t",)
    assert talk.server(squeezed(result(1, [b"\1x"] * 5000), 1)) == []
    plain = len(text).to_bytes(3, "little") + b"\0\0\0\0" + text
    for at in range(len(plain) - 1):
        assert talk.client(plain[at : at + 1]) == []
        assert talk.parser.pending(TO_SERVER)
    assert talk.client(plain[-1:])
    assert talk.client(squeezed(text[:9]) + squeezed(text[9:], 1))


def test_the_servers_ok_and_what_it_compresses_may_come_together() -> None:
    parser = MysqlParser()
    parser.feed(TO_CLIENT, greeting())
    parser.feed(TO_SERVER, login(PROTOCOL_41 | SECURE | COMPRESS))
    assert parser.feed(TO_CLIENT, packet(2, OK) + squeezed(packet(0, ERROR))) == []


def test_compression_that_lies() -> None:
    text = query(b"SELECT 1")
    for data, code in (
        (squeezed(text, says=5), "compressed_size"),
        (squeezed(text, says=500), "compressed_size"),
        (squeezed(query(b" " * 1000000), says=100), "compressed_size"),
        (b"\5\0\0\0\5\0\0hello", "compressed"),
        (b"\0\0\0\0\5\0\0", "compressed_size"),
        (b"\x14\0\0\0\x0d\0\0" + zlib.compress(text) + b"xxxxx", "compressed_size"),
    ):
        assert Talk(PROTOCOL_41 | SECURE | COMPRESS).refused(data) == code
    assert Talk(PROTOCOL_41 | SECURE | ZSTD).refused(b"\5") == "compressed"


def damaged() -> bytes:
    data = bytearray(squeezed(query(b"SELECT 1") + query(bytes(range(32, 127)) * 20)))
    data[-8] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [damaged(), squeezed(query(b"SELECT 1") + query(b"SELECT 2"), says=len(query(b"SELECT 1")))],
    ids=["damaged", "longer than it says"],
)
def test_what_comes_before_damage_is_told_however_it_is_cut(data: bytes) -> None:
    seen = []
    for step in (1, len(data)):
        talk = Talk(PROTOCOL_41 | SECURE | COMPRESS)
        events: list[Event] = []
        with pytest.raises(ParseError) as error:
            fed(talk.parser, [(TO_SERVER, data[at : at + step]) for at in range(0, len(data), step)], events)
        seen.append((error.value.code, events + list(error.value.events)))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) >= 1


def test_what_inflates_takes_no_memory() -> None:
    talk = Talk(PROTOCOL_41 | SECURE | COMPRESS)
    bomb = packet(0, b"\x18" + b"\0" * (0xFFFFFF - 6))
    assert talk.client(squeezed(bomb)) == []
    assert talk.parser.buffered < 1000


def test_replication() -> None:
    talk = Talk()
    assert talk.said(packet(0, b"\x15" + b"\0" * 17))["command"] == b"register_slave"
    talk.server(packet(1, OK))
    assert talk.said(packet(0, b"\x12" + b"\0" * 10))["command"] == b"binlog_dump"
    talk.server(packet(1, b"\0" + b"event" * 1000) + packet(2, b"\0\xef\1event"))
    assert talk.client(packet(0, b"\xef" + b"\0" * 20)) == []
    assert Talk().refused(packet(0, b"\xef")) == "unknown_command"


def test_gaps() -> None:
    talk = Talk()
    with pytest.raises(ParseError, match="gap"):
        talk.parser.gap(TO_SERVER, 1)
    talk.client(query(b"x" * 200000)[:100000])
    assert talk.parser.gap(TO_SERVER, 1000) == []
    assert len(talk.client(b"x" * 99005)) == 1
    talk.client(query(b"SELECT 1")[:6])
    with pytest.raises(ParseError, match="gap"):
        talk.parser.gap(TO_SERVER, 2)
