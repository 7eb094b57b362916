"""Real clients, started in the client namespace. Each returns a `Result`, none raises
for a server that refuses or stays silent: being refused is what some are for."""

from __future__ import annotations

import asyncio
import contextlib
import ftplib
import io
import json
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.mocks import HERE
from tests.lab.namespaces import ROOT, Address, Lab, Namespace
from tests.lab.relay import relay
from tests.lab.servers import (
    DATABASE_PASSWORD,
    DATABASE_USER,
    DNS_BIG,
    DNS_NAMES,
    broker_file,
    certificate,
    postgres_program,
    ssh_key,
)

TIMEOUT = 5.0

V4 = str(Address.SERVER4)
V6 = str(Address.SERVER6)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one use of a service."""

    ok: bool
    detail: str
    seconds: float
    # What the client itself said, for those that say more (gRPC: a dict for each call).
    calls: list[dict[str, Any]] = field(default_factory=list)


def bracketed(host: str) -> str:
    """An address as URLs want it."""
    return f"[{host}]" if ":" in host else host


def attempt(
    lab: Lab,
    argv: Sequence[str | Path],
    accept: Callable[[str], bool],
    timeout: float = TIMEOUT,
    stdin: str | None = None,
) -> Result:
    """Run a client; ok when it ends well and `accept` likes what it printed."""
    start = time.perf_counter()
    try:
        done = lab.run(Namespace.CLIENT, argv, timeout, stdin=stdin)
    except subprocess.TimeoutExpired:
        return Result(False, f"no answer in {timeout:g} s", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        return Result(False, f"status {done.returncode}: {lines[-1]}", seconds)
    if not accept(done.stdout):
        return Result(False, f"unexpected answer: {done.stdout[:200]!r}", seconds)
    return Result(True, done.stdout.strip().splitlines()[0][:80] if done.stdout.strip() else "", seconds)


def curl(
    lab: Lab,
    url: str,
    *options: str | Path,
    status: int = 200,
    version: str = "1.1",
    timeout: float = TIMEOUT,
) -> Result:
    """Fetch with curl; ok with this status over this HTTP version."""
    wanted = f"{status} {version}"
    argv = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", f"{timeout:g}", "--output", "/dev/null"]
    return attempt(
        lab,
        [*argv, "--write-out", "%{http_code} %{http_version}\n", *options, url],
        lambda output: set(output.split("\n")) - {""} == {wanted},
        timeout + 1,
    )


def http(lab: Lab, host: str = V4, path: str = "/", *options: str, port: int = 80, timeout: float = TIMEOUT) -> Result:
    """HTTP/1.1 with curl."""
    return curl(lab, f"http://{bracketed(host)}:{port}{path}", "--http1.1", *options, timeout=timeout)


def https(lab: Lab, host: str = V4, path: str = "/", timeout: float = TIMEOUT) -> Result:
    """HTTP/1.1 over TLS, with SNI and the certificate checked."""
    cert, _ = certificate()
    options = ("--http1.1", "--cacert", cert, "--resolve", f"web.lab.test:443:{bracketed(host)}")
    return curl(lab, f"https://web.lab.test{path}", *options, timeout=timeout)


def http2(
    lab: Lab, host: str = V4, path: str = "/", *options: str, port: int = 8080, timeout: float = TIMEOUT
) -> Result:
    """HTTP/2 in clear with prior knowledge, with curl."""
    url = f"http://{bracketed(host)}:{port}{path}"
    return curl(lab, url, "--http2-prior-knowledge", *options, version="2", timeout=timeout)


def http2_upgrade(lab: Lab, host: str = V4, path: str = "/", port: int = 8081, timeout: float = TIMEOUT) -> Result:
    """HTTP/1.1 with `Upgrade: h2c`, then HTTP/2, with curl."""
    return curl(lab, f"http://{bracketed(host)}:{port}{path}", "--http2", version="2", timeout=timeout)


def nghttp(lab: Lab, host: str = V4, path: str = "/", port: int = 8080, timeout: float = TIMEOUT) -> Result:
    """HTTP/2 with prior knowledge, with nghttp."""
    argv = ["nghttp", "--null-out", "--stat", "--no-dep", f"http://{bracketed(host)}:{port}{path}"]
    result = attempt(lab, argv, lambda output: any(" 200 " in line for line in output.splitlines()), timeout)
    return Result(result.ok, "200" if result.ok else result.detail, result.seconds)


def dns(
    lab: Lab,
    host: str = V4,
    name: str = "web.lab.test",
    kind: str = "A",
    tcp: bool = False,
    timeout: float = TIMEOUT,
) -> Result:
    """One question with dig."""
    expected = {"A": 0, "AAAA": 1}
    wanted = DNS_NAMES[name][expected[kind]] if name in DNS_NAMES and kind in expected else ""
    options = ["+short", "+tries=1", f"+time={max(1, int(timeout))}", "+tcp" if tcp else "+notcp"]
    if name == DNS_BIG:
        options.append("+ignore")
    argv = ["dig", "-r", f"@{host}", *options, name, kind]
    return attempt(lab, argv, lambda output: bool(output.strip()) and wanted in output, timeout + 1)


def mysql(lab: Lab, host: str = V4, statement: str = "select 1", timeout: float = TIMEOUT) -> Result:
    """One statement with the mariadb client."""
    argv = [
        *("mariadb", "--no-defaults", f"--host={host}", "--port=3306", f"--user={DATABASE_USER}"),
        *(f"--password={DATABASE_PASSWORD}", f"--connect-timeout={max(1, int(timeout))}", "--batch"),
        *("--skip-column-names", "--execute", statement, "lab"),
    ]
    return attempt(lab, argv, lambda output: bool(output.strip()), timeout)


def redis(lab: Lab, host: str = V4, timeout: float = TIMEOUT) -> Result:
    """SET and GET with redis-cli, on one connection."""
    commands = "SET lab:key value\nGET lab:key\n"
    argv = ["redis-cli", "-h", host, "-p", "6379"]
    return attempt(lab, argv, lambda output: output.split() == ["OK", "value"], timeout, stdin=commands)


def redis_pipeline(lab: Lab, host: str = V4, count: int = 1000, timeout: float = TIMEOUT) -> Result:
    """Many commands without waiting for answers (redis-cli --pipe)."""
    commands = "".join(f"SET lab:{index} {index}\r\n" for index in range(count))
    argv = ["redis-cli", "-h", host, "-p", "6379", "--pipe", "--pipe-timeout", f"{max(1, int(timeout))}"]
    return attempt(lab, argv, lambda output: f"errors: 0, replies: {count}" in output, timeout, stdin=commands)


def ssh(lab: Lab, host: str = V4, command: str = "echo through", port: int = 22, timeout: float = TIMEOUT) -> Result:
    """Run a command over SSH."""
    known = lab.directory / "known_hosts"
    if not known.exists():
        kind, key, *_ = ssh_key("host").with_suffix(".pub").read_text().split()
        known.write_text(f"{V4},{V6} {kind} {key}\n")
    argv: list[str | Path] = ["ssh", "-F", "/dev/null", "-T", "-p", str(port), "-i", ssh_key("client")]
    for option in (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known}",
        "GlobalKnownHostsFile=/dev/null",
        f"ConnectTimeout={max(1, int(timeout))}",
    ):
        argv += ["-o", option]
    wanted = command.removeprefix("echo ") if command.startswith("echo ") else ""
    return attempt(lab, [*argv, f"root@{host}", command], lambda output: wanted in output, timeout)


def grpc(
    lab: Lab,
    host: str = V4,
    calls: Sequence[str] = ("lab.Echo/Say",),
    port: int = 50051,
    timeout: float = TIMEOUT,
) -> Result:
    """Calls on one channel with grpcio, see grpc_client.py; ok when all answered OK."""
    script = ROOT / "tests" / "lab" / "grpc_client.py"
    argv: list[str | Path] = [sys.executable, "-s", script, f"{bracketed(host)}:{port}", *calls]
    start = time.perf_counter()
    try:
        done = lab.run(Namespace.CLIENT, argv, (timeout + 1) * max(1, len(calls)))
    except subprocess.TimeoutExpired:
        return Result(False, "no answer", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(calls):
        lines = done.stderr.strip().splitlines() or ["no message"]
        return Result(False, f"status {done.returncode}: {lines[-1]}", seconds, answers)
    failed = [answer for answer in answers if answer["code"]]
    detail = ", ".join(f"{answer['call']} {answer['status']}" for answer in failed or answers[:1])
    return Result(not failed, detail, seconds, answers)


def postgres(lab: Lab, host: str = V4, statement: str = "select 1", tls: str = "", timeout: float = TIMEOUT) -> Result:
    """Statements with psql, in clear, or with TLS to a server of this name."""
    where = f"host={tls} hostaddr={host} sslmode=require" if tls else f"host={host} sslmode=disable"
    to = f"{where} port=5432 user={DATABASE_USER} password={DATABASE_PASSWORD} dbname=lab"
    argv = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", statement, to]
    return attempt(lab, argv, lambda output: bool(output.strip()), timeout)


def postgres_prepared(lab: Lab, host: str = V4, statement: str = "select 1", timeout: float = TIMEOUT) -> Result:
    """One statement with pgbench, twice by the same prepared one (Parse, Bind, Execute)."""
    to = f"host={host} sslmode=disable port=5432 user={DATABASE_USER} password={DATABASE_PASSWORD} dbname=lab"
    argv = [postgres_program("pgbench"), "--no-vacuum", "--protocol=prepared", "--transactions=2", "--file=-", to]
    return attempt(lab, argv, lambda output: "processed: 2/2" in output, timeout, stdin=f"{statement};\n")


def mqtt(lab: Lab, host: str = V4, topic: str = "lab/state", version: str = "5", timeout: float = TIMEOUT) -> Result:
    """A message that the broker keeps, with mosquitto_pub, and back from it with mosquitto_sub."""
    # A client identifier of their own choice would be empty before MQTT 5.
    options = ["--host", host, "--protocol-version", version, "--id", "lab-client", "--qos", "1", "--topic", topic]
    told = attempt(lab, ["mosquitto_pub", *options, "--retain", "--message", "through"], lambda _: True, timeout)
    if not told.ok:
        return told
    heard = ["mosquitto_sub", *options, "-C", "1", "-W", f"{max(1, int(timeout))}"]
    return attempt(lab, heard, lambda output: output == "through\n", timeout + 1)


def inside(lab: Lab, use: Callable[[], str]) -> Result:
    """A client that is a Python package, in a thread of the client's namespace; ok unless it raises."""
    start = time.perf_counter()
    try:
        detail = lab.call(Namespace.CLIENT, use)
    except Exception as error:  # noqa: BLE001 - every package has its own
        return Result(False, repr(error), time.perf_counter() - start)
    return Result(True, detail, time.perf_counter() - start)


def memcached(lab: Lab, host: str = V4, key: str = "lab:key", timeout: float = TIMEOUT) -> Result:
    """Set and get in the text protocol, with pymemcache."""
    from pymemcache import Client

    def use() -> str:
        with contextlib.closing(Client((host, 11211), connect_timeout=timeout, timeout=timeout)) as client:
            client.set(key, b"through", noreply=False)
            return answered(client.get(key), b"through")

    return inside(lab, use)


def memcached_binary(lab: Lab, host: str = V4, key: str = "lab:key", timeout: float = TIMEOUT) -> Result:
    """Set and get in the binary protocol, with python-binary-memcached."""
    from bmemcached.protocol import Protocol

    def use() -> str:
        client = Protocol(f"{bracketed(host)}:11211", socket_timeout=timeout)
        try:
            client.set(key, "through", 0)
            return answered(client.get(key)[0], "through")
        finally:
            client.disconnect()

    return inside(lab, use)


def amqp(lab: Lab, host: str = V4, queue: str = "lab.jobs", timeout: float = TIMEOUT) -> Result:
    """A message into a queue and out of it, with pika."""
    from pika import BlockingConnection, ConnectionParameters

    parameters = ConnectionParameters(
        host, 5672, socket_timeout=timeout, stack_timeout=timeout, blocked_connection_timeout=timeout
    )

    def use() -> str:
        with BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.queue_declare(queue, auto_delete=True)
            channel.basic_publish("", queue, b"through")
            return answered(channel.basic_get(queue, auto_ack=True)[2], b"through")

    return inside(lab, use)


def kafka(
    lab: Lab,
    host: str = V4,
    topic: str = "lab.orders",
    value: bytes = b"through",
    name: str = "lab-client",
    timeout: float = TIMEOUT,
) -> Result:
    """A message to a topic and back from it, with librdkafka."""
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

    common = {"bootstrap.servers": f"{bracketed(host)}:9092", "client.id": name, "log_level": 0}

    def use() -> str:
        told: list[tuple[Any, Any]] = []
        producer = Producer(common)
        producer.produce(topic, value, partition=0, on_delivery=lambda *report: told.append(report))
        if producer.flush(timeout):
            raise TimeoutError
        ((error, message),) = told
        if error:
            raise KafkaException(error)
        consumer = Consumer(common | {"group.id": "lab", "enable.auto.commit": False})
        try:
            consumer.assign([TopicPartition(topic, 0, message.offset())])
            back = consumer.poll(timeout)
            return answered(back and back.value(), value)
        finally:
            consumer.close()

    return at_broker(lab, host, lambda: asyncio.to_thread(use))


def kafka_asyncio(
    lab: Lab,
    host: str = V4,
    topic: str = "lab.orders",
    value: bytes = b"through",
    name: str = "lab-client",
    timeout: float = TIMEOUT,
) -> Result:
    """A message to a topic and back from it, with aiokafka."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

    common = {
        "bootstrap_servers": f"{bracketed(host)}:9092",
        "client_id": name,
        "request_timeout_ms": int(timeout * 1000),
    }

    @contextlib.asynccontextmanager
    async def started(client: Any) -> AsyncIterator[Any]:
        # Its own `async with` does not stop what failed to start.
        try:
            await client.start()
            yield client
        finally:
            await client.stop()

    async def use() -> str:
        async with asyncio.timeout(2 * timeout):
            async with started(AIOKafkaProducer(**common)) as producer:
                place = await producer.send_and_wait(topic, value, partition=0)
            async with started(AIOKafkaConsumer(**common)) as consumer:
                consumer.assign([TopicPartition(topic, 0)])
                consumer.seek(TopicPartition(topic, 0), place.offset)
                return answered((await consumer.getone()).value, value)

    return at_broker(lab, host, use)


def at_broker(lab: Lab, host: str, use: Callable[[], Awaitable[str]]) -> Result:
    """A client of Kafka, which goes on where the mock sends it: to 127.0.0.1, from where a relay leads to the host."""

    async def relayed() -> str:
        with contextlib.closing(await relay(HERE, int(broker_file(lab).read_text()), (host, 9092))):
            return await use()

    return inside(lab, lambda: asyncio.run(relayed()))


def mongodb(lab: Lab, host: str = V4, collection: str = "orders", timeout: float = TIMEOUT) -> Result:
    """Write a document and find those there are, in two batches, with PyMongo."""

    def use(database: Any) -> str:
        database[collection].insert_one({"_id": 1})
        return answered([each["_id"] for each in database[collection].find({"_id": {"$gt": 0}})], [1, 2])

    return at_database(lab, host, use, timeout)


def mongodb_drop(lab: Lab, host: str = V4, timeout: float = TIMEOUT) -> Result:
    """Drop the database, with PyMongo."""
    return at_database(lab, host, lambda database: str(database.client.drop_database(database)), timeout)


def at_database(lab: Lab, host: str, use: Callable[[Any], str], timeout: float) -> Result:
    """A client of MongoDB with its database `lab`."""
    from pymongo import MongoClient

    def connected() -> str:
        milliseconds = int(timeout * 1000)
        with MongoClient(
            *(f"mongodb://{bracketed(host)}:27017/",),
            appname="lab-client",
            serverMonitoringMode="poll",
            serverSelectionTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
        ) as client:
            return use(client.lab)

    return inside(lab, connected)


def websocket(lab: Lab, host: str = V4, path: str = "/chat", text: str = "through", timeout: float = TIMEOUT) -> Result:
    """A message to an echo and back, with websockets."""
    from websockets.sync.client import connect

    def use() -> str:
        url = f"ws://{bracketed(host)}:8765{path}"
        with connect(url, compression=None, proxy=None, open_timeout=timeout, close_timeout=1) as connection:
            connection.send(text)
            return answered(connection.recv(timeout), text)

    return inside(lab, use)


def smtp(lab: Lab, host: str = V4, recipient: str = "joe@lab.test", tls: str = "", timeout: float = TIMEOUT) -> Result:
    """A message with smtplib; with STARTTLS to a server of this name."""

    def use() -> str:
        with smtplib.SMTP(local_hostname="client.lab.test", timeout=timeout) as client:
            client.connect(host, 25)
            if tls:
                # It takes the name that it hands to TLS from here.
                client._host = tls  # type: ignore[attr-defined]
                client.starttls(context=unchecked())
            client.sendmail("lab@lab.test", [recipient], "Subject: lab\r\n\r\nthrough\r\n")
            return recipient

    return inside(lab, use)


def ftp(lab: Lab, host: str = V4, file: str = "public.txt", timeout: float = TIMEOUT) -> Result:
    """Fetch a file with ftplib, in a passive connection."""

    def use() -> str:
        content = io.BytesIO()
        with ftplib.FTP(timeout=timeout) as client:
            client.connect(host, 21)
            client.login("lab", "lab")
            client.retrbinary(f"RETR {file}", content.write)
        return content.getvalue().decode()

    return inside(lab, use)


def quic(lab: Lab, host: str = V4, name: str = "web.lab.test", timeout: float = TIMEOUT) -> Result:
    """Bytes on a stream to an echo and back, with aioquic, to a server of this name."""
    from aioquic.asyncio import connect
    from aioquic.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(
        alpn_protocols=["h3"], server_name=name, verify_mode=ssl.CERT_NONE, idle_timeout=timeout
    )

    async def use() -> str:
        async with asyncio.timeout(timeout), connect(host, 4433, configuration=configuration) as client:
            reader, writer = await client.create_stream()
            writer.write(b"through")
            writer.write_eof()
            return answered(await reader.read(), b"through")

    return inside(lab, lambda: asyncio.run(use()))


def unchecked() -> ssl.SSLContext:
    """TLS to whoever answers."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def answered(answer: object, wanted: object) -> str:
    """The answer, which is the one that was wanted."""
    if answer != wanted:
        raise ValueError(f"unexpected answer: {answer!r}")
    return str(answer)
