"""Commands to the kernel: the packet data of a test run of `ms_apply` and `ms_walk`.

Sessions are only ever written by BPF programs: `bpf_map_update_elem` from here would
lose the counter updates of packets on their way (design section 2, rule 4).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastpath import abi
from fastpath.libbpf import Program
from fastpath.loader.pins import Pins

_SIZE = ctypes.sizeof(abi.Command)
_HEAD = bytes(abi.Limit.APPLY_OFFSET)
# Of the answers to deletes: where the status stands, in words, and how far the next one is.
_STATUS, _WORDS = abi.Command.status.offset // 4, _SIZE // 4
# A DELETE, packed: op, key, id, last use, end.
_DELETE = struct.Struct(
    f"=I{abi.Command.key.offset - 4}x40s"
    f"Q{abi.Command.last_jiffies.offset - abi.Command.verdict.offset}xQ"
    f"{abi.Command.end.offset - abi.Command.ns.offset}xB{_SIZE - abi.Command.end.offset - 1}x"
).pack
# CONFIG_HZ of every kernel there is.
_HZ = (100, 250, 300, 1000)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The kernel's clocks at one moment."""

    jiffies: int
    ns: int  # CLOCK_MONOTONIC
    revision: int


class Commands:
    """The command programs of one gateway."""

    def __init__(self, pins: Pins) -> None:
        self._apply = _Runner(pins.program("ms_apply"), abi.Limit.APPLY_BATCH)
        self._walk = _Runner(pins.program("ms_walk"), 1)

    def apply(self, commands: Sequence[abi.Command]) -> list[abi.Command]:
        """Carry out commands in order; the answers, one for each."""
        answers: list[abi.Command] = []
        for at in range(0, len(commands), abi.Limit.APPLY_BATCH):
            answers += self._apply.run(commands[at : at + abi.Limit.APPLY_BATCH])
        return answers

    def clocks(self) -> Clocks:
        """Jiffies, monotonic time, revision."""
        answer = self.apply([abi.Command(op=abi.Op.NOW)])[0]
        return Clocks(answer.last_jiffies, answer.ns, answer.revision)

    def heartbeat(self) -> None:
        """Tell the kernel that the inspector lives."""
        self.apply([abi.Command(op=abi.Op.HEARTBEAT)])

    def judge(self, key: bytes, session: int, possible: int) -> abi.Command:
        """Walk the policy for a session that may be one of `possible` (1 << Protocol each, 0 = any);
        `verdict` of the answer is the word, `rule_flags` the rule's. The session's rule and revision are stamped.
        """
        return self._one(abi.Command(op=abi.Op.JUDGE, key=abi.Key.from_buffer_copy(key), id=session, possible=possible))

    def walk(
        self, source: bytes, destination: bytes, l4: int, dport: int, possible: int = 0, *,
        from_zone: int = abi.Zone.NONE, to_zone: int = abi.Zone.NONE, vlan: int = 0,
    ) -> abi.Command:  # fmt: skip
        """Walk the policy for a flow without touching any session; 16-byte addresses, port in host order, zones by
        number (`abi.Zone`).
        """
        key = abi.Key(l4=l4, port_b=socket.htons(dport))
        key.addr_a[:] = source
        key.addr_b[:] = destination
        command = abi.Command(op=abi.Op.WALK, key=key, possible=possible, vlan=vlan)
        command.zones[:] = to_zone, from_zone
        return self._one(command)

    def delete(self, doomed: Iterable[tuple[bytes, int, int]], end: abi.End) -> int:
        """Delete sessions (key, id, last use in jiffies) that were not used since; how many went."""
        # A sweep may bring a million: no object for each, and one frame for all.
        packed = [_DELETE(abi.Op.DELETE, key, session, last, end) for key, session, last in doomed]
        if not packed:
            return 0
        return sum(
            self._apply.done(packed[at : at + abi.Limit.APPLY_BATCH])
            for at in range(0, len(packed), abi.Limit.APPLY_BATCH)
        )

    def _one(self, command: abi.Command) -> abi.Command:
        return self._walk.run([command])[0]

    def hertz(self) -> int:
        """CONFIG_HZ, measured over 50 ms: nothing tells it."""
        before = self.clocks()
        time.sleep(0.05)
        after = self.clocks()
        measured = (after.jiffies - before.jiffies) * 1e9 / max(1, after.ns - before.ns)
        return min(_HZ, key=lambda hz: abs(hz - measured))


class _Runner:
    """Runs a program over commands, `most` at a time, in one piece of memory that all runs share."""

    def __init__(self, program: Program, most: int) -> None:
        self._frame = bytearray(len(_HEAD) + most * _SIZE)
        self._run = program.over(self._frame)
        self._statuses = memoryview(self._frame)[len(_HEAD) :].cast("I")[_STATUS::_WORDS]
        self._lock = threading.Lock()  # a reload has a thread of its own

    def run(self, commands: Sequence[abi.Command]) -> list[abi.Command]:
        """The answers."""
        if not commands:
            return []
        with self._lock:
            self._do(commands)
            return [
                abi.Command.from_buffer_copy(self._frame, len(_HEAD) + _SIZE * number)
                for number in range(len(commands))
            ]

    def done(self, commands: Sequence[bytes]) -> int:
        """How many were carried out."""
        with self._lock:
            self._do(commands)
            return self._statuses[: len(commands)].tolist().count(abi.Status.OK)

    def _do(self, commands: Sequence[abi.Command | bytes]) -> None:
        end = len(_HEAD) + _SIZE * len(commands)
        self._frame[len(_HEAD) : end] = b"".join(map(bytes, commands))
        self._run(end)
