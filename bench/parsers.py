"""What parsers do on one core: each on all of its conversations (tests/contract/conversations) with a new parser for
each connection, units and bytes a second; and long connections where the issue is the rate of requests. `grpc` is with
the HPACK decoder that is chosen here, libnghttp2's if there is one, `grpc.hpack` with the package hpack.

Best of interleaved rounds. Beside them, in the same run: httptools without anybody who looks at what it reads,
dnspython, and those of bench/parser_peers.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import dns.message
import hpack
import httptools

from bench.parser_peers import peers
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
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_QUERY = bytes.fromhex("1234010000010000000000000377777706616d617a6f6e03636f6d0000010001")
_RESPONSE = bytes.fromhex(
    "1234818000010003000000000377777706616d617a6f6e03636f6d0000010001"
    "c00c000500010000003c000b0363646e0465646765c017"
    "c02c000100010000003c0004c0000201c02c000100010000003c0004c0000202"
)


def bench() -> Iterator[Result]:
    """Units or requests a second, and MB/s."""
    found = {name: [each for each in conversations() if each.parser == name] for name in PARSERS}
    beside = peers(_GET, _ANSWER, _calls())
    subjects = {f"conversations {name}": _rate(partial(_converse, each)) for name, each in found.items()} | dict(
        _long()
    )
    for what, (ours, theirs) in beside.items():
        subjects |= {what: _rate(ours)} | {f"{what} {name}": _rate(work) for name, work in theirs.items()}
    rates = {name: max(values) for name, values in interleaved(subjects).items()}
    for name, each in found.items():
        rate = rates[f"conversations {name}"]
        units = sum(len(one.units) for one in each)
        size = sum(len(data) for one in each for _, data in one.parts)
        yield Result(f"parsers.{name}", "1/s", rate * units, better="higher")
        yield Result(f"parsers.{name}.bytes", "MB/s", rate * size / 1e6, better="higher")
    for name, shown, target in (
        ("http", "http_requests", HTTP_TARGET),
        ("grpc", "grpc_requests", GRPC_TARGET),
        ("query", "dns_queries", QUERY_TARGET),
        ("response", "dns_responses", RESPONSE_TARGET),
    ):
        yield Result(f"parsers.{shown}", "1/s", rates[name], target=target, better="higher")
    for name in ("grpc hpack", "httptools", "dnspython query", "dnspython response"):
        yield Result(f"parsers.{name.replace(' ', '.')}", "1/s", rates[name], better="higher")
    for what, (_, theirs) in beside.items():
        for name in theirs:
            shown = f"parsers.peer.{what.replace(' ', '_')}.{name}"
            yield Result(shown, "1/s", rates[what], rates[f"{what} {name}"], better="higher")


def _rate(work: Callable[[], int]) -> Callable[[], float]:
    """How often a second, of as many as one call does."""

    def once() -> float:
        done, start = 0, time.process_time()
        while (taken := time.process_time() - start) < LONG_ENOUGH:
            done += work()
        return done / taken

    return once


def _converse(each: Sequence[Conversation]) -> int:
    for conversation in each:
        parser = conversation.begin()
        for direction, data in conversation.parts:
            parser.feed(direction, data)
    return 1


def _long() -> Mapping[str, Callable[[], float]]:
    """One connection with many requests."""

    def http() -> int:
        parser = PARSERS["http"]()
        for _ in range(REQUESTS):
            parser.feed(TO_SERVER, _GET)
            parser.feed(TO_CLIENT, _ANSWER)
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

    queries, responses = _each_its_name(_QUERY), _each_its_name(_RESPONSE)
    return {
        "http": _rate(http),
        "httptools": _rate(alone),
        "grpc": _rate(lambda: grpc(HpackDecoder)),
        "grpc hpack": _rate(lambda: grpc(PythonDecoder)),
        "query": _rate(partial(_datagrams, TO_SERVER, queries, "dns.qname")),
        "response": _rate(partial(_datagrams, TO_CLIENT, responses, "dns.answer")),
        "dnspython query": _rate(partial(_dnspython, queries)),
        "dnspython response": _rate(partial(_dnspython, responses)),
    }


def _each_its_name(message: bytes) -> list[bytes]:
    return [message.replace(b"amazon", b"%06d" % number) for number in range(REQUESTS)]


def _datagrams(direction: int, messages: Sequence[bytes], asked: str) -> int:
    parser = make_parser("dns", UDP)
    assert parser is not None
    for data in messages:
        for unit in parser.feed(direction, data):
            assert isinstance(unit, Unit)
            assert unit.fields[asked] is not None
    return REQUESTS


def _dnspython(messages: Sequence[bytes]) -> int:
    for data in messages[: REQUESTS // 20]:
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
