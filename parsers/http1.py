"""HTTP/1.x, both directions.

Requests go through httptools (llhttp, strict: rejects CL with TE, obs-fold, bare LF,
unknown codings); Host is checked here because llhttp does not. Nor does it tell where it stopped:
an error's `offset` is the first byte of the piece that was fed. Responses are framed by
`http1_responses`. Where nobody asks for anything of theirs that matters only as far as an upgrade needs it:
which answer belongs to which request, and was it 101 (or 2xx to CONNECT).

A client that offers an upgrade may go on in either protocol, so bytes behind such a
request are kept until the server has answered (`blocked`). A body with the offer is read only
where that is h2c: Java's client offers it with any first request.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httptools

from parsers.base import (
    GRPC_FIELDS,
    HTTP_FIELDS,
    TO_CLIENT,
    TO_SERVER,
    Event,
    ParseError,
    Parser,
    Request,
    Response,
    Said,
    Switched,
    Upgraded,
    Value,
)
from parsers.http import HOST_FORBIDDEN, Body, Telling, tokens_of
from parsers.http1_responses import LENGTH_MAX, Head, Responses


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # Apache takes 100 lines of 8 KiB, nginx 4 x 8 KiB, Node 16 KiB: 64 KiB is above what real servers accept.
    head: int = 64 * 1024
    headers: int = 256
    # Bytes behind an upgrade that is not answered yet: one initial window of 64 KiB.
    behind_upgrade: int = 64 * 1024
    # Pipelined requests without an answer; browsers never exceed 8, wrk's scripts use up to 64.
    unanswered: int = 1024
    # What is kept of them to be told with their responses: 1 KiB each, 16 KiB of each of 64.
    remembered: int = 1 << 20


# What llhttp takes for a request's beginning, and the preface of HTTP/2. In a body behind an offer either has another
# reading: uvicorn drops what came with such a head, whatever its length says, and goes on with the next segment.
_BEGINNING: Final = re.compile(
    rb"(?:ACL|ANNOUNCE|BIND|CHECKOUT|CONNECT|COPY|DELETE|DESCRIBE|FLUSH|GET|GET_PARAMETER|HEAD|LINK|LOCK|M-SEARCH|MERGE"
    rb"|MKACTIVITY|MKCALENDAR|MKCOL|MOVE|NOTIFY|OPTIONS|PATCH|PAUSE|PLAY|POST|PRI|PROPFIND|PROPPATCH|PURGE|PUT|QUERY"
    rb"|REBIND|RECORD|REDIRECT|REPORT|SEARCH|SETUP|SET_PARAMETER|SOURCE|SUBSCRIBE|TEARDOWN|TRACE|UNBIND|UNLINK|UNLOCK"
    rb"|UNSUBSCRIBE) (?:[ /*]|[A-Za-z]{1,15}:/|[A-Za-z]{16})|CONNECT "
)
_BEGINNING_MAX: Final = 32


class Http1Parser(Telling, Parser):
    """One connection; see `parsers.base.Parser`."""

    name = "http"
    fields = (*HTTP_FIELDS, *GRPC_FIELDS)

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._offset = [0, 0]
        self._parser: Any = httptools.HttpRequestParser(self)
        self._responses = Responses(self.limits.head, self.limits.unanswered, self.limits.remembered)
        self._events: list[Event] = []
        self._error = ""
        self._in_head = False
        self._seen = 0  # bytes of this head that callbacks have shown
        self._unseen = 0  # bytes fed since the last callback: what httptools retains at most
        self._url = bytearray()
        self._headers: list[tuple[bytes, bytes]] = []
        self._trailer = False
        self._offered: Request | None = None
        self._settings = b""
        self._behind = bytearray()
        self._upload: Responses | None = None  # frames the body of a request that offers h2c
        self._before = b""  # its last bytes
        self._upgraded = False
        self._bodies: list[Body | None] = [None, None]  # those at hand, by direction
        self._answered: tuple[Head, Said] | None = None  # whose body is at hand

    @property
    def buffered(self) -> int:
        """Bytes retained, httptools' included."""
        buffered = self._seen + self._unseen + len(self._behind) + self._responses.buffered
        if self._wanted.bodies:
            buffered += sum(body.kept for body in self._bodies if body is not None)
        if self._upload is not None:
            buffered += self._upload.buffered
        return buffered

    def pending(self, direction: int) -> bool:
        """A request head is incomplete, and where it is to be told a response's; in a body, a message's prefix."""
        if self.blocked and direction == TO_SERVER:
            return False
        body = self._bodies[direction]
        if body is not None and body.pending:
            return True
        return self._in_head if direction == TO_SERVER else self._wanted.answers and self._responses.pending

    @property
    def blocked(self) -> bool:
        """An upgrade is offered and not answered, and the client goes on."""
        return self._offered is not None and bool(self._behind)

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        self._events = []
        try:
            if direction == TO_SERVER:
                self._feed_requests(data)
            else:
                self._feed_responses(data)
        except ParseError as error:
            raise ParseError(error.code, self._offset[direction], self._events) from None
        self._offset[direction] += len(data)
        return self._events

    def eof(self, direction: int) -> list[Event]:
        """Some bodies end with it."""
        self._events = []
        if direction == TO_CLIENT and self._responses.close():
            self._answer_ends()
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """Framing is lost with any byte."""
        raise ParseError("gap", self._offset[direction] + size)

    def _feed_requests(self, data: bytes) -> None:
        if self._upgraded:
            raise ParseError("after_upgrade")
        if self._upload is not None:
            data = self._feed_upload(self._upload, data)
            if not data:
                return
        if self._offered is not None:
            self._behind += data
            if len(self._behind) > self.limits.behind_upgrade:
                raise ParseError("behind_upgrade")
            return
        self._unseen += len(data) if self._in_head else 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # llhttp switches by itself; whether the server does is known from its answer.
            self._check()
            if rest := data[upgrade.args[0] :]:
                self._feed_requests(rest)
            return
        except httptools.HttpParserError as error:
            self._check()
            raise ParseError(_snake(type(error).__name__)) from None
        self._check()
        if self._seen + self._unseen > self.limits.head:
            raise ParseError("head_too_long")

    def _feed_upload(self, upload: Responses, data: bytes) -> bytes:
        """More of a body that llhttp skips; what is behind it."""
        found = _BEGINNING.search(self._before + data)
        end = found.end() - len(self._before) if found else len(data)
        self._before = (self._before + data)[-_BEGINNING_MAX:]
        try:
            upload.feed(data[:end])
            while read := upload.read():
                assert not isinstance(read, Head)
                self.on_body(read)
        except ParseError:
            raise ParseError(self._error or "invalid_chunk_size") from None
        rest = upload.rest() if read is not None else b""
        if found and not rest:
            self._fail("upgrade_with_body")
        if read is not None:
            self._upload = None
            self.on_message_complete()
        self._check()
        return rest + data[end:]

    def _check(self) -> None:
        if self._error:
            raise ParseError(self._error)

    # httptools' callbacks. An exception inside one is wrapped, so errors are noted and raised behind the feed.

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._in_head = True
        self._seen = self._unseen = 0
        self._url.clear()
        self._headers = []
        self._trailer = False

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        self._url += url
        self._seen += len(url)
        self._unseen = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or trailer: those have no say in what the request is."""
        self._seen = seen = self._seen + len(name) + len(value) + 4
        self._unseen = 0
        if seen > self.limits.head:
            self._fail("head_too_long")
        if not self._trailer:
            self._headers.append((name.lower(), value))

    def _fail(self, code: str) -> None:
        self._error = self._error or code

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        self._trailer = True
        seen, self._seen, self._unseen = self._seen, 0, 0
        if seen > self.limits.head:
            self._fail("head_too_long")
        if len(self._headers) > self.limits.headers:
            self._fail("too_many_headers")
        if self._error:
            return
        try:
            request = self._request()
            self._responses.expect(request.method, request if self._wanted.answers else None)
        except ParseError as error:
            self._fail(error.code)
            return
        self._events.append(request)
        if self._parser.should_upgrade():
            self._offered = request
        if self._wanted.bodies and (self._upload is not None or self._offered is None):
            self._bodies[TO_SERVER] = self._body(request, request, self._headers)

    def on_body(self, data: bytes) -> None:
        """Part of a body, without the chunks' frames."""
        body = self._bodies[TO_SERVER]
        if body is not None and not self._error:
            try:
                body.feed(data, self._events)
            except ParseError as error:
                self._fail(error.code)

    def on_message_complete(self) -> None:
        """A request has ended."""
        if self._upload is not None:
            return
        body, self._bodies[TO_SERVER] = self._bodies[TO_SERVER], None
        if body is not None and not self._error:
            try:
                body.end()
            except ParseError as error:
                self._fail(error.code)

    def _request(self) -> Request:
        method: bytes = self._parser.get_method()
        version: str = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise ParseError("version")
        hosts: list[bytes] = []
        codings: list[bytes] = []
        length: bytes | None = None
        kind: bytes | None = None
        for name, value in self._headers:
            if name == b"host":
                hosts.append(value.strip(b" \t"))
            elif name == b"transfer-encoding":
                codings.append(value.strip(b" \t").lower())
            elif name == b"content-length" and length is None:
                length = value  # llhttp has refused a second one, and what is no number
            elif name == b"content-type" and kind is None:
                kind = value
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            raise ParseError("host_missing" if not hosts else "host_twice")
        host = hosts[0] if hosts else b""
        # RFC 9112 §6.1: any other coding, a second one or HTTP/1.0 is where servers disagree on the body's end.
        if codings and (codings != [b"chunked"] or version == "1.0"):
            raise ParseError("transfer_encoding")
        octets = int(length) if length is not None else 0
        if octets > LENGTH_MAX:
            raise ParseError("content_length")  # llhttp counts to 2^64; for most servers it is negative from 2^63 on
        switches: bool = self._parser.should_upgrade()
        path = bytes(self._url)
        said: Mapping[str, Value] | None = None
        if self._wanted.of_requests:
            offered = tokens_of(self._headers, b"upgrade") if switches else []
            said = self._said(path, version.encode(), self._headers, offered)
        if method == b"CONNECT":
            if codings or octets:
                raise ParseError("upgrade_with_body")
            return Request(method, b"", _host(path), b"", upgrade=b"connect", said=said)
        if not path.startswith(b"/") and path != b"*":
            scheme, separator, rest = path.partition(b"://")
            if not separator or not scheme.isalnum():
                raise ParseError("target")
            cut = min((at for at in map(rest.find, (b"/", b"?", b"#")) if at >= 0), default=len(rest))
            authority, path = rest[:cut], rest[cut:]
            path = path if path.startswith(b"/") else b"/" + path
            # RFC 9112 §3.2.2 prefers the target's authority, servers differ: two that differ are an attack.
            if hosts and host.lower() != authority.lower():
                raise ParseError("host_differs")
            host = authority
        upgrade = b""
        if switches:
            offers = b",".join(value for name, value in self._headers if name == b"upgrade")
            # RFC 9110 §7.8: the server picks any of several; what is not the only offer has no name here.
            upgrade = offers.strip(b" \t").lower() or b"unnamed"
            self._settings = _settings([value for name, value in self._headers if name == b"http2-settings"], upgrade)
            # llhttp takes what follows an offer for the other protocol, and so may a server that accepts it; one that
            # declines takes it for the body. Of HTTP/2 the preface tells.
            if (codings or octets) and upgrade != b"h2c":
                raise ParseError("upgrade_with_body")
            if codings or octets:
                # RFC 7540 §3.2: it comes whole, before any HTTP/2.
                self._before = b""
                self._upload = Responses(self.limits.head, 1, 0)
                self._upload.strict = True
                self._upload.begin_body(None if codings else octets)
        return Request(method, path, _host(host), kind or b"", upgrade=upgrade, said=said)

    def _feed_responses(self, data: bytes) -> None:
        if self._upgraded:
            raise ParseError("after_upgrade")
        responses = self._responses
        responses.strict = self._wanted.answers
        responses.feed(data)
        while (read := responses.read()) is not None:
            if isinstance(read, Head):
                self._answer_begins(read)
                if self._upgraded:
                    return
            elif read:
                body = self._bodies[TO_CLIENT]
                assert body is not None
                body.feed(read, self._events)
            else:
                self._answer_ends()
        if responses.lost and self._offered is not None:
            raise ParseError("response")

    def _answer_begins(self, head: Head) -> None:
        self._events.append(Response(head.status, tunnel=head.method == b"CONNECT" and head.tunnel))
        if head.request is not None:
            answer = self._answer(head.request, head.status, head.headers)
            if self._wanted.responses:
                self._events.append(answer)
            if self._wanted.bodies and not head.interim and not head.switches:
                self._answered = head, answer
                body = self._body(answer, head.request, head.headers, head.status)
                self._bodies[TO_CLIENT] = body
                self._responses.wanted = body is not None
        offered = self._offered
        if offered is None or not head.last:
            if head.status == 101:
                raise ParseError("unasked_switch")
        elif head.switches:
            if self._upload is not None:
                raise ParseError("upgrade_with_body")
            self._upgraded = True
            behind = bytes(self._behind)
            self._behind.clear()
            self._offered = None
            rest = self._responses.rest()
            if head.tunnel:
                # What a tunnel carries is for its first bytes to tell.
                self._events.append(Switched("", behind, rest))
            else:
                self._events.append(Upgraded(offered.upgrade, offered, self._settings, behind, rest))
        elif head.status >= 200:
            self._decline()

    def _answer_ends(self) -> None:
        body, self._bodies[TO_CLIENT] = self._bodies[TO_CLIENT], None
        assert body is not None
        body.end()
        if self._answered is not None:
            head, answer = self._answered
            self._answered = None
            told = body.ended or "grpc.status" in answer.fields
            if head.request is not None and head.request.is_call and not told and "grpc.status" in self.asked:
                self._events.append(self._ending(answer, head.status))

    def _decline(self) -> None:
        """The server stays with HTTP/1: what the client sent behind its offer is the next request."""
        self._offered = None
        self._parser = httptools.HttpRequestParser(self)
        behind = bytes(self._behind)
        self._behind.clear()
        if behind:
            self._feed_requests(behind)


def _host(host: bytes) -> bytes:
    if not HOST_FORBIDDEN.isdisjoint(host):
        raise ParseError("host")
    return host


def _settings(values: list[bytes], upgrade: bytes) -> bytes:
    if upgrade != b"h2c":
        return b""
    # RFC 7540 §3.2.1: exactly one, base64url without padding.
    if len(values) != 1:
        raise ParseError("http2_settings")
    try:
        return base64.b64decode(values[0].strip(b" \t") + b"=" * (-len(values[0].strip(b" \t")) % 4), b"-_", True)
    except binascii.Error:
        raise ParseError("http2_settings") from None


def _snake(name: str) -> str:
    """HttpParserInvalidURLError -> invalid_url."""
    name = name.removeprefix("HttpParser").removesuffix("Error").replace("URL", "Url")
    return "".join("_" + c.lower() if c.isupper() else c for c in name).strip("_") or "syntax"


__all__ = ["TO_CLIENT", "TO_SERVER", "Http1Parser", "Limits"]
