"""RDP of the public captures."""

from __future__ import annotations

import pytest

from parsers.base import Switched, Unit
from parsers.rdp import RdpParser
from tests.captures.streams import CapturedFlow, flows

FLOWS = flows("rdp", agree=False)


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_request_and_switch(flow: CapturedFlow) -> None:
    parser = RdpParser()
    unit, switched = (event for part in flow.parts[:2] for event in parser.feed(*part))
    assert isinstance(unit, Unit)
    assert unit.fields.get("rdp.cookie") == (b"WDeployAd" if "over_tls" in flow.truth["file"] else None)
    assert switched == Switched("tls")
    assert flow.parts[2][1][:2] == b"\x16\3"


def test_there_are_some() -> None:
    assert len(FLOWS) == 2
