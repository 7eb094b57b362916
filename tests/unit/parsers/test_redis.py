from __future__ import annotations

import contextlib
import time

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Unit, Value
from parsers.redis import Limits, RedisParser
from tests.contract.conversations.redis import command


def only(events: list[Event]) -> dict[str, Value]:
    (unit,) = events
    assert isinstance(unit, Unit)
    return {name.removeprefix("redis."): value for name, value in unit.fields.items()}


def one(text: str) -> dict[str, Value]:
    words = [b"" if word == "''" else word.encode() for word in text.split()]
    fields = only(RedisParser().feed(TO_SERVER, command(*words)))
    assert fields.pop("command") == words[0].lower()
    assert (fields.pop("user"), fields.pop("database")) == (b"default", 0)
    return fields


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("GET a", "a"),
        ("SET a v EX 5", "a"),
        ("DEL a b c", "a b c"),
        ("MGET a b", "a b"),
        ("MSET a 1 b 2", "a b"),
        ("MSETEX 2 a 1 b 2 NX", "a b"),
        ("BLPOP a b 0", "a b"),
        ("BLPOP", ""),
        ("RENAME a b", "a b"),
        ("COPY a b DB 3 REPLACE", "a b"),
        ("BITOP AND d a b", "d a b"),
        ("PFDEBUG GETREG a", "a"),
        ("EVAL s 0 a", ""),
        ("EVALSHA s 2 a b c", "a b"),
        ("FCALL f 1 a b", "a"),
        ("ZUNION 2 a b WEIGHTS 1 2", "a b"),
        ("ZINTERSTORE d 2 a b AGGREGATE MAX", "d a b"),
        ("BLMPOP 0 2 a b LEFT", "a b"),
        ("SORT a BY w* STORE d", "a d"),
        ("SORT a", "a"),
        ("GEORADIUS a 1 2 3 km STORE d STOREDIST e", "a d e"),
        ("XREAD COUNT 2 BLOCK 0 STREAMS a b 0 0", "a b"),
        ("XREADGROUP GROUP streams streams NOACK STREAMS a >", "a"),
        ("XREAD COUNT 2", ""),
        ("MIGRATE h 6379 a 0 1000", "a"),
        ("MIGRATE h 6379 '' 0 1000 COPY AUTH2 keys p KEYS a b", "a b"),
        ("PING hello", ""),
        ("SCAN 0 MATCH a*", ""),
        ("FLUSHALL", ""),
        ("FT.SEARCH index query", "index"),
        ("JSON.SET a $ 1", "a"),
        ("NOBODYKNOWS", ""),
    ],
)
def test_keys(text: str, keys: str) -> None:
    assert one(text).get("keys", ()) == tuple(keys.encode().split())


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("CONFIG Set a b", {"subcommand": b"set"}),
        ("ACL SETUSER bob", {"subcommand": b"setuser"}),
        ("CLUSTER RESET", {"subcommand": b"reset"}),
        ("COMMAND", {}),
        ("DEBUG OBJECT a", {"subcommand": b"object", "keys": (b"a",)}),
        ("DEBUG SLEEP 1", {"subcommand": b"sleep"}),
        ("MEMORY USAGE a", {"subcommand": b"usage", "keys": (b"a",)}),
        ("OBJECT ENCODING a", {"subcommand": b"encoding", "keys": (b"a",)}),
        ("XGROUP CREATE a g $", {"subcommand": b"create", "keys": (b"a",)}),
        ("XINFO STREAM a", {"subcommand": b"stream", "keys": (b"a",)}),
        ("PUBLISH c hello", {"channels": (b"c",)}),
        ("PSUBSCRIBE a* b*", {"channels": (b"a*", b"b*")}),
    ],
)
def test_other_fields(text: str, fields: dict[str, Value]) -> None:
    assert one(text) == fields


@pytest.mark.parametrize(
    ("words", "user"),
    [
        (b"AUTH secret", b"default"),
        (b"AUTH alice secret", b"alice"),
        (b"HELLO", b"default"),
        (b"HELLO 3", b"default"),
        (b"HELLO 3 AUTH alice secret", b"alice"),
        (b"HELLO 3 SETNAME auth AUTH alice auth SETNAME x", b"alice"),
        (b"HELLO 3 AUTH alice secret auth bob secret", b"bob"),
        (b"HELLO 3 NONSENSE AUTH alice secret", b"default"),
    ],
)
def test_user_but_no_password(words: bytes, user: bytes) -> None:
    parser = RedisParser()
    events = parser.feed(TO_SERVER, command(*words.split()))
    assert only(events)["user"] == user
    assert b"secret" not in repr(events).encode()
    assert parser.buffered == 0


def test_a_password_is_not_kept_while_it_comes() -> None:
    parser = RedisParser()
    parser.feed(TO_SERVER, b"*3\r\n$4\r\nAUTH\r\n$5\r\nalice\r\n$9000\r\n" + b"x" * 8000)
    assert parser.buffered == 0


def decided(answer: bytes, *, first: bytes = b"SELECT 5") -> dict[str, Value]:
    parser = RedisParser()
    parser.feed(TO_SERVER, command(b"GET", b"a") + command(*first.split()) + command(b"GET", b"b"))
    assert parser.blocked
    assert not parser.pending(TO_SERVER)
    assert parser.feed(TO_CLIENT, b"$1\r\nx\r\n") == []
    fields = only(parser.feed(TO_CLIENT, answer))
    assert not parser.blocked
    return fields


def test_what_is_selected_holds_once_the_server_agrees() -> None:
    assert decided(b"+OK\r\n")["database"] == 5
    assert decided(b"-ERR DB index is out of range\r\n")["database"] == 0
    assert decided(b"+OK\r\n", first=b"AUTH alice x")["user"] == b"alice"
    assert decided(b"-WRONGPASS\r\n", first=b"AUTH alice x")["user"] == b"default"
    assert decided(b"%1\r\n+proto\r\n:3\r\n", first=b"HELLO 3 AUTH alice x")["user"] == b"alice"
    assert decided(b"*2\r\n+proto\r\n:2\r\n", first=b"HELLO 2 AUTH alice x")["user"] == b"alice"


def test_pushes_are_nobodys_answer() -> None:
    assert decided(b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n+OK\r\n")["database"] == 5
    assert decided(b"|1\r\n+ttl\r\n:1\r\n-ERR\r\n")["database"] == 0


def test_nested_replies() -> None:
    parser = RedisParser()
    parser.feed(TO_SERVER, command(b"EXEC") + command(b"SELECT", b"1") + command(b"GET", b"a"))
    deep = b"*1\r\n" * 5000 + b"*3\r\n%1\r\n$1\r\nk\r\n|1\r\n+a\r\n+b\r\n~2\r\n#t\r\n_\r\n=5\r\ntxt:x\r\n$-1\r\n"
    assert parser.feed(TO_CLIENT, deep) == []
    assert only(parser.feed(TO_CLIENT, b"+OK\r\n"))["database"] == 1


@pytest.mark.parametrize("last", [b"SELECT 1", b"AUTH alice x", b"HELLO 3 AUTH alice x"])
@pytest.mark.parametrize("before", [b"SUBSCRIBE c", b"MONITOR", b"CLIENT REPLY OFF", b"PSYNC ? -1"])
def test_no_answer_can_be_told_any_more(before: bytes, last: bytes) -> None:
    parser = RedisParser()
    parser.feed(TO_SERVER, command(*before.split()))
    parser.feed(TO_CLIENT, b"what\x00ever")
    parser.feed(TO_SERVER, command(b"PING") + command(b"SELECT", b"0"))
    with pytest.raises(ParseError) as caught:
        parser.feed(TO_SERVER, command(*last.split()))
    assert caught.value.code == "unanswered"


def test_in_a_transaction_the_answer_says_nothing() -> None:
    parser = RedisParser()
    parser.feed(TO_SERVER, command(b"MULTI") + command(b"SELECT", b"1"))
    with pytest.raises(ParseError) as caught:
        parser.feed(TO_CLIENT, b"+OK\r\n+QUEUED\r\n")
    assert caught.value.code == "queued"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (b"SELECT 1", b"*1\r\n+subscribe\r\n"),
        (b"SELECT 1", b":1\r\n"),
        (b"AUTH alice x", b"%0\r\n"),
        (b"HELLO 3 AUTH alice x", b"+OK\r\n"),
    ],
)
def test_what_is_no_answer_to_it(words: bytes, answer: bytes) -> None:
    parser = RedisParser()
    parser.feed(TO_SERVER, command(*words.split()))
    with pytest.raises(ParseError, match="queued"):
        parser.feed(TO_CLIENT, answer)


def test_words_nobody_asked_for() -> None:
    parser = RedisParser()
    assert parser.feed(TO_CLIENT, b"-ERR max number of clients reached\r\n") == []
    with pytest.raises(ParseError, match="unanswered"):
        parser.feed(TO_SERVER, command(b"SELECT", b"1"))


def test_a_value_is_not_kept_and_keeps_nobody_waiting() -> None:
    parser = RedisParser()
    head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n"
    assert parser.feed(TO_SERVER, head[:-1]) == []
    assert parser.pending(TO_SERVER)
    assert only(parser.feed(TO_SERVER, head[-1:]))["keys"] == (b"k",)
    parser.feed(TO_SERVER, b"$536870912\r\n")
    chunk = b"*1\r\n$4" * 10923
    for _ in range(10):
        assert not parser.pending(TO_SERVER)
        assert parser.feed(TO_SERVER, chunk) == []
        assert parser.buffered == 0
    parser.gap(TO_SERVER, 536870912 - 10 * len(chunk))
    assert only(parser.feed(TO_SERVER, b"\r\n" + command(b"PING")))["command"] == b"ping"


def test_a_script_before_its_keys_is_waited_for() -> None:
    parser = RedisParser()
    assert parser.feed(TO_SERVER, b"*4\r\n$4\r\nEVAL\r\n$100000\r\n" + b"x" * 100000) == []
    assert parser.pending(TO_SERVER)
    assert parser.buffered < 100
    assert only(parser.feed(TO_SERVER, b"\r\n$1\r\n1\r\n$1\r\nk\r\n"))["keys"] == (b"k",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"get a", (b"a",)),
        (b" \tGET  a \t", (b"a",)),
        (rb'GET "a b\n\x41\"\z"', (b'a b\nA"z',)),
        (rb"GET 'a\' \n'", (rb"a' \n",)),
        (b'GET a"b c"', (b"ab c",)),
        (b'GET ""', (b"",)),
    ],
)
def test_inline(line: bytes, words: tuple[bytes, ...]) -> None:
    for end in (b"\n", b"\r\n"):
        assert only(RedisParser().feed(TO_SERVER, line + end))["keys"] == words


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"*a\r\n", "number"),
        (b"*01\r\n", "number"),
        (b"*+1\r\n", "number"),
        (b"*-2\r\n", "number"),
        (b"*12345678901\r\n", "number"),
        (b"*2147483648\r\n", "size"),
        (b"*1\r ", "line_end"),
        (b"*1\r\n+OK\r\n", "bulk"),
        (b"*1\r\n$-1\r\n", "number"),
        (b"*1\r\n$536870913\r\n", "size"),
        (b"*1\r\n$4\r\nPINGxx", "line_end"),
        (b"*2\r\n$4\r\nPING\r\n$1\r\naxx", "line_end"),
        (b"*1\r\n$65537\r\n", "too_much"),
        (b"*2\r\n$3\r\nGET\r\n$65536\r\n", "too_much"),
        (command(b"DEL", *[b"k"] * 9000), "too_much"),
        (command(b"DEL", *[b"k" * 1000] * 66), "too_much"),
        (command(b"SELECT", b"1x"), "number"),
        (command(b"EVAL", b"", b"+1", b"k"), "number"),
        (command(b"EVAL", b"", b"2", b"k"), "numkeys"),
        (command(b"MSETEX", b"1", b"k"), "numkeys"),
        (b"GET 'a\n", "quotes"),
        (b'GET "a"b\n', "quotes"),
        (b"GET a\0b\n", "inline"),
        (b"a" * 65537, "line_too_long"),
        (command(b"SELECT", b"1") + b"x" * 65537, "behind_login"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    with pytest.raises(ParseError) as caught:
        RedisParser().feed(TO_SERVER, data)
    assert caught.value.code == code


def test_an_error_comes_with_what_was_told_before() -> None:
    with pytest.raises(ParseError) as caught:
        RedisParser().feed(TO_SERVER, command(b"PING") + b"*1\r\n:1\r\n")
    assert only(list(caught.value.events))["command"] == b"ping"
    assert caught.value.offset == 18


@pytest.mark.parametrize(
    "data", [b"hello\r\n", b"$x\r\n", b"*?\r\n", b"$" + b"1" * 30 + b"\r\n", b"\r\n", b"+" * 70000]
)
def test_replies_that_are_none(data: bytes) -> None:
    parser = RedisParser()
    parser.feed(TO_SERVER, command(b"GET", b"a"))
    parser.feed(TO_CLIENT, b"$1\r\na\r\n")
    with pytest.raises(ParseError) as caught:
        parser.feed(TO_CLIENT, data)
    assert (caught.value.code, caught.value.offset) == ("reply", 7)


def test_gaps() -> None:
    parser = RedisParser()
    parser.feed(TO_SERVER, command(b"GET", b"a"))
    parser.feed(TO_CLIENT, b"$9\r\n1")
    parser.gap(TO_CLIENT, 10)
    parser.gap(TO_CLIENT, 1)  # no reply is looked at any more
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_SERVER, 1)
    parser = RedisParser()
    parser.feed(TO_SERVER, command(b"SELECT", b"1"))
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_CLIENT, 1)


@pytest.mark.parametrize(
    "line", [b" " * 60000, b"a" * 60000, b"' " * 30000, b'"' + b"\\" * 60000, b"GET '" + b"\\'" * 30000]
)
def test_odd_lines_take_no_longer(line: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(ParseError):
        RedisParser().feed(TO_SERVER, line + b"\n")
    assert time.process_time() - started < 1


def test_limits_are_the_callers() -> None:
    with pytest.raises(ParseError, match="too_much"):
        RedisParser(Limits(keys=2)).feed(TO_SERVER, command(b"DEL", b"a", b"b", b"c"))
