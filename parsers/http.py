"""What HTTP/1 and HTTP/2 tell alike: fields of requests that rules ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from parsers.base import Parser, Value

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case

_HEADER: Final = "http.header."
# Fields of a request, but for its headers, that are told on demand.
_OF_REQUESTS: Final = frozenset(
    ("http.version", "http.target", "http.query", "http.content_type", "http.protocol", "http.encoding")
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`Parser.asked`, sorted."""

    names: frozenset[str]
    of_requests: bool  # anything of a request that is told on demand
    headers: tuple[bytes, ...]  # of requests


@lru_cache(maxsize=1024)
def wanted(names: frozenset[str]) -> Wanted:
    """What to tell where somebody asks for these."""
    headers = _keys(names, _HEADER)
    return Wanted(names, bool(headers) or not _OF_REQUESTS.isdisjoint(names), headers)


def _keys(names: Iterable[str], family: str) -> tuple[bytes, ...]:
    return tuple(sorted(name.removeprefix(family).encode() for name in names if name.startswith(family)))


class HttpParser(Parser):
    """A parser that tells fields on demand."""

    _wanted = wanted(frozenset())

    @property
    def asked(self) -> frozenset[str]:
        """See `Parser`."""
        return self._wanted.names

    @asked.setter
    def asked(self, names: frozenset[str]) -> None:
        self._wanted = wanted(names)

    def _said(self, target: bytes, version: bytes, headers: Headers, offered: Iterable[bytes]) -> dict[str, Value]:
        """What a request says of what is asked for. `offered`: protocols that it offers to go on in."""
        names = self._wanted.names
        said: dict[str, Value] = {}
        if "http.version" in names:
            said["http.version"] = version
        if "http.target" in names:
            said["http.target"] = target
        if "http.query" in names and b"?" in target:
            said["http.query"] = target.partition(b"?")[2]
        types = values_of(headers, b"content-type") if "http.content_type" in names else []
        if types:
            said["http.content_type"] = tuple(media_type(value) for value in types)
        if "http.protocol" in names and offered:
            said["http.protocol"] = tuple(offered)
        if "http.encoding" in names:
            said["http.encoding"] = encoding(headers)
        for name in self._wanted.headers:
            if values := values_of(headers, name):
                said[_HEADER + name.decode()] = tuple(values)
        return said


def values_of(headers: Headers, name: bytes) -> list[bytes]:
    """Of all headers of a name, in their order."""
    return [value.strip(b" \t") for each, value in headers if each == name]


def tokens_of(headers: Headers, name: bytes) -> list[bytes]:
    """Members of lists, in lower case."""
    found = (token.strip(b" \t").lower() for value in values_of(headers, name) for token in value.split(b","))
    return [token for token in found if token]


def media_type(value: bytes) -> bytes:
    """Without parameters."""
    return value.partition(b";")[0].strip(b" \t")


def encoding(headers: Headers) -> bytes:
    """Codings of a body in the order in which they were applied."""
    return b", ".join(each for each in tokens_of(headers, b"content-encoding") if each != b"identity") or b"identity"
