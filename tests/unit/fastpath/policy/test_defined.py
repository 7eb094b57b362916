"""Groups and services by what they come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.document import InvalidDocumentError
from fastpath.policy.defined import read_defined
from fastpath.policy.model import ICMP, TCP, UDP

TEXT = """\
groups:
  zeta: [10.0.0.0/24]
  alpha: {include: [10.0.0.0/25, lower-half], exclude: 192.0.2.1}
  lower-half: [10.0.0.128/25, 192.0.2.1]
  both: [10.0.0.1, "fd00::1"]
services:
  https: {proto: tcp, ports: [443, 444-445]}
  everything: {proto: [tcp, udp]}
  ping: {proto: icmp}
rules: []
"""


def number(*parts: int) -> int:
    return 0xFFFF << 32 | int.from_bytes(bytes(parts), "big")


def test_by_meaning(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(TEXT)
    found = read_defined(tmp_path / "p.yaml")
    net = (number(10, 0, 0, 0), number(10, 0, 0, 255))
    assert found.groups == {
        (net,): "alpha",  # and zeta
        ((number(10, 0, 0, 128), net[1]), (number(192, 0, 2, 1),) * 2): "lower-half",
        ((0xFD << 120 | 1,) * 2, (number(10, 0, 0, 1),) * 2)[::-1]: "both",
    }
    assert found.services == {
        ((TCP, ((443, 445),)),): "https",
        ((TCP, ()), (UDP, ())): "everything",
        ((ICMP, ()),): "ping",
    }


def test_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("groups: {a: b}\n")
    (tmp_path / "b.yaml").write_text("groups: {b: 10.0.0.1}\nservices: {ping: {proto: icmp}}\n")
    found = read_defined(tmp_path)
    assert (list(found.groups.values()), list(found.services.values())) == (["a"], ["ping"])


@pytest.mark.parametrize("text", ["groups: {a: b}", "services: {a: {proto: nonsense}}", "groups: [", ""])
def test_problems(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(InvalidDocumentError):
        read_defined(tmp_path / "p.yaml")
    with pytest.raises(InvalidDocumentError):
        read_defined(tmp_path / "none.yaml")
