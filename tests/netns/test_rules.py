"""Rule files on what real clients of real servers say: names, questions, statements, keys, topics, files.

What is denied must not be on the server's interface.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parsers.base import TO_SERVER
from parsers.quic import QuicParser
from tests.lab import Lab, Namespace, clients, servers
from tests.lab.capture import Capture, packets, payload_seen
from tests.lab.clients import V4, V6
from tests.lab.gateway import Gateway
from tests.netns import peers

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])
ON_V4 = pytest.mark.parametrize("host", [V4], ids=["v4"])
ON_V6 = pytest.mark.parametrize("host", [V6], ids=["v6"])
KAFKA = pytest.mark.parametrize("use", [clients.kafka, clients.kafka_asyncio], ids=["librdkafka", "aiokafka"])

POLICY = """
default: {action: deny, log: deny, deny_with: reset}
rules:
  - {id: web, proto: tcp, ports: [80, 8080], action: inspect, rules: [site], log: all}
  - {id: https, proto: tcp, ports: 443, action: inspect, rules: [names], log: all}
  - {id: dns, proto: [udp, tcp], ports: 53, action: inspect, rules: [lookups], log: all}
  - {id: mysql, proto: tcp, ports: 3306, action: inspect, rules: [statements], log: all}
  - {id: redis, proto: tcp, ports: 6379, action: inspect, rules: [keys], log: all}
  - {id: ssh, proto: tcp, ports: 22, action: inspect, rules: [shells], log: all}
  - {id: postgres, proto: tcp, ports: 5432, action: inspect, rules: [tables, names], log: all}
  - {id: memcached, proto: tcp, ports: 11211, action: inspect, rules: [items], log: all}
  - {id: mqtt, proto: tcp, ports: 1883, action: inspect, rules: [topics], log: all}
  - {id: amqp, proto: tcp, ports: 5672, action: inspect, rules: [queues], log: all}
  - {id: kafka, proto: tcp, ports: 9092, action: inspect, rules: [streams], log: all}
  - {id: mongodb, proto: tcp, ports: 27017, action: inspect, rules: [documents], log: all}
  - {id: websocket, proto: tcp, ports: 8765, action: inspect, rules: [chat], log: all}
  - {id: smtp, proto: tcp, ports: 25, action: inspect, rules: [mail, names], log: all}
  - {id: ftp, proto: tcp, ports: 21, action: inspect, rules: [files], log: all}
  - {id: ftp-data, proto: tcp, ports: 30000-30009, action: allow}
  - {id: quic, proto: udp, ports: 4433, action: inspect, rules: [sites], log: all}
"""
PATTERNS = """
name: cards
patterns:
  - {id: number, description: of payment cards, regex: '\\b4[0-9]{15}\\b', check: luhn, severity: high}
"""
CARD = b"4111111111111111"
RULES = {
    "site": """
name: site
protocol: [http, http2]
rules:
  - {id: scanners, match: {http.header.user-agent: {regex: "(?i).*scanner.*"}}, action: deny}
  - {id: no-cards, match: {any: [{http.body: {pattern: cards}}, {http.response_body: {pattern: cards}}]}, action: deny}
  - {id: missing, match: {http.status: 404}, action: deny, mode: monitor, severity: info}
  - {id: rest, match: {http.method: [GET, POST]}, action: allow, log: deny}
""",
    "names": """
name: names
protocol: tls
rules:
  - {id: ours, match: {tls.sni: web.lab.test, tls.selected_version: ["1.2", "1.3"]}, action: allow}
""",
    "lookups": """
name: lookups
protocol: dns
rules:
  - {id: web, match: {dns.qname: {glob: "web.lab.test"}, dns.qtype: [A, AAAA]}, action: allow}
""",
    "statements": """
name: statements
protocol: mysql
rules:
  - {id: login, match: {mysql.command: login, mysql.user: lab}, action: allow}
  - id: reads
    match: {mysql.command: query, mysql.verb: [select, set], mysql.unsure: 0}
    action: allow
""",
    "keys": """
name: keys
protocol: redis
rules:
  - {id: greeting, match: {redis.command: [hello, client, command, echo]}, action: allow}
  - {id: own, match: {redis.command: [get, set], redis.keys: {prefix: "lab:"}}, action: allow}
""",
    "shells": """
name: shells
protocol: ssh
rules:
  - {id: openssh, match: {ssh.client: {prefix: OpenSSH_}, ssh.server: {prefix: OpenSSH_}}, action: allow}
""",
    "tables": """
name: tables
protocol: postgres
rules:
  - {id: login, match: {postgres.command: startup, postgres.user: lab, postgres.database: lab}, action: allow}
  - id: reads
    match: {postgres.verb: [select, set], postgres.tables: numbers, postgres.unsure: 0}
    action: allow
""",
    "items": """
name: items
protocol: memcached
rules:
  - {id: own, match: {memcached.command: [get, set], memcached.keys: {prefix: "lab:"}}, action: allow}
""",
    "topics": """
name: topics
protocol: mqtt
rules:
  - {id: login, match: {mqtt.command: connect, mqtt.client: lab-client, mqtt.version: ["3.1.1", "5"]}, action: allow}
  - {id: told, match: {mqtt.command: publish, mqtt.topic: {glob: "lab/*"}}, action: allow}
  - {id: heard, match: {mqtt.command: subscribe, mqtt.topics: {glob: "lab/*"}}, action: allow}
""",
    "queues": """
name: queues
protocol: amqp
rules:
  - id: login
    match: {amqp.method: {glob: ["connection.*", "channel.*"]}, amqp.user: guest}
    action: allow
  - {id: own, match: {amqp.method: [queue.declare, basic.get], amqp.queue: {prefix: "lab."}}, action: allow}
  - {id: told, match: {amqp.method: basic.publish, amqp.routing_key: {prefix: "lab."}}, action: allow}
""",
    "streams": """
name: streams
protocol: kafka
rules:
  - {id: strangers, match: {not: {kafka.client: {prefix: lab-}}}, action: deny}
  - {id: greeting, match: {kafka.api: [apiversions, findcoordinator, gettelemetrysubscriptions]}, action: allow}
  - {id: brokers, match: {kafka.api: metadata, not: {kafka.topics: {glob: "**"}}}, action: allow}
  - {id: known, match: {kafka.api: metadata, kafka.topics: {prefix: [lab., news.]}}, action: allow}
  - {id: told, match: {kafka.api: produce, kafka.topics: {prefix: lab.}}, action: allow}
  - {id: heard, match: {kafka.api: fetch, kafka.topics: {prefix: lab.}}, action: allow}
  - {id: heard-by-id, match: {kafka.api: fetch, kafka.version: 13-18}, action: allow}
""",
    "documents": """
name: documents
protocol: mongodb
rules:
  - {id: greeting, match: {mongodb.command: ismaster, mongodb.application: lab-client}, action: allow}
  - id: own
    match: {mongodb.command: [insert, find, getMore], mongodb.database: lab, mongodb.collection: orders}
    action: allow
""",
    "chat": """
name: chat
protocol: [http, websocket]
rules:
  - {id: upgrade, match: {http.method: GET, http.path: /chat}, action: allow}
  - {id: polite, match: {websocket.kind: text, not: {websocket.text: {regex: ".*password.*"}}}, action: allow}
""",
    "mail": """
name: mail
protocol: smtp
rules:
  - {id: strangers, match: {smtp.recipient: {glob: "*@other.test"}}, action: deny}
  - {id: hello, match: {smtp.command: ehlo, smtp.helo: client.lab.test}, action: allow}
  - {id: ours, match: {smtp.command: [mail, rcpt], smtp.sender: lab@lab.test}, action: allow}
  - {id: others, match: {smtp.command: [starttls, data, quit]}, action: allow}
""",
    "files": """
name: files
protocol: ftp
rules:
  - {id: login, match: {ftp.command: [user, pass, type, pasv, epsv, quit]}, action: allow}
  - {id: public, match: {ftp.command: retr, ftp.user: lab, ftp.argument: public.txt}, action: allow}
""",
    "sites": """
name: sites
protocol: quic
rules:
  - {id: ours, match: {tls.sni: web.lab.test, tls.alpn: h3, quic.version: "1"}, action: allow}
""",
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    kinds = (
        *(servers.RabbitMQ, servers.Python, servers.Nginx, servers.Dnsmasq, servers.MariaDB, servers.Redis),
        *(servers.Sshd, servers.Postgres, servers.Memcached, servers.Mosquitto),
    )
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        folder = lab.directory / "rules.d"
        folder.mkdir()
        for name, text in RULES.items():
            (folder / f"{name}.yaml").write_text(text)
        (lab.directory / "patterns.d").mkdir()
        (lab.directory / "patterns.d" / "cards.yaml").write_text(PATTERNS)
        settings = {"inspector": {"need_more": 0.5}}
        one = Gateway(lab, POLICY, folder, settings)
        stack.callback(one.close)
        one.start_early()
        stack.enter_context(servers.running(lab, kinds))
        one.wait_ready()
        yield one


def last(gateway: Gateway, protocol: str, **fields: object) -> dict[str, Any]:
    """The newest record with what a protocol's parser read."""

    def found() -> list[dict[str, Any]]:
        return [
            record
            for record in gateway.read_records()
            if protocol in record and all(record.get(name) == value for name, value in fields.items())
        ]

    return peers.eventually(found)[-1]  # type: ignore[no-any-return]


@contextlib.contextmanager
def kept_away(gateway: Gateway, *texts: bytes) -> Iterator[None]:
    """None of it comes in at the server."""
    with Capture(gateway.lab, Namespace.SERVER) as capture:
        yield
    assert [text for text in texts if payload_seen(capture.file, text)] == []


@HOSTS
def test_tls_by_name(gateway: Gateway, host: str) -> None:
    assert clients.https(gateway.lab, host).ok
    record = last(gateway, "tls", verdict="allow", scope="connection")
    assert record["tls"]["sni"] == "web.lab.test"
    assert record["l7_rule"] == "ours"
    ends = record["flow"]["src"], record["flow"]["sport"]
    (session,) = (session for session in gateway.sessions() if (session["src"], session["sport"]) == ends)
    assert (session["verdict"], session["protocol"]) == ("allow", "tls")
    other = clients.curl(
        gateway.lab,
        "https://other.lab.test/",
        "--insecure",
        "--resolve",
        f"other.lab.test:443:{clients.bracketed(host)}",
    )
    assert not other.ok
    record = last(gateway, "tls", verdict="deny")
    assert (record["tls"]["sni"], record["reason"]) == ("other.lab.test", "no_rule")


@HOSTS
@pytest.mark.parametrize(("port", "version"), [(80, "1.1"), (8080, "2")], ids=["http1", "http2"])
def test_http_by_headers_bodies_and_answers(gateway: Gateway, host: str, port: int, version: str) -> None:
    packed = gateway.lab.directory / "order.gz"
    packed.write_bytes(gzip.compress(b"order=1&card=" + CARD))

    def post(*options: str) -> bool:
        how = "--http1.1" if version == "1.1" else "--http2-prior-knowledge"
        url = f"http://{clients.bracketed(host)}:{port}/echo"
        return clients.curl(gateway.lab, url, how, *options, version=version).ok

    assert post("--data", "order=1&card=4111111111111112"), "its check digit is wrong"
    with kept_away(gateway, CARD, packed.read_bytes()[-12:]):
        assert not post("--data", "order=1&card=" + CARD.decode())
        assert not post("--header", "Content-Encoding: gzip", "--data-binary", f"@{packed}")
    record = last(gateway, "http", l7_rule="no-cards")
    assert (record["patterns"], record["severity"], record["verdict"]) == (["cards/number"], "high", "deny")
    assert CARD.decode() not in json.dumps(record)
    # The server's answer names the host that was asked for.
    with Capture(gateway.lab, Namespace.CLIENT) as capture:
        assert not post("--header", f"Host: {CARD.decode()}")
    assert not any(CARD in packet.payload for packet in packets(capture.file, sport=port))
    assert not post("--user-agent", "evil-scanner/1.0")
    path = f"http://{clients.bracketed(host)}:{port}/none"
    how = "--http1.1" if version == "1.1" else "--http2-prior-knowledge"
    assert clients.curl(gateway.lab, path, how, status=404, version=version).ok, "only watched"
    record = last(gateway, "http", l7_rule="missing")
    assert (record["enforced"], record["http"]["status"], record["severity"]) == (False, 404, "info")


@HOSTS
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_dns_question_by_question(gateway: Gateway, host: str, tcp: bool) -> None:
    assert clients.dns(gateway.lab, host, tcp=tcp).ok
    assert not clients.dns(gateway.lab, host, "version.bind", "TXT", tcp=tcp, timeout=1).ok
    record = last(gateway, "dns", verdict="deny")
    assert record["dns"]["qname"] == "version.bind"
    assert record["flow"]["l4"] == ("tcp" if tcp else "udp")
    assert clients.dns(gateway.lab, host, tcp=tcp).ok


@HOSTS
def test_mysql_statement_by_statement(gateway: Gateway, host: str) -> None:
    assert clients.mysql(gateway.lab, host).ok
    assert not clients.mysql(gateway.lab, host, "select 1; create table t (a int); select 2").ok
    record = last(gateway, "mysql", verdict="deny")
    assert (record["mysql"]["user"], record["scope"]) == ("lab", "request")
    assert record["mysql"]["verb"] == ["create"]
    assert not clients.mysql(gateway.lab, host, "select load_file('/etc/passwd')").ok


@HOSTS
def test_redis_key_by_key(gateway: Gateway, host: str) -> None:
    assert clients.redis(gateway.lab, host).ok
    assert clients.redis_pipeline(gateway.lab, host, 300).ok
    for command in ("GET other:key\n", "FLUSHALL\n", "CONFIG GET *\n"):
        argv = ["redis-cli", "-h", host, "-p", "6379"]
        result = clients.attempt(gateway.lab, argv, lambda output: bool(output.strip()), 5, stdin=command)
        assert not result.ok, command
    assert last(gateway, "redis", verdict="deny")["redis"]["command"] == "config"


@HOSTS
def test_ssh_by_both_banners_goes_back_to_the_kernel(gateway: Gateway, host: str) -> None:
    assert clients.ssh(gateway.lab, host).ok
    record = last(gateway, "ssh", verdict="allow")
    assert record["ssh"]["client"].startswith("OpenSSH_")
    assert record["ssh"]["server"].startswith("OpenSSH_")
    assert record["scope"] == "connection"
    with peers.dial(gateway.lab, 22, host) as client:
        client.sendall(b"SSH-2.0-Strange_1.0\r\n")
        assert peers.remains(client)[1] == "reset"
    assert last(gateway, "ssh", verdict="deny")["ssh"]["client"] == "Strange_1.0"


@HOSTS
def test_postgres_statement_by_statement(gateway: Gateway, host: str) -> None:
    assert clients.postgres(gateway.lab, host, "select word from numbers").ok
    record = last(gateway, "postgres", verdict="allow", l7_rule="reads")
    assert (record["postgres"]["user"], record["postgres"]["database"]) == ("lab", "lab")
    assert (record["postgres"]["verb"], record["postgres"]["tables"]) == (["select"], ["numbers"])
    with kept_away(gateway, b"secrets", b"drop table"):
        assert not clients.postgres(gateway.lab, host, "select word from numbers, secrets").ok
        record = last(gateway, "postgres", verdict="deny")
        assert sorted(record["postgres"]["tables"]) == ["numbers", "secrets"]
        assert not clients.postgres(gateway.lab, host, "select word from numbers; drop table numbers").ok
    record = last(gateway, "postgres", verdict="deny")
    assert (record["postgres"]["verb"], record["scope"]) == (["select", "drop"], "request")


@ON_V6
def test_postgres_prepared_statements(gateway: Gateway, host: str) -> None:
    assert clients.postgres_prepared(gateway.lab, host, "select word from numbers").ok
    record = last(gateway, "postgres", verdict="allow", l7_rule="reads")["postgres"]
    assert (record["application"], record["command"], record["tables"]) == ("pgbench", "execute", ["numbers"])
    with kept_away(gateway, b"secrets"):
        assert not clients.postgres_prepared(gateway.lab, host, "select word from secrets").ok
    assert last(gateway, "postgres", verdict="deny")["postgres"]["command"] == "parse"


@ON_V4
def test_postgres_with_tls_is_judged_by_name(gateway: Gateway, host: str) -> None:
    assert clients.postgres(gateway.lab, host, tls="web.lab.test").ok
    record = last(gateway, "tls", verdict="allow", rule="postgres")
    assert (record["tls"]["sni"], record["l7_rule"]) == ("web.lab.test", "ours")
    with kept_away(gateway, b"other.lab.test"):
        assert not clients.postgres(gateway.lab, host, tls="other.lab.test").ok
    assert last(gateway, "tls", verdict="deny", rule="postgres")["tls"]["sni"] == "other.lab.test"


@pytest.mark.parametrize(
    ("use", "host"), [(clients.memcached, V4), (clients.memcached_binary, V6)], ids=["text", "binary"]
)
def test_memcached_key_by_key(gateway: Gateway, use: Callable[..., clients.Result], host: str) -> None:
    assert use(gateway.lab, host).ok
    assert last(gateway, "memcached", verdict="allow")["memcached"] == {"command": "get", "keys": ["lab:key"]}
    with kept_away(gateway, b"other:key"):
        assert not use(gateway.lab, host, "other:key").ok
    assert last(gateway, "memcached", verdict="deny")["memcached"]["keys"] == ["other:key"]


@pytest.mark.parametrize(("option", "version", "host"), [("311", "3.1.1", V4), ("5", "5", V6)])
def test_mqtt_topic_by_topic(gateway: Gateway, option: str, version: str, host: str) -> None:
    assert clients.mqtt(gateway.lab, host, version=option).ok
    record = last(gateway, "mqtt", verdict="allow", l7_rule="heard")["mqtt"]
    assert (record["client"], record["version"], record["topics"]) == ("lab-client", version, ["lab/state"])
    with kept_away(gateway, b"lab/inner/state"):
        assert not clients.mqtt(gateway.lab, host, "lab/inner/state", option).ok
    record = last(gateway, "mqtt", verdict="deny")["mqtt"]
    assert (record["command"], record["topic"], record["version"]) == ("publish", "lab/inner/state", version)


@ON_V6
def test_amqp_queue_by_queue(gateway: Gateway, host: str) -> None:
    assert clients.amqp(gateway.lab, host).ok
    record = last(gateway, "amqp", verdict="allow", l7_rule="told")["amqp"]
    assert (record["user"], record["vhost"], record["routing_key"]) == ("guest", "/", "lab.jobs")
    with kept_away(gateway, b"other.jobs"):
        assert not clients.amqp(gateway.lab, host, "other.jobs").ok
    record = last(gateway, "amqp", verdict="deny")["amqp"]
    assert (record["method"], record["queue"]) == ("queue.declare", "other.jobs")


@HOSTS
@KAFKA
def test_kafka_topic_by_topic(gateway: Gateway, use: Callable[..., clients.Result], host: str) -> None:
    assert use(gateway.lab, host).ok
    record = last(gateway, "kafka", verdict="allow", l7_rule="told")["kafka"]
    assert (record["api"], record["client"], record["topics"]) == ("Produce", "lab-client", ["lab.orders"])
    # librdkafka is new enough to name topics by id when it fetches.
    by_id = use is clients.kafka
    record = last(gateway, "kafka", verdict="allow", l7_rule="heard-by-id" if by_id else "heard")["kafka"]
    assert (record["api"], record["topics"] == ["lab.orders"]) == ("Fetch", not by_id)
    with kept_away(gateway, b"other.orders"):
        assert not use(gateway.lab, host, "other.orders", timeout=1).ok
    record = last(gateway, "kafka", verdict="deny")
    assert (record["kafka"]["api"], record["kafka"]["topics"]) == ("Metadata", ["other.orders"])
    assert (record["scope"], record["reason"]) == ("request", "no_rule")


@HOSTS
@KAFKA
def test_kafka_request_by_request(gateway: Gateway, use: Callable[..., clients.Result], host: str) -> None:
    # Clients may know the topic, and who is asked for it, but say nothing there.
    with kept_away(gateway, b"unheard"):
        assert not use(gateway.lab, host, "news.today", b"unheard", timeout=1).ok
    assert last(gateway, "kafka", verdict="allow", l7_rule="known")["kafka"]["topics"] == ["news.today"]
    record = last(gateway, "kafka", verdict="deny")["kafka"]
    assert (record["api"], record["topics"]) == ("Produce", ["news.today"])


@HOSTS
@KAFKA
def test_kafka_by_client(gateway: Gateway, use: Callable[..., clients.Result], host: str) -> None:
    with kept_away(gateway, b"stranger"):
        assert not use(gateway.lab, host, name="stranger", timeout=1).ok
    record = last(gateway, "kafka", verdict="deny")
    assert (record["kafka"]["api"], record["kafka"]["client"]) == ("ApiVersions", "stranger")
    assert (record["l7_rule"], record["reason"]) == ("strangers", "rule")


@HOSTS
def test_mongodb_command_by_command(gateway: Gateway, host: str) -> None:
    assert clients.mongodb(gateway.lab, host).ok
    record = last(gateway, "mongodb", verdict="allow", l7_rule="own")["mongodb"]
    assert record == {"command": "getMore", "database": "lab", "collection": "orders"}
    record = last(gateway, "mongodb", verdict="allow", l7_rule="greeting")["mongodb"]
    assert (record["client"].split("|")[0], record["application"]) == ("PyMongo", "lab-client")
    with kept_away(gateway, b"secrets"):
        assert not clients.mongodb(gateway.lab, host, "secrets", timeout=1).ok
    record = last(gateway, "mongodb", verdict="deny")
    assert record["mongodb"] == {"command": "insert", "database": "lab", "collection": "secrets"}
    assert (record["scope"], record["reason"]) == ("request", "no_rule")
    with kept_away(gateway, b"dropDatabase"):
        assert not clients.mongodb_drop(gateway.lab, host, timeout=1).ok
    record = last(gateway, "mongodb", verdict="deny")["mongodb"]
    assert record == {"command": "dropDatabase", "database": "lab"}


@ON_V4
def test_websocket_message_by_message(gateway: Gateway, host: str) -> None:
    assert clients.websocket(gateway.lab, host).ok
    record = last(gateway, "websocket", verdict="allow", l7_rule="polite")["websocket"]
    assert (record["kind"], record["size"]) == ("text", 7)
    assert not clients.websocket(gateway.lab, host, text="my password").ok
    assert last(gateway, "websocket", verdict="deny")["websocket"]["size"] == 11
    with kept_away(gateway, b"/admin"):
        assert not clients.websocket(gateway.lab, host, "/admin").ok
    assert last(gateway, "http", verdict="deny", rule="websocket")["http"]["path"] == "/admin"


@ON_V6
def test_smtp_by_recipient(gateway: Gateway, host: str) -> None:
    assert clients.smtp(gateway.lab, host).ok
    assert last(gateway, "smtp", verdict="allow", l7_rule="hello")["smtp"]["helo"] == "client.lab.test"
    with kept_away(gateway, b"joe@other.test", b"through"):
        assert not clients.smtp(gateway.lab, host, "joe@other.test").ok
    record = last(gateway, "smtp", verdict="deny", l7_rule="strangers")["smtp"]
    assert (record["sender"], record["recipient"]) == ("lab@lab.test", "joe@other.test")


@ON_V4
def test_smtp_goes_over_to_tls(gateway: Gateway, host: str) -> None:
    # What is said within TLS nobody sees.
    assert clients.smtp(gateway.lab, host, "joe@other.test", tls="web.lab.test").ok
    assert last(gateway, "tls", verdict="allow", rule="smtp")["tls"]["sni"] == "web.lab.test"
    with kept_away(gateway, b"other.lab.test"):
        assert not clients.smtp(gateway.lab, host, tls="other.lab.test").ok
    assert last(gateway, "tls", verdict="deny", rule="smtp")["tls"]["sni"] == "other.lab.test"


@HOSTS
def test_ftp_file_by_file(gateway: Gateway, host: str) -> None:
    assert clients.ftp(gateway.lab, host).ok
    record = last(gateway, "ftp", verdict="allow", l7_rule="public")["ftp"]
    assert record == {"command": "RETR", "argument": "public.txt", "user": "lab"}
    with kept_away(gateway, b"secret.txt"):
        assert not clients.ftp(gateway.lab, host, "secret.txt").ok
    assert last(gateway, "ftp", verdict="deny")["ftp"]["argument"] == "secret.txt"


@HOSTS
def test_quic_by_name(gateway: Gateway, host: str) -> None:
    assert clients.quic(gateway.lab, host).ok
    record = last(gateway, "quic", verdict="allow")
    assert (record["quic"]["version"], record["tls"]["sni"], record["flow"]["l4"]) == ("1", "web.lab.test", "udp")
    with Capture(gateway.lab, Namespace.SERVER) as capture:
        # Long enough for it to say its hello again.
        assert not clients.quic(gateway.lab, host, "other.lab.test", timeout=1).ok
    # The end of its attempt may arrive, a hello not.
    arrived = [packet.payload for packet in packets(capture.file, dport=4433)]
    assert [event for payload in arrived for event in QuicParser().feed(TO_SERVER, payload)] == []
    record = last(gateway, "quic", verdict="deny")
    assert (record["tls"]["sni"], record["reason"]) == ("other.lab.test", "no_rule")
