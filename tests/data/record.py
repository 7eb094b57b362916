"""Records what real clients and servers say to each other on a loopback interface of their own.

    .venv/bin/python -m tests.data.record [PROTOCOL...]

writes tests/data/PROTOCOL.json anew, root's work; `recorded` reads it. Each connection of a client that says one of
NAMES, and more than twice something, is a conversation; its parts are what one side says before the other does. The
servers are Debian 12's Memcached, Mosquitto and RabbitMQ, grpcio's, librdkafka's mock cluster and MockupDB.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from parsers.base import TO_CLIENT, TO_SERVER
from tests.lab import Lab, Namespace, mocks, servers
from tests.lab.capture import TCP, Capture, packets
from tests.lab.mocks import HERE

# Others are the servers' own.
NAMES = b"shop", b"till"
Parts = list[tuple[int, bytes]]


def grpc(lab: Lab) -> None:
    """Two calls on one channel of grpcio, one answered, one refused."""
    import grpc

    options = [("grpc.primary_user_agent", "shop")]
    with servers.running(lab, [servers.Grpc]), grpc.insecure_channel(f"{HERE}:50051", options) as channel:
        assert channel.unary_unary("/lab.Echo/Say")(b"hello", timeout=5) == b"hello"
        with contextlib.suppress(grpc.RpcError):
            channel.unary_unary("/lab.No/Method")(b"hello", timeout=5, metadata=[("x-lab", "recorded")])
        list(channel.stream_stream("/lab.Echo/Chat")(iter([b"one", b"two"]), timeout=5))


def memcached_text(lab: Lab) -> None:
    """pymemcache."""
    from pymemcache import Client

    with servers.running(lab, [servers.Memcached]), contextlib.closing(Client((HERE, 11211))) as client:
        client.set("shop:1", b"one", noreply=False)
        client.set("shop:2", b"two", expire=60)
        assert client.get_many(["shop:1", "shop:2"]) == {"shop:1": b"one", "shop:2": b"two"}
        value, unique = client.gets("shop:1")
        client.cas("shop:1", value + b"!", unique)
        client.append("shop:2", b"!", noreply=False)
        client.touch("shop:2", 60, noreply=False)
        client.delete("shop:1", noreply=False)
        client.stats("settings")
        client.quit()


def memcached_binary(lab: Lab) -> None:
    """python-binary-memcached."""
    from bmemcached.protocol import Protocol

    with servers.running(lab, [servers.Memcached]):
        client = Protocol(f"{HERE}:11211")
        client.set("shop:1", "one", 0)
        assert client.get("shop:1")[0] == "one"
        client.set_multi({"shop:2": "two", "shop:3": "three"})
        client.get_multi(["shop:2", "shop:3"])
        client.incr("shop:count", 1, 0, 0)
        client.delete("shop:1")
        client.flush_all(0)
        client.disconnect()


def amqp(lab: Lab) -> None:
    """pika."""
    from pika import BlockingConnection, ConnectionParameters

    with servers.running(lab, [servers.RabbitMQ]), BlockingConnection(ConnectionParameters(HERE)) as connection:
        channel = connection.channel()
        channel.exchange_declare("shop", "topic")
        channel.queue_declare("jobs", exclusive=True)
        channel.queue_bind("jobs", "shop", "order.#")
        channel.basic_publish("shop", "order.new", b"hello")
        method, _, body = channel.basic_get("jobs")
        assert body == b"hello"
        channel.basic_ack(method.delivery_tag)
        channel.queue_purge("jobs")
        channel.exchange_delete("shop")


def mqtt(version: str) -> Callable[[Lab], None]:
    """mosquitto_pub, then mosquitto_sub, a connection each."""

    def use(lab: Lab) -> None:
        to = ["--host", HERE, "--protocol-version", version, "--qos", "1", "--topic"]
        with servers.running(lab, [servers.Mosquitto]):
            will = ["--will-topic", "shop/gone", "--will-payload", "1", "--username", "joe", "--pw", "secret"]
            for argv in (
                ["mosquitto_pub", "--id", "till-1", *to, "shop/orders", "--retain", "--message", "hello", *will],
                ["mosquitto_sub", "--id", "till-2", *to, "shop/#", "--topic", "other/+/state", "-C", "1", "-W", "5"],
            ):
                done = lab.run(Namespace.SERVER, argv)
                assert done.returncode == 0, done.stderr

    return use


def librdkafka(_: Lab) -> None:
    """confluent-kafka at the mock cluster of another one."""
    from confluent_kafka import Consumer, Producer

    mock, port = mocks.kafka()
    address = f"{HERE}:{port}"
    producer = Producer({"bootstrap.servers": address, "client.id": "shop"})
    producer.produce("orders", b"hello", b"key")
    assert producer.flush(10) == 0
    settings = {"bootstrap.servers": address, "client.id": "till", "group.id": "tills", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe(["orders"])
    assert consumer.poll(20).value() == b"hello"
    consumer.commit(asynchronous=False)
    consumer.close()
    mock.flush(0)


def aiokafka(_: Lab) -> None:
    """aiokafka at librdkafka's mock cluster."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

    mock, port = mocks.kafka()
    address = f"{HERE}:{port}"

    async def use() -> None:
        async with AIOKafkaProducer(bootstrap_servers=address, client_id="shop") as producer:
            await producer.send_and_wait("orders", b"hello", b"key")
        async with AIOKafkaConsumer(bootstrap_servers=address, client_id="till") as consumer:
            consumer.assign([TopicPartition("orders", partition) for partition in range(4)])
            await consumer.seek_to_beginning()
            message = await asyncio.wait_for(consumer.getone(), 10)
            assert message.value == b"hello"

    asyncio.run(use())
    mock.flush(0)


def mongodb(_: Lab) -> None:
    """PyMongo at MockupDB."""
    import pymongo

    server = mocks.mongodb()
    uri = f"mongodb://{HERE}:{server.port}/"
    client = pymongo.MongoClient(uri, appname="till", serverSelectionTimeoutMS=5000, serverMonitoringMode="poll")
    orders = client.shop.orders
    orders.insert_one({"_id": 1, "price": 5})
    orders.insert_many([{"_id": 2}, {"_id": 3}])
    orders.update_one({"_id": 2}, {"$set": {"price": 6}})
    assert len(list(orders.find({"price": {"$gt": 1}}))) == 2
    assert len(list(orders.aggregate([{"$match": {"price": 5}}]))) == 2
    orders.delete_one({"_id": 3})
    client.close()
    server.stop()


# By protocol: what a conversation is called, and how it is made.
SCENES: Mapping[str, Mapping[str, Callable[[Lab], None]]] = {
    "grpc": {"grpcio": grpc},
    "memcached": {"pymemcache": memcached_text, "python-binary-memcached": memcached_binary},
    "amqp": {"pika at RabbitMQ": amqp},
    "mqtt": {"mosquitto 3.1.1": mqtt("311"), "mosquitto 5": mqtt("5")},
    "kafka": {"librdkafka": librdkafka, "aiokafka": aiokafka},
    "mongodb": {"pymongo": mongodb},
}


def conversations(file: Path) -> list[Parts]:
    """Of a capture, in which every packet is once and in its place: the client is who begins."""
    found: dict[tuple[int, int], Parts] = {}
    for packet in packets(file):
        if packet.l4 != TCP:
            continue
        if packet.flags & 0x12 == 0x02:
            found[packet.sport, packet.dport] = []
        for ends, direction in (((packet.sport, packet.dport), TO_SERVER), ((packet.dport, packet.sport), TO_CLIENT)):
            if packet.payload and ends in found:
                found[ends].append((direction, packet.payload))
    return [
        [
            (direction, b"".join(data for _, data in pieces))
            for direction, pieces in itertools.groupby(parts, key=lambda part: part[0])
        ]
        for parts in found.values()
        if len(parts) > 4 and any(name in data for direction, data in parts if direction == TO_SERVER for name in NAMES)
    ]


def record(protocol: str) -> None:
    """Write a protocol's file."""
    written: dict[str, list[tuple[int, str]]] = {}
    for name, scene in SCENES[protocol].items():
        with Lab() as lab:
            with Capture(lab, Namespace.SERVER, "lo") as capture:
                lab.call(Namespace.SERVER, lambda scene=scene, lab=lab: scene(lab))  # type: ignore[misc]
            for number, parts in enumerate(conversations(capture.file), 1):
                told = [(direction, base64.b64encode(data).decode()) for direction, data in parts]
                written[name if number == 1 else f"{name} {number}"] = told
    path = Path(__file__).parent / f"{protocol}.json"
    path.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    for each in sys.argv[1:] or SCENES:
        record(each)
