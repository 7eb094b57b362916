"""What is pinned has the layout that Python reads and writes."""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
from typing import Any

import pytest

from fastpath import abi
from fastpath.loader.pins import MAPS, PROGRAMS, SLOTS
from tests.bpf.harness import Flow, Kernel, rule

pytestmark = pytest.mark.root


def size(kind: type[ctypes.Structure | ctypes._SimpleCData[Any]]) -> int:
    return ctypes.sizeof(kind)


COUNTERS = 8 * (abi.Stat.MAX + abi.Reason.MAX + 1)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("sessions", size(abi.Key), size(abi.Session)),
        ("fragments", size(abi.FragmentKey), size(abi.Fragment)),
        ("config", 4, size(abi.Config)),
        ("stats", 4, COUNTERS),
        ("heartbeat", 4, 8),
        ("managed", 4, 4),
        ("progs", 4, 4),
    ],
)
def test_sizes_of_the_pinned_maps(kernel: Kernel, name: str, key: int, value: int) -> None:
    shape = kernel.pins.map(name).shape
    assert (shape.key_size, shape.value_size) == (key, value)


def bpftool(*arguments: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_offsets_by_the_kernels_own_type_information(kernel: Kernel) -> None:
    types = bpftool("btf", "dump", "id", str(bpftool("map", "show", "id", str(kernel.table.id))["btf_id"]))["types"]
    structs = {each["name"]: each for each in types if each["kind"] == "STRUCT"}
    for name, kind in (("ms_key", abi.Key), ("ms_session", abi.Session)):
        found = structs[name]
        assert found["size"] == ctypes.sizeof(kind)
        offsets = {member["name"]: member["bits_offset"] // 8 for member in found["members"]}
        assert offsets == {field[0]: getattr(kind, field[0]).offset for field in kind._fields_}


def test_every_program_and_map_is_pinned_and_every_slot_filled(kernel: Kernel) -> None:
    for name in PROGRAMS:
        assert kernel.pins.program(name).id > 0
    for name in MAPS:
        assert kernel.pins.map(name).id > 0
    filled = {slot: kernel.pins.map("progs").lookup(slot.to_bytes(4, "little")) for slot in range(abi.Prog.MAX)}
    assert {slot: int.from_bytes(value, "little") for slot, value in filled.items() if value} == {
        slot: kernel.pins.program(name).id for slot, name in SLOTS.items()
    }


def test_config_as_the_kernel_reads_it(kernel: Kernel) -> None:
    # Its last field and one in the middle: a shift in between would show.
    kernel.policy(rule("web", "allow", tcp=80))
    kernel.revisions.press(abi.Pressure.FULL)
    assert kernel.send(Flow().segment("S")).session is None
    kernel.revisions.press(abi.Pressure.NONE)
    assert kernel.send(Flow().segment("S")).session is not None


def test_fields_cover_their_structs() -> None:
    # Explicit padding only: what the compiler adds in C would be missing here.
    for kind in (
        abi.Key,
        abi.Session,
        abi.Rule,
        abi.Class,
        abi.Block,
        abi.Config,
        abi.Fragment,
        abi.Command,
    ):
        spans = sorted((getattr(kind, name).offset, getattr(kind, name).size) for name, *_ in kind._fields_)
        for (offset, length), (following, _) in itertools.pairwise(spans):
            assert offset + length == following, kind
        assert sum(spans[-1]) == ctypes.sizeof(kind)
