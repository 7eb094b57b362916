from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowpath.record.write import MAX_PENDING, Writer, encode
from tests.unit.slowpath.record import sample


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "records.jsonl"


def sessions(*paths: Path) -> list[int]:
    return [json.loads(line)["session"] for each in paths for line in each.read_bytes().splitlines()]


@contextlib.contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """A real refusal with a real short write before it."""
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, old)


def test_writes_lines(path: Path) -> None:
    writer = Writer(path)
    for number in range(3):
        writer.write(sample.record(number))
    writer.close()
    assert sessions(path) == [0, 1, 2]
    assert (writer.written, writer.lost) == (3, 0)


def test_modes(path: Path) -> None:
    old = os.umask(0)
    try:
        Writer(path).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_flush_waits_for_its_interval(path: Path) -> None:
    writer = Writer(path, interval=0.1)
    writer.flush(10.0)
    writer.write(sample.record(1))
    writer.flush(10.05)
    assert path.stat().st_size == 0
    writer.flush(10.2)
    assert sessions(path) == [1]
    writer.write(sample.record(2))
    writer.flush()
    assert sessions(path) == [1, 2]
    writer.close()


def test_a_burst_goes_out_without_a_flush(path: Path) -> None:
    writer = Writer(path)
    line = len(encode(sample.record(1)))
    for _ in range(MAX_PENDING // line + 1):
        writer.write(sample.record(1))
    assert path.stat().st_size >= MAX_PENDING
    writer.close()


def test_rotation_keeps_order_size_and_number(path: Path) -> None:
    writer = Writer(path, max_bytes=2000, keep=3)
    for number in range(200):
        writer.write(sample.record(number))
        writer.flush()
    writer.close()
    files = [Path(f"{path}.{number}") for number in (3, 2, 1)] + [path]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert all(0 < each.stat().st_size <= 2000 for each in files)
    found = sessions(*files)
    assert found == list(range(200 - len(found), 200))


def test_a_batch_across_the_limit_is_split(path: Path) -> None:
    writer = Writer(path, max_bytes=2000, keep=100)
    for number in range(100):
        writer.write(sample.record(number))
    writer.close()
    files = [*reversed([Path(f"{path}.{number}") for number in range(1, len(list(path.parent.iterdir())))]), path]
    assert sessions(*files) == list(range(100))
    assert all(each.stat().st_size <= 2000 for each in files)


def test_keep_nothing(path: Path) -> None:
    writer = Writer(path, max_bytes=2000, keep=0)
    for number in range(50):
        writer.write(sample.record(number))
    writer.close()
    assert list(path.parent.iterdir()) == [path]
    assert sessions(path)[-1] == 49


def test_a_record_larger_than_a_file_is_written(path: Path) -> None:
    writer = Writer(path, max_bytes=100, keep=5)
    writer.write(sample.record(1))
    writer.write(sample.record(2))
    writer.close()
    assert sessions(Path(f"{path}.1"), path) == [1, 2]


def test_reopen_after_an_outside_rotation(path: Path) -> None:
    writer = Writer(path)
    writer.write(sample.record(1))
    path.rename(f"{path}.moved") if path.exists() else None
    writer.write(sample.record(2))
    writer.reopen()
    writer.write(sample.record(3))
    writer.close()
    assert sessions(Path(f"{path}.moved")) == [1, 2]
    assert sessions(path) == [3]


def test_reopen_that_fails_keeps_the_old_file(path: Path) -> None:
    reports: list[str] = []
    writer = Writer(path, report=reports.append)
    path.rename(f"{path}.moved")
    path.mkdir()
    writer.reopen()
    writer.write(sample.record(1))
    writer.close()
    assert sessions(Path(f"{path}.moved")) == [1]
    assert "cannot open it anew" in reports[0]


def test_rotation_that_fails_goes_on_in_the_old_file(path: Path) -> None:
    reports: list[str] = []
    writer = Writer(path, max_bytes=2000, keep=1, report=reports.append)
    Path(f"{path}.1").mkdir()
    for number in range(15):
        writer.write(sample.record(number))
    writer.close()
    assert sessions(path) == list(range(15))
    assert 1 < len(reports) < 5  # once for each 2000 bytes, not for each record
    assert "cannot rotate it" in reports[0]


def test_file_removed_under_the_writer(path: Path) -> None:
    writer = Writer(path, max_bytes=2000, keep=2)
    path.unlink()
    for number in range(20):
        writer.write(sample.record(number))
    writer.close()
    assert sessions(path)[-1] == 19


def test_full_disk_loses_counts_and_goes_on(path: Path) -> None:
    reports: list[str] = []
    writer = Writer(path, report=reports.append)
    writer.write(sample.record(0))
    writer.flush()
    one = path.stat().st_size
    with disk_full_at(one + one // 2):
        for number in (1, 2, 3):
            writer.write(sample.record(number))
        writer.flush()
        writer.write(sample.record(4))
        writer.flush()
    assert writer.lost == 3
    assert len(reports) == 1
    writer.write(sample.record(5))
    writer.flush()
    writer.close()
    # The line that was cut is completed: nothing in the file is torn.
    assert sessions(path) == [0, 1, 5]
    assert reports == [
        f"{path}: short write; records are being lost",
        f"{path}: writing again, 3 records were lost",
    ]
    assert writer.written == 3


def test_torn_last_line_is_ended_at_the_start(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(encode(sample.record(1)) + b'{"v":1,"ts":17')
    writer = Writer(path)
    writer.write(sample.record(2))
    writer.close()
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["session"] for line in (lines[0], lines[2])] == [1, 2]


def test_killed_writer_leaves_whole_lines(path: Path) -> None:
    script = f"""
import sys; from pathlib import Path
from slowpath.record.write import Writer
from tests.unit.slowpath.record import sample
writer = Writer(Path({str(path)!r}))
number = 0
while True:
    number += 1
    writer.write(sample.record(number))
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        deadline = time.monotonic() + 10
        while not (path.exists() and path.stat().st_size > 1_000_000) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    Writer(path).close()
    lines = path.read_bytes().splitlines()
    assert len(lines) > 1000
    assert all(json.loads(line) for line in lines[:-1])


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_refuses_what_is_no_file(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match=r"records\.jsonl"):
        Writer(path)
