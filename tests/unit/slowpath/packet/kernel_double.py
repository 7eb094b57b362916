"""A kernel half in memory: one session table, and command programs that answer as they are told."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, cast

from fastpath import abi
from fastpath.loader.pins import Pins

HEAD = int(abi.Limit.APPLY_OFFSET)
SIZE = ctypes.sizeof(abi.Command)

Answer = Callable[[abi.Command], None]


class Program:
    """Takes the packet data of a test run apart, lets `answer` change each command, and keeps what came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.runs: list[list[abi.Command]] = []

    def over(self, frame: bytearray) -> Callable[[int], None]:
        def run(size: int) -> None:
            assert size >= HEAD + SIZE
            assert (size - HEAD) % SIZE == 0
            assert frame[:HEAD] == bytes(HEAD)
            commands = [abi.Command.from_buffer_copy(frame, at) for at in range(HEAD, size, SIZE)]
            self.runs.append([abi.Command.from_buffer_copy(bytes(command)) for command in commands])
            for command in commands:
                self.answer(command)
            frame[HEAD:size] = b"".join(map(bytes, commands))

        return run

    @property
    def commands(self) -> list[abi.Command]:
        """All that came, in order."""
        return [command for run in self.runs for command in run]


class Map:
    """Of structures."""

    def __init__(self, entries: Mapping[bytes, ctypes.Structure]) -> None:
        self._entries = entries

    def into(self, value: ctypes.Structure) -> Callable[[bytes], bool]:
        def lookup(key: bytes) -> bool:
            if key not in self._entries:
                return False
            ctypes.memmove(ctypes.addressof(value), bytes(self._entries[key]), ctypes.sizeof(value))
            return True

        return lookup


class Kernel:
    """Stands for `Pins`."""

    def __init__(self, sessions: Mapping[bytes, abi.Session] | None = None) -> None:
        self.sessions = dict(sessions or {})
        self.config = abi.Config()
        self.applied = Program(lambda _: None)
        self.walked = Program(lambda _: None)

    @property
    def pins(self) -> Pins:
        return cast("Pins", self)

    def program(self, name: str) -> Program:
        return {"ms_apply": self.applied, "ms_walk": self.walked}[name]

    def map(self, name: str) -> Any:
        return Map(self.sessions if name == "sessions" else {bytes(4): self.config})
