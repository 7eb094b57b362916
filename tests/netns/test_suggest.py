"""`policy suggest` from real traffic: learnt in monitor mode, enforced, the same gets through and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab, clients, servers
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, Gateway
from tests.netns.peers import listen
from tests.netns.probes import attempt, ping

pytestmark = pytest.mark.root

LEARN = "mode: monitor\ndefault: deny\nrules: [{id: learn, action: inspect}]\n"
# Of servers that are there, what is used while the gateway learns...
USED: dict[str, Callable[[Lab], bool]] = {
    "http": lambda lab: clients.http(lab, V4).ok,
    "http over IPv6": lambda lab: clients.http(lab, V6).ok,
    "https": lambda lab: clients.https(lab, V4).ok,
    "dns": lambda lab: clients.dns(lab, V4).ok,
    "dns over TCP": lambda lab: clients.dns(lab, V4, tcp=True).ok,
    "redis": lambda lab: clients.redis(lab, V4).ok,
    "ping": lambda lab: ping(lab, V4),
    "ephemeral": lambda lab: all(attempt(lab, port)[0] == "open" for port in (40000, 40002)),
}
# ... and what is not.
UNUSED: dict[str, Callable[[Lab], bool]] = {
    "https over IPv6": lambda lab: clients.https(lab, V6, timeout=2).ok,
    "redis over IPv6": lambda lab: clients.redis(lab, V6, timeout=2).ok,
    "dns over IPv6": lambda lab: clients.dns(lab, V6, timeout=2).ok,
    "ssh": lambda lab: clients.ssh(lab, V4, timeout=2).ok,
    "ping over IPv6": lambda lab: ping(lab, V6),
    "another port": lambda lab: attempt(lab, 40001)[0] == "open",
    # The port was learnt as TLS.
    "another application": lambda lab: clients.http(lab, V4, port=443, timeout=2).detail.startswith(
        "unexpected answer"
    ),
}


@pytest.fixture(scope="module")
def learnt() -> Iterator[tuple[Gateway, str]]:
    """A gateway that let everything pass, and what it suggests then."""
    kinds = (servers.Nginx, servers.Dnsmasq, servers.Redis, servers.Sshd)
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        gateway = stack.enter_context(Gateway(lab, LEARN))
        stack.enter_context(servers.running(lab, kinds))
        for port in (40000, 40001, 40002):
            stack.enter_context(listen(lab, port))
        for name, use in USED.items():
            assert use(lab), name
        # A port that nobody listens on: not a use of it.
        assert attempt(lab, 7999)[0] == "refused"
        yield gateway, command(gateway, "suggest", "--since", "10m")


def command(gateway: Gateway, *argv: str) -> str:
    done = gateway.command(FASTPATH, "policy", *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def suggested(gateway: Gateway, *argv: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(command(gateway, "suggest", "-o", "json", *argv))
    return result


def test_what_is_suggested(learnt: tuple[Gateway, str]) -> None:
    gateway, _ = learnt
    told = suggested(gateway, "--since", "10m")
    rules = {
        rule["id"]: (rule["from"], rule["to"], rule["proto"], rule.get("ports"), rule.get("app"))
        for rule in told["policy"]["rules"]
    }
    assert rules == {
        f"tcp-80-{V4}": ("10.77.1.2", V4, "tcp", "80", "http"),
        f"tcp-80-{V6}": ("fd77:1::2", V6, "tcp", "80", "http"),
        f"tcp-443-{V4}": ("10.77.1.2", V4, "tcp", "443", "tls"),
        f"tcp-53-{V4}": ("10.77.1.2", V4, ["tcp", "udp"], "53", "dns"),
        f"tcp-6379-{V4}": ("10.77.1.2", V4, "tcp", "6379", "redis"),
        f"icmp-{V4}": ("10.77.1.2", V4, "icmp", None, None),
        # Nothing was said on it.
        f"tcp-40000-{V4}": ("10.77.1.2", V4, "tcp", ["40000", "40002"], None),
    }
    assert told["left_out"]["unanswered"]["sessions"] == 1
    assert "denied" not in told["left_out"]
    assert sum(rule["sessions"] for rule in told["rules"]) == told["observed"]["sessions"] >= len(USED)
    assert all(rule["bytes"] > 0 for rule in told["rules"])


def test_nothing_is_in_force_by_itself(learnt: tuple[Gateway, str]) -> None:
    gateway, _ = learnt
    before = gateway.status()["policy"]
    suggested(gateway)
    assert gateway.status()["policy"] == before
    assert gateway.policy.read_text() == LEARN


def test_of_another_period(learnt: tuple[Gateway, str]) -> None:
    assert suggested(learnt[0], "--since", "now")["rules"] == []


def test_enforced(learnt: tuple[Gateway, str], tmp_path: Path) -> None:
    gateway, text = learnt
    file = tmp_path / "suggested.yaml"
    file.write_text(text)
    command(gateway, "apply", str(file))
    outcomes = {name: use(gateway.lab) for name, use in (USED | UNUSED).items()}
    assert outcomes == dict.fromkeys(USED, True) | dict.fromkeys(UNUSED, False)
    # What is dropped now is not suggested, unless it is asked for.
    told = suggested(gateway)
    assert told["left_out"]["denied"]["sessions"] >= 5
    more = suggested(gateway, "--include", "denied")
    ports = {rule["id"] for rule in more["rules"]} - {rule["id"] for rule in told["rules"]}
    assert f"tcp-22-{V4}" in ports
