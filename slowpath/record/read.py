"""Read records as a stream: forwards, backwards from the end, or as they come.

Memory is bounded by a chunk and a line, whatever the size of the files. A line
that is no record is counted and left out. All readers yield batches, a list for
each chunk, so that the caller can flush its output when there is nothing more to read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from slowpath.record import MAX_LINE, VERSION, Record

# Missing numbers in a row that end a search for rotated files.
MAX_GAP = 3
CHUNK = 256 * 1024
POLL = 0.1
END_OF_TIME = 253402300800.0  # year 10000, which datetime cannot hold

# A matching line as it stands in the file, and what it says.
Entry = tuple[bytes, Record]
Batch = list[Entry]

# The head that our own writer produces; other spellings of JSON are parsed in full.
_HEAD = re.compile(rb'\{"v":1,"ts":([0-9]{1,12})[.,]')


def parse(line: bytes) -> Record | None:
    """The record on a line, or None if it is none of this version."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):  # also bytes that are no UTF-8, and numbers beyond reason
        return None
    if not isinstance(record, dict) or record.get("v") != VERSION or not isinstance(record.get("flow"), dict):
        return None
    ts = record.get("ts")
    if not isinstance(ts, float | int) or not 0 <= ts < END_OF_TIME:  # NaN fails the comparison
        return None
    return record


class Sieve:
    """What is shown: `accept` says so of a record, `since` and `until` of its time.

    `needles` spare most lines the JSON parser: of each group, one must occur in
    the line. They must be quoted strings of plain characters ("deny" with its quotes).
    """

    def __init__(
        self,
        accept: Callable[[Record], bool] | None = None,
        *,
        needles: Sequence[Sequence[bytes]] = (),
        since: float = float("-inf"),
        until: float = float("inf"),
    ) -> None:
        self.corrupt = 0
        self._accept = accept
        self._needles = needles
        self._since = since
        self._until = until
        self._timed = since != float("-inf") or until != float("inf")

    def take(self, line: bytes) -> Record | None:
        """The record on `line` if it is wanted."""
        if not line or line.isspace() or self._unwanted(line):
            return None
        record = parse(line)
        if record is None:
            self.corrupt += 1
            return None
        if self._timed and not self._since <= record["ts"] <= self._until:
            return None
        return record if self._accept is None or self._accept(record) else None

    def batch(self, lines: Sequence[bytes]) -> Batch:
        """The wanted ones of some lines."""
        take = self.take
        return [(line, record) for line in lines if (record := take(line)) is not None]

    def _unwanted(self, line: bytes) -> bool:
        # Torn and foreign lines go to the parser, which counts them.
        if line[:1] != b"{" or line[-1:] != b"}":
            return False
        if self._timed and (head := _HEAD.match(line)):
            second = int(head[1])
            if second > self._until or second + 1 <= self._since:
                return True
        if all(any(needle in line for needle in group) for group in self._needles):
            return False
        return b"\\u00" not in line  # an escape could spell the same text in another way


class Lines:
    """Cuts a stream of bytes into lines; one that exceeds MAX_LINE is counted and left out."""

    def __init__(self, sieve: Sieve) -> None:
        self._sieve = sieve
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Complete lines, without their newline."""
        if self._skipping:
            newline = chunk.find(b"\n")
            if newline < 0:
                return []
            chunk = chunk[newline + 1 :]
            self._skipping = False
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if lines and len(lines[0]) > MAX_LINE:  # only the first can: a chunk is shorter
            del lines[0]
            self._sieve.corrupt += 1
        if len(self._rest) > MAX_LINE:
            self._rest = b""
            self._skipping = True
            self._sieve.corrupt += 1
        return lines

    def finish(self) -> list[bytes]:
        """The last line, if no newline ended it."""
        rest, self._rest, self._skipping = self._rest, b"", False
        return [rest] if rest else []


def open_all(path: Path) -> list[BinaryIO]:
    """`path` and its rotated predecessors (`path.1` the newest of them), opened, oldest first.

    They are opened from the newest on: a rotation meanwhile moves files on ahead
    of us, so one may be met twice, but none is missed.
    """
    numbers = []
    with contextlib.suppress(FileNotFoundError):
        for other in path.parent.iterdir():
            suffix = other.name.removeprefix(path.name + ".")
            if suffix != other.name and suffix.isascii() and suffix.isdigit():
                numbers.append(int(suffix))
    files: dict[tuple[int, int], BinaryIO] = {}
    last, missed, number = max(numbers, default=0), 0, -1
    # Beyond what was listed, as far as rotations meanwhile have moved files; one leaves a gap for a moment.
    while number < last or missed < MAX_GAP:
        number += 1
        try:
            file = open_file(Path(f"{path}.{number}") if number else path)
        except FileNotFoundError:
            missed += 1
            continue
        missed = 0
        if _identity(file) in files:
            file.close()
        else:
            files[_identity(file)] = file
    return list(reversed(files.values()))


def open_file(path: Path) -> BinaryIO:
    """Open one file unbuffered: the chunks are ours."""
    return path.open("rb", buffering=0)


def is_seekable(file: BinaryIO) -> bool:
    """A regular file, not a pipe."""
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def forwards(file: BinaryIO, sieve: Sieve) -> Iterator[Batch]:
    """All of a file or pipe, from where it stands."""
    lines = Lines(sieve)
    fd = file.fileno()
    while chunk := os.read(fd, CHUNK):
        yield sieve.batch(lines.feed(chunk))
    yield sieve.batch(lines.finish())


def last_of_stream(file: BinaryIO, sieve: Sieve, count: int) -> Iterator[Batch]:
    """The last `count` of a pipe."""
    kept: deque[Entry] = deque(maxlen=count)
    for batch in forwards(file, sieve):
        kept.extend(batch)
    yield list(kept)


def last(files: Sequence[BinaryIO], sieve: Sieve, count: int, end: int | None = None) -> Iterator[Batch]:
    """The last `count` wanted records of files given oldest first; the newest is read up to `end`.

    Only places are remembered while going back, 16 bytes a record.
    """
    found: list[tuple[int, array[int], array[int]]] = []
    missing = count
    for index in reversed(range(len(files))):
        if not missing:
            break
        fd = files[index].fileno()
        stop = end if end is not None and index == len(files) - 1 else os.fstat(fd).st_size
        starts, lengths = array("Q"), array("Q")
        for start, line in _backwards(fd, stop, sieve):
            if sieve.take(line) is not None:
                starts.append(start)
                lengths.append(len(line))
                missing -= 1
                if not missing:
                    break
        found.append((fd, starts, lengths))
    batch: Batch = []
    for fd, starts, lengths in reversed(found):
        for place in reversed(range(len(starts))):
            line = os.pread(fd, lengths[place], starts[place])
            if (record := parse(line)) is not None:
                batch.append((line, record))
            if len(batch) == 1000:
                yield batch
                batch = []
    yield batch


def _backwards(fd: int, end: int, sieve: Sieve) -> Iterator[tuple[int, bytes]]:
    """Lines before `end` with their offsets, the last one first."""
    rest = b""  # tail of a line whose start lies before `position`
    skipping = False
    position = end
    while position > 0:
        size = min(CHUNK, position)
        position -= size
        block = os.pread(fd, size, position)
        if len(block) < size:
            return  # truncated under our hands
        cursor = position + size + len(rest)
        head, *lines = (block + rest).split(b"\n")
        if skipping and lines:
            cursor -= len(lines.pop()) + 1
            skipping = False
        for line in reversed(lines):
            cursor -= len(line)
            if len(line) > MAX_LINE:
                sieve.corrupt += 1
            else:
                yield cursor, line
            cursor -= 1
        rest = b"" if skipping else head
        if len(rest) > MAX_LINE:
            rest = b""
            skipping = True
            sieve.corrupt += 1
    if not skipping:
        yield 0, rest


def line_end(file: BinaryIO) -> int:
    """Offset behind the last complete line: where to go on when the rest has arrived."""
    fd = file.fileno()
    position = os.fstat(fd).st_size
    while position > 0:
        size = min(CHUNK, position)
        newline = os.pread(fd, size, position - size).rfind(b"\n")
        if newline >= 0:
            return position - size + newline + 1
        position -= size
    return 0


class Follower:
    """Records as they are written to `path`, across rotation and truncation.

    `file` and `offset` say where to start, else at the beginning of `path`, which
    need not exist yet. `note` gets what an operator should know.
    """

    def __init__(
        self,
        path: Path,
        sieve: Sieve,
        *,
        file: BinaryIO | None = None,
        offset: int = 0,
        note: Callable[[str], None] = lambda _: None,
        wait: Callable[[], None] = lambda: time.sleep(POLL),
    ) -> None:
        self._path = path
        self._sieve = sieve
        self._lines = Lines(sieve)
        self._queue: deque[BinaryIO] = deque()  # rotated files that come after the present one
        self._file = file
        self._offset = offset
        # Inodes are used again, so only the last few count.
        self._seen: deque[tuple[int, int]] = deque(maxlen=8)
        self._note = note
        self._wait = wait

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._follow()
        finally:
            for file in (self._file, *self._queue):
                if file is not None:
                    file.close()

    def _follow(self) -> Iterator[Batch]:
        missing = False
        while True:
            if self._file is None:
                try:
                    self._start(open_file(self._path))
                except FileNotFoundError:
                    if not missing:
                        self._note(f"waiting for {self._path}")
                        missing = True
                    self._wait()
                continue
            yield from self._rest_of_file()
            if self._truncated():
                continue
            if self._queue or self._rotated():
                # What came between the last read and the rotation.
                yield from self._rest_of_file()
                yield self._sieve.batch(self._lines.finish())
                self._next()
                continue
            self._wait()

    def _rest_of_file(self) -> Iterator[Batch]:
        assert self._file is not None
        while chunk := os.pread(self._file.fileno(), CHUNK, self._offset):
            self._offset += len(chunk)
            yield self._sieve.batch(self._lines.feed(chunk))

    def _truncated(self) -> bool:
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size >= self._offset:
            return False
        self._note(f"{self._path} was truncated, reading it from its start")
        self._offset = 0
        self._lines = Lines(self._sieve)
        return True

    def _rotated(self) -> bool:
        """Another file has our name, and the writer has begun to use it: logrotate creates it
        first and tells the writer afterwards.
        """
        assert self._file is not None
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) != _identity(self._file) and status.st_size > 0

    def _next(self) -> None:
        """Go on with the file that came after ours, which may have been rotated again since."""
        assert self._file is not None
        if not self._queue:
            newer = open_all(self._path)
            identities = [_identity(file) for file in newer]
            ours = _identity(self._file)
            if ours in identities:
                first = identities.index(ours) + 1
            else:
                # Ours is gone, rotated out or removed. Its predecessors were last written before it, or in the
                # same tick of the clock that stamps files, and read before.
                mtime = os.fstat(self._file.fileno()).st_mtime_ns
                first = next(
                    (
                        index
                        for index, file in enumerate(newer)
                        if os.fstat(file.fileno()).st_mtime_ns >= mtime and _identity(file) not in self._seen
                    ),
                    max(len(newer) - 1, 0),
                )
            for file in newer[:first]:
                file.close()
            self._queue.extend(newer[first:])
        self._seen.append(_identity(self._file))
        self._file.close()
        self._file = None
        if self._queue:
            self._start(self._queue.popleft())

    def _start(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._lines = Lines(self._sieve)


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino
