"""What the daemon reads of the kernel's answers, and what it makes of a host that it cannot ask."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest

from fastpath import accelerate
from fastpath.accelerate import Acceleration, obstacle, refuse
from fastpath.config import Config
from fastpath.exit import CommandError, ExitStatus

CONFIG = Config(Path("gateway.yaml"), (), Path("policy.yaml"), Path("rules.d"), accelerate=True)


def attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def message(kind: int, content: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(content), kind, 2, 1, 0) + content


def route(*attributes: bytes) -> bytes:
    return message(24, bytes(12) + b"".join(attributes))


def metrics(**values: int) -> bytes:
    numbers = {"mtu": 2, "window": 3, "hoplimit": 10}
    inner = b"".join(attribute(numbers[name], struct.pack("=I", value)) for name, value in values.items())
    return attribute(8 | 0x8000, inner)


def test_only_metrics_name_an_mtu() -> None:
    # An interface (4) with the same bytes, a source of four bytes (2), another metric.
    others = [attribute(4, b"\x08\x00\x02\x00"), attribute(2, b"\x0a\x00\x00\x01"), metrics(window=9, hoplimit=8)]
    dump = route(*others) + route(attribute(1, b"\x0a\x01"), metrics(window=4, mtu=1400)) + route(metrics(mtu=1280))
    assert list(accelerate._route_mtus(dump)) == [1400, 1280]
    assert list(accelerate._route_mtus(message(3, bytes(4)))) == []


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_damaged_answers_end(cut: int) -> None:
    dump = route(attribute(1, b"\x0a\x01"), metrics(window=4, mtu=1400))
    list(accelerate._route_mtus(dump[:cut]))
    list(accelerate._route_mtus(dump[:cut] + bytes(40)))


class Kernel:
    """What was told to the kernel half."""

    def __init__(self) -> None:
        self.on: list[bool] = []

    def accelerate(self, *, on: bool) -> None:
        self.on.append(on)

    def limit(self, mtu: int) -> None:
        pass


def test_off_where_the_host_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise OSError(1, "not permitted")

    monkeypatch.setattr(accelerate, "_obstacle", fail)
    reason = asyncio.run(obstacle(None, CONFIG))
    assert reason == "cannot tell what this host does with them: [Errno 1] not permitted"
    with pytest.raises(CommandError) as caught:
        asyncio.run(refuse(None, CONFIG))
    assert caught.value.status is ExitStatus.INVALID_CONFIGURATION
    kernel = Kernel()
    one = Acceleration(CONFIG, kernel)  # type: ignore[arg-type]
    asyncio.run(one.check(None))
    assert (kernel.on, one.status) == ([False], f"off ({reason})")


def test_not_asked_for_is_no_question_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate, "_obstacle", None)
    config = Config(Path("gateway.yaml"), (), Path("policy.yaml"), Path("rules.d"))
    asyncio.run(refuse(None, config))
    kernel = Kernel()
    one = Acceleration(config, kernel)  # type: ignore[arg-type]
    asyncio.run(one.check(None))
    assert (kernel.on, one.status) == ([False], "off (not asked for)")
