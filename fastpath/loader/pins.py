"""What is pinned where, and how it gets there.

    PIN_ROOT/ABI/sessions          outlives an upgrade of the programs: same ABI, same layout
    PIN_ROOT/ABI/hits              as well: what was counted for sessions that were there before
    PIN_ROOT/ABI/CODE/ms_ingress   programs and the other maps, by the digest of text and options

A directory under its final name is complete: it was filled under another name first.
"""

from __future__ import annotations

import ctypes
import enum
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastpath import abi
from fastpath.libbpf import F_NO_COMMON_LRU, MAP_HASH, MAP_LRU_HASH, Map, MapShape, Program
from fastpath.loader.cache import Cache, compile_key
from fastpath.loader.compile import Compiled, LoadError, Places, compile_and_pin
from fastpath.loader.objects import NotPortableError, describe, load_and_pin
from fastpath.loader.source import ABI_HEADER, digest, flatten, header_digest

# Slots of the prog array (enum ms_prog) and their programs.
SLOTS = {
    int(abi.Prog.INGRESS): "ms_ingress",
    int(abi.Prog.EGRESS): "ms_egress",
    int(abi.Prog.JUDGE): "ms_judge",
    int(abi.Prog.IDENTIFY): "ms_identify",
    int(abi.Prog.RESET): "ms_reset",
    int(abi.Prog.DECIDE): "ms_decide",
    int(abi.Prog.TCP): "ms_tcp",
    int(abi.Prog.ROUTE): "ms_route",
    int(abi.Prog.ACCELERATE): "ms_accelerate",
    int(abi.Prog.POLICY): "ms_policy",
    int(abi.Prog.SETTLE): "ms_settle",
    int(abi.Prog.DECIDED): "ms_decided",
}
PROGRAMS = (*SLOTS.values(), "ms_tap", "ms_release", "ms_wall", "ms_apply", "ms_walk")
MAPS = (
    "fragments", "config", "stats", "scratch", "heartbeat", "managed", "hops", "hop_claims", "events", "progs",
    "pol_page",
)  # fmt: skip
SESSIONS = "sessions"
HITS = "hits"
# What the maps in an array of maps are like is told by another map, which is not pinned.
TEMPLATES = {"pol_page": "pol_page_t", HITS: "hits_t"}
BPFFS = Path("/sys/fs/bpf")
BPF_FS_MAGIC = 0xCAFE4A11  # linux/magic.h

# Kinds of the session table, as in gateway.yaml: bcc's name, map type, flags.
KINDS = {
    "lru": ("lru_hash", MAP_LRU_HASH, 0),
    "lru_percpu": ("lru_hash", MAP_LRU_HASH, F_NO_COMMON_LRU),
    "hash": ("hash", MAP_HASH, 0),
}

log = logging.getLogger(__name__)


class Origin(enum.StrEnum):
    """Where loaded programs come from, as `status` says it; what was compiled earlier was kept on disk."""

    COMPILED = "compiled"
    CACHE = "compiled earlier"
    PINNED = "loaded already"


@dataclass(frozen=True, slots=True)
class Table:
    """The session table: how many entries, and which kind of map."""

    capacity: int
    kind: str = "lru"

    @property
    def shape(self) -> MapShape:
        """What a pinned table must look like to be used."""
        _, kind, flags = KINDS[self.kind]
        return MapShape(kind, ctypes.sizeof(abi.Key), ctypes.sizeof(abi.Session), self.capacity, flags)


class Pins:
    """Pinned programs and maps of one table under one pin root; `text` is the flattened C source, `cache` the folder
    of compiled programs, if any.
    """

    def __init__(self, root: Path, table: Table, text: str | None = None, cache: Path | None = None) -> None:
        self.root = root
        self.table = table
        self._cache = Cache(cache) if cache else None
        self._text = flatten() if text is None else text
        self.base = root / abi.ABI_HASH
        self.directory = self.base / digest(self._text, repr(table))

    @property
    def loaded(self) -> bool:
        """Everything is there, with a session table of the shape that is meant."""
        return self.directory.is_dir() and self._sessions_fit()

    def program(self, name: str) -> Program:
        """Open a program."""
        return Program.open(self.directory / name)

    def map(self, name: str) -> Map:
        """Open a map."""
        return Map.open((self.base if name in {SESSIONS, HITS} else self.directory) / name)

    def load(self) -> Origin:
        """Load and pin what is not pinned yet. Live sessions of the same shape stay; of another they can't."""
        if header_digest() != abi.ABI_HASH:
            raise LoadError(f"{ABI_HEADER}: is not what fastpath/abi.py was made from (make abi)")
        if self.loaded:
            return Origin.PINNED
        ensure_bpffs(self.root)
        self.base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._sessions_fit():
            # Programs that know the table which goes must not count as loaded beside another. Attached ones
            # need their prog array until ours take over: `remove_others` comes after that.
            for path in [path for path in self.base.iterdir() if path.is_dir()]:
                path.rename(path.with_name(f"{path.name}-{secrets.token_hex(4)}"))
            for name in (SESSIONS, HITS):
                (self.base / name).unlink(missing_ok=True)
        for stale in self.base.glob("*-part"):
            remove_tree(stale)
        part = self.directory.with_name(self.directory.name + "-part")  # no dots in bpffs
        try:
            origin = Origin.CACHE if self._load_cached(part) else self._compile(part)
            if not self._sessions_fit():
                raise LoadError(f"{self.base / SESSIONS}: is not the table that was asked for")
        except BaseException:
            remove_tree(part)
            raise
        part.rename(self.directory)
        return origin

    def _load_cached(self, part: Path) -> bool:
        """Into `part`, if programs were kept and the kernel takes them."""
        key = self._key()
        if not self._cache or not key or not (objects := self._cache.find(key)):
            return False
        part.mkdir(mode=0o700)
        try:
            load_and_pin(objects, self._places(part))
        except (OSError, NotPortableError) as error:
            log.warning("compiled programs were kept, and are compiled again: %s", error)
            self._cache.drop(key)
            remove_tree(part)
            return False
        return True

    def _compile(self, part: Path) -> Origin:
        """Into `part`, and keep what comes of it."""
        part.mkdir(mode=0o700)
        # What was there before has the type information of the programs that made it.
        fresh = not any((self.base / name).exists() for name in (SESSIONS, HITS))
        key = self._key() if self._cache and fresh else None
        places = self._places(part, TEMPLATES.values() if key else ())
        # bcc opens what is pinned behind the colon, else makes and pins it.
        options = self._options(f":{self.base / SESSIONS}", f":{self.base / HITS}")
        compiled = compile_and_pin(self._text, cflags=options, places=places)
        if self._cache and key:
            self._keep(self._cache, key, compiled, places)
            for name in TEMPLATES.values():
                (part / name).unlink()
        return Origin.COMPILED

    @staticmethod
    def _keep(cache: Cache, key: str, compiled: Compiled, places: Places) -> None:
        try:
            cache.keep(key, describe(compiled, places, TEMPLATES), compiled.compiler)
        except (OSError, NotPortableError) as error:
            log.warning("compiled programs are not kept: %s", error)

    def _key(self) -> str | None:
        made = (PROGRAMS, MAPS, TEMPLATES)
        return compile_key(self._text, repr(self.table), repr(made), *self._options())

    def _options(self, sessions: str = "", hits: str = "") -> list[str]:
        """The compiler's, with what is said of the pins of the maps that outlive the programs."""
        name, _, flags = KINDS[self.table.kind]
        return [
            f"-DMS_SESSIONS={self.table.capacity}",
            f'-DMS_SESSIONS_TYPE="{name}{sessions}"',
            f"-DMS_SESSIONS_FLAGS={flags}",
            f'-DMS_HITS_TYPE="array_of_maps${TEMPLATES[HITS]}{hits}"',
            "-Wno-everything",
        ]

    def _places(self, part: Path, more: Iterable[str] = ()) -> Places:
        return Places(
            {program: part / program for program in PROGRAMS},
            {each: part / each for each in (*MAPS, *more)},
            {name: self.base / name for name in (SESSIONS, HITS)},
            SLOTS,
        )

    def remove_others(self) -> None:
        """Unpin programs of other versions; nothing refers to them once ours are attached."""
        for other in self._others():
            remove_tree(other)

    def unload(self) -> None:
        """Unpin everything under the root; detached programs and maps end with that."""
        remove_tree(self.root)

    def _others(self) -> Iterator[Path]:
        for base in self.root.iterdir():
            if base != self.base:
                yield base
        for path in self.base.iterdir():
            if path.is_dir() and path != self.directory:
                yield path

    def _sessions_fit(self) -> bool:
        try:
            return Map.open(self.base / SESSIONS).shape == self.table.shape
        except FileNotFoundError:
            return False


def remove_tree(path: Path) -> None:
    """Remove a directory of pins; another may be at it too."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def ensure_bpffs(root: Path) -> None:
    """`root` lies in a BPF file system, mounted at its usual place if need be. LoadError if not."""
    place = root
    while not place.exists():
        place = place.parent
    if _fs_type(place) == BPF_FS_MAGIC:
        return
    if not root.is_relative_to(BPFFS) or not BPFFS.is_dir():
        raise LoadError(f"{root}: pin_root must lie in a BPF file system, such as {BPFFS}")
    libc = ctypes.CDLL(None, use_errno=True)
    # nosuid, nodev, noexec (mount(2))
    if libc.mount(b"bpf", os.fsencode(BPFFS), b"bpf", ctypes.c_ulong(2 | 4 | 8), b"mode=0700"):
        raise LoadError(f"{BPFFS}: cannot mount a BPF file system: {os.strerror(ctypes.get_errno())}")


def _fs_type(path: Path) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    # struct statfs begins with its type, a long (statfs(2)).
    room = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), room):
        return 0
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF
