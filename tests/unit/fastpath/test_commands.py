from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fastpath import abi
from fastpath.commands import Clocks, Commands

SIZE = ctypes.sizeof(abi.Command)
HEAD = int(abi.Limit.APPLY_OFFSET)


class Kernel:
    """Stands for the pinned programs: `answer` changes each command in place."""

    def __init__(self, answer: Callable[[abi.Command], None]) -> None:
        self.runs: list[tuple[str, int]] = []
        self._answer = answer

    def program(self, name: str) -> Any:
        def run(frame: bytes) -> bytes:
            count, rest = divmod(len(frame) - HEAD, SIZE)
            assert rest == 0
            assert frame[:HEAD] == bytes(HEAD)
            self.runs.append((name, count))
            commands = [abi.Command.from_buffer_copy(frame, HEAD + n * SIZE) for n in range(count)]
            for command in commands:
                self._answer(command)
            return frame[:HEAD] + b"".join(map(bytes, commands))

        def over(frame: bytearray) -> Callable[[int], None]:
            def change(size: int) -> None:
                frame[:size] = run(bytes(frame[:size]))

            return change

        return SimpleNamespace(over=over)


def commands(answer: Callable[[abi.Command], None]) -> tuple[Commands, Kernel]:
    kernel: Any = Kernel(answer)
    return Commands(kernel), kernel


def test_many_commands_go_in_batches_and_are_answered_in_order() -> None:
    def answer(command: abi.Command) -> None:
        command.status = command.id % 2

    subject, kernel = commands(answer)
    number = 2 * abi.Limit.APPLY_BATCH + 1
    answers = subject.apply([abi.Command(op=abi.Op.NOW, id=n) for n in range(number)])
    assert [(each.id, each.status) for each in answers] == [(n, n % 2) for n in range(number)]
    assert kernel.runs == [("ms_apply", abi.Limit.APPLY_BATCH)] * 2 + [("ms_apply", 1)]
    assert subject.apply([]) == []


def test_clocks() -> None:
    def answer(command: abi.Command) -> None:
        assert command.op == abi.Op.NOW
        command.last_jiffies, command.ns, command.revision = 7, 8, 9

    assert commands(answer)[0].clocks() == Clocks(jiffies=7, ns=8, revision=9)


def test_delete_names_session_and_last_use_and_counts_what_went() -> None:
    seen: list[tuple[int, int, int, int]] = []

    def answer(command: abi.Command) -> None:
        seen.append((command.op, command.id, command.last_jiffies, command.end))
        command.status = abi.Status.USED if command.id == 2 else abi.Status.OK

    subject, _ = commands(answer)
    key = bytes(abi.Key(l4=6))
    assert subject.delete([(key, 1, 10), (key, 2, 20), (key, 3, 30)], abi.End.TIMEOUT) == 2
    assert seen == [(abi.Op.DELETE, n, 10 * n, abi.End.TIMEOUT) for n in (1, 2, 3)]


def test_judge_and_walk_ask_the_other_program() -> None:
    def answer(command: abi.Command) -> None:
        command.verdict = command.op

    subject, kernel = commands(answer)
    assert subject.judge(bytes(abi.Key(l4=6)), 5, 4).verdict == abi.Op.JUDGE
    walked = subject.walk(bytes(15) + b"\x01", bytes(15) + b"\x02", 6, 443)
    assert (walked.verdict, walked.key.l4) == (abi.Op.WALK, 6)
    assert (bytes(walked.key.addr_a)[-1], bytes(walked.key.addr_b)[-1]) == (1, 2)
    assert int(walked.key.port_b).to_bytes(2, "little") == (443).to_bytes(2, "big")
    assert kernel.runs == [("ms_walk", 1)] * 2


@pytest.mark.parametrize(("jiffies", "hertz"), [(5, 100), (12, 250), (13, 250), (15, 300), (50, 1000), (47, 1000)])
def test_hertz_is_the_nearest_that_a_kernel_can_have(jiffies: int, hertz: int, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([(1000, 0), (1000 + jiffies, 50_000_000)])

    def answer(command: abi.Command) -> None:
        command.last_jiffies, command.ns = next(moments)

    monkeypatch.setattr("fastpath.commands.time.sleep", lambda _: None)
    assert commands(answer)[0].hertz() == hertz
