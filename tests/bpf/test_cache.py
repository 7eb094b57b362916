"""Programs that were compiled earlier are loaded as if they had just been compiled."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import json
import os
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastpath import abi
from fastpath.loader.cache import Cache
from fastpath.loader.objects import Objects
from fastpath.loader.pins import HITS, MAPS, PROGRAMS, SESSIONS, SLOTS, Origin, Pins, Table
from tests.bpf.harness import BPFFS, PREFIX

pytestmark = pytest.mark.root

# Every program and map of the gateway, and quick to compile: each program returns a number of its own, or what it
# reads behind a tail call.
SMALL = "".join(
    [
        f"struct k {{ u64 words[{ctypes.sizeof(abi.Key) // 8}]; }};",
        f"struct v {{ u64 words[{ctypes.sizeof(abi.Session) // 8}]; }};",
        "BPF_F_TABLE(MS_SESSIONS_TYPE, struct k, struct v, sessions, MS_SESSIONS, MS_SESSIONS_FLAGS);",
        f'BPF_TABLE("prog", u32, u32, progs, {int(max(SLOTS)) + 1});',
        'BPF_F_TABLE("array", u32, u64, pol_page_t, 1, 0x1000); BPF_ARRAY_OF_MAPS(pol_page, "pol_page_t", 2);',
        'BPF_F_TABLE("array", u32, u64, hits_t, 1, 0x1000); BPF_TABLE(MS_HITS_TYPE, int, int, hits, 4);',
        *(f'BPF_TABLE("array", u32, u64, {name}, 1);' for name in MAPS if name not in {"progs", "pol_page"}),
        *(f"int {name}(struct __sk_buff *skb) {{ return {number}; }}" for number, name in enumerate(PROGRAMS[:-3])),
        "int ms_wall(struct __sk_buff *skb) { struct k k = {}; struct v *v = sessions.lookup(&k); int slot = 1;",
        " return (v ? 40 : 50) + !!hits.lookup(&slot) + !!pol_page.lookup(&slot); }",
        "int ms_apply(struct __sk_buff *skb) { u32 zero = 0; u64 *n = config.lookup(&zero); return n ? *n : 0; }",
        "int ms_walk(struct __sk_buff *skb) { progs.call(skb, 1); return 99; }",
    ]
)
CAPACITY = 1024

Load = Callable[..., tuple[Pins, Origin]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "programs"


@pytest.fixture
def load(folder: Path) -> Iterator[Load]:
    """Pins under a root of their own, loaded, of SMALL or of the gateway's text (None)."""
    made = []
    numbers = itertools.count()
    home = BPFFS / f"{PREFIX}{os.getpid()}"

    def one(text: str | None = SMALL, cache: Path | None = folder, table: Table = Table(CAPACITY)) -> Any:  # noqa: B008
        pins = Pins(home / f"cache{next(numbers)}", table, text, cache)
        made.append(pins)
        return pins, pins.load()

    yield one
    for pins in made:
        pins.unload()
    with contextlib.suppress(OSError):  # the programs of other tests may be there
        home.rmdir()


def bpftool(*words: object) -> Any:
    done = subprocess.run(["bpftool", "-j", *map(str, words)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def paths(pins: Pins) -> dict[str, Path]:
    """Of maps."""
    return {
        name: (pins.base if name in {SESSIONS, HITS} else pins.directory) / name for name in (*MAPS, SESSIONS, HITS)
    }


def pictures(pins: Pins) -> dict[str, Any]:
    """All that the kernel tells of programs and maps, with names for numbers; without the lines of the source."""
    found: dict[str, Any] = {}
    names = {}
    for name, path in paths(pins).items():
        shown = bpftool("map", "show", "pinned", path)
        names[shown["id"]] = name
        types = pins.map(name).types
        found[name] = {key: shown[key] for key in shown.keys() - {"id", "btf_id", "bytes_memlock", "pinned"}}
        found[name] |= {"types": (bool(types.btf), types.key, types.value)}
    for name in PROGRAMS:
        shown = bpftool("prog", "show", "pinned", pins.directory / name)
        shown["map_ids"] = sorted(names[number] for number in shown.get("map_ids", []))
        found[name] = {key: shown[key] for key in shown.keys() - {"id", "btf_id", "loaded_at", "pinned"}}
        dump = ["bpftool", "prog", "dump", "xlated", "pinned", pins.directory / name]
        text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
        lines = re.sub(r"map\[id:(\d+)\]", lambda match: names[int(match[1])], text).splitlines()
        found[name]["code"] = [line for line in lines if re.match(r" *\d+: \(", line)]
        found[name]["function"] = pins.program(name).types[1]
    # Of a prog array user space sees which slots are in use, by id.
    ids = {bpftool("prog", "show", "pinned", pins.directory / name)["id"]: name for name in PROGRAMS}
    progs = pins.map("progs")
    slots = {struct.unpack("=I", key)[0]: progs.lookup(key) for key in list(progs.keys())}
    found["slots"] = {slot: ids[struct.unpack("=I", value)[0]] for slot, value in slots.items() if value}
    return found


def test_the_gateways_programs_are_the_same(load: Load) -> None:
    compiled, origin = load(None)
    assert origin == Origin.COMPILED
    again, origin = load(None)
    assert origin == Origin.CACHE
    before, after = pictures(compiled), pictures(again)
    assert before.keys() == after.keys()
    for name in before:
        assert before[name] == after[name], name
    assert before["slots"] == SLOTS
    assert before["ms_ingress"]["code"]
    assert again.load() == Origin.PINNED
    # The templates of inner maps are pinned for a moment only.
    for pins in (compiled, again):
        assert {path.name for path in pins.directory.iterdir()} == {*PROGRAMS, *MAPS}
        assert {path.name for path in pins.base.iterdir()} == {SESSIONS, HITS, pins.directory.name}


def works(pins: Pins) -> None:
    """The programs do what SMALL says, each on its own maps."""
    frame = bytes(64)
    assert pins.program("ms_walk").run(frame).value == 1  # the tail call reached ms_egress
    pins.map("config").update(bytes(4), struct.pack("=Q", 77))
    assert pins.program("ms_apply").run(frame).value == 77
    assert pins.program("ms_wall").run(frame).value == 50
    pins.map("sessions").update(bytes(ctypes.sizeof(abi.Key)), bytes(ctypes.sizeof(abi.Session)))
    assert pins.program("ms_wall").run(frame).value == 40


def test_they_work_and_share_nothing(load: Load) -> None:
    loaded = [load() for _ in range(3)]
    assert [origin for _, origin in loaded] == [Origin.COMPILED, Origin.CACHE, Origin.CACHE]
    for pins, _ in loaded:
        works(pins)


def test_another_table_or_text_and_no_cache_compile(load: Load, folder: Path) -> None:
    load()
    assert load(SMALL + "\n")[1] == Origin.COMPILED
    assert load(table=Table(CAPACITY, "hash"))[1] == Origin.COMPILED
    assert load(cache=None)[1] == Origin.COMPILED
    assert len(list(folder.iterdir())) == 3


def test_sessions_that_are_there_stay(load: Load, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pins, _ = load()
    works(pins)
    newer = Pins(pins.root, pins.table, SMALL + "\n", folder)
    # Compiled beside a table of other programs, whose types are theirs: nothing to keep.
    assert newer.load() == Origin.COMPILED
    assert len(list(folder.iterdir())) == 1
    assert caplog.messages == []
    for path in newer.directory.iterdir():
        path.unlink()
    newer.directory.rmdir()
    pins.remove_others()
    before = pins.map("sessions").id
    for path in pins.directory.iterdir():
        path.unlink()
    pins.directory.rmdir()
    assert pins.load() == Origin.CACHE
    assert pins.map("sessions").id == before
    assert pins.program("ms_wall").run(bytes(64)).value == 40


def spoil(objects: Objects, what: str) -> Objects:
    """What the kernel refuses."""
    *programs, last = objects.programs
    if what == "program":
        return dataclasses.replace(objects, programs=(*programs, dataclasses.replace(last, code=last.code[:8])))
    return dataclasses.replace(objects, btf=objects.btf[:-1])


@pytest.mark.parametrize("what", ["program", "types"])
def test_what_the_kernel_refuses_is_compiled_anew(
    load: Load, folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    load()
    (entry,) = folder.iterdir()
    cache, key = Cache(folder), entry.stem
    objects = cache.find(key)
    assert objects is not None
    cache.keep(key, spoil(objects, what), [Path(__file__)])
    pins, origin = load()
    assert origin == Origin.COMPILED
    assert "are compiled again" in caplog.text
    works(pins)
    # And replaced: the same again, but for the paths of pins in the names of types.
    replaced = cache.find(key)
    assert replaced is not None
    assert (replaced.maps, replaced.programs) == (objects.maps, objects.programs)
    assert load()[1] == Origin.CACHE
