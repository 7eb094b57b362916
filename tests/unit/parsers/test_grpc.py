from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.base import ParseError
from parsers.grpc import Message, Messages, status_in, status_of


def refused(messages: Messages, data: bytes) -> None:
    with pytest.raises(ParseError, match="grpc_message"):
        messages.feed(data)


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=9)), max_size=5), st.data())
def test_prefixes(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Of messages in any cut, and of text in any division into padded parts."""
    whole = b"".join(bytes((flag,)) + len(body).to_bytes(4, "big") + body for flag, body in sent)
    expected = [Message(len(body), bool(flag)) for flag, body in sent]
    at = data.draw(st.integers(0, len(whole)))
    for messages, parts in (
        (Messages(), [whole[:at], whole[at:]]),
        (Messages(web=True, text=True), [b64encode(whole[:at]) + b64encode(whole[at:])]),
    ):
        cut = data.draw(st.integers(0, len(parts[0])))
        found = [each for part in (parts[0][:cut], parts[0][cut:], *parts[1:]) for each in messages.feed(part)]
        assert found == expected
        messages.end()


@pytest.mark.parametrize("flag", [0x02, 0x80, 0x81, 0xFF])
def test_bad_flags(flag: int) -> None:
    refused(Messages(), bytes((flag, 0, 0, 0, 0)))


def test_trailers_are_the_web_s_last_message() -> None:
    messages = Messages(web=True)
    assert messages.feed(b"\0\0\0\0\1x\x80\0\0\0\2") == [Message(1, False)]
    assert messages.pending
    assert messages.feed(b"ab") == [Message(0, False, b"ab")]
    messages.end()
    refused(messages, bytes(5))
    assert Messages(web=True).feed(b"\x80\0\0\0\0") == [Message(0, False, b"")]
    refused(Messages(web=True), b"\x82\0\0\0\0")
    refused(Messages(web=True), b"\x80\0\1\0\0")


@pytest.mark.parametrize("data", [b"\0\0", b"\0\0\0\0\2x"])
def test_a_stream_that_ends_within_a_message(data: bytes) -> None:
    messages = Messages()
    messages.feed(data)
    with pytest.raises(ParseError, match="grpc_message"):
        messages.end()


@pytest.mark.parametrize("data", [b"AAA!", b"A===", b"AA=A", b"AAAAAA=B"])
def test_text_that_is_no_base64(data: bytes) -> None:
    refused(Messages(web=True, text=True), data)


def test_status() -> None:
    assert [status_of([value], 200) for value in (b"0", b"16", b"x", b"", b"9" * 40)] == [0, 16, 2, 2, 2]
    assert [status_of([], http) for http in (200, 404, 503, 418)] == [2, 12, 14, 2]
    assert status_in(b"grpc-message:a:b\r\nGrpc-Status: 5\r\n", 200) == 5
    assert status_in(b"", 200) == 2
