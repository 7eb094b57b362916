"""libbpf through ctypes: pins, maps, test runs, the ring buffer. No bcc, no compiler.

Only what the daemons need. Every call raises OSError with the kernel's errno.
The library is Debian's `libbpf.so.1` (1.0 or later: functions return -errno).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# enum bpf_map_type (linux/bpf.h)
MAP_HASH = 1
MAP_ARRAY = 2
MAP_LRU_HASH = 9
MAP_LPM_TRIE = 11

# enum bpf_prog_type, enum bpf_attach_type
PROG_SCHED_CLS = 3
TCX_INGRESS, TCX_EGRESS = 46, 47
# tcx: a hook of one interface holds so many programs at most (kernel: BPF_MPROG_MAX).
TCX_MOST = 64
F_REPLACE = 4

# Flags of map creation and update.
F_NO_PREALLOC = 1
F_NO_COMMON_LRU = 2
F_INNER_MAP = 0x1000

# Entries of one batch system call: large enough to hide its cost, small enough to stay in the cache.
BATCH = 4096


class _MapCreateOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


class _TestRunOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class _MapInfo(ctypes.Structure):
    """The first fields of struct bpf_map_info."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
    )


class _ProgInfo(ctypes.Structure):
    """The first fields of struct bpf_prog_info."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
    )


class _FuncInfo(ctypes.Structure):
    """struct bpf_func_info: where a function begins, and its type."""

    _fields_ = (("insn_off", ctypes.c_uint32), ("type_id", ctypes.c_uint32))


class _BtfInfo(ctypes.Structure):
    """The first fields of struct bpf_btf_info."""

    _fields_ = (("btf", ctypes.c_uint64), ("btf_size", ctypes.c_uint32), ("id", ctypes.c_uint32))


class _ProgLoadOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
    )


class _ProgAttachOpts(ctypes.Structure):
    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint), ("replace_prog_fd", ctypes.c_int))


_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class LibraryMissingError(OSError):
    """There is no libbpf on this machine."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, "libbpf.so.1 is missing (Debian: libbpf1)")


@functools.cache
def _lib() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise LibraryMissingError from None
    lib.ring_buffer__new.restype = ctypes.c_void_p
    lib.ring_buffer__new.argtypes = (ctypes.c_int, _SAMPLE, ctypes.c_void_p, ctypes.c_void_p)
    for name in ("ring_buffer__consume", "ring_buffer__epoll_fd", "ring_buffer__free"):
        getattr(lib, name).argtypes = (ctypes.c_void_p,)
    return lib


def _check(result: int, what: str, path: object = None) -> int:
    if result < 0:
        number = -result
        raise OSError(number, f"{what}: {os.strerror(number)}", None if path is None else str(path))
    return result


def _ignore_missing(result: int, what: str) -> bool:
    if result == -errno.ENOENT:
        return False
    _check(result, what)
    return True


def _info(fd: int, info: ctypes.Structure) -> None:
    """Fill in what the kernel knows of an object."""
    size = ctypes.c_uint32(ctypes.sizeof(info))
    _check(_lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "object info")


class Descriptor:
    """A file descriptor of a BPF object; closed with the object."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close; the kernel's object lives on while something else refers to it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Btf(Descriptor):
    """Type information of maps and programs."""

    @classmethod
    def load(cls, content: bytes) -> Btf:
        """Hand it to the kernel."""
        return cls(_check(_lib().bpf_btf_load(content, ctypes.c_size_t(len(content)), None), "load type information"))

    @classmethod
    def by_id(cls, number: int) -> Btf:
        """That with the kernel's number."""
        return cls(_check(_lib().bpf_btf_get_fd_by_id(ctypes.c_uint32(number)), f"type information {number}"))

    def read(self) -> bytes:
        """What was loaded."""
        info = _BtfInfo()
        _info(self.fd, info)
        room = ctypes.create_string_buffer(info.btf_size)
        _info(self.fd, again := _BtfInfo(ctypes.addressof(room), info.btf_size))
        return room.raw[: again.btf_size]


@dataclass(frozen=True, slots=True)
class MapTypes:
    """Where a map's types stand in the type information `btf` (the kernel's number; 0: it has none)."""

    btf: int
    key: int
    value: int


UNTYPED = MapTypes(0, 0, 0)


@dataclass(frozen=True, slots=True)
class MapShape:
    """What must be equal before a pinned map is used."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class Map(Descriptor):
    """A map; keys and values are bytes of exactly its sizes."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        info = _MapInfo()
        _info(fd, info)
        self.id = int(info.id)
        self.shape = MapShape(info.type, info.key_size, info.value_size, info.max_entries, info.map_flags)
        self.types = MapTypes(info.btf_id, info.btf_key_type_id, info.btf_value_type_id)
        # Per-CPU maps of the kernel copy 8-byte-rounded values of every possible CPU.
        self._room = info.value_size
        if info.type in {5, 6, 10, 21}:  # PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE
            self._room = (info.value_size + 7) // 8 * 8 * possible_cpus()

    @classmethod
    def open(cls, path: Path) -> Map:
        """The map pinned at `path`."""
        return cls(_check(_lib().bpf_obj_get(os.fsencode(path)), "open pinned map", path))

    @classmethod
    def create(
        cls,
        name: str,
        shape: MapShape,
        *,
        template: Map | None = None,
        btf: Btf | None = None,
        types: MapTypes = UNTYPED,
    ) -> Map:
        """A new map; `template` of the maps in an array of maps, `types` within `btf`."""
        opts = _MapCreateOpts(
            sz=ctypes.sizeof(_MapCreateOpts),
            btf_fd=btf.fd if btf else 0,
            btf_key_type_id=types.key,
            btf_value_type_id=types.value,
            inner_map_fd=template.fd if template else 0,
            map_flags=shape.flags,
        )
        fd = _lib().bpf_map_create(
            shape.type, name.encode(), shape.key_size, shape.value_size, shape.max_entries, ctypes.byref(opts)
        )
        return cls(_check(fd, f"create map {name}"))

    @classmethod
    def by_id(cls, number: int) -> Map:
        """The map with the kernel's number."""
        return cls(_check(_lib().bpf_map_get_fd_by_id(ctypes.c_uint32(number)), f"map {number}"))

    @classmethod
    def array(cls, name: str, values: bytes, entries: int) -> Map:
        """A new array for a slot of an array of maps; `values` are those of its entries, one after the other."""
        made = cls.create(name, MapShape(MAP_ARRAY, 4, len(values) // entries, entries, F_INNER_MAP))
        made.update_batch(array("I", range(entries)).tobytes(), values)
        return made

    def lookup(self, key: bytes) -> bytes | None:
        """Value of a key (per-CPU maps: of all CPUs, one after the other), None if there is none."""
        value = ctypes.create_string_buffer(self._room)
        found = _ignore_missing(_lib().bpf_map_lookup_elem(self.fd, key, value), "map lookup")
        return value.raw if found else None

    def into(self, value: ctypes.Structure) -> Callable[[bytes], bool]:
        """Looks keys up and puts what is found into `value`, for many: nothing is made for each. False if there is
        none. ValueError where the map's values are of another size.
        """
        if ctypes.sizeof(value) != self._room:
            raise ValueError(f"{ctypes.sizeof(value)} bytes for values of {self._room}")
        call, reference = _lib().bpf_map_lookup_elem, ctypes.byref(value)

        def lookup(key: bytes) -> bool:
            return _ignore_missing(call(self.fd, key, reference), "map lookup")

        return lookup

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Store a value; `flags` as in bpf(2)."""
        _check(_lib().bpf_map_update_elem(self.fd, key, value, ctypes.c_uint64(flags)), "map update")

    def delete(self, key: bytes) -> bool:
        """Remove a key; False if there is none."""
        return _ignore_missing(_lib().bpf_map_delete_elem(self.fd, key), "map delete")

    def keys(self) -> Iterator[bytes]:
        """All keys, one system call each: for small maps."""
        current: bytes | None = None
        room = ctypes.create_string_buffer(self.shape.key_size)
        while _ignore_missing(_lib().bpf_map_get_next_key(self.fd, current, room), "map walk"):
            current = room.raw
            yield current

    def update_batch(self, keys: bytes, values: bytes) -> None:
        """Store many values at once; both are packed one after the other (kernel 5.6)."""
        total = len(keys) // self.shape.key_size
        done = 0
        while done < total:
            count = ctypes.c_uint32(min(BATCH * 16, total - done))
            key_at, value_at = done * self.shape.key_size, done * self.shape.value_size
            _check(
                _lib().bpf_map_update_batch(
                    self.fd,
                    keys[key_at : key_at + count.value * self.shape.key_size],
                    values[value_at : value_at + count.value * self.shape.value_size],
                    ctypes.byref(count),
                    None,
                ),
                "map batch update",
            )
            done += count.value

    def batches(self, size: int = BATCH) -> Iterator[tuple[int, memoryview, memoryview]]:
        """(count, packed keys, packed values) of the whole hash map (kernel 5.6). Entries that
        move meanwhile may be seen twice or not at all. The memory is used again for the next batch.
        """
        # The cursor is a bucket number for hashes; a bucket is never split, so the batch grows on ENOSPC.
        cursor = (ctypes.c_uint8 * max(8, self.shape.key_size))()
        at: ctypes.Array[ctypes.c_uint8] | None = None
        room = 0
        while True:
            if room != size:
                keys, values = bytearray(size * self.shape.key_size), bytearray(size * self.shape.value_size)
                key_room = (ctypes.c_uint8 * len(keys)).from_buffer(keys)
                value_room = (ctypes.c_uint8 * len(values)).from_buffer(values)
                room = size
            count = ctypes.c_uint32(size)
            result = _lib().bpf_map_lookup_batch(
                self.fd, at, ctypes.byref(cursor), key_room, value_room, ctypes.byref(count), None
            )
            if result == -errno.ENOSPC:
                size *= 2
                continue
            if result != -errno.ENOENT:
                _check(result, "map batch lookup")
            number = count.value
            if number:
                yield (
                    number,
                    memoryview(keys)[: number * self.shape.key_size],
                    memoryview(values)[: number * self.shape.value_size],
                )
            if result == -errno.ENOENT:
                return
            at = cursor


class Program(Descriptor):
    """A loaded program."""

    @classmethod
    def open(cls, path: Path) -> Program:
        """The program pinned at `path`."""
        return cls(_check(_lib().bpf_obj_get(os.fsencode(path)), "open pinned program", path))

    @classmethod
    def by_id(cls, number: int) -> Program:
        """The program with the kernel's number."""
        return cls(_check(_lib().bpf_prog_get_fd_by_id(ctypes.c_uint32(number)), f"program {number}"))

    @classmethod
    def load(cls, name: str, instructions: bytes, btf: Btf | None = None, function: int = 0) -> Program:
        """A new TC program of ready instructions (struct bpf_insn); `function` is its type within `btf`."""
        number = ctypes.c_size_t(len(instructions) // 8)
        opts = _ProgLoadOpts(sz=ctypes.sizeof(_ProgLoadOpts))
        start = _FuncInfo(0, function)
        if btf:
            opts.prog_btf_fd = btf.fd
            opts.func_info, opts.func_info_cnt, opts.func_info_rec_size = (
                ctypes.addressof(start),
                1,
                ctypes.sizeof(start),
            )
        fd = _lib().bpf_prog_load(PROG_SCHED_CLS, name.encode(), b"GPL", instructions, number, ctypes.byref(opts))
        return cls(_check(fd, f"load {name}"))

    @property
    def id(self) -> int:
        """The kernel's number of it."""
        return int(self._info().id)

    @property
    def name(self) -> str:
        """Its name, of which the kernel keeps 15 characters."""
        return bytes(self._info().name).decode(errors="replace")

    @property
    def types(self) -> tuple[int, int]:
        """The kernel's number of its type information, and where its function stands in that; 0: there is none."""
        first = _FuncInfo()
        size = ctypes.sizeof(first)
        asked = _ProgInfo(func_info=ctypes.addressof(first), nr_func_info=1, func_info_rec_size=size)
        return int(self._info(asked).btf_id), int(first.type_id)

    def _info(self, info: _ProgInfo | None = None) -> _ProgInfo:
        """What the kernel knows of it; where `info` gives it room, more of that."""
        info = info or _ProgInfo()
        _info(self.fd, info)
        return info

    def run(self, frame: bytes, *, repeat: int = 1, context: bytes | None = None) -> TestRun:
        """BPF_PROG_TEST_RUN: the program over `frame`, `context` as its struct __sk_buff."""
        room = ctypes.create_string_buffer(len(frame) + 256)
        opts = _TestRunOpts(
            sz=ctypes.sizeof(_TestRunOpts),
            data_in=ctypes.cast(ctypes.c_char_p(frame), ctypes.c_void_p),
            data_size_in=len(frame),
            data_out=ctypes.cast(room, ctypes.c_void_p),
            data_size_out=len(room),
            repeat=repeat,
        )
        after = None
        if context is not None:
            after = ctypes.create_string_buffer(len(context))
            opts.ctx_in = ctypes.cast(ctypes.c_char_p(context), ctypes.c_void_p)
            opts.ctx_size_in = len(context)
            opts.ctx_out = ctypes.cast(after, ctypes.c_void_p)
            opts.ctx_size_out = len(context)
        _check(_lib().bpf_prog_test_run_opts(self.fd, ctypes.byref(opts)), "program test run")
        signed = ctypes.c_int32(opts.retval).value
        return TestRun(signed, room.raw[: opts.data_size_out], opts.duration, after.raw if after else b"")

    def over(self, frame: bytearray) -> Callable[[int], None]:
        """Runs the program over the first so many bytes of `frame` and changes them in place: nothing is
        copied, for many runs.
        """
        room = (ctypes.c_uint8 * len(frame)).from_buffer(frame)
        at = ctypes.cast(room, ctypes.c_void_p)
        opts = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts), data_in=at, data_out=at, repeat=1)
        call, reference = _lib().bpf_prog_test_run_opts, ctypes.byref(opts)

        def run(size: int) -> None:
            opts.data_size_in = opts.data_size_out = size
            _check(call(self.fd, reference), "program test run")

        return run


@dataclass(frozen=True, slots=True)
class TestRun:
    """Outcome of a test run: return value, the frame after it, nanoseconds a run, the context after it."""

    __test__ = False  # not pytest's

    value: int
    frame: bytes
    nanoseconds: int
    context: bytes


class RingBuffer:
    """Consumer of a BPF ring buffer; `fd` becomes readable when records wait."""

    def __init__(self, ring: Map, receive: Callable[[int, int], None]) -> None:
        """`receive(address, size)` must copy what it keeps."""

        def sample(_: object, address: int, size: int) -> int:
            receive(address, size)
            return 0

        self._sample = _SAMPLE(sample)  # kept: C calls it
        self._ring = ring
        self._handle = _lib().ring_buffer__new(ring.fd, self._sample, None, None)
        if not self._handle:
            number = ctypes.get_errno()
            raise OSError(number, f"ring buffer: {os.strerror(number)}")
        self.fd = _check(_lib().ring_buffer__epoll_fd(self._handle), "ring buffer")

    def consume(self) -> int:
        """Receive all records that wait; how many there were."""
        return _check(_lib().ring_buffer__consume(self._handle), "ring buffer")

    def close(self) -> None:
        """Unmap; waiting records stay for the next consumer."""
        if self._handle:
            _lib().ring_buffer__free(self._handle)
            self._handle = None


def tcx_programs(ifindex: int, hook: int) -> list[int]:
    """Ids of the programs at a tcx hook, in the order they run."""
    flags, ids, count = ctypes.c_uint32(), (ctypes.c_uint32 * TCX_MOST)(), ctypes.c_uint32(TCX_MOST)
    result = _lib().bpf_prog_query(ifindex, hook, 0, ctypes.byref(flags), ids, ctypes.byref(count))
    # Early 6.6 says so of a hook without programs.
    return ids[: count.value] if _ignore_missing(result, "tcx query") else []


@functools.cache
def tcx_supported() -> bool:
    """The kernel has tcx: 6.6 and later."""
    try:
        tcx_programs(1, TCX_INGRESS)  # the loopback interface, which every network namespace has
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def tcx_attach(program: Program, ifindex: int, hook: int, replace: Program | None = None) -> None:
    """Put a program behind those that are there, or atomically in the place of one of them. Without a link: it
    stays until it is detached or the interface goes.
    """
    opts = _ProgAttachOpts(ctypes.sizeof(_ProgAttachOpts))
    if replace:
        opts.flags, opts.replace_prog_fd = F_REPLACE, replace.fd
    _check(_lib().bpf_prog_attach_opts(program.fd, ifindex, hook, ctypes.byref(opts)), "tcx attach")


def tcx_detach(program: Program, ifindex: int, hook: int) -> bool:
    """Take a program off; False if it is not there."""
    return _ignore_missing(_lib().bpf_prog_detach2(program.fd, ifindex, hook), "tcx detach")


def pin(obj: Descriptor, path: Path) -> None:
    """Pin a map or program."""
    _check(_lib().bpf_obj_pin(obj.fd, os.fsencode(path)), "pin", path)


@functools.cache
def possible_cpus() -> int:
    """CPUs that per-CPU values are kept for."""
    return _check(_lib().libbpf_num_possible_cpus(), "possible CPUs")
