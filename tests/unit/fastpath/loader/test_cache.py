from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastpath.libbpf import MapShape, MapTypes
from fastpath.loader import cache as subject
from fastpath.loader.cache import MOST, Cache, compile_key
from fastpath.loader.objects import MapObject, Objects, ProgramObject
from fastpath.store import STALE, Store

OBJECTS = Objects(
    b"types",
    (
        MapObject("inner", MapShape(2, 4, 8, 1, 0x1000)),
        MapObject("outer", MapShape(12, 4, 4, 2, 0), template="inner"),
        MapObject("table", MapShape(9, 40, 168, 1024, 2), MapTypes(0, 1, 8)),
    ),
    (ProgramObject("one", bytes(range(16)), 7), ProgramObject("two", bytes(8))),
)
OTHER = Objects(b"", (), (ProgramObject("one", bytes(8)),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "programs"


@pytest.fixture
def compiler(tmp_path: Path) -> Path:
    file = tmp_path / "libbcc.so"
    file.write_bytes(b"compiler")
    return file


@pytest.fixture
def cache(folder: Path, compiler: Path) -> Cache:
    """OBJECTS under `key`."""
    cache = Cache(folder)
    cache.keep("key", OBJECTS, [compiler])
    return cache


def entry(cache: Cache) -> Path:
    (only,) = cache.folder.iterdir()
    return only


def test_what_was_kept_is_found_as_it_was(cache: Cache) -> None:
    assert cache.find("key") == OBJECTS
    assert cache.find("another") is None
    cache.drop("key")
    cache.drop("key")
    assert cache.find("key") is None


def test_nobody_else_may_read_or_write(cache: Cache) -> None:
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert entry(cache).stat().st_mode & 0o777 == 0o600


def test_nothing_is_found_where_nothing_was_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Cache(folder).find("key") is None
    assert caplog.messages == []
    assert not folder.exists()


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_not_used(
    cache: Cache, compiler: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache.folder.chmod(mode)
    assert cache.find("key") is None
    cache.keep("more", OTHER, [compiler])
    assert len(list(cache.folder.iterdir())) == 1
    assert len(caplog.messages) == 2
    assert all(f"{cache.folder}: others than root can write there" in line for line in caplog.messages)


def test_a_file_that_others_can_write_to_is_not_used(cache: Cache) -> None:
    entry(cache).chmod(0o620)
    assert cache.find("key") is None


@pytest.mark.root
@pytest.mark.parametrize("what", ["folder", "entry"])
def test_what_is_somebody_elses_is_not_used(cache: Cache, what: str) -> None:
    os.chown(cache.folder if what == "folder" else entry(cache), 65534, 65534)
    assert cache.find("key") is None


def test_links_are_not_followed(cache: Cache, tmp_path: Path) -> None:
    real = entry(cache).rename(tmp_path / "real")
    (cache.folder / "key.programs").symlink_to(real)
    assert cache.find("key") is None
    (tmp_path / "link").symlink_to(cache.folder)
    (cache.folder / "key.programs").unlink()
    real.rename(cache.folder / "key.programs")
    assert Cache(tmp_path / "link").find("key") is None
    assert cache.find("key") == OBJECTS


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda _: b"",
    lambda content: content[:-1],
    lambda content: content.replace(b'"one"', b'"two"'),
    lambda content: content + b" ",
    lambda content: content[65:],
    lambda content: bytes(len(content)),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_ignored_and_replaced(
    cache: Cache, compiler: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    entry(cache).write_bytes(damage(entry(cache).read_bytes()))
    assert cache.find("key") is None
    assert "damaged" in caplog.text
    cache.keep("key", OTHER, [compiler])
    assert cache.find("key") == OTHER


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b'{"compiler":[]}',
        b"null",
        b"not JSON",
        b'{"compiler":{"/":[]},"btf":"","maps":[["m","",0,0,-1,4,4,4,4]],"programs":[]}',
        b'{"compiler":{"/":[]},"btf":"","maps":[["m","",0,0,1,4,4,4]],"programs":[]}',
        b'{"compiler":{"/":[]},"btf":"","maps":[],"programs":[["p","x",""]]}',
        b'{"compiler":{},"btf":"","maps":[],"programs":[]}',
    ],
)
def test_a_whole_file_of_somebody_else_is_ignored(cache: Cache, content: bytes) -> None:
    Store(cache.folder, ".programs", "anything", most=MOST, max_bytes=1 << 20).keep("key", content)
    assert cache.find("key") is None


def test_a_folder_in_the_place_of_an_entry_is_ignored(cache: Cache) -> None:
    entry(cache).unlink()
    (cache.folder / "key.programs").mkdir()
    assert cache.find("key") is None


def test_another_compiler_makes_its_own(cache: Cache, compiler: Path) -> None:
    compiler.write_bytes(b"another one")
    assert cache.find("key") is None
    cache.keep("key", OTHER, [compiler])
    assert cache.find("key") == OTHER
    compiler.unlink()
    assert cache.find("key") is None


def test_those_used_last_are_kept(cache: Cache, compiler: Path) -> None:
    old = time.time() - 2 * STALE
    for number in range(MOST):
        cache.keep(str(number), OTHER, [compiler])
        os.utime(cache.folder / f"{number}.programs", (old + number, old + number))
        assert cache.find("key") == OBJECTS
    for name, age in (("stale.part", old), ("fresh.part", time.time())):
        (cache.folder / name).touch()
        os.utime(cache.folder / name, (age, age))
    cache.keep("last", OTHER, [compiler])
    kept = {path.name for path in cache.folder.iterdir()}
    assert kept == {"key.programs", "last.programs", "fresh.part", *(f"{n}.programs" for n in range(2, MOST))}


def test_readers_never_see_half_an_entry(cache: Cache, compiler: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            cache.keep("key", OBJECTS, [compiler])

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    found = [cache.find("key") for _ in range(300)]
    stop.set()
    for writer in writers:
        writer.join()
    assert found == [OBJECTS] * 300
    assert caplog.messages == []


def test_the_key_depends_on_parts_headers_and_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SHIM", tmp_path)
    # Without the shim bcc would take kernel headers, of which we know nothing.
    assert compile_key("text") is None
    (tmp_path / "one.h").write_text("int a;")
    keys = [compile_key("text"), compile_key("text", ""), compile_key("tex", "t")]
    (tmp_path / "one.h").write_text("int b;")
    keys.append(compile_key("text"))
    (tmp_path / "one.h").rename(tmp_path / "two.h")
    keys.append(compile_key("text"))
    other = os.uname_result(("Linux", "host", "6.1.0", "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: other)
    keys.append(compile_key("text"))
    assert len(set(keys)) == len(keys)
    assert keys[-1] == compile_key("text")
