"""Two programs for the moment in which an interface has ours both at tcx and as a clsact filter, one after the other.

tcx runs first: its program marks what it judges, the filter lets the marked pass and judges the rest. So each
packet is judged once, whichever of the two is there. Both reach the judging program through the pinned prog array:
a daemon that ends in between leaves a gateway that works.
"""

from __future__ import annotations

import struct

from fastpath.libbpf import Map, Program

PASS, DROP = -1, 2
# struct __sk_buff (linux/bpf.h): the last word of cb, which nothing else of ours writes.
_CB4 = 64
_TAIL_CALL = 12  # BPF_FUNC_tail_call


def marking(progs: Map, slot: int, tag: int) -> Program:
    """Marks with `tag`, then judges: for tcx."""
    # w2 = tag; cb[4] = w2
    return Program.load("ms_marking", _op(0xB4, 2, value=tag) + _op(0x63, 1, 2, _CB4) + _judge(progs, slot))


def unmarked(progs: Map, slot: int, tag: int) -> Program:
    """Judges what does not have `tag`, and takes it off the rest: for the filter."""
    passing = _op(0xB7, 2) + _op(0x63, 1, 2, _CB4) + _op(0xB7, 0, value=PASS) + _op(0x95)
    # w2 = cb[4]; if w2 != tag, jump over `passing`
    look = _op(0x61, 2, 1, _CB4) + _op(0x56, 2, offset=len(passing) // 8, value=tag)
    return Program.load("ms_unmarked", look + passing + _judge(progs, slot))


def _judge(progs: Map, slot: int) -> bytes:
    """The program in a slot; dropped where there is none."""
    # r2 = map by descriptor, in two halves; r3 = slot; tail call; r0 = DROP; exit
    array = _op(0x18, 2, 1, value=progs.fd) + _op(0)
    return array + _op(0xB7, 3, value=slot) + _op(0x85, value=_TAIL_CALL) + _op(0xB7, 0, value=DROP) + _op(0x95)


def _op(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One struct bpf_insn (the order of its nibbles is that of a little-endian machine)."""
    return struct.pack("=BBhi", code, source << 4 | to, offset, value)
