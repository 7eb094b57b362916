"""MQTT of the public captures: one flow has its beginning."""

from __future__ import annotations

import pytest

from parsers.base import ParseError, Unit
from parsers.mqtt import MqttParser
from tests.captures.streams import CapturedFlow, flows

FLOWS = flows("mqtt")


def test_bus() -> None:
    (flow,) = (flow for flow in FLOWS if flow.whole)
    parser = MqttParser()
    units = [e.fields for direction, data in flow.parts for e in parser.feed(direction, data) if isinstance(e, Unit)]
    assert {(unit["mqtt.client"], unit["mqtt.version"]) for unit in units} == {(b"Bus41", b"3.1.1")}
    assert [unit["mqtt.command"] for unit in units[:3]] == [b"connect", b"publish", b"subscribe"]
    assert {unit["mqtt.topic"] for unit in units if "mqtt.topic" in unit} == {b"Bus17Info"}
    assert units[2]["mqtt.topics"] == (b"Bus17Cmd",)
    assert parser.buffered == 0


@pytest.mark.parametrize("flow", [flow for flow in FLOWS if not flow.whole], ids=str)
def test_without_its_beginning(flow: CapturedFlow) -> None:
    with pytest.raises(ParseError, match="order at byte 0"):
        MqttParser().feed(*flow.parts[0])
