"""Programs and maps as bcc made them, in a form that another process can load again: no compiler, the same result.

What bcc hands to the kernel is read back from the kernel (shapes, type information) and from bcc (instructions before
the verifier changed them), with the maps' descriptors replaced by their places in `Objects.maps`. Only the lines of the
source, which bpftool shows beside instructions, are left out: the kernel tells them as the verifier moved them.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from fastpath.libbpf import UNTYPED, Btf, Map, MapShape, MapTypes, Program, pin
from fastpath.loader.compile import Compiled, Places

# So many programs are verified at once at most: each takes memory meanwhile.
_AT_ONCE = 4

# linux/bpf.h: a load of 64 bits, BPF_LD | BPF_DW | BPF_IMM, whose source register says what the value stands for.
_LOAD = 0x18
_PSEUDO_MAP_FD = 1
_LITTLE = sys.byteorder == "little"


class NotPortableError(ValueError):
    """There is something in the programs that is not known how to load again."""


@dataclass(frozen=True, slots=True)
class MapObject:
    """A map; `template` names the one that its inner maps are like, `types` stand in `Objects.btf`."""

    name: str
    shape: MapShape
    types: MapTypes = UNTYPED
    template: str = ""


@dataclass(frozen=True, slots=True)
class ProgramObject:
    """A program's instructions, with places in `Objects.maps` for descriptors; `function` is its type."""

    name: str
    code: bytes
    function: int = 0


@dataclass(frozen=True, slots=True)
class Objects:
    """All of them; templates come before the maps that name them. `btf` is empty where the kernel has none."""

    btf: bytes
    maps: tuple[MapObject, ...]
    programs: tuple[ProgramObject, ...]


def describe(compiled: Compiled, places: Places, templates: Mapping[str, str]) -> Objects:
    """Of what has just been compiled and is still pinned; `templates` name those of arrays of maps, and are among the
    maps. NotPortableError, OSError.
    """
    names = sorted(compiled.descriptors, key=lambda name: name in templates)
    paths = {**places.maps, **places.shared}
    opened = {name: Map.open(paths[name]) for name in names}
    programs = {name: Program.open(path) for name, path in places.programs.items()}
    infos = {each.types.btf for each in opened.values()} | {program.types[0] for program in programs.values()}
    numbers = infos - {0}
    if len(numbers) > 1:
        raise NotPortableError("the maps' type information is not the programs'")
    numbers_of = {compiled.descriptors[name]: place for place, name in enumerate(names)}
    return Objects(
        Btf.by_id(number).read() if (number := max(numbers, default=0)) else b"",
        tuple(
            MapObject(name, each.shape, MapTypes(0, each.types.key, each.types.value), templates.get(name, ""))
            for name, each in opened.items()
        ),
        tuple(
            ProgramObject(name, relocate(compiled.code[name], numbers_of), program.types[1])
            for name, program in programs.items()
        ),
    )


def relocate(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """The instructions with other numbers for their maps. NotPortableError."""
    changed = bytearray(code)
    for at, source in _wide_loads(code):
        if source == 0:
            continue
        (old,) = struct.unpack_from("=i", code, at + 4)
        if source != _PSEUDO_MAP_FD or old not in numbers:
            raise NotPortableError(f"instruction {at // 8}: a load of kind {source}, of {old}")
        struct.pack_into("=i", changed, at + 4, numbers[old])
    return bytes(changed)


def _wide_loads(code: bytes) -> Iterator[tuple[int, int]]:
    """Offset and source register of each load of 64 bits, which takes two instructions."""
    if len(code) % 8:
        raise NotPortableError("half an instruction")
    at = 0
    while at < len(code):
        if code[at] != _LOAD:
            at += 8
            continue
        # The fields are halves of a byte, in the host's order (linux/bpf.h: a bit field).
        yield at, code[at + 1] >> 4 if _LITTLE else code[at + 1] & 15
        at += 16


def load_and_pin(objects: Objects, places: Places) -> None:
    """What `compile_and_pin` does, without compiling. On an error (OSError, NotPortableError) nothing is left in the
    places of `shared` that was not there; the caller removes the rest.
    """
    named = {each.name for each in objects.maps} | {each.name for each in objects.programs}
    if missing := {*places.programs, *places.maps, *places.shared, places.progs_map} - named:
        raise NotPortableError(f"{', '.join(sorted(missing))}: missing")
    with ExitStack() as stack:
        btf = stack.enter_context(Btf.load(objects.btf)) if objects.btf else None
        maps: dict[str, Map] = {}
        fresh = set()
        for each in objects.maps:
            path = places.shared.get(each.name)
            if path is not None and path.exists():
                one = Map.open(path)
            else:
                one = Map.create(
                    each.name, each.shape, template=maps[each.template] if each.template else None,
                    btf=btf if each.types != UNTYPED else None, types=each.types,
                )  # fmt: skip
                fresh.add(each.name)
            maps[each.name] = stack.enter_context(one)
            if one.shape != each.shape:
                raise NotPortableError(f"map {each.name} is {one.shape}, not {each.shape}")
        descriptors = {place: maps[each.name].fd for place, each in enumerate(objects.maps)}

        def load(program: ProgramObject) -> Program:
            return Program.load(
                program.name, relocate(program.code, descriptors), btf if program.function else None, program.function
            )

        # Most of the time is the verifier's, which takes several at once.
        with ThreadPoolExecutor(min(_AT_ONCE, len(os.sched_getaffinity(0)))) as pool:
            loaded = list(pool.map(load, objects.programs))
        programs = {each.name: stack.enter_context(one) for each, one in zip(objects.programs, loaded, strict=True)}
        for slot, name in places.slots.items():
            maps[places.progs_map].update(struct.pack("=I", slot), struct.pack("=I", programs[name].fd))
        for name, path in places.programs.items():
            pin(programs[name], path)
        for name, path in places.maps.items():
            pin(maps[name], path)
        pinned = []
        try:
            for name, path in places.shared.items():
                if name in fresh:
                    pin(maps[name], path)
                    pinned.append(path)
        except OSError:
            for path in pinned:
                path.unlink(missing_ok=True)
            raise
