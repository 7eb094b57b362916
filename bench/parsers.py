"""What parsers do on one core: alone, on their conversations (tests/contract/conversations) with a new parser for each
connection, and long connections where the issue is the rate of requests. `grpc` is with the HPACK decoder that is
chosen here, libnghttp2's if there is one, `grpc.hpack` with the package hpack.

Best of interleaved rounds. Beside them, in the same run: httptools without anybody who looks at what it reads,
and dnspython.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import dns.message
import hpack
import httptools

from bench.results import Result
from bench.rounds import interleaved
from parsers.base import TO_CLIENT, TO_SERVER, UDP, Unit
from parsers.hpack_decoder import Decoder, HpackDecoder, PythonDecoder
from parsers.http2 import Http2Parser
from parsers.registry import PARSERS, make_parser
from tests.contract.conversations import Conversation, conversations

# Seconds that one subject takes at least in a round.
LONG_ENOUGH = 0.2
REQUESTS = 2000
HTTP_TARGET, GRPC_TARGET, QUERY_TARGET, RESPONSE_TARGET = 100_000, 30_000, 150_000, 50_000

_GET = b"GET /items/42?page=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"
_QUERY = bytes.fromhex("1234010000010000000000000377777706616d617a6f6e03636f6d0000010001")
_RESPONSE = bytes.fromhex(
    "1234818000010003000000000377777706616d617a6f6e03636f6d0000010001"
    "c00c000500010000003c000b0363646e0465646765c017"
    "c02c000100010000003c0004c0000201c02c000100010000003c0004c0000202"
)


def bench() -> Iterator[Result]:
    """Units or requests a second, and MB/s."""
    found = list(conversations())
    subjects: dict[str, Callable[[], float]] = {str(each): _conversation(each) for each in found}
    subjects |= _long()
    rates = {name: max(values) for name, values in interleaved(subjects).items()}
    for each in found:
        size = sum(len(data) for _, data in each.parts)
        rate = rates[str(each)]
        yield Result(f"parsers.{each}", "1/s", rate * len(each.units), better="higher")
        yield Result(f"parsers.{each}.bytes", "MB/s", rate * size / 1e6, better="higher")
    for name, shown, target in (
        ("http", "http_requests", HTTP_TARGET),
        ("grpc", "grpc_requests", GRPC_TARGET),
        ("query", "dns_queries", QUERY_TARGET),
        ("response", "dns_responses", RESPONSE_TARGET),
    ):
        yield Result(f"parsers.{shown}", "1/s", rates[name], target=target, better="higher")
    for name in ("grpc hpack", "httptools", "dnspython query", "dnspython response"):
        yield Result(f"parsers.{name.replace(' ', '.')}", "1/s", rates[name], better="higher")


def _rate(work: Callable[[], int]) -> Callable[[], float]:
    """How often a second, of as many as one call does."""

    def once() -> float:
        done, start = 0, time.process_time()
        while (taken := time.process_time() - start) < LONG_ENOUGH:
            done += work()
        return done / taken

    return once


def _conversation(conversation: Conversation) -> Callable[[], float]:
    def work() -> int:
        parser = conversation.begin()
        for direction, data in conversation.parts:
            parser.feed(direction, data)
        return 1

    return _rate(work)


def _long() -> Mapping[str, Callable[[], float]]:
    """One connection with many requests."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def http() -> int:
        parser = PARSERS["http"]()
        for _ in range(REQUESTS):
            parser.feed(TO_SERVER, _GET)
            parser.feed(TO_CLIENT, answer)
        return REQUESTS

    def alone() -> int:
        parser = httptools.HttpRequestParser(object())
        for _ in range(REQUESTS):
            parser.feed_data(_GET)
        return REQUESTS

    calls = _calls()

    def grpc(decoder: Callable[[int], Decoder]) -> int:
        parser = Http2Parser(decoder=decoder)
        for call in calls:
            parser.feed(TO_SERVER, call)
        return REQUESTS

    return {
        "http": _rate(http),
        "httptools": _rate(alone),
        "grpc": _rate(lambda: grpc(HpackDecoder)),
        "grpc hpack": _rate(lambda: grpc(PythonDecoder)),
        "query": _rate(lambda: _datagrams(TO_SERVER, _QUERY)),
        "response": _rate(lambda: _datagrams(TO_CLIENT, _RESPONSE, "dns.answer")),
        "dnspython query": _rate(lambda: _dnspython(_QUERY)),
        "dnspython response": _rate(lambda: _dnspython(_RESPONSE)),
    }


def _datagrams(direction: int, data: bytes, asked: str = "dns.qname") -> int:
    parser = make_parser("dns", UDP)
    assert parser is not None
    for _ in range(REQUESTS):
        for unit in parser.feed(direction, data):
            assert isinstance(unit, Unit)
            assert unit.fields[asked] is not None
    return REQUESTS


def _dnspython(data: bytes) -> int:
    for _ in range(REQUESTS // 20):
        dns.message.from_wire(data)
    return REQUESTS // 20


def _calls() -> Sequence[bytes]:
    """Preface and SETTINGS, then calls with the headers and the message of a small gRPC call each."""
    encoder = hpack.Encoder()
    fields = [
        (":method", "POST"), (":scheme", "http"), (":path", "/shop.Orders/Get"), (":authority", "shop.example"),
        ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "bench/1.0"),
    ]  # fmt: skip
    parts = []
    for number in range(REQUESTS):
        stream = (2 * number + 1).to_bytes(4, "big")
        block = encoder.encode(fields)
        message = b"\x00\x00\x0a\x00\x01" + stream + b"\0\0\0\0\5hello"
        parts.append(len(block).to_bytes(3, "big") + b"\x01\x04" + stream + block + message)
    parts[0] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + parts[0]
    return parts
