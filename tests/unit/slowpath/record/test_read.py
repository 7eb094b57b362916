from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowpath.record import MAX_LINE, Record, read
from slowpath.record.write import Writer, encode
from tests.unit.slowpath.record import sample


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


@pytest.fixture(params=[64, 700, read.CHUNK])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Lines cut by chunks at every place, and not at all."""
    monkeypatch.setattr(read, "CHUNK", request.param)
    return int(request.param)


def lines(*numbers: int) -> bytes:
    return b"".join(encode(sample.record(number)) for number in numbers)


def numbers(batches: Iterator[read.Batch]) -> list[int]:
    return [record["session"] for batch in batches for _, record in batch]


def all_of(path: Path, sieve: read.Sieve | None = None) -> list[int]:
    with read.open_file(path) as file:
        return numbers(read.forwards(file, sieve or read.Sieve()))


def last_of(path: Path, count: int, sieve: read.Sieve | None = None) -> list[int]:
    files = read.open_all(path)
    try:
        return numbers(read.last(files, sieve or read.Sieve(), count))
    finally:
        for file in files:
            file.close()


BAD = [
    b"not json",
    b"{",
    b'{"v":1}',
    b"[1]",
    b"null",
    b'{"v":2,"ts":1,"flow":{}}',
    b'{"v":1,"ts":"1","flow":{}}',
    b'{"v":1,"ts":NaN,"flow":{}}',
    b'{"v":1,"ts":1e300,"flow":{}}',
    b'{"v":1,"ts":-1,"flow":{}}',
    b'{"v":1,"ts":1,"flow":[]}',
    b'{"v":1,"ts":1,"flow":{},"rule":"\xff"}',
    b'{"v":1,"ts":1,"flow":{},"rule":"\x01"}',
    b"[" * 100_000,
    b'{"v":1,"ts":1,"flow":{},"session":' + b"9" * 10_000 + b"}",
    b"\x00" * 500,
]


def test_forwards(path: Path, chunk: int) -> None:
    path.write_bytes(lines(*range(50)))
    assert all_of(path) == list(range(50))


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad[:24]))
def test_bad_lines_are_counted_and_the_rest_is_shown(path: Path, chunk: int, bad: bytes) -> None:
    path.write_bytes(lines(1) + bad + b"\n" + lines(2) + bad + b"\n\n \n" + lines(3))
    sieve = read.Sieve()
    assert all_of(path, sieve) == [1, 2, 3]
    assert sieve.corrupt == 2
    sieve = read.Sieve()
    assert last_of(path, 10, sieve) == [1, 2, 3]
    assert sieve.corrupt == 2


def test_torn_last_line_is_corrupt_a_whole_one_is_shown(path: Path) -> None:
    path.write_bytes(lines(1, 2)[:-10])
    sieve = read.Sieve()
    assert (all_of(path, sieve), sieve.corrupt) == ([1], 1)
    assert (last_of(path, 5, sieve), sieve.corrupt) == ([1], 2)
    path.write_bytes(lines(1, 2)[:-1])
    assert all_of(path) == last_of(path, 5) == [1, 2]


@pytest.mark.parametrize("place", ["first", "middle", "last", "alone"])
def test_line_beyond_the_limit(path: Path, place: str) -> None:
    # As valid as can be, so that only its length speaks against it.
    long = encode(sample.record(7, rule="x" * (3 * MAX_LINE)))
    path.write_bytes(
        {"first": long + lines(1), "middle": lines(1) + long + lines(2), "last": lines(1) + long, "alone": long}[place]
    )
    expected = {"first": [1], "middle": [1, 2], "last": [1], "alone": []}[place]
    for find in (all_of, lambda path, sieve: last_of(path, 5, sieve)):
        sieve = read.Sieve()
        assert (find(path, sieve), sieve.corrupt) == (expected, 1)


def test_line_just_above_the_limit_is_left_out(path: Path) -> None:
    empty = len(encode(sample.record(7, rule="")))
    for length, expected in ((MAX_LINE, [1, 7, 2]), (MAX_LINE + 1, [1, 2])):
        line = encode(sample.record(7, rule="x" * (length - empty + 1)))
        assert len(line) == length + 1
        path.write_bytes(lines(1) + line + lines(2))
        assert all_of(path) == expected
        assert last_of(path, 5) == expected


@pytest.mark.parametrize("count", [0, 1, 5, 20, 60, 1000])
def test_last_across_rotated_files(path: Path, chunk: int, count: int) -> None:
    writer = Writer(path, max_bytes=4000, keep=20)
    for number in range(60):
        writer.write(sample.record(number))
    writer.close()
    assert len(list(path.parent.iterdir())) > 3
    assert last_of(path, count) == list(range(60))[60 - min(count, 60) :]


def test_last_counts_what_matches(path: Path) -> None:
    path.write_bytes(lines(*range(100)))
    assert last_of(path, 3, read.Sieve(lambda record: record["session"] % 10 == 0)) == [70, 80, 90]


def test_last_of_a_pipe() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        os.write(writer, lines(*range(30)))
        os.close(writer)
        assert not read.is_seekable(source)
        assert numbers(read.last_of_stream(source, read.Sieve(), 2)) == [28, 29]


def test_rotated_files_are_found_in_order(path: Path) -> None:
    for name in ("records.jsonl", "records.jsonl.1", "records.jsonl.10", "records.jsonl.2", "records.jsonl.gz"):
        path.with_name(name).write_bytes(b"x")
    path.with_name("records.jsonl.²").write_bytes(b"x")
    files = read.open_all(path)
    assert [Path(str(file.name)).name for file in files] == [f"records.jsonl{end}" for end in (".10", ".2", ".1", "")]
    for file in files:
        file.close()
    assert read.open_all(path.with_name("none") / "x") == []


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (3.0, 6.0, [3, 4, 5]),
        (3.25, 5.25, [3, 4, 5]),
        (3.26, 5.24, [4]),
        (float("-inf"), 1.9, [0, 1]),
        (8.9, float("inf"), [9]),
        (5.0, 5.1, []),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_time_bounds(path: Path, since: float, until: float, expected: list[int], own: bool) -> None:
    written = lines(*range(10))
    if not own:  # another writer's spelling, which the quick look does not know
        written = b"".join(json.dumps(json.loads(line)).encode() + b"\n" for line in written.splitlines())
    path.write_bytes(written)
    assert all_of(path, read.Sieve(since=sample.T0 + since, until=sample.T0 + until)) == expected


def test_needles_never_lose_a_match(path: Path) -> None:
    escaped = encode(sample.record(3)).replace(b'"deny"', b'"d\\u0065ny"')
    path.write_bytes(lines(1) + encode(sample.record(2, verdict="allow")) + escaped + b"torn\n")
    sieve = read.Sieve(lambda record: record["verdict"] == "deny", needles=[[b'"deny"', b'"x"'], [b'"grpc"']])
    assert all_of(path, sieve) == [1, 3]
    assert sieve.corrupt == 1


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(1, 64))
def test_backwards_sees_what_forwards_sees(blobs: list[bytes], size: int) -> None:
    class Source(io.BytesIO):
        pass

    data = b"\n".join(blobs)
    old, read.CHUNK = read.CHUNK, size
    read_fd = os.memfd_create("lines")
    try:
        os.write(read_fd, data)
        found = list(read._backwards(read_fd, len(data), read.Sieve()))
    finally:
        os.close(read_fd)
        read.CHUNK = old
    cutter = read.Lines(read.Sieve())
    forwards = [line for start in range(0, len(data), size) for line in cutter.feed(data[start : start + size])]
    forwards += cutter.finish()
    assert [line for _, line in reversed(found) if line] == [line for line in forwards if line]
    assert all(data[start : start + len(line)] == line for start, line in found)


class Following:
    """A Follower pumped by hand: every wait() runs the next step, the last one ends it."""

    def __init__(self, path: Path, steps: list[Callable[[], object]], **start: object) -> None:
        self.notes: list[str] = []
        self.steps = list(steps)
        self.sieve = read.Sieve()
        self.follower = read.Follower(path, self.sieve, note=self.notes.append, wait=self.wait, **start)  # type: ignore[arg-type]

    class Done(Exception):  # noqa: N818
        pass

    def wait(self) -> None:
        if not self.steps:
            raise self.Done
        self.steps.pop(0)()

    def numbers(self) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(self.Done):  # nothing else ends a follower
            for batch in self.follower:
                found += [record["session"] for _, record in batch]
        return found


def append(path: Path, data: bytes) -> Callable[[], object]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(data)

    return step


def test_follow_waits_for_the_file_and_for_partial_lines(path: Path) -> None:
    line = lines(2)
    following = Following(
        path,
        [lambda: None, append(path, lines(1) + line[:20]), append(path, line[20:-1]), append(path, b"\n" + lines(3))],
    )
    assert following.numbers() == [1, 2, 3]
    assert following.notes == [f"waiting for {path}"]
    assert following.sieve.corrupt == 0


def test_follow_goes_on_after_rotation(path: Path) -> None:
    path.write_bytes(lines(1))

    def rotate() -> None:
        append(path, lines(2))()  # not seen before the rotation
        path.rename(f"{path}.1")
        path.write_bytes(lines(3))

    following = Following(path, [rotate, append(path, lines(4))])
    assert following.numbers() == [1, 2, 3, 4]


def test_follow_reads_files_rotated_in_between(path: Path) -> None:
    Path(f"{path}.1").write_bytes(lines(0))  # was there before, must not be shown
    path.write_bytes(lines(1))

    def rotate() -> None:
        writer = Writer(path, max_bytes=900, keep=50)
        for number in range(2, 30):
            writer.write(sample.record(number))
        writer.close()

    assert Following(path, [rotate, append(path, lines(30))]).numbers() == list(range(1, 31))


def test_follow_when_its_own_file_was_rotated_away(path: Path) -> None:
    Path(f"{path}.1").write_bytes(lines(0))
    os.utime(f"{path}.1", (1, 1))
    path.write_bytes(lines(1))
    os.utime(path, (2, 2))

    def replace() -> None:
        path.unlink()
        path.write_bytes(lines(2))

    assert Following(path, [replace]).numbers() == [1, 2]


def test_follow_keeps_the_old_file_until_the_new_one_is_used(path: Path) -> None:
    """logrotate with `create`: the writer learns of it later."""
    path.write_bytes(lines(1))
    moved = Path(f"{path}.1")

    def create() -> None:
        path.rename(moved)
        path.touch()

    following = Following(path, [create, append(moved, lines(2)), append(path, lines(3))])
    assert following.numbers() == [1, 2, 3]


def test_follow_after_truncation(path: Path) -> None:
    path.write_bytes(lines(1, 2) + b'{"v"')
    following = Following(path, [lambda: path.write_bytes(lines(3))])
    assert following.numbers() == [1, 2, 3]
    assert "truncated" in following.notes[0]


def test_follow_from_an_offset(path: Path) -> None:
    path.write_bytes(lines(1, 2) + lines(3)[:10])
    file = read.open_file(path)
    offset = read.line_end(file)
    assert offset == len(lines(1, 2))
    following = Following(path, [append(path, lines(3)[10:])], file=file, offset=offset)
    assert following.numbers() == [3]


def test_follow_a_writer_that_rotates_concurrently(path: Path) -> None:
    """Threads, real rotation every few lines, not a record lost or doubled."""
    total = 3000
    found: list[int] = []
    done = threading.Event()

    class Enough(Exception):  # noqa: N818
        pass

    def wait() -> None:
        if done.is_set() and ((found and found[-1] == total - 1) or time.monotonic() > deadline):
            raise Enough
        time.sleep(0.001)

    def follow() -> None:
        try:
            for batch in read.Follower(path, read.Sieve(), wait=wait):
                found.extend(record["session"] for _, record in batch)
        except Enough:
            pass

    deadline = time.monotonic() + 20
    thread = threading.Thread(target=follow)
    thread.start()
    writer = Writer(path, max_bytes=20_000, keep=80)
    # Files that were rotated before it looked for the first time are none of its business.
    writer.write(sample.record(0))
    writer.flush()
    while not found and time.monotonic() < deadline:
        time.sleep(0.001)
    for number in range(1, total):
        writer.write(sample.record(number))
        if number % 7 == 0:
            writer.flush()
        if number % 100 == 0:
            time.sleep(0.002)
    writer.close()
    done.set()
    thread.join()
    assert found == list(range(total))


def test_memory_stays_bounded(path: Path) -> None:
    """40 MB of records, a 10 MB line among them; 1 GB was measured by hand (17 MB resident)."""
    block = lines(*range(2000))
    with path.open("wb") as file:
        for _ in range(20):
            file.write(block)
        file.write(b"x" * 10_000_000 + b"\n")
        for _ in range(20):
            file.write(block)
    script = """
import resource, sys
from pathlib import Path
from slowpath.record import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sieve = read.Sieve(lambda record: record["session"] == 1999)
with read.open_file(Path(sys.argv[1])) as file:
    count = sum(len(batch) for batch in read.forwards(file, sieve))
    count += sum(len(batch) for batch in read.last([file], read.Sieve(), 50))
print(count, sieve.corrupt, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    count, corrupt, grown = map(int, done.stdout.split())
    assert (count, corrupt) == (90, 1)
    assert grown < 16 * 1024


def test_parse_returns_the_record() -> None:
    made: Record = sample.record(1)
    assert read.parse(encode(made)[:-1]) == made
