"""Requests whose end is a matter of opinion (RFC 9112 §6, §7, §11.2), each with a second one behind or within it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

HOST = b"Host: a.example\r\n"
HIDDEN = b"GET /admin HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /ok HTTP/1.1\r\n" + HOST
GET = b"GET /ok HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"


class Reading(Enum):
    """What the second request is."""

    REFUSED = "refused"  # nobody knows: the connection ends
    REQUEST = "request"  # a request
    BODY = "body"  # bytes of the first one's body


@dataclass(frozen=True, slots=True)
class Form:
    """Bytes of a client, the second request included, and their one reading."""

    name: str
    data: bytes
    reading: Reading = Reading.REFUSED

    def __str__(self) -> str:
        return self.name


def length(value: bytes, body: bytes = HIDDEN) -> bytes:
    return POST + b"Content-Length:" + value + b"\r\n\r\n" + body


SIZE = b"%d" % len(HIDDEN)


def _lengths() -> Iterator[Form]:
    """Content-Length by itself: RFC 9110 §8.6 has 1*DIGIT, and of a list or several lines one may be taken only if all
    are equal; servers differ even there.
    """
    yield Form("CL of the second", length(b" " + SIZE), Reading.BODY)
    yield Form("CL without a space", length(SIZE), Reading.BODY)
    yield Form("CL with tabs around", length(b"\t" + SIZE + b"\t "), Reading.BODY)
    yield Form("CL with leading zeros", length(b" 000" + SIZE), Reading.BODY)
    yield Form("CL 0", length(b" 0"), Reading.REQUEST)
    yield Form("CL in other cases", length(b" " + SIZE).replace(b"Content-Length", b"cONTENT-lENGTH"), Reading.BODY)
    bad = {
        "+": b" +" + SIZE,
        "-": b" -" + SIZE,
        "-0": b" -0",
        "0x": b" 0x%x" % len(HIDDEN),
        "hexadecimal": b" 2a",
        "decimal point": SIZE + b".0",
        "exponent": b" 4e1",
        "underscore": b" 4_2",
        "empty": b"",
        "blank": b"  ",
        "space within": b" 4 2",
        "tab within": b" 4\t2",
        "behind a vertical tab": b"\x0b" + SIZE,
        "behind a form feed": b"\x0c" + SIZE,
        "NUL behind": b" " + SIZE + b"\0",
        "NUL before": b" \0" + SIZE,
        "letters behind": b" " + SIZE + b"abc",
        "semicolon": b" " + SIZE + b";x",
        "quoted": b' "' + SIZE + b'"',
        "list, equal": b" " + SIZE + b", " + SIZE,
        "list, different": b" 0, " + SIZE,
        "list, empty": b" " + SIZE + b",",
        "2^64": b" 18446744073709551616",
        "2^64 + size": b" %d" % ((1 << 64) + len(HIDDEN)),
        "2^63": b" %d" % (1 << 63),
        "a hundred digits": b" " + b"9" * 100,
        "superscript": b" \xc2\xb2",
        "other digits": b" \xd9\xa4",
        "bare CR before": b" \r" + SIZE,
        "bare CR behind": b" " + SIZE + b"\r",
        "bare LF behind": b" " + SIZE + b"\nX: y",
        "folded": b"\r\n " + SIZE,
        "folded behind": b" " + SIZE + b"\r\n 0",
    }
    for name, value in bad.items():
        yield Form(f"CL {name}", length(value))
    both = b"Content-Length: %s\r\nContent-Length: %s\r\n\r\n"
    yield Form("CL twice, equal", POST + both % (SIZE, SIZE) + HIDDEN)
    yield Form("CL twice, 0 first", POST + both % (b"0", SIZE) + HIDDEN)
    yield Form("CL twice, 0 last", POST + both % (SIZE, b"0") + HIDDEN)
    yield Form("CL twice, in other cases", POST + (both % (b"0", SIZE)).replace(b"Content", b"content", 1) + HIDDEN)
    for name, line in {
        "space before the colon": b"Content-Length : 0",
        "tab before the colon": b"Content-Length\t: 0",
        "line begins with a space": b" Content-Length: 0",
        "line begins with a tab": b"\tContent-Length: 0",
        "NUL in the name": b"Content-Length\0: 0",
        "NUL before the name": b"\0Content-Length: 0",
        "CR in the name": b"Content\r-Length: 0",
        "no colon": b"Content-Length 0",
        "colon first": b":Content-Length: 0",
        "soft hyphen": b"Content-Length\xad: 0",
        "empty name": b": 0",
        "quoted name": b'"Content-Length": 0',
    }.items():
        yield Form(
            f"CL with a second, {name}", POST + b"Content-Length: " + SIZE + b"\r\n" + line + b"\r\n\r\n" + HIDDEN
        )
    # Another header to every server, but to a CGI, and those that map _ to -.
    underscore = POST + b"Content-Length: " + SIZE + b"\r\nContent_Length: 0\r\n\r\n" + HIDDEN
    yield Form("CL with a second, underscore", underscore, Reading.BODY)


def _codings() -> Iterator[Form]:
    """Transfer-Encoding by itself, and with a Content-Length before or behind: CL.TE, TE.CL, TE.TE."""
    yield Form("TE", POST + CHUNKED + b"\r\n" + LAST + HIDDEN, Reading.REQUEST)
    yield Form("TE in other cases", POST + b"tRANSFER-eNCODING: CHUNKED\r\n\r\n" + LAST + HIDDEN, Reading.REQUEST)
    yield Form("TE without a space", POST + b"Transfer-Encoding:chunked\r\n\r\n" + LAST + HIDDEN, Reading.REQUEST)
    hidden = b"%x\r\n%s\r\n" % (len(HIDDEN), HIDDEN)
    yield Form("TE with the second in a chunk", POST + CHUNKED + b"\r\n" + hidden + LAST, Reading.BODY)
    yield Form("GET with TE", GET + CHUNKED + b"\r\n" + LAST + HIDDEN, Reading.REQUEST)
    yield Form("GET with TE and the second in a chunk", GET + CHUNKED + b"\r\n" + hidden + LAST, Reading.BODY)
    yield Form("GET with a body", GET + b"Content-Length: " + SIZE + b"\r\n\r\n" + HIDDEN, Reading.BODY)
    bad = {
        "space before the colon": b"Transfer-Encoding : chunked",
        "tab before the colon": b"Transfer-Encoding\t: chunked",
        "chunked, identity": b"Transfer-Encoding: chunked, identity",
        "identity": b"Transfer-Encoding: identity",
        "identity, chunked": b"Transfer-Encoding: identity, chunked",
        "xchunked": b"Transfer-Encoding: xchunked",
        "chunkedx": b"Transfer-Encoding: chunkedx",
        "chunk": b"Transfer-Encoding: chunk",
        "vertical tab": b"Transfer-Encoding:\x0bchunked",
        "form feed": b"Transfer-Encoding:\x0cchunked",
        "vertical tab behind": b"Transfer-Encoding: chunked\x0b",
        "NUL behind": b"Transfer-Encoding: chunked\0",
        "NUL in the name": b"Transfer-Encoding\0: chunked",
        "folded": b"Transfer-Encoding:\r\n chunked",
        "folded with a tab": b"Transfer-Encoding:\r\n\tchunked",
        "folded behind": b"Transfer-Encoding: chunked\r\n , x",
        "name folded": b"Transfer-\r\n Encoding: chunked",
        "leading space": b" Transfer-Encoding: chunked",
        "behind another, folded": b"X: y\r\n Transfer-Encoding: chunked",
        "quoted": b'Transfer-Encoding: "chunked"',
        "apostrophes": b"Transfer-Encoding: 'chunked'",
        "parameter": b"Transfer-Encoding: chunked;q=1",
        "twice": CHUNKED + b"Transfer-Encoding: chunked",
        "twice, the second unknown": CHUNKED + b"Transfer-Encoding: x",
        "twice, the first unknown": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "twice, the second identity": CHUNKED + b"Transfer-encoding: identity",
        "list": b"Transfer-Encoding: chunked, chunked",
        "empty": b"Transfer-Encoding:",
        "comma first": b"Transfer-Encoding: , chunked",
        "comma last": b"Transfer-Encoding: chunked,",
        "gzip, chunked": b"Transfer-Encoding: gzip, chunked",
        "gzip": b"Transfer-Encoding: gzip",
        "bare LF before": b"X: y\nTransfer-Encoding: chunked",
        "bare CR before": b"X: y\rTransfer-Encoding: chunked",
        "bare CR in the value": b"Transfer-Encoding: \rchunked",
        "bare CR behind": b"Transfer-Encoding: chunked\r",
        "bare LF behind": b"Transfer-Encoding: chunked\nX: y",
        "high byte": b"Transfer-Encoding: chunked\xa0",
        "high byte before": b"Transfer-Encoding: \xa0chunked",
        "Kelvin sign": "Transfer-Encoding: chun\u212aed".encode(),
        "backspace": b"Transfer-Encoding: x\x08chunked",
        "brackets": b"Transfer-Encoding: (chunked)",
        "line behind CR LF CR": b"X: y\r\n\rTransfer-Encoding: chunked",
    }
    sizes = b"Content-Length: %d\r\n" % len(LAST + HIDDEN)
    for name, line in bad.items():
        yield Form(f"TE {name}", POST + line + b"\r\n\r\n" + LAST + HIDDEN)
        yield Form(f"TE {name}, CL before", POST + sizes + line + b"\r\n\r\n" + LAST + HIDDEN)
        yield Form(f"TE {name}, CL behind", POST + line + b"\r\n" + sizes + b"\r\n" + LAST + HIDDEN)
    yield Form("CL.TE", POST + sizes + CHUNKED + b"\r\n" + LAST + HIDDEN)
    yield Form("TE.CL", POST + CHUNKED + b"Content-Length: 4\r\n\r\n" + hidden + LAST)
    yield Form("TE.CL 0", POST + CHUNKED + b"Content-Length: 0\r\n\r\n" + LAST + HIDDEN)
    yield Form("CL.TE on GET", GET + sizes + CHUNKED + b"\r\n" + LAST + HIDDEN)
    yield Form(
        "TE underscore, CL", POST + b"Transfer_Encoding: chunked\r\n" + sizes + b"\r\n" + LAST + HIDDEN, Reading.BODY
    )


def chunked(body: bytes) -> bytes:
    return POST + CHUNKED + b"\r\n" + body


def _chunks() -> Iterator[Form]:
    """RFC 9112 §7.1: chunk = 1*HEXDIG [ chunk-ext ] CRLF chunk-data CRLF."""
    yield Form(
        "chunk size in capitals, with zeros", chunked(b"000A\r\n0123456789\r\n" + LAST + HIDDEN), Reading.REQUEST
    )
    yield Form("last chunk of many zeros", chunked(b"00000\r\n\r\n" + HIDDEN), Reading.REQUEST)
    yield Form("chunk extension", chunked(b"1;a=b\r\nx\r\n" + LAST + HIDDEN), Reading.REQUEST)
    yield Form("chunk extension, quoted", chunked(b'1;a="b c"\r\nx\r\n' + LAST + HIDDEN), Reading.REQUEST)
    yield Form("trailer", chunked(b"0\r\nX: y\r\n\r\n" + HIDDEN), Reading.REQUEST)
    yield Form("trailer Host", chunked(b"0\r\nHost: b.example\r\n\r\n" + HIDDEN), Reading.REQUEST)
    bad = {
        "0x": b"0x1\r\nx\r\n",
        "+": b"+1\r\nx\r\n",
        "-": b"-1\r\nx\r\n",
        "space before": b" 1\r\nx\r\n",
        "tab before": b"\t1\r\nx\r\n",
        "space within": b"1 1\r\nx\r\n",
        "underscore": b"1_0\r\n0123456789abcdef\r\n",
        "empty": b"\r\nx\r\n",
        "extension alone": b";a=b\r\n\r\n",
        "NUL": b"1\0\r\nx\r\n",
        "letter": b"1g\r\nx\r\n",
        "2^64": b"10000000000000000\r\nx\r\n",
        "2^64 + 1": b"10000000000000001\r\nx\r\n",
        "2^128": b"1" + b"0" * 32 + b"\r\nx\r\n",
        "LF alone": b"1\nx\r\n",
        "LF alone behind": b"1\r\nx\n",
        "CR alone": b"1\rx\r\n",
        "nothing behind": b"1\r\nx",
        "too long": b"1\r\nxy\r\n",
        "too short": b"2\r\nx\r\n",
        "extension with LF": b"1;a\nx\r\n",
        "extension with CR": b"1;a\rb\r\nx\r\n",
        "CR CR LF": b"1\r\r\nx\r\n",
        "extension with NUL": b"1;a=\0\r\nx\r\n",
        "extension, quoted LF": b'1;a="\n"\r\nx\r\n',
        "extension, quoted CR LF": b'1;a="\r\n"\r\nx\r\n',
        "superscript": b"\xc2\xb9\r\nx\r\n",
        "decimal": b"1.0\r\nx\r\n",
        "high byte": b"1\xa0\r\nx\r\n",
        "comma": b"1,1\r\nx\r\n",
        "vertical tab": b"1\x0b\r\nx\r\n",
    }
    for name, data in bad.items():
        yield Form(f"chunk {name}", chunked(data + LAST + HIDDEN))
    last = {
        "last chunk, LF alone": b"0\n\n",
        "last chunk, LF behind": b"0\r\n\n",
        "last chunk, CR alone": b"0\r\r",
        "last chunk, nothing behind but CR": b"0\r\n\r",
        "last chunk, extension with LF": b"0;\n\r\n",
        "trailer folded": b"0\r\nX: y\r\n z\r\n\r\n",
        "trailer with a space before the colon": b"0\r\nX : y\r\n\r\n",
        "trailer, LF alone": b"0\r\nX: y\n\r\n",
        "trailer with NUL": b"0\r\nX: \0\r\n\r\n",
        "trailer without colon": b"0\r\nX\r\n\r\n",
        "trailer CL": b"0\r\nContent-Length: " + SIZE + b"\r\n\r\n",
        "trailer TE": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    }
    for name, data in last.items():
        yield Form(name, chunked(data + HIDDEN))


def _heads() -> Iterator[Form]:
    """Lines that servers end in different places, and versions that have other rules."""
    yield Form("pipelined", GET + b"\r\n" + HIDDEN, Reading.REQUEST)
    yield Form("empty lines between", GET + b"\r\n" + b"\r\n\r\n" + HIDDEN, Reading.REQUEST)
    yield Form("1.0 kept alive", b"GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + HIDDEN, Reading.REQUEST)
    yield Form(
        "1.0, CL",
        b"POST /ok HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
        Reading.BODY,
    )
    yield Form("Expect", POST + b"Expect: 100-continue\r\nContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN, Reading.BODY)
    yield Form("Expect and TE", POST + b"Expect: 100-continue\r\n" + CHUNKED + b"\r\n" + LAST + HIDDEN, Reading.REQUEST)
    yield Form("absolute form", b"GET http://a.example/ok HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN, Reading.REQUEST)
    # RFC 9112 §3 lets a server be lenient with these, and none reads another target for it.
    yield Form("two spaces", b"GET  /ok HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN, Reading.REQUEST)
    yield Form("two spaces behind", b"GET /ok  HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN, Reading.REQUEST)
    heads = {
        "0.9": b"GET /ok\r\n",
        "0.9 with its version": b"GET /ok HTTP/0.9\r\n" + HOST,
        "1.0 with TE": b"POST /ok HTTP/1.0\r\n" + CHUNKED,
        "1.2": b"GET /ok HTTP/1.2\r\n" + HOST,
        "2.0": b"GET /ok HTTP/2.0\r\n" + HOST,
        "1.10": b"GET /ok HTTP/1.10\r\n" + HOST,
        "11": b"GET /ok HTTP/11\r\n" + HOST,
        "http in lower case": b"GET /ok http/1.1\r\n" + HOST,
        "version twice": b"GET /ok HTTP/1.1 HTTP/1.1\r\n" + HOST,
        "tabs for spaces": b"GET\t/ok\tHTTP/1.1\r\n" + HOST,
        "space behind the version": b"GET /ok HTTP/1.1 \r\n" + HOST,
        "space in the target": b"GET /o k HTTP/1.1\r\n" + HOST,
        "no target": b"GET HTTP/1.1\r\n" + HOST,
        "LF behind the first line": b"GET /ok HTTP/1.1\n" + HOST,
        "CR behind the first line": b"GET /ok HTTP/1.1\r" + HOST,
        "NUL in the target": b"GET /o\0k HTTP/1.1\r\n" + HOST,
        "NUL in the method": b"GE\0T /ok HTTP/1.1\r\n" + HOST,
        "method in lower case": b"get /ok HTTP/1.1\r\n" + HOST,
        "LF in the target": b"GET /o\nk HTTP/1.1\r\n" + HOST,
        "CR in the target": b"GET /o\rk HTTP/1.1\r\n" + HOST,
        "first line folded": b"GET /ok\r\n HTTP/1.1\r\n" + HOST,
        "space before the first field": b"GET /ok HTTP/1.1\r\n " + HOST,
        "Host twice": GET + b"Host: b.example\r\n",
        "Host twice, equal": GET + HOST,
        "no Host": b"GET /ok HTTP/1.1\r\n",
        "Host with a space": b"GET /ok HTTP/1.1\r\nHost: a b\r\n",
        "Host with a comma": b"GET /ok HTTP/1.1\r\nHost: a,b\r\n",
        "Host with userinfo": b"GET /ok HTTP/1.1\r\nHost: a.example@b.example\r\n",
        "Host with a path": b"GET /ok HTTP/1.1\r\nHost: a/b\r\n",
        "Host with a query": b"GET /ok HTTP/1.1\r\nHost: a?b\r\n",
        "Host with a fragment": b"GET /ok HTTP/1.1\r\nHost: a#b\r\n",
        "Host with a backslash": b"GET /ok HTTP/1.1\r\nHost: a\\b\r\n",
        "Host with NUL": b"GET /ok HTTP/1.1\r\nHost: a\0\r\n",
        "Host with a tab": b"GET /ok HTTP/1.1\r\nHost: a\tb\r\n",
        "Host folded": b"GET /ok HTTP/1.1\r\nHost: a\r\n b\r\n",
        "Host with a space before the colon": b"GET /ok HTTP/1.1\r\nHost : a.example\r\n",
        "absolute form, another Host": b"GET http://b.example/ok HTTP/1.1\r\n" + HOST,
        "absolute form, another Host by its userinfo": b"GET http://a.example@b.example/ok HTTP/1.1\r\n" + HOST,
        "absolute form, another port": b"GET http://a.example:81/ok HTTP/1.1\r\n" + HOST,
        "absolute form, backslash": b"GET http://a.example\\.b.example/ok HTTP/1.1\r\n" + HOST,
        "target without a slash": b"GET ok HTTP/1.1\r\n" + HOST,
        "target of another authority": b"GET //b.example@/ok@x HTTP/1.1\r\n\r\n",
        "field without colon": GET + b"X\r\n",
        "field with a bare LF": GET + b"X: y\nZ: z\r\n",
        "field with a bare CR": GET + b"X: y\rZ: z\r\n",
        "field with NUL": GET + b"X: \0\r\n",
        "field folded": GET + b"X: y\r\n z\r\n",
        "field name with a space": GET + b"X Y: z\r\n",
        "empty field name": GET + b": z\r\n",
        "CR CR LF": GET + b"X: y\r\r\n",
        "LF CR": GET + b"X: y\n\r",
        "blank line of a space": GET + b" \r\n",
        "head ended by LF LF": GET.replace(b"\r\n", b"\n"),
    }
    for name, head in heads.items():
        yield Form(name, head + b"\r\n" + HIDDEN)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    yield Form("upgrade with CL", POST + upgrade + b"Content-Length: " + SIZE + b"\r\n\r\n" + HIDDEN)
    yield Form("upgrade with TE", POST + upgrade + CHUNKED + b"\r\n" + LAST + HIDDEN)
    yield Form(
        "h2c upgrade with CL",
        POST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: "
        + SIZE
        + b"\r\n\r\n"
        + HIDDEN,
    )
    yield Form(
        "CONNECT with CL",
        b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    )


FORMS = [*_lengths(), *_codings(), *_chunks(), *_heads()]
