"""Names and record data of DNS: checked where they lie, written as master files do when they are asked for.

Names: RFC 1035 §4.1.4, text as §5.1 escapes it. Data: RFC 1035 and those named at `LAYOUTS`; of types that are not
there, and of types of the internet's class in another class, it is bytes and written as RFC 3597 §5 says.
What is signed with what, and whether a digest has its algorithm's size, is no matter here.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Final, Protocol

from parsers.base import ParseError

INTERNET: Final = 1
HEADER_SIZE: Final = 12
LABEL_MAX: Final = 63
NAME_MAX: Final = 255

OPT: Final = 41
TSIG: Final = 250
SOA: Final = 6
IXFR: Final = 251
AXFR: Final = 252
_POINTER: Final = 0xC0

# https://www.iana.org/assignments/dns-parameters
TYPES: Final = {
    1: b"A", 2: b"NS", 3: b"MD", 4: b"MF", 5: b"CNAME", 6: b"SOA", 7: b"MB", 8: b"MG", 9: b"MR", 10: b"NULL",
    11: b"WKS", 12: b"PTR", 13: b"HINFO", 14: b"MINFO", 15: b"MX", 16: b"TXT", 17: b"RP", 18: b"AFSDB", 19: b"X25",
    20: b"ISDN", 21: b"RT", 22: b"NSAP", 23: b"NSAP-PTR", 24: b"SIG", 25: b"KEY", 26: b"PX", 27: b"GPOS", 28: b"AAAA",
    29: b"LOC", 30: b"NXT", 31: b"EID", 32: b"NIMLOC", 33: b"SRV", 34: b"ATMA", 35: b"NAPTR", 36: b"KX", 37: b"CERT",
    38: b"A6", 39: b"DNAME", 40: b"SINK", 41: b"OPT", 42: b"APL", 43: b"DS", 44: b"SSHFP", 45: b"IPSECKEY",
    46: b"RRSIG", 47: b"NSEC", 48: b"DNSKEY", 49: b"DHCID", 50: b"NSEC3", 51: b"NSEC3PARAM", 52: b"TLSA",
    53: b"SMIMEA", 55: b"HIP", 56: b"NINFO", 57: b"RKEY", 58: b"TALINK", 59: b"CDS", 60: b"CDNSKEY",
    61: b"OPENPGPKEY", 62: b"CSYNC", 63: b"ZONEMD", 64: b"SVCB", 65: b"HTTPS", 66: b"DSYNC", 67: b"HHIT", 68: b"BRID",
    99: b"SPF", 100: b"UINFO", 101: b"UID", 102: b"GID", 103: b"UNSPEC", 104: b"NID", 105: b"L32", 106: b"L64",
    107: b"LP", 108: b"EUI48", 109: b"EUI64", 128: b"NXNAME", 249: b"TKEY", 250: b"TSIG", 251: b"IXFR", 252: b"AXFR",
    253: b"MAILB", 254: b"MAILA", 255: b"ANY", 256: b"URI", 257: b"CAA", 258: b"AVC", 259: b"DOA", 260: b"AMTRELAY",
    261: b"RESINFO", 262: b"WALLET", 32768: b"TA", 32769: b"DLV",
}  # fmt: skip

# In a label no byte of these needs a backslash.
_PLAIN: Final = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'"().;\\@$')
_ESCAPED: Final = {
    byte: bytes((byte,)) if byte in _PLAIN else b"\\%c" % byte if 0x20 < byte < 0x7F else b"\\%03d" % byte
    for byte in range(256)
}
_IN_QUOTES: Final = re.compile(rb"[^ !#-\[\]-~]")


def type_text(number: int) -> bytes:
    """Its mnemonic, or TYPE and the number."""
    return TYPES.get(number) or b"TYPE%d" % number


def labels_text(labels: list[bytes]) -> bytes:
    """Labels with a dot between them; what is special in one is escaped, so that none passes for two."""
    text = b".".join(labels)
    # Nothing is left of plain labels but the dots between them.
    if len(text.translate(None, _PLAIN)) < len(labels):
        return text
    return b".".join(b"".join(map(_ESCAPED.__getitem__, label)) for label in labels)


class Names:
    """The names of one message. What is pointed to is measured once, however many point at it, and no name has more
    than 127 labels: the work for all of them is linear in the message.
    """

    __slots__ = ("_ends", "_sizes", "_texts", "wire")

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        # By where they begin: their size in wire form without pointers, and the end of what is written there.
        self._sizes: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._texts: dict[int, bytes] = {}

    def skip(self, at: int) -> int:
        """Behind the name that begins at `at`; ParseError or IndexError if it is none."""
        wire = self.wire
        behind = at
        while 0 < (size := wire[behind]) <= LABEL_MAX:
            behind += size + 1
        # As a rule a name is a pointer and nothing else, to one that has been measured.
        if behind > at or size < _POINTER or ((size & 0x3F) << 8 | wire[at + 1]) not in self._ends:
            self._measure(at)
        return behind + 2 if size else behind + 1

    def _measure(self, begin: int) -> None:
        """Its size, and of all that it goes on with."""
        wire, sizes, ends = self.wire, self._sizes, self._ends
        parts: list[tuple[int, int]] = []
        at = place = begin
        rest, before = 0, len(wire)
        while not rest:
            if begin in sizes:
                rest, end = sizes[begin], ends[begin]
            else:
                at = begin
                while 0 < (size := wire[at]) <= LABEL_MAX:
                    at += size + 1
                parts.append((begin, at - begin))
                if 0 < size < _POINTER:
                    raise ParseError("label", at)
                rest, end = (0, at + 2) if size else (1, at + 1)
                ends[begin] = end
            # What is pointed to is written before it, as a whole: no way leads round.
            if end > before:
                raise ParseError("pointer", place)
            if not rest:
                place, before = at, begin
                begin = (wire[at] & 0x3F) << 8 | wire[at + 1]
                if not HEADER_SIZE <= begin < before:
                    raise ParseError("pointer", place)
        for begin, own in reversed(parts):
            rest += own
            if rest > NAME_MAX:
                raise ParseError("name_long", begin)
            sizes[begin] = rest

    def text(self, at: int) -> tuple[bytes, int]:
        """The name at `at`, which has been skipped before, without final dot; and what is behind it."""
        wire, texts = self.wire, self._texts
        begin, behind = at, 0
        parts: list[tuple[int, list[bytes]]] = []
        while True:
            labels: list[bytes] = []
            parts.append((begin, labels))
            while 0 < (size := wire[at]) <= LABEL_MAX:
                labels.append(wire[at + 1 : at + 1 + size])
                at += size + 1
            behind = behind or at + (2 if size else 1)
            if not size:
                rest = b""
                break
            begin = at = (size & 0x3F) << 8 | wire[at + 1]
            if begin in texts:
                rest = texts[begin]
                break
        for begin, labels in reversed(parts):
            if labels:
                own = labels_text(labels)
                rest = own + b"." + rest if rest else own
            texts[begin] = rest
        return rest or b".", behind


class Part(Protocol):
    """Of a record's data. `skip` answers where the next begins, which may be beyond `end`; `text` gets what was skipped
    and answers b"" for what has no presentation form, None for what is not written.
    """

    def skip(self, names: Names, at: int, end: int) -> int:
        """Check it."""

    def text(self, names: Names, at: int, end: int) -> tuple[bytes | None, int]:
        """Write it."""


class _Name:
    def skip(self, names: Names, at: int, end: int) -> int:
        del end
        return names.skip(at)

    def text(self, names: Names, at: int, end: int) -> tuple[bytes, int]:
        del end
        return names.text(at)


class _Fixed:
    """`size` bytes."""

    def __init__(self, size: int, write: Callable[[bytes], bytes]) -> None:
        self.size = size
        self._write = write

    def skip(self, names: Names, at: int, end: int) -> int:
        del names, end
        return at + self.size

    def text(self, names: Names, at: int, end: int) -> tuple[bytes, int]:
        del end
        return self._write(names.wire[at : at + self.size]), at + self.size


class _Rest:
    """All that is left, `least` bytes or more."""

    def __init__(self, write: Callable[[bytes], bytes], least: int = 0) -> None:
        self._least = least
        self._write = write

    def skip(self, names: Names, at: int, end: int) -> int:
        del names
        return max(at + self._least, end)

    def text(self, names: Names, at: int, end: int) -> tuple[bytes, int]:
        return self._write(names.wire[at:end]), end


class _Counted:
    """A byte that says how many follow, `least` or more."""

    def __init__(self, write: Callable[[bytes], bytes], least: int = 0) -> None:
        self._least = least
        self._write = write

    def skip(self, names: Names, at: int, end: int) -> int:
        del end
        size = names.wire[at]
        if size < self._least:
            raise ParseError("record_data", at)
        return at + 1 + size

    def text(self, names: Names, at: int, end: int) -> tuple[bytes, int]:
        del end
        behind = at + 1 + names.wire[at]
        return self._write(names.wire[at + 1 : behind]), behind


class _Strings:
    """One string or more."""

    def skip(self, names: Names, at: int, end: int) -> int:
        wire = names.wire
        at += 1 + wire[at]
        while at < end:
            at += 1 + wire[at]
        return at

    def text(self, names: Names, at: int, end: int) -> tuple[bytes, int]:
        texts: list[bytes] = []
        while at < end:
            text, at = _STRING.text(names, at, end)
            texts.append(text)
        return b" ".join(texts), at


class _Bitmap:
    """Types, in windows of 256 (RFC 4034 §4.1.2)."""

    def skip(self, names: Names, at: int, end: int) -> int:
        last = -1
        while at < end:
            window, size = names.wire[at], names.wire[at + 1]
            if window <= last or not 1 <= size <= 32 or not names.wire[at + 1 + size]:
                raise ParseError("record_data", at)
            last = window
            at += 2 + size
        return at

    def text(self, names: Names, at: int, end: int) -> tuple[bytes | None, int]:
        texts: list[bytes] = []
        while at < end:
            window, size = names.wire[at], names.wire[at + 1]
            for index, byte in enumerate(names.wire[at + 2 : at + 2 + size]):
                texts += [type_text(window << 8 | index << 3 | bit) for bit in range(8) if byte & 0x80 >> bit]
            at += 2 + size
        return b" ".join(texts) or None, at


class _Parameters:
    """Of a service (RFC 9460 §2.2): keys grow, those that are mandatory are there."""

    def skip(self, names: Names, at: int, end: int) -> int:
        keys: set[int] = set()
        mandatory: list[int] = []
        last = -1
        while at < end:
            key, size = _pair(names.wire, at)
            value = names.wire[at + 4 : at + 4 + size]
            if key <= last or not _VALUES.get(key, _anything)(value):
                raise ParseError("record_data", at)
            if not key:
                mandatory = _words(value)
            keys.add(key)
            last = key
            at += 4 + size
        if not keys.issuperset(mandatory) or (2 in keys and 1 not in keys):
            raise ParseError("record_data", at)
        return at

    def text(self, names: Names, at: int, end: int) -> tuple[bytes | None, int]:
        texts: list[bytes] = []
        while at < end:
            key, size = _pair(names.wire, at)
            value = names.wire[at + 4 : at + 4 + size]
            at += 4 + size
            name, write = _PARAMETERS.get(key, (b"", None))
            text = write(value) if write else None
            if text is None:
                name, text = b"key%d" % key, _quoted(value) if value else b""
            texts.append(name + b"=" + text if text else name)
        return b" ".join(texts) or None, at


def _pair(wire: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(wire[at : at + 2], "big"), wire[at + 2] << 8 | wire[at + 3]


def _words(value: bytes) -> list[int]:
    return [int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value), 2)]


def _anything(value: bytes) -> bool:
    del value
    return True


def _is_mandatory(value: bytes) -> bool:
    keys = _words(value)
    return len(value) % 2 == 0 and 0 < len(keys) == len(set(keys)) and keys == sorted(keys) and keys[0] > 0


def _alpn_ids(value: bytes) -> list[bytes]:
    """None if their sizes do not add up, or one is empty."""
    ids: list[bytes] = []
    at = 0
    while at < len(value):
        size = value[at]
        if not size or at + 1 + size > len(value):
            return []
        ids.append(value[at + 1 : at + 1 + size])
        at += 1 + size
    return ids


def _alpn_text(value: bytes) -> bytes | None:
    ids = _alpn_ids(value)
    # What would have to be escaped, some of it twice, is left to the general form.
    return b'"' + b",".join(ids) + b'"' if all(map(_ALPN.fullmatch, ids)) else None


_ALPN: Final = re.compile(rb"[!#-+.-\[\]-~-]+")


def _quoted(value: bytes) -> bytes:
    return b'"' + _IN_QUOTES.sub(_escape, value) + b'"'


def _escape(found: re.Match[bytes]) -> bytes:
    byte = found[0][0]
    return b"\\%c" % byte if byte in b'"\\' else b"\\%03d" % byte


def _number(value: bytes) -> bytes:
    return b"%d" % int.from_bytes(value, "big")


def ipv4_text(value: bytes) -> bytes:
    """192.0.2.1"""
    return b"%d.%d.%d.%d" % tuple(value)


def ipv6_text(value: bytes) -> bytes:
    """As RFC 5952 writes it, §5 for an address that holds an IPv4 address."""
    if value.startswith(_MAPPED):
        return b"::ffff:" + ipv4_text(value[12:])
    return str(IPv6Address(value)).encode()


_MAPPED: Final = bytes(10) + b"\xff\xff"


def _hex(value: bytes) -> bytes:
    return value.hex().encode()


def _salt(value: bytes) -> bytes:
    return _hex(value) or b"-"


def _base32hex(value: bytes) -> bytes:
    return base64.b32hexencode(value).rstrip(b"=").lower()


def _type(value: bytes) -> bytes:
    return type_text(int.from_bytes(value, "big"))


def _moment(value: bytes) -> bytes:
    """RFC 4034 §3.2."""
    return datetime.fromtimestamp(int.from_bytes(value, "big"), tz=UTC).strftime("%Y%m%d%H%M%S").encode()


def _tag(value: bytes) -> bytes:
    return value if value.isalnum() else b""


def _dashed(value: bytes) -> bytes:
    return value.hex("-").encode()


def _colons(value: bytes) -> bytes:
    return value.hex(":", 2).encode()


class _Location:
    """RFC 1876."""

    _FORM = struct.Struct(">B3s3I")
    _EQUATOR = 1 << 31
    _GROUND = 10_000_000  # centimetres, at the bottom of the scale

    def skip(self, names: Names, at: int, end: int) -> int:
        del end
        version, sizes, latitude, longitude, _ = self._FORM.unpack_from(names.wire, at)
        fits = abs(latitude - self._EQUATOR) <= 90 * 3_600_000 and abs(longitude - self._EQUATOR) <= 180 * 3_600_000
        if version or not fits or any(size >> 4 > 9 or size & 15 > 9 for size in sizes):
            raise ParseError("record_data", at)
        return at + self._FORM.size

    def text(self, names: Names, at: int, end: int) -> tuple[bytes, int]:
        del end
        _, sizes, latitude, longitude, altitude = self._FORM.unpack_from(names.wire, at)
        height = altitude - self._GROUND
        texts = [
            self._angle(latitude - self._EQUATOR, b"NS"),
            self._angle(longitude - self._EQUATOR, b"EW"),
            b"%b%d.%02dm" % (b"-" if height < 0 else b"", *divmod(abs(height), 100)),
            *(b"%d.%02dm" % divmod((size >> 4) * 10 ** (size & 15), 100) for size in sizes),
        ]
        return b" ".join(texts), at + self._FORM.size

    @staticmethod
    def _angle(thousandths: int, sides: bytes) -> bytes:
        seconds, thousandth = divmod(abs(thousandths), 1000)
        side = sides[:1] if thousandths >= 0 else sides[1:]
        return b"%d %d %d.%03d %b" % (seconds // 3600, seconds // 60 % 60, seconds % 60, thousandth, side)


# Which values a service's parameter may have (RFC 9460 §7 and §8, RFC 9461 §5), and how they are written.
_VALUES: Final[dict[int, Callable[[bytes], bool]]] = {
    0: _is_mandatory,
    1: lambda value: bool(_alpn_ids(value)),
    2: lambda value: not value,
    3: lambda value: len(value) == 2,
    4: lambda value: bool(value) and len(value) % 4 == 0,
    6: lambda value: bool(value) and len(value) % 16 == 0,
}


def _each(value: bytes, size: int, write: Callable[[bytes], bytes]) -> bytes:
    return b'"' + b",".join(write(value[at : at + size]) for at in range(0, len(value), size)) + b'"'


_PARAMETERS: Final[dict[int, tuple[bytes, Callable[[bytes], bytes | None]]]] = {
    0: (b"mandatory", lambda value: _each(value, 2, lambda key: _key_text(int.from_bytes(key, "big")))),
    1: (b"alpn", _alpn_text),
    2: (b"no-default-alpn", lambda _: b""),
    3: (b"port", lambda value: b'"' + _number(value) + b'"'),
    4: (b"ipv4hint", lambda value: _each(value, 4, ipv4_text)),
    5: (b"ech", lambda value: b'"' + base64.b64encode(value) + b'"' if value else None),
    6: (b"ipv6hint", lambda value: _each(value, 16, ipv6_text)),
}


def _key_text(key: int) -> bytes:
    return _PARAMETERS[key][0] if key in _PARAMETERS else b"key%d" % key


_NAME: Final = _Name()
_U8: Final = _Fixed(1, _number)
_U16: Final = _Fixed(2, _number)
_U32: Final = _Fixed(4, _number)
_TYPE: Final = _Fixed(2, _type)
_MOMENT: Final = _Fixed(4, _moment)
_IP4: Final = _Fixed(4, ipv4_text)
_IP6: Final = _Fixed(16, ipv6_text)
_LOCATOR: Final = _Fixed(8, _colons)
_STRING: Final = _Counted(_quoted)
_STRINGS: Final = _Strings()
_HEX: Final = _Rest(_hex)
_BASE64: Final = _Rest(base64.b64encode)
_TYPES: Final = _Bitmap()


class Layout:
    """Of a type's record data. `internet`: in class IN only."""

    __slots__ = ("_parts", "_size", "_steps", "internet")

    def __init__(self, *parts: Part, internet: bool = False) -> None:
        self.internet = internet
        self._parts = parts
        self._steps = [part.size if isinstance(part, _Fixed) else part.skip for part in parts]
        sizes = [step for step in self._steps if isinstance(step, int)]
        self._size = sum(sizes) if len(sizes) == len(parts) else -1

    def check(self, names: Names, at: int, end: int) -> None:
        """From `at` to `end`, no more and no less; IndexError where the message ends before."""
        if self._size < 0:
            for step in self._steps:
                at = at + step if isinstance(step, int) else step(names, at, end)
                if at > end:
                    break
        else:
            at += self._size
        if at != end:
            raise ParseError("record_data", min(at, end))

    def text(self, names: Names, at: int, end: int) -> bytes:
        """Of what has been checked."""
        begin = at
        texts: list[bytes] = []
        for part in self._parts:
            text, at = part.text(names, at, end)
            if text == b"":
                return unknown_text(names.wire[begin:end])
            if text is not None:
                texts.append(text)
        return b" ".join(texts)


def unknown_text(value: bytes) -> bytes:
    """RFC 3597 §5."""
    return b"\\# %d %b" % (len(value), _hex(value)) if value else b"\\# 0"


_ONE_NAME: Final = Layout(_NAME)
_TWO_NAMES: Final = Layout(_NAME, _NAME)
_PREFERENCE: Final = Layout(_U16, _NAME)
_TEXTS: Final = Layout(_STRINGS)
_DIGEST: Final = Layout(_U16, _U8, _U8, _HEX)
_KEY: Final = Layout(_U16, _U8, _U8, _BASE64)
_SIGNATURE: Final = Layout(_TYPE, _U8, _U8, _U32, _MOMENT, _MOMENT, _U16, _NAME, _BASE64)
_CERTIFICATE: Final = Layout(_U8, _U8, _U8, _HEX)
_SERVICE: Final = Layout(_U16, _NAME, _Parameters(), internet=True)

LAYOUTS: Final[dict[int, Layout]] = {
    **dict.fromkeys((2, 3, 4, 5, 7, 8, 9, 12, 39), _ONE_NAME),  # NS MD MF CNAME MB MG MR PTR, DNAME (RFC 6672)
    **dict.fromkeys((14, 17), _TWO_NAMES),  # MINFO, RP (RFC 1183)
    **dict.fromkeys((15, 18, 21, 107), _PREFERENCE),  # MX, AFSDB and RT (RFC 1183), LP (RFC 6742)
    **dict.fromkeys((16, 56, 99, 258, 261, 262), _TEXTS),  # TXT NINFO SPF AVC RESINFO WALLET
    **dict.fromkeys((43, 59, 32768, 32769), _DIGEST),  # DS CDS TA DLV (RFC 4034)
    **dict.fromkeys((25, 48, 60), _KEY),  # KEY DNSKEY CDNSKEY (RFC 4034)
    **dict.fromkeys((24, 46), _SIGNATURE),  # SIG RRSIG (RFC 4034)
    **dict.fromkeys((52, 53), _CERTIFICATE),  # TLSA SMIMEA (RFC 6698, RFC 8162)
    **dict.fromkeys((64, 65), _SERVICE),  # SVCB HTTPS (RFC 9460)
    1: Layout(_IP4, internet=True),
    6: Layout(_NAME, _NAME, _U32, _U32, _U32, _U32, _U32),
    13: Layout(_STRING, _STRING),
    19: Layout(_STRING),
    23: Layout(_NAME, internet=True),  # RFC 1348
    26: Layout(_U16, _NAME, _NAME, internet=True),  # RFC 2163
    28: Layout(_IP6, internet=True),
    29: Layout(_Location()),
    33: Layout(_U16, _U16, _U16, _NAME, internet=True),  # RFC 2782
    35: Layout(_U16, _U16, _STRING, _STRING, _STRING, _NAME, internet=True),  # RFC 3403
    36: Layout(_U16, _NAME, internet=True),  # RFC 2230
    37: Layout(_U16, _U16, _U8, _BASE64),  # RFC 4398
    44: Layout(_U8, _U8, _HEX),  # RFC 4255
    47: Layout(_NAME, _TYPES),
    49: Layout(_BASE64, internet=True),  # RFC 4701
    50: Layout(_U8, _U8, _U16, _Counted(_salt), _Counted(_base32hex, 1), _TYPES),  # RFC 5155
    51: Layout(_U8, _U8, _U16, _Counted(_salt)),
    61: Layout(_BASE64),  # RFC 7929
    62: Layout(_U32, _U16, _TYPES),  # RFC 7477
    63: Layout(_U32, _U8, _U8, _HEX),  # RFC 8976
    66: Layout(_TYPE, _U8, _U16, _NAME),  # RFC 9859
    104: Layout(_U16, _LOCATOR),  # RFC 6742
    105: Layout(_U16, _IP4),
    106: Layout(_U16, _LOCATOR),
    108: Layout(_Fixed(6, _dashed)),  # RFC 7043
    109: Layout(_Fixed(8, _dashed)),
    256: Layout(_U16, _U16, _Rest(_quoted, 1)),  # RFC 7553
    257: Layout(_U8, _Counted(_tag, 1), _Rest(_quoted)),  # RFC 8659
}
