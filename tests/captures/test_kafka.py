"""Public captures of Kafka: all are well-formed, most begin in the middle of a connection, between two messages."""

from __future__ import annotations

from parsers.base import Event, Unit
from parsers.kafka import KafkaParser
from tests.captures.streams import CapturedFlow, flows


def units(flow: CapturedFlow) -> list[tuple[object, ...]]:
    parser = KafkaParser()
    # Its first packet is the broker's.
    swapped = int(flow.truth["sport"] == 9092)
    events: list[Event] = [event for to, data in flow.parts for event in parser.feed(to ^ swapped, data)]
    names = ("kafka.api", "kafka.version", "kafka.client", "kafka.topics")
    return [tuple(event.fields.get(name) for name in names) for event in events if isinstance(event, Unit)]


def test_what_they_say() -> None:
    found = {str(flow).partition(":")[2]: units(flow) for flow in flows("kafka", agree=False)}
    log = (b"LB_MAIN_LOG_INPUT",)
    assert found.pop("46136-9092") == [
        (b"ApiVersions", 3, b"console-producer", None),
        (b"InitProducerId", 4, b"console-producer", None),
        (b"Metadata", 12, b"console-producer", (b"sampleTopic",)),
        (b"Produce", 9, b"console-producer", (b"sampleTopic",)),
    ]
    assert found.pop("38176-9092") == [(b"Produce", 3, b"rdkafka", log)] * 2
    assert found.pop("49280-9092") == [(b"ApiVersions", 0, b"rdkafka", None), (b"Metadata", 2, b"rdkafka", log)]
    metadata, versions = (b"Metadata", 2, b"rdkafka", log), (b"ApiVersions", 0, b"rdkafka", None)
    assert sorted(found.values(), key=repr) == sorted(
        ([metadata], [metadata], [metadata], [versions], [versions], [versions]), key=repr
    )
