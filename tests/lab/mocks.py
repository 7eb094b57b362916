"""Servers that client libraries bring along for their own tests. They listen on 127.0.0.1 only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mockupdb import MockupDB

HERE = "127.0.0.1"


def kafka() -> tuple[object, int]:
    """librdkafka's mock cluster: what keeps it alive, and its broker's port.

    The broker makes topics of four partitions as they are asked for, and sends clients to 127.0.0.1 and its port.
    """
    from confluent_kafka import Producer

    mock = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 3})
    (broker,) = mock.list_topics(timeout=5).brokers.values()
    return mock, broker.port


def mongodb() -> MockupDB:
    """MockupDB, running until its `stop`: forgets what is written, and finds two documents in every collection."""
    from mockupdb import CommandBase, MockupDB

    def answer(request: CommandBase) -> bool:
        command, collection = next(iter(request.doc.items()))
        if command == "ismaster":
            request.replies(ismaster=True, minWireVersion=0, maxWireVersion=21)
        elif command in {"find", "aggregate"}:
            cursor = {"id": 7, "ns": f"{request.doc['$db']}.{collection}", "firstBatch": [{"_id": 1}]}
            request.replies(cursor=cursor)
        elif command == "getMore":
            cursor = {"id": 0, "ns": f"{request.doc['$db']}.{request.doc['collection']}", "nextBatch": [{"_id": 2}]}
            request.replies(cursor=cursor)
        else:
            request.replies(n=1)
        return True

    server = MockupDB()
    server.autoresponds(answer)
    server.run()
    return server
