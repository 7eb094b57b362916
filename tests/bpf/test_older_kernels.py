"""What kernels before 6.3 refuse and this one takes.

A loop that is closed by falling through ("back-edge from insn ..."): their check of the control flow (check_cfg in
kernel/bpf/verifier.c), over what bcc makes of the programs. And a map of structs as the template of an array of maps:
they find it different from the maps put in its place, which have no type information.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator

import pytest

from fastpath.loader.compile import SHIM, SYSTEM_PYTHON
from fastpath.loader.pins import PROGRAMS
from fastpath.loader.source import flatten

pytestmark = pytest.mark.root

# The kernel's classes of jumps (linux/bpf_common.h, linux/bpf.h), and what they do.
JMP, JMP32 = 0x05, 0x06
ALWAYS, CALL, EXIT = 0x00, 0x80, 0x90

FLAGS = [
    "-DMS_SESSIONS=1024", '-DMS_SESSIONS_TYPE="lru_hash"', "-DMS_SESSIONS_FLAGS=0",
    '-DMS_HITS_TYPE="array_of_maps$hits_t"', "-Wno-everything",
]  # fmt: skip
CHILD = """
import ctypes, json, sys
from bcc import BPF, lib
job = json.load(sys.stdin)
module = BPF(text=job["text"], cflags=job["cflags"]).module
of = lambda name: ctypes.string_at(lib.bpf_function_start(module, name), lib.bpf_function_size(module, name))
json.dump({name: of(name.encode()).hex() for name in job["programs"]}, sys.stdout)
"""

Code = list[tuple[int, int]]


def instructions(packed: bytes) -> Code:
    """Operation and jump offset of each."""
    return [(op, offset) for op, _, offset, _ in struct.iter_unpack("<BBhi", packed)]


def successors(code: Code, at: int) -> Iterator[tuple[int, bool]]:
    """Where an instruction goes on, and whether a loop may be closed there."""
    op, offset = code[at]
    if op & 7 not in {JMP, JMP32} or op & 0xF0 == CALL:
        yield at + 1, False
    elif op & 0xF0 != EXIT:
        if op & 0xF0 != ALWAYS:
            yield at + 1, True
        yield at + 1 + offset, True


def back_edges(code: Code) -> list[tuple[int, int]]:
    """Those that are refused."""
    on_path = {0: True}
    path = [(0, successors(code, 0))]
    found = []
    while path:
        at, left = path[-1]
        for to, may_close in left:
            if to not in on_path:
                on_path[to] = True
                path.append((to, successors(code, to)))
                break
            if on_path[to] and not may_close:
                found.append((at, to))
        else:
            on_path[at] = False
            path.pop()
    return found


@pytest.fixture(scope="module")
def compiled() -> dict[str, Code]:
    job = json.dumps({"text": flatten(), "cflags": FLAGS, "programs": PROGRAMS})
    environment = os.environ | {"BCC_KERNEL_SOURCE": str(SHIM)}
    done = subprocess.run(
        [SYSTEM_PYTHON, "-I", "-c", CHILD], input=job, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name: instructions(bytes.fromhex(code)) for name, code in json.loads(done.stdout).items()}


def test_no_loop_is_closed_by_falling_through(compiled: dict[str, Code]) -> None:
    assert {name: found for name, code in compiled.items() if (found := back_edges(code))} == {}
    # There are loops.
    assert sum(offset < -1 and op & 7 in {JMP, JMP32} for op, offset in compiled["ms_policy"]) > 5


def test_the_check_itself() -> None:
    move, jump, branch, leave = (0xB7, 0), (JMP, -2), (JMP | 0x10, -2), (JMP | EXIT, 0)
    assert back_edges([move, jump]) == []
    assert back_edges([move, branch, leave]) == []
    # 0 goes to 2, which falls into 3; 3 goes back to 1, and that falls into 2.
    assert back_edges([(JMP, 1), move, move, (JMP | 0x10, -3), leave]) == [(1, 2)]


def test_templates_of_inner_maps_hold_no_structs() -> None:
    templates = re.findall(r'BPF_F_TABLE\("array", __u32, (\w+)[^,]*, (\w+), 1, MS_BPF_F_INNER_MAP\)', flatten())
    assert {name for _, name in templates} == {"pol_page_t", "hits_t"}
    assert "struct" not in {kind for kind, _ in templates}
