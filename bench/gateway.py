"""The lab's gateway with what the benches ask of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.rules import RULE_FILES, decoys
from fastpath.libbpf import Map, Program
from tests.lab.gateway import FASTPATH, SLOWPATH
from tests.lab.gateway import Gateway as LabGateway
from tests.lab.namespaces import Lab

__all__ = ["FASTPATH", "SLOWPATH", "Gateway", "accelerated", "allow_all", "ours"]


class Gateway(LabGateway):
    """Both daemons under a policy given as text; the bench's rule files are there."""

    def __init__(
        self, lab: Lab, policy: str, settings: Mapping[str, Any] | None = None, *, inspector: bool = True
    ) -> None:
        rules = lab.directory / "rules.d"
        rules.mkdir(exist_ok=True)
        for name, text in RULE_FILES.items():
            (rules / f"{name}.yaml").write_text(text)
        super().__init__(lab, policy, rules, settings, inspector=inspector)

    def seconds_to_start(self, name: str) -> float:
        """Start a daemon; how long it takes until it answers."""
        begin = time.monotonic()
        self.start_daemon(name)
        return time.monotonic() - begin

    def packets(self) -> dict[str, int]:
        """The kernel half's counters by name."""
        counters: dict[str, int] = self.stats()["packets"]
        return counters

    def resident(self, name: str) -> int:
        """Resident memory of a daemon in bytes."""
        text = Path(f"/proc/{self.children[name].pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS:"))

    def program(self, name: str) -> Program:
        """A pinned program of the kernel half."""
        return Program.open(Path(self.status()["pins"]) / name)

    def session_table(self) -> Map:
        """It is pinned one level above the programs."""
        return Map.open(Path(self.status()["pins"]).parent / "sessions")


def allow_all(action: str = "action: allow") -> str:
    """The 1,000 rules, the last of which matches the lab's traffic and does `action`."""
    lines = [
        f"- {{id: decoy-{n}, from: {rule.source}, to: {rule.destination}, proto: tcp, ports: {rule.port}, "
        "action: allow}"
        for n, rule in enumerate(decoys())
    ]
    lines.append(f"- {{id: lab, from: 10.77.0.0/16, to: 10.77.0.0/16, {action}}}")
    return "rules:\n" + "\n".join(lines) + "\n"


@contextlib.contextmanager
def ours(lab: Lab) -> Iterator[None]:
    """The gateway as a forwarder: 1,000 rules, default logging, default settings."""
    with Gateway(lab, allow_all(), inspector=False):
        yield


@contextlib.contextmanager
def accelerated(lab: Lab) -> Iterator[None]:
    """The same with `accelerate`."""
    with Gateway(lab, allow_all(), {"accelerate": True}, inspector=False):
        yield
