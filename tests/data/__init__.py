"""Recorded bytes: record.py made those of amqp, grpc, kafka, memcached, mongodb and mqtt."""

from __future__ import annotations

import base64
import json
from pathlib import Path

# Those over TCP, by what they are identified as.
STREAMS = {each: each for each in ("amqp", "kafka", "memcached", "mongodb", "mqtt", "tls")} | {"grpc": "http2"}


def recorded(protocol: str) -> dict[str, tuple[tuple[int, bytes], ...]]:
    """Conversations by name: (direction, bytes) in the order of time."""
    read = json.loads((Path(__file__).parent / f"{protocol}.json").read_text())
    return {
        name: tuple((direction, base64.b64decode(data)) for direction, data in parts) for name, parts in read.items()
    }
