"""What each rule judged, by its id: sessions, packets, bytes.

The kernel counts by revision and rule number (bpf/lib/hits.h), for the last `abi.Limit.HITS_SLOTS` revisions; what
was counted for older ones stands in ``state_dir/hits.json``. A total is the sum of three: the file, the kernel's
counters, and what live sessions count themselves. Those that end while one adds up may be missed.

The kernel's counters survive the daemon. For when they end, at a boot or when everything is unloaded, the file also
has the totals as they were last seen. Whoever changes the file, or needs it to agree with the counters, holds a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastpath import abi
from fastpath.abi import HitsNumber, SessionFlag
from fastpath.document import without_collector
from fastpath.exit import CommandError
from fastpath.history import sync_folder
from fastpath.libbpf import Map
from fastpath.loader.pins import HITS, SESSIONS, Pins
from fastpath.policy.names import read_ids
from fastpath.selection import Batch, RuleNames, batches

FORMAT = 1
# Rules that are no more have figures too; beyond so many they are summed up as lost.
MAX_FORMER = 10_000

_RULE, _REVISION = abi.Word.RULE, abi.Word.REVISION - abi.Word.RULE
_RULES = (1 << _REVISION) - 1
_ROW = 4  # words of abi.Hits


class HitsError(CommandError):
    """The file cannot be read or written."""


@dataclass(slots=True)
class Figures:
    """Of one rule. Sessions count where they began, packets and IP bytes where they were judged."""

    sessions: int = 0
    packets: int = 0
    bytes: int = 0

    def add(self, sessions: int, packets: int, octets: int, sign: int = 1) -> None:
        """Some more; `sign` -1: less."""
        self.sessions += sign * sessions
        self.packets += sign * packets
        self.bytes += sign * octets

    @property
    def values(self) -> tuple[int, int, int]:
        """In the order of `add`."""
        return self.sessions, self.packets, self.bytes


@dataclass(slots=True)
class Hits:
    """Of all rules, by id. `host`: the gateway's own traffic where no rule decided; `lost`: of rules nobody knows."""

    rules: dict[str, Figures] = field(default_factory=dict)
    host: Figures = field(default_factory=Figures)
    lost: Figures = field(default_factory=Figures)

    def rule(self, rule_id: str) -> Figures:
        """Of one rule, zeros if there are none yet."""
        return self.rules.setdefault(rule_id, Figures())

    def add(self, other: Hits, sign: int = 1) -> None:
        """All of another; `sign` -1: less."""
        for rule_id, figures in other.rules.items():
            self.rule(rule_id).add(*figures.values, sign)
        self.host.add(*other.host.values, sign)
        self.lost.add(*other.lost.values, sign)

    def forget(self, known: Iterable[str]) -> None:
        """Sum up as lost the rules that are not `known`, if they are too many."""
        former = self.rules.keys() - set(known)
        if len(former) > MAX_FORMER:
            for rule_id in former:
                self.lost.add(*self.rules.pop(rule_id).values)


@dataclass(frozen=True, slots=True)
class Total:
    """`since`: seconds UTC; `live`: the part that live sessions count."""

    since: float
    hits: Hits
    live: Hits


class Ids:
    """Rules by revision and number of their counters."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._revisions: dict[int, Sequence[str]] = {}

    def add(self, hits: Hits, revision: int, first: int, columns: Iterable[Iterable[int]]) -> None:
        """Add what counters from number `first` on have, in columns, to `hits`. A hundred thousand take 0.1 s."""
        ids, rules = self._of(revision), hits.rules
        for number, (sessions, packets, octets) in enumerate(zip(*columns, strict=True), first - HitsNumber.RULES):
            if not packets and not sessions:
                continue
            if not 0 <= number < len(ids):
                special = hits.host if number == HitsNumber.HOST - HitsNumber.RULES else hits.lost
                special.add(sessions, packets, octets)
            elif (figures := rules.get(ids[number])) is not None:
                figures.add(sessions, packets, octets)
            else:
                rules[ids[number]] = Figures(sessions, packets, octets)

    def _of(self, revision: int) -> Sequence[str]:
        if revision not in self._revisions:
            self._revisions[revision] = ()
            with contextlib.suppress(OSError, ValueError):  # a file of names that somebody damaged
                self._revisions[revision] = read_ids(self._run_dir, revision) or ()
        return self._revisions[revision]


class Counters:
    """Of one revision, in the kernel: an entry for each number (`abi.HitsNumber`)."""

    def __init__(self, entries: Map) -> None:
        self.map = entries

    @classmethod
    def create(cls, revision: int, rules: int) -> Counters:
        """All zero."""
        number = HitsNumber.RULES + 1 + rules
        return cls(Map.array("hits", bytes(abi.Hits(revision=revision)) * number, number))

    def sum_up(self, hits: Hits, ids: Ids) -> None:
        """Add them to `hits`."""
        first = 0
        for count, _, values in self.map.batches():
            words = values.cast("q")
            revision = abi.Hits.from_buffer_copy(values).revision
            ids.add(hits, revision, first, [words[n::_ROW].tolist() for n in range(3)])
            first += count


class Slots:
    """The counters of the last revisions."""

    def __init__(self, slots: Map) -> None:
        self._slots = slots

    def all(self) -> Iterator[Counters]:
        """Those that there are."""
        found = (self._at(_slot(n)) for n in range(abi.Limit.HITS_SLOTS))
        return (each for each in found if each is not None)

    def replace(self, revision: int, rules: int) -> Counters | None:
        """New ones for a revision; those whose place they take, which nobody changes any more."""
        slot = _slot(revision)
        old, new = self._at(slot), Counters.create(revision, rules)
        # It returns after a grace period: no program still has the old ones in its hands.
        self._slots.update(slot, new.map.fd.to_bytes(4, sys.byteorder))
        return old

    def _at(self, slot: bytes) -> Counters | None:
        number = self._slots.lookup(slot)
        return Counters(Map.by_id(int.from_bytes(number, sys.byteorder))) if number else None


def _slot(revision: int) -> bytes:
    return (revision % abi.Limit.HITS_SLOTS).to_bytes(4, sys.byteorder)


def live_hits(found: Iterable[Batch], ids: Ids) -> Hits:
    """What live sessions count, by the rules that judge them now."""
    sums: dict[int, list[int]] = {}
    for batch in found:
        # By revision, rule and whether an end is the gateway.
        keys = [
            word >> _RULE << 1 | bool(flags & SessionFlag.HOST)
            for word, flags in zip(batch.words, batch.flags, strict=True)
        ]
        packets, octets = batch.both(abi.Session.packets), batch.both(abi.Session.bytes)
        for key, more_packets, more_octets in zip(keys, packets, octets, strict=True):
            row = sums.get(key)
            if row is None:
                row = sums[key] = [0, 0, 0]
            row[0] += 1
            row[1] += more_packets
            row[2] += more_octets
    hits = Hits()
    for key, row in sums.items():
        host, rule, revision = key & 1, key >> 1 & _RULES, key >> 1 + _REVISION
        number = HitsNumber.HOST if host and not rule else HitsNumber.RULES + rule
        ids.add(hits, revision, number, [[value] for value in row])
    return hits


@dataclass(slots=True)
class _File:
    since: float
    base: Hits = field(default_factory=Hits)
    seen: Hits = field(default_factory=Hits)


class Ledger:
    """The totals of one gateway. Every method raises HitsError, or OSError of the kernel."""

    def __init__(self, pins: Pins, run_dir: Path, state_dir: Path) -> None:
        self.path = state_dir / "hits.json"
        self._run_dir = run_dir
        self._slots = Slots(pins.map(HITS))
        self._sessions = pins.map(SESSIONS)

    def begin(self) -> None:
        """Before the first revision of a daemon: where the kernel has no counters, go on from what was last seen."""
        if any(True for _ in self._slots.all()):
            return
        with self._locked():
            file = self._read()
            self._write(_File(file.since, file.seen, file.seen))

    def take_over(self, replaced: Counters, ids: Sequence[str]) -> None:
        """Counters that gave way to a new revision; `ids` are its rules'."""
        hits = Hits()
        with without_collector(), self._locked():
            replaced.sum_up(hits, Ids(self._run_dir))
            file = self._read()
            file.base.add(hits)
            file.base.forget(ids)
            self._write(file)

    def total(self) -> Total:
        """Up to now."""
        ids = Ids(self._run_dir)
        with without_collector():
            with self._locked():
                file = self._read()
                for counters in self._slots.all():
                    counters.sum_up(file.base, ids)
            live = live_hits(batches(self._sessions, RuleNames(self._run_dir)), ids)
            file.base.add(live)
        return Total(file.since, file.base, live)

    def save(self) -> None:
        """Remember the totals for after the kernel's counters."""
        total = self.total()
        with self._locked():
            file = self._read()
            if file.since == total.since:  # not reset meanwhile
                file.seen = total.hits
                self._write(file)

    def reset(self) -> None:
        """Count from zero."""
        total = self.total()
        with self._locked():
            file = self._read()
            file.base.add(total.hits, -1)
            self._write(_File(time.time(), file.base))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise HitsError(f"{folder}: {error.strerror or error}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> _File:
        try:
            content = json.loads(self.path.read_bytes())
            if content["format"] != FORMAT:
                raise ValueError
            return _File(float(content["since"]), _from_json(content["base"]), _from_json(content["seen"]))
        except FileNotFoundError:
            self._write(file := _File(time.time()))
            return file
        except OSError as error:
            raise HitsError(f"{self.path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise HitsError(f"{self.path}: damaged: remove it, and counting begins anew") from None

    def _write(self, file: _File) -> None:
        content = {
            "format": FORMAT, "since": file.since, "base": _as_json(file.base), "seen": _as_json(file.seen)
        }  # fmt: skip
        text = json.dumps(content, separators=(",", ":"))
        fresh = self.path.with_name(".hits.new")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise HitsError(f"{self.path}: {error.strerror or error}") from None


def _as_json(hits: Hits) -> dict[str, Any]:
    rules = {rule_id: figures.values for rule_id, figures in hits.rules.items() if any(figures.values)}
    return {"rules": rules, "host": hits.host.values, "lost": hits.lost.values}


def _from_json(content: dict[str, Any]) -> Hits:
    rules = {str(rule_id): _figures(values) for rule_id, values in content["rules"].items()}
    return Hits(rules, _figures(content["host"]), _figures(content["lost"]))


def _figures(values: Sequence[Any]) -> Figures:
    sessions, packets, octets = values
    return Figures(int(sessions), int(packets), int(octets))
