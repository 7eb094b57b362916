r"""One reading of what a request names, before any rule looks at it.

Servers differ in how they read odd paths. `Path.ambiguous` says that such a
difference could matter, and then the rules are closed on both sides: **an ambiguous path
satisfies every `http.path` condition of a deny rule and none of an allow rule.**
Ambiguous are:

* an encoded slash, backslash, percent sign before two hex digits, or control byte
  (%2f %5c %25xx %00-%1f %7f), and an escape that is none (%zz);
* a backslash, control byte or `#`;
* dot segments (also encoded), empty segments (`//`), and `;` parameters: servers
  that resolve, merge or cut them route the path elsewhere than those that do not.

Everything else has one reading: percent-encoded unreserved characters are decoded,
other escapes get upper-case digits, bytes above 0x7f are escaped, the query is cut off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# No escape, no empty segment, none that begins with a dot: the usual path, and nothing to normalise.
_PLAIN: Final = re.compile(rb"/(?:[\w~!$&'()*+,=:@-][\w.~!$&'()*+,=:@-]*/)*(?:[\w~!$&'()*+,=:@-][\w.~!$&'()*+,=:@-]*)?")
_ESCAPE: Final = re.compile(rb"%(..)?", re.DOTALL)
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Path:
    """A path as rules see it."""

    text: str
    ambiguous: bool = False


def _decode(escape: re.Match[bytes]) -> bytes:
    digits = escape.group(1)
    if digits is None or not _HEX.issuperset(digits):
        return escape.group(0)
    value = int(digits, 16)
    return bytes((value,)) if value in _UNRESERVED else b"%" + digits.upper()


@lru_cache(maxsize=4096)
def path(target: bytes) -> Path:
    """The path of a request target (origin form, or `*`)."""
    raw = target.partition(b"?")[0]
    if _PLAIN.fullmatch(raw):
        return Path(raw.decode("ascii"))
    ambiguous = False
    for escape in _ESCAPE.finditer(raw):
        digits = escape.group(1)
        if digits is None or not _HEX.issuperset(digits):
            ambiguous = True
            continue
        value = int(digits, 16)
        behind = raw[escape.end() : escape.end() + 2]
        twice = value == 0x25 and len(behind) == 2 and _HEX.issuperset(behind)
        ambiguous |= twice or value in b"/\\" or value < 0x20 or value == 0x7F
    decoded = _ESCAPE.sub(_decode, raw)
    ambiguous |= any(byte < 0x20 or byte == 0x7F or byte in b"\\#;" for byte in decoded)
    segments = decoded.split(b"/")[1:]
    ambiguous |= any(segment in {b".", b".."} for segment in segments) or b"" in segments[:-1]
    text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in decoded)
    return Path(_resolve(text) if ambiguous else text, ambiguous)


def _resolve(text: str) -> str:
    """RFC 3986 §5.2.4, for the record and for deny rules' samples; no rule's outcome depends on it."""
    out: list[str] = []
    segments = text.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            if out:
                out.pop()
            if last:
                out.append("")
        elif segment != ".":
            out.append(segment)
        elif last:
            out.append("")
    return "/" + "/".join(out)


@lru_cache(maxsize=4096)
def host(authority: bytes) -> str:
    """Name of an authority: lower case, without port and final dot."""
    text = authority.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].removesuffix(".")
