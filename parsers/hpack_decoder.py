"""HPACK (RFC 7541): what a header block says.

libnghttp2's inflater where that library is installed, through cffi and its public functions, else the package `hpack`;
the environment variable MICROSEG_HPACK, `nghttp2` or `python`, asks for one of them. Both take and refuse the same
blocks, in the same words.
"""

from __future__ import annotations

import os
from typing import Any, Final, Protocol

import cffi
import hpack
from hpack.exceptions import HPACKError, OversizedHeaderListError

from parsers.base import ParseError

# What a header counts for beside its name and value, in tables and in lists (RFC 7541 §4.1).
_ENTRY: Final = 32
_TABLE: Final = 4096
_LIBRARY: Final = "libnghttp2.so.14"
_EMIT: Final = 2

_FFI: Final = cffi.FFI()
_FFI.cdef("""
    typedef struct nghttp2_hd_inflater nghttp2_hd_inflater;
    typedef struct { char *name; char *value; size_t namelen; size_t valuelen; uint8_t flags; } nghttp2_nv;
    int nghttp2_hd_inflate_new(nghttp2_hd_inflater **inflater);
    void nghttp2_hd_inflate_del(nghttp2_hd_inflater *inflater);
    int nghttp2_hd_inflate_change_table_size(nghttp2_hd_inflater *inflater, size_t size);
    ssize_t nghttp2_hd_inflate_hd2(
        nghttp2_hd_inflater *inflater, nghttp2_nv *nv, int *flags, const char *in, size_t size, int final);
    int nghttp2_hd_inflate_end_headers(nghttp2_hd_inflater *inflater);
""")


class Decoder(Protocol):
    """Of one direction. After a ParseError, ``hpack`` or ``header_list``, it is of no more use."""

    def allow(self, table: int) -> None:
        """The encoder may make its dynamic table so large; never less than it was allowed before."""

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Names and values of a whole block."""


class PythonDecoder:
    """By the package `hpack`."""

    def __init__(self, header_list: int) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=header_list)

    def allow(self, table: int) -> None:
        """See `Decoder`."""
        # Its other property would change the table at once; the encoder's own size update is what does.
        self._decoder.max_allowed_table_size = max(self._decoder.max_allowed_table_size, table)

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """See `Decoder`."""
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise ParseError("header_list") from None
        except HPACKError:
            raise ParseError("hpack") from None


class Nghttp2Decoder:
    """By libnghttp2."""

    def __init__(self, header_list: int) -> None:
        library = _library()
        if library is None:
            raise ImportError(f"no {_LIBRARY}")
        self._library = library
        self._limit = header_list
        self._table = _TABLE
        made = _FFI.new("nghttp2_hd_inflater **")
        if library.nghttp2_hd_inflate_new(made):
            raise MemoryError
        self._inflater = _FFI.gc(made[0], library.nghttp2_hd_inflate_del)
        self._header = _FFI.new("nghttp2_nv *")
        self._flags = _FFI.new("int *")

    def allow(self, table: int) -> None:
        """See `Decoder`."""
        if table > self._table:
            self._table = table
            if self._library.nghttp2_hd_inflate_change_table_size(self._inflater, table):
                raise MemoryError

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """See `Decoder`."""
        inflate, unpack = self._library.nghttp2_hd_inflate_hd2, _FFI.unpack
        inflater, header, flags = self._inflater, self._header, self._flags
        headers: list[tuple[bytes, bytes]] = []
        left, room = len(block), self._limit
        at = _FFI.from_buffer(block)
        while True:
            taken = inflate(inflater, header, flags, at, left, 1)
            if taken < 0:
                raise ParseError("hpack")
            if not flags[0] & _EMIT:
                break  # nothing is left: a block that ends within a header is refused
            name, value = unpack(header.name, header.namelen), unpack(header.value, header.valuelen)
            room -= len(name) + len(value) + _ENTRY
            if room < 0:
                raise ParseError("header_list")
            headers.append((name, value))
            at += taken
            left -= taken
        self._library.nghttp2_hd_inflate_end_headers(inflater)
        return headers


def _open() -> Any:
    try:
        return _FFI.dlopen(_LIBRARY)
    except OSError:
        return None


_LIBNGHTTP2: Final = _open()


def _library() -> Any:
    return _LIBNGHTTP2


def _chosen() -> type[PythonDecoder | Nghttp2Decoder]:
    wanted = os.environ.get("MICROSEG_HPACK", "")
    if wanted not in {"", "python", "nghttp2"}:
        raise ImportError(f"MICROSEG_HPACK is {wanted!r}: neither python nor nghttp2")
    if wanted == "nghttp2" and _LIBNGHTTP2 is None:
        raise ImportError(f"MICROSEG_HPACK is nghttp2, and there is no {_LIBRARY}")
    return PythonDecoder if wanted == "python" or _LIBNGHTTP2 is None else Nghttp2Decoder


HpackDecoder: Final = _chosen()
