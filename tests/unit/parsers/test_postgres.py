from __future__ import annotations

from typing import Any

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Switched, Unit
from parsers.postgres import Limits, PostgresParser

SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
GSS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x30"
CANCEL = b"\0\0\0\x10\x04\xd2\x16\x2e" + b"\0\0\0\1" + b"keys"
READY = b"Z\0\0\0\5I"
FAILED = b"E\0\0\0\x09SERR\0"


def message(kind: str, payload: bytes = b"") -> bytes:
    return kind.encode() + (len(payload) + 4).to_bytes(4, "big") + payload


def startup(version: bytes = b"\0\3\0\0", **parameters: str) -> bytes:
    words = "".join(f"{name}\0{value}\0" for name, value in (parameters or {"user": "app"}).items())
    payload = version + words.encode() + b"\0"
    return (len(payload) + 4).to_bytes(4, "big") + payload


def status(name: str, value: str) -> bytes:
    return message("S", f"{name}\0{value}\0".encode())


def query(text: bytes) -> bytes:
    return message("Q", text + b"\0")


def parse(name: bytes, text: bytes, *, parameters: bytes = b"\0\0") -> bytes:
    return message("P", name + b"\0" + text + b"\0" + parameters)


def bind(portal: bytes, name: bytes) -> bytes:
    return message("B", portal + b"\0" + name + b"\0\0\0\0\0\0\0")


def execute(portal: bytes = b"") -> bytes:
    return message("E", portal + b"\0\0\0\0\0")


SYNC = message("S")


class Talk:
    """A conversation behind its startup."""

    def __init__(self, limits: Limits | None = None, *, conforming: str = "on", encoding: str = "UTF8") -> None:
        self.parser = PostgresParser(limits)
        self.client(startup())
        settings = status("standard_conforming_strings", conforming) + status("client_encoding", encoding)
        self.server(message("R", b"\0\0\0\0") + settings + READY)

    def client(self, data: bytes) -> list[Event]:
        return self.parser.feed(TO_SERVER, data)

    def server(self, data: bytes) -> list[Event]:
        return self.parser.feed(TO_CLIENT, data)

    def said(self, data: bytes) -> dict[str, Any]:
        return named(self.client(data)[-1])

    def asks(self, text: bytes) -> dict[str, Any]:
        return self.said(query(text))

    def refused(self, data: bytes, direction: int = TO_SERVER) -> str:
        with pytest.raises(ParseError) as error:
            self.parser.feed(direction, data)
        return error.value.code


def named(unit: Event) -> dict[str, Any]:
    assert isinstance(unit, Unit)
    return {name.removeprefix("postgres."): value for name, value in unit.fields.items()}


def test_startup() -> None:
    (unit,) = PostgresParser().feed(
        TO_SERVER, startup(b"\0\3\0\2", user="app", database="shop", application_name="x", replication="true", o="")
    )
    assert named(unit) == {
        "command": b"startup", "user": b"app", "database": b"shop", "application": b"x", "replication": b"true",
    }  # fmt: skip
    assert named(PostgresParser().feed(TO_SERVER, startup())[0])["database"] == b"app"
    twice = b"\0\3\0\0user\0a\0user\0b\0\0"
    assert named(PostgresParser().feed(TO_SERVER, b"\0\0\0\x17" + twice)[0])["user"] == b"b"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (startup(database="x"), "startup"),
        (startup(user=""), "startup"),
        (b"\0\0\0\x0e\0\3\0\0user\0\0", "startup"),
        (b"\0\0\0\x11\0\3\0\0user\0a\0xy", "startup"),
        (b"\0\0\0\x10\0\3\0\0user\0a\0x", "startup"),
        (startup(b"\0\2\0\0"), "version"),
        (b"\0\0\0\7\0\3\0", "length"),
        (b"\0\1\0\0", "length"),
        (b"\xff\xff\xff\xff", "length"),
        (b"\0\0\0\x09\x04\xd2\x16\x2fx", "length"),
        (b"\0\0\0\x0c\x04\xd2\x16\x2f\0\0\0\0", "length"),
        (b"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\0", "length"),
        (CANCEL + b"x", "after_the_end"),
    ],
)
def test_startups_that_are_none(data: bytes, code: str) -> None:
    with pytest.raises(ParseError) as error:
        PostgresParser().feed(TO_SERVER, data)
    assert error.value.code == code


def test_cancel() -> None:
    assert [named(unit) for unit in PostgresParser().feed(TO_SERVER, CANCEL)] == [{"command": b"cancel"}]
    longer = b"\0\0\1\x0c" + CANCEL[4:8] + b"x" * 260
    assert [named(unit) for unit in PostgresParser().feed(TO_SERVER, longer)] == [{"command": b"cancel"}]


def test_encryption() -> None:
    parser = PostgresParser()
    assert parser.feed(TO_SERVER, SSL_REQUEST) == []
    assert not parser.blocked
    assert parser.feed(TO_SERVER, b"\x16\x03") == []
    assert parser.blocked
    assert not parser.pending(TO_SERVER)
    assert parser.feed(TO_CLIENT, b"S\x16") == [Switched("tls", b"\x16\x03", b"\x16")]
    with pytest.raises(ParseError, match="after_switch"):
        parser.feed(TO_SERVER, b"x")


def test_encryption_declined() -> None:
    parser = PostgresParser()
    assert parser.feed(TO_SERVER, GSS_REQUEST) == []
    assert parser.feed(TO_CLIENT, b"N") == []
    assert parser.feed(TO_SERVER, SSL_REQUEST) == []
    assert parser.feed(TO_SERVER, startup() + query(b"DROP TABLE x")) == []
    assert parser.blocked
    assert [named(unit)["command"] for unit in parser.feed(TO_CLIENT, b"N")] == [b"startup", b"query"]
    assert not parser.blocked


def test_answers_to_a_request_for_encryption() -> None:
    for request, answer, code in (
        (SSL_REQUEST, b"G", "encryption_answer"),
        (GSS_REQUEST, b"S", "encryption_answer"),
        (GSS_REQUEST, b"G", "gss_encryption"),
        (SSL_REQUEST, b"\0", "encryption_answer"),
    ):
        parser = PostgresParser()
        parser.feed(TO_SERVER, request)
        with pytest.raises(ParseError, match=code):
            parser.feed(TO_CLIENT, answer)
    parser = PostgresParser()
    parser.feed(TO_SERVER, SSL_REQUEST)
    assert parser.feed(TO_CLIENT, FAILED) == []
    with pytest.raises(ParseError, match="after_the_end"):
        parser.feed(TO_SERVER, startup())


def test_requests_for_encryption_are_bounded() -> None:
    parser = PostgresParser()
    parser.feed(TO_SERVER, SSL_REQUEST)
    with pytest.raises(ParseError, match="behind_request"):
        parser.feed(TO_SERVER, b"\x16" * 70000)
    parser = PostgresParser()
    parser.feed(TO_SERVER, SSL_REQUEST)
    parser.feed(TO_CLIENT, b"N")
    with pytest.raises(ParseError, match="request_again"):
        parser.feed(TO_SERVER, SSL_REQUEST)


def test_passwords_are_no_units() -> None:
    parser = PostgresParser()
    parser.feed(TO_SERVER, startup())
    parser.feed(TO_CLIENT, message("R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
    password = message("p", b"SCRAM-SHA-256\0\0\0\0\4n,,n")
    for byte in password:
        assert parser.feed(TO_SERVER, bytes((byte,))) == []
        assert not parser.pending(TO_SERVER)
    parser.feed(TO_CLIENT, message("R", b"\0\0\0\0") + READY)
    with pytest.raises(ParseError, match="password_unasked"):
        parser.feed(TO_SERVER, password)


def test_query() -> None:
    assert Talk().asks(b"SELECT * FROM a; DELETE FROM b") == {
        "command": b"query", "verb": (b"select", b"delete"), "tables": (b"a", b"b"), "unsure": 0, "cut": 0,
        "user": b"app", "database": b"app",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["Q", "P", "E", "F"])
def test_a_command_waits_for_its_last_byte(kind: str) -> None:
    data = {"Q": query(b"SELECT 1"), "P": parse(b"", b"SELECT 1"), "E": execute(), "F": message("F", b"\0" * 12)}[kind]
    talk = Talk()
    for byte in data[:-1]:
        assert talk.client(bytes((byte,))) == []
        assert talk.parser.pending(TO_SERVER)
    assert talk.client(data[-1:])
    assert not talk.parser.pending(TO_SERVER)


def test_a_statement_that_is_prepared() -> None:
    talk = Talk()
    assert talk.said(parse(b"s1", b"UPDATE t SET a = $1", parameters=b"\0\1\0\0\0\x17"))["command"] == b"parse"
    assert talk.client(message("D", b"Ss1\0") + bind(b"", b"s1")) == []
    unit = talk.said(execute() + SYNC)
    assert (unit["command"], unit["verb"], unit["tables"], unit["unsure"]) == (b"execute", (b"update",), (b"t",), 0)
    talk.server(
        message("1") + message("t", b"\0\0") + message("n") + message("2") + message("C", b"UPDATE 1\0") + READY
    )
    assert talk.said(bind(b"p", b"s1") + execute(b"p"))["verb"] == (b"update",)
    assert talk.said(execute(b"q"))["unsure"] == 1
    assert "verb" not in talk.said(execute(b"q"))
    talk.client(message("C", b"Ss1\0") + SYNC)
    talk.server(READY)
    assert talk.said(bind(b"", b"s1") + execute())["unsure"] == 1


def test_a_name_that_is_given_anew_may_be_what_it_was() -> None:
    good, evil = b"SELECT 1 FROM good", b"DROP TABLE evil"
    talk = Talk()
    talk.client(parse(b"s", evil) + SYNC)
    talk.server(READY)
    # In one batch: what follows a failure is skipped, so an Execute that runs runs the new one.
    unit = talk.said(message("C", b"Ss\0") + parse(b"s", good) + bind(b"", b"s") + execute())
    assert (unit["tables"], unit["unsure"]) == ((b"good",), 0)
    # In the next, not confirmed: either.
    unit = talk.said(SYNC + bind(b"", b"s") + execute())
    assert unit["unsure"] == 1
    assert "tables" not in unit
    talk.client(SYNC)
    talk.server(READY + READY)
    unit = talk.said(bind(b"", b"s") + execute())
    assert (unit["tables"], unit["unsure"]) == ((b"good",), 0)


def test_an_answer_to_a_batch_confirms_nothing_of_the_next() -> None:
    talk = Talk()
    talk.client(parse(b"s", b"DROP TABLE evil") + SYNC)
    talk.server(READY)
    talk.client(SYNC + message("C", b"Ss\0") + parse(b"s", b"SELECT 1 FROM good"))
    talk.server(READY)
    assert talk.said(SYNC + bind(b"", b"s") + execute())["unsure"] == 1


def test_a_name_whose_statement_failed_is_either() -> None:
    talk = Talk()
    talk.client(parse(b"s", b"DROP TABLE evil") + SYNC)
    talk.server(READY)
    talk.client(message("C", b"Ss\0") + parse(b"s", b"SELECT 1 FROM good") + SYNC)
    talk.server(FAILED + READY)
    assert talk.said(bind(b"", b"s") + execute())["unsure"] == 1


def test_names_that_sql_gives() -> None:
    talk = Talk()
    talk.client(parse(b"s", b"SELECT 1 FROM good") + SYNC)
    talk.server(READY)
    talk.asks(b"DEALLOCATE s; PREPARE s AS DROP TABLE evil")
    talk.server(READY)
    assert talk.said(bind(b"", b"s") + execute())["unsure"] == 1


def test_statements_are_kept_up_to_a_size() -> None:
    talk = Talk()
    for number in range(1000):
        talk.client(parse(b"s%d" % number, b"SELECT 1 FROM " + b"t%d" % number * 100) + SYNC)
        talk.server(READY)
        assert talk.parser.buffered <= 130 * 1024
    assert talk.said(bind(b"", b"s0") + execute())["unsure"] == 1
    assert talk.said(bind(b"", b"s999") + execute())["unsure"] == 0


def test_names_that_are_given_and_taken_take_bounded_memory() -> None:
    talk = Talk()
    for number in range(3000):
        text = b"SELECT 1 FROM " + b"t%d" % number * 100
        talk.client(parse(b"s%d" % number, text) + message("C", b"Ss%d\0" % number))
        assert talk.parser.buffered <= 140 * 1024
    assert talk.said(bind(b"", b"s0") + execute())["unsure"] == 1


def test_what_stood_between_two_others_may_stand() -> None:
    talk = Talk()
    talk.client(parse(b"s", b"DROP TABLE evil") + message("C", b"Ss\0") + parse(b"s", b"SELECT 1 FROM good") + SYNC)
    talk.server(FAILED + READY)
    unit = talk.said(bind(b"", b"s") + execute())
    assert unit["unsure"] == 1


def test_a_name_that_sql_gave_before() -> None:
    talk = Talk()
    talk.asks(b"PREPARE s AS DROP TABLE evil")
    talk.server(READY)
    talk.client(parse(b"s", b"SELECT 1 FROM good") + SYNC)
    talk.server(FAILED + READY)
    assert talk.said(bind(b"", b"s") + execute())["unsure"] == 1


def test_copies_are_stepped_over() -> None:
    talk = Talk()
    assert talk.asks(b"COPY t FROM STDIN")["verb"] == (b"copy",)
    talk.server(message("G", b"\0\0\1\0\0"))
    for _ in range(100):
        assert talk.client(message("d", b"Q\0\0\0\x0aDROP\0" * 1000)) == []
        assert not talk.parser.buffered
    assert talk.client(message("c")) == []
    talk.server(message("C", b"COPY 1\0") + READY)
    talk.asks(b"COPY t TO STDOUT")
    assert talk.server(message("H", b"\0\0\0") + message("d", b"x" * 100000) * 3 + message("c") + READY) == []
    assert talk.client(message("f", b"no\0")) == []


def test_a_large_query() -> None:
    talk = Talk()
    data = query(b"INSERT INTO t VALUES ('" + b"x" * 3000000 + b"')")
    events: list[Event] = []
    for at in range(0, len(data), 65536):
        events += talk.client(data[at : at + 65536])
        assert talk.parser.buffered <= 66000
    (unit,) = events
    assert (named(unit)["tables"], named(unit)["cut"], named(unit)["unsure"]) == ((b"t",), 1, 1)
    unit_ = talk.said(parse(b"s", b"SELECT 1 FROM t -- " + b"x" * 200000))
    assert (unit_["tables"], unit_["cut"]) == ((b"t",), 1)


def test_other_messages() -> None:
    talk = Talk()
    assert talk.client(message("H") + SYNC + message("D", b"P\0") + message("C", b"P\0")) == []
    unit = talk.said(message("F", b"\0" * 12))
    assert (unit["command"], unit["unsure"]) == (b"function_call", 1)
    for kind in "AKNIsVWvT":
        assert talk.server(message(kind, b"xyz" * 100)) == []
    assert talk.client(message("X")) == []
    assert talk.client(message("X")) == []
    assert talk.refused(query(b"SELECT 1")) == "after_the_end"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"x", "unknown_message"),
        (b"Q\0\0\0\3", "length"),
        (b"Q\xff\xff\xff\xff", "length"),
        (b"Q\x40\0\0\0", "length"),
        (b"S\0\0\x30\0", "length"),
        (message("Q"), "query"),
        (message("Q", b"SELECT 1"), "query"),
        (message("Q", b"SELECT 1\0; DROP TABLE x\0"), "query"),
        (message("P", b"s"), "name"),
        (message("P", b"s\0SELECT 1"), "query"),
        (message("P", b"s\0SELECT 1\0"), "parse"),
        (message("P", b"s\0SELECT 1\0\0\2\0\0\0\0"), "parse"),
        (message("P", b"s" * 2000 + b"\0SELECT 1\0\0\0"), "name"),
        (message("B", b"p\0"), "name"),
        (message("E", b"p\0\0"), "execute"),
        (message("E", b"p"), "name"),
        (message("C", b"Sp"), "name"),
        (message("C", b"Xp\0"), "close"),
        (message("C", b"Sp\0x"), "close"),
    ],
)
def test_messages_that_lie(data: bytes, code: str) -> None:
    assert Talk().refused(data) == code


def test_answers_that_lie() -> None:
    assert Talk().refused(b"Q", TO_CLIENT) == "unknown_answer"
    assert Talk().refused(b"D\0\0\0\1", TO_CLIENT) == "length"
    assert Talk().refused(b"D\xff\xff\xff\xff", TO_CLIENT) == "length"
    with pytest.raises(ParseError, match="unasked_answer"):
        PostgresParser().feed(TO_CLIENT, READY)


def test_quotes_by_the_mode_of_the_session() -> None:
    text = b"SELECT 'a\\' FROM t; --'"
    assert Talk().asks(text)["tables"] == (b"t",)
    assert Talk(conforming="off").asks(text) | {"cut": 0} == Talk(conforming="off").asks(text)
    assert Talk(conforming="off").asks(text)["tables"] == ()
    talk = Talk()
    talk.asks(b"SET standard_conforming_strings = off")
    assert talk.asks(text)["unsure"] == 1
    talk.server(READY + status("standard_conforming_strings", "off"))
    assert talk.asks(text)["unsure"] == 1
    talk.server(READY * 2)
    unit = talk.asks(text)
    assert (unit["tables"], unit["unsure"]) == ((), 0)
    parser = PostgresParser()
    assert named(parser.feed(TO_SERVER, startup() + query(text))[1])["unsure"] == 1


def test_encodings() -> None:
    text = b"SELECT E'\x81\\' FROM t; --'"
    assert Talk(encoding="SJIS").asks(text)["unsure"] == 1
    assert Talk(encoding="LATIN1").asks(text)["unsure"] == 0


def test_gaps() -> None:
    talk = Talk()
    with pytest.raises(ParseError, match="gap"):
        talk.parser.gap(TO_CLIENT, 1)
    talk.server(message("D", b"x" * 1000)[:10])
    assert talk.parser.gap(TO_CLIENT, 900) == []
    assert talk.server(b"x" * 95 + READY) == []
    talk.client(query(b"SELECT 1")[:6])
    with pytest.raises(ParseError, match="gap"):
        talk.parser.gap(TO_SERVER, 2)
