"""The inspector in packet mode, on real connections: what rules say of requests, exceptions, reloads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import hpack
import pytest

from tests.lab import Lab, Namespace, clients, servers
from tests.lab.capture import Capture, payload_seen
from tests.lab.clients import V4, V6, bracketed
from tests.lab.demo import NEEDLE
from tests.lab.gateway import CONFIGS, SLOWPATH, Gateway
from tests.netns import peers
from tests.netns.peers import Echo, dial, pair, port_of, receive, record_of, remains, request, session_of, silent

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])

POLICY = """
mode: {mode}
default: {{action: deny, log: deny, deny_with: reset}}
rules:
  - {{id: web, proto: tcp, ports: [80, 7080, 8080, 8081], action: inspect, rules: [web], log: all}}
  - {{id: calls, proto: tcp, ports: 50051, action: inspect, rules: [greeter], log: all}}
  - {{id: grpc, proto: tcp, ports: 50052, action: inspect, rules: [grpc-only], log: all}}
  - {{id: anything-odd, proto: [tcp, udp], ports: 7001, app: unknown, action: allow, log: all, deny_with: reset}}
  - {{id: http-only, proto: [tcp, udp], ports: 7002, app: [http, dns], action: allow, log: all, deny_with: reset}}
"""

# No need to wait for two seconds each time.
NEED_MORE = 0.5
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class GrpcOnly(servers.Grpc):
    """A second gRPC server, for the rule on the protocol alone."""

    name = "grpc-only"
    ports = (50052,)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    kinds = (servers.Nginx, servers.Nghttpx, servers.Grpc, GrpcOnly)
    with Lab() as lab:
        rules = peers.copy_rules(CONFIGS / "rules.d", lab.directory / "rules.d")
        settings = {"inspector": {"need_more": NEED_MORE}}
        with Gateway(lab, POLICY.format(mode="enforce"), rules, settings) as one, servers.running(lab, kinds):
            yield one


def reload(gateway: Gateway) -> None:
    """SIGHUP to both, and wait for both: the inspector reads its files when it gets to it."""

    def times() -> int:
        return gateway.log(SLOWPATH).read_text().count("rule files read anew")

    before = times()
    gateway.reload()
    peers.eventually(lambda: times() > before)


@contextlib.contextmanager
def policy(gateway: Gateway, text: str) -> Iterator[None]:
    """Another policy, for the length of the block."""
    before = gateway.policy.read_text()
    gateway.write_policy(text)
    reload(gateway)
    try:
        yield
    finally:
        gateway.write_policy(before)
        reload(gateway)


def fetch(lab: Lab, *urls: str, needle_at: int | None = None, options: Sequence[str] = ()) -> list[str]:
    """Status codes of requests that curl makes over one connection if it can; 000 where there is no answer."""
    argv: list[str] = ["curl"]
    for index, url in enumerate(urls):
        if index:
            argv.append("--next")
        argv += ["--silent", "--noproxy", "*", "--max-time", "5", "--output", "/dev/null"]
        argv += ["--write-out", "%{http_code}\n"]
        argv += [*options, url]
        if index == needle_at:
            argv += ["--header", f"x-needle: {NEEDLE}"]
    return lab.run(Namespace.CLIENT, argv, 20).stdout.split()


def seen(capture: Capture, needle: str) -> bool:
    return payload_seen(capture.file, needle.encode())


def headers(encoder: hpack.Encoder, stream: int, path: str, *more: tuple[str, str]) -> bytes:
    """A request of HTTP/2 in one frame (RFC 9113 section 6.2), as it stands, without Huffman codes."""
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "lab"), (":path", path), *more]
    block = encoder.encode(fields, huffman=False)
    return len(block).to_bytes(3) + bytes([1, 5]) + stream.to_bytes(4) + block


# -- requests ---------------------------------------------------------------------------------------------------------


@HOSTS
@pytest.mark.parametrize(("port", "option"), [(80, "--http1.1"), (8081, "--http2")], ids=["h1", "h2c"])
def test_the_second_request_of_a_connection_is_judged_like_the_first(
    gateway: Gateway, host: str, port: int, option: str
) -> None:
    site = f"http://{bracketed(host)}:{port}"
    before = len(gateway.read_records())
    with Capture(gateway.lab, Namespace.SERVER) as capture:
        codes = fetch(gateway.lab, f"{site}/", f"{site}/admin", needle_at=1, options=[option])
    assert codes == ["200", "000"]
    assert not seen(capture, NEEDLE)
    verdicts = [record for record in gateway.read_records()[before:] if record["event"] == "verdict"]
    denied = [record for record in verdicts if record["verdict"] == "deny"]
    allowed = {record["session"] for record in verdicts if record["verdict"] == "allow"}
    # curl tries once more on a fresh connection; the first denial is of the connection that was allowed.
    assert denied[0]["session"] in allowed
    assert (denied[0]["reason"], denied[0]["l7_rule"], denied[0]["scope"]) == ("rule", "no-admin", "request")
    assert denied[0]["http"]["path"] == "/admin"


@HOSTS
@pytest.mark.parametrize("path", ["/echo", "/admin"])
def test_the_second_stream_of_an_http2_connection_is_judged_like_the_first(
    gateway: Gateway, host: str, path: str
) -> None:
    encoder = hpack.Encoder()
    with Capture(gateway.lab, Namespace.SERVER) as capture, dial(gateway.lab, 8080, host) as client:
        client.sendall(PREFACE + SETTINGS + headers(encoder, 1, "/"))
        content = b""
        while b"lab\n" not in content:
            content += client.recv(1000)
        client.sendall(headers(encoder, 3, path, ("x-needle", NEEDLE)))
        if path == "/echo":
            content = b""
            while b"GET HTTP/2.0" not in content:
                content += client.recv(1000)
        else:
            assert remains(client) == (b"", "reset")
        sport = port_of(client)
    assert seen(capture, NEEDLE) == (path == "/echo")
    if path == "/admin":
        record = record_of(gateway, sport, event="verdict", verdict="deny")
        assert (record["reason"], record["l7_rule"], record["scope"]) == ("rule", "no-admin", "request")


@HOSTS
def test_a_denied_request_resets_both_sides(gateway: Gateway, host: str) -> None:
    with pair(gateway.lab, 7080, host) as (client, server):
        client.sendall(request("/one"))
        assert receive(server, len(request("/one"))) == request("/one")
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert peers.answer_of(client) == b"ok"
        client.sendall(request("/admin/two"))
        assert remains(client) == (b"", "reset")
        assert remains(server) == (b"", "reset")
        record = record_of(gateway, port_of(client), event="verdict", verdict="deny")
    assert (record["rule"], record["rule_file"], record["enforced"]) == ("web", "web", True)
    assert session_of(gateway, record["flow"]["sport"])["tcp"] == ["closed", "closed"]


def test_a_pipelined_request_is_judged_by_itself(gateway: Gateway) -> None:
    with pair(gateway.lab, 7080) as (client, server):
        client.sendall(request("/one") + request("/admin"))
        content, end = remains(server)
        assert end == "reset"
        assert b"/admin" not in content
        assert remains(client) == (b"", "reset")


@HOSTS
def test_nghttp_over_http2(gateway: Gateway, host: str) -> None:
    assert clients.nghttp(gateway.lab, host).ok
    assert not clients.nghttp(gateway.lab, host, "/admin").ok


@HOSTS
def test_upgrade_to_http2(gateway: Gateway, host: str) -> None:
    assert clients.http2_upgrade(gateway.lab, host).ok
    record = [record for record in gateway.read_records() if record["flow"]["dport"] == 8081][-1]
    assert (record["first"], record["protocol"]) == ("http", "http2")
    assert not clients.http2_upgrade(gateway.lab, host, "/admin").ok


@HOSTS
def test_grpc_calls_are_judged_by_service(gateway: Gateway, host: str) -> None:
    calls = ("lab.Echo/Say", "lab.Echo/Chat*20:20000", "lab.Admin/Wipe:40", "lab.Echo/Say")
    with Capture(gateway.lab, Namespace.SERVER) as capture:
        result = clients.grpc(gateway.lab, host, calls)
    # The channel connects anew behind the reset; the denied call is not tried again.
    assert [call["status"] for call in result.calls] == ["OK", "OK", "UNAVAILABLE", "OK"]
    assert b"Wipe" not in b"".join(peers.payloads(capture.file, 50051))
    verdicts = [record for record in gateway.read_records() if record["event"] == "verdict"]
    denied = [record for record in verdicts if record["rule"] == "calls" and record["verdict"] == "deny"][-1]
    assert denied["grpc"] == {"service": "lab.Admin", "method": "Wipe"}
    assert denied["reason"] == "no_rule"


@HOSTS
def test_a_verdict_on_the_protocol_returns_the_flow_to_the_kernel(gateway: Gateway, host: str) -> None:
    offloaded = gateway.stats()["packets"]["offloaded"]
    result = clients.grpc(gateway.lab, host, ("lab.Echo/Say", "lab.Echo/Chat*300:5000", "lab.Admin/Wipe"), port=50052)
    assert result.ok, result.detail
    session = [session for session in gateway.sessions() if session["dport"] == 50052][-1]
    assert (session["verdict"], session["scope"], session["protocol"]) == ("allow", "connection", "grpc")
    assert gateway.stats()["packets"]["offloaded"] > offloaded
    # Only what came before the verdict: preface, SETTINGS, the first call and what was on its way meanwhile.
    assert sum(session["packets"]) > 600
    assert sum(session["held"]) < 60


def test_http2_that_is_not_grpc_is_denied_by_a_rule_on_grpc(gateway: Gateway) -> None:
    assert not clients.nghttp(gateway.lab, port=50052).ok
    record = [record for record in gateway.read_records() if record["rule"] == "grpc"][-1]
    assert (record["verdict"], record["reason"], record["protocol"]) == ("deny", "no_rule", "http2")


# -- protocols without a parser ---------------------------------------------------------------------------------------


@HOSTS
def test_a_protocol_nobody_knows(gateway: Gateway, host: str) -> None:
    with pair(gateway.lab, 7001, host) as (client, server):
        client.sendall(b"\x7fcustom hello")
        assert receive(server, 13) == b"\x7fcustom hello"
        server.sendall(b"\x7fcustom welcome")
        assert receive(client, 15) == b"\x7fcustom welcome"
        record = record_of(gateway, port_of(client), event="verdict")
        assert (record["verdict"], record["protocol"], record["rule"]) == ("allow", "unknown", "anything-odd")
        # By now it runs in the kernel.
        peers.eventually(lambda: session_of(gateway, port_of(client))["verdict"] == "allow")
    with pair(gateway.lab, 7002, host) as (client, server):
        client.sendall(b"\x7fcustom hello")
        assert remains(server) == (b"", "reset")
        assert remains(client) == (b"", "reset")
        record = record_of(gateway, port_of(client), event="verdict")
        assert (record["verdict"], record["protocol"], record["rule"]) == ("deny", "unknown", "default")


@HOSTS
def test_a_server_that_speaks_first(gateway: Gateway, host: str) -> None:
    with pair(gateway.lab, 7001, host) as (client, server):
        server.sendall(b"\x7fwelcome")
        assert receive(client, 8) == b"\x7fwelcome"
        client.sendall(b"\x7fthanks")
        assert receive(server, 7) == b"\x7fthanks"
    with pair(gateway.lab, 7002, host) as (client, server):
        server.sendall(b"\x7fwelcome")
        assert remains(client) == (b"", "reset")
        assert remains(server) == (b"", "reset")


@HOSTS
def test_one_byte_and_then_silence(gateway: Gateway, host: str) -> None:
    with pair(gateway.lab, 7001, host) as (client, server):
        client.sendall(b"G")
        assert receive(server, 1) == b"G"
        record = record_of(gateway, port_of(client), event="verdict")
        assert (record["verdict"], record["reason"], record["protocol"]) == ("allow", "need_more", "unknown")
    with pair(gateway.lab, 7002, host) as (client, server):
        client.sendall(b"G")
        # Harmless by itself it goes on, for the server may have to answer; then it has had its time.
        assert receive(server, 1) == b"G"
        record = record_of(gateway, port_of(client), event="verdict")
        assert (record["verdict"], record["reason"], record["protocol"]) == ("deny", "need_more", "unknown")
        # Nothing was held any more that could be turned into resets: the next segment is.
        client.sendall(b"E")
        assert remains(client) == (b"", "reset")
        assert remains(server) == (b"", "reset")


# A question whose name has a label longer than names allow (RFC 1035 section 2.3.4).
MALFORMED_DNS = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x50" * 90 + b"\x00\x00\x01\x00\x01"


@HOSTS
@pytest.mark.parametrize(
    ("port", "content", "verdict"),
    [
        (7001, b"\xff" * 40, ("allow", "protocol", "unknown")),
        (7002, b"\xff" * 40, ("deny", "default", "unknown")),
        (7001, MALFORMED_DNS, ("deny", "parse_error", "dns")),
        (7002, MALFORMED_DNS, ("deny", "parse_error", "dns")),
    ],
    ids=["unknown", "unknown denied", "malformed", "malformed where DNS is allowed"],
)
def test_datagrams(gateway: Gateway, host: str, port: int, content: bytes, verdict: tuple[str, str, str]) -> None:
    with peers.datagrams(gateway.lab, 0, Namespace.CLIENT) as client, peers.datagrams(gateway.lab, port) as server:
        client.sendto(content, (peers.mapped(host), port))
        if verdict[0] == "allow":
            received, address = server.recvfrom(1000)
            assert received == content
            server.sendto(b"answer", address)
            assert client.recv(1000) == b"answer"
        record = record_of(gateway, port_of(client), event="verdict")
        assert (record["verdict"], record["reason"], record["protocol"]) == verdict
        assert silent(server)


# -- nothing waits for what cannot come, nothing is lost --------------------------------------------------------------


@HOSTS
def test_byte_by_byte(gateway: Gateway, host: str) -> None:
    with Echo(gateway.lab, 7080, peers.serve_http), dial(gateway.lab, 7080, host) as client:
        for byte in request("/slowly"):
            client.send(bytes([byte]))
            time.sleep(0.002)
        assert peers.answer_of(client) == b"/slowly"


def test_byte_by_byte_the_completing_byte_of_a_denied_request_stays(gateway: Gateway) -> None:
    with pair(gateway.lab, 7080) as (client, server):
        with contextlib.suppress(ConnectionError):
            for byte in request("/admin"):
                client.send(bytes([byte]))
                time.sleep(0.002)
        content, end = remains(server)
        assert end == "reset"
        assert b"\r\n\r\n" not in content
        assert remains(client) == (b"", "reset")


@HOSTS
def test_a_client_that_waits_for_the_servers_settings(gateway: Gateway, host: str) -> None:
    with dial(gateway.lab, 8080, host) as client:
        client.sendall(PREFACE + SETTINGS)
        head = receive(client, 9)
        assert head[3] == 4


@HOSTS
def test_large_bodies_over_http1(gateway: Gateway, host: str) -> None:
    body = bytes(range(251)) * 40_000
    with Echo(gateway.lab, 7080, peers.serve_http), dial(gateway.lab, 7080, host) as client:
        sender = threading.Thread(target=client.sendall, args=(request("/echo", body, "POST"),))
        sender.start()
        answer = peers.answer_of(client)
        sender.join()
        assert peers.digest(answer) == peers.digest(body)
        # And the connection is still judged request by request.
        client.sendall(request("/admin"))
        assert remains(client)[1] == "reset"


@HOSTS
def test_large_bodies_over_http2(gateway: Gateway, host: str) -> None:
    # The client compares what comes back.
    result = clients.grpc(gateway.lab, host, ("lab.Echo/Say:10000000", "lab.Admin/Wipe"), timeout=20)
    assert [call["status"] for call in result.calls] == ["OK", "UNAVAILABLE"]


# -- reloads and modes ------------------------------------------------------------------------------------------------


def test_an_open_connection_over_a_reload_of_the_policy(gateway: Gateway) -> None:
    text = POLICY.format(mode="enforce")
    with Echo(gateway.lab, 7080, peers.serve_http), dial(gateway.lab, 7080) as client:
        client.sendall(request("/one"))
        assert peers.answer_of(client) == b"/one"
        with policy(gateway, text + "  - {id: more, proto: tcp, ports: 9999, action: allow}\n"):
            client.sendall(request("/two"))
            assert peers.answer_of(client) == b"/two"
            with policy(gateway, text.replace("7080, ", "")):
                client.sendall(request("/three"))
                assert remains(client) == (b"", "reset")


def test_a_rule_file_read_anew_applies_to_the_next_request(gateway: Gateway) -> None:
    file = Path(gateway.settings["rules"]) / "web.yaml"
    before = file.read_text()
    with Echo(gateway.lab, 7080, peers.serve_http), dial(gateway.lab, 7080) as client:
        client.sendall(request("/one"))
        assert peers.answer_of(client) == b"/one"
        try:
            file.write_text(
                "name: web\nprotocol: http\nrules:\n  - id: two\n    match: {http.path: /two}\n    action: allow\n"
            )
            reload(gateway)
            client.sendall(request("/two"))
            assert peers.answer_of(client) == b"/two"
            client.sendall(request("/one"))
            assert remains(client) == (b"", "reset")
        finally:
            file.write_text(before)
            reload(gateway)


@HOSTS
def test_monitor_mode_records_and_drops_nothing(gateway: Gateway, host: str) -> None:
    with policy(gateway, POLICY.format(mode="monitor")):
        site = f"http://{bracketed(host)}"
        before = len(gateway.read_records())
        assert fetch(gateway.lab, f"{site}:80/", f"{site}:80/admin", options=["--http1.1"]) == ["200", "200"]
        assert clients.http2(gateway.lab, host, "/admin").ok
        assert clients.grpc(gateway.lab, host, ("lab.Echo/Say", "lab.Admin/Wipe", "lab.Echo/Say")).ok
        with pair(gateway.lab, 7002, host) as (client, server):
            client.sendall(b"\x7fcustom hello")
            assert receive(server, 13) == b"\x7fcustom hello"
        denied = [
            (record["rule"], record["reason"], record["enforced"])
            for record in gateway.read_records()[before:]
            if record["verdict"] == "deny" and record["event"] == "verdict"
        ]
    assert denied == [
        ("web", "rule", False),
        ("web", "rule", False),
        ("calls", "no_rule", False),
        ("default", "default", False),
    ]


# -- exceptions and bounds --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def configured(gateway: Gateway, **chosen: dict[str, object]) -> Iterator[None]:
    """gateway.yaml with these sections, for the length of the block."""
    before = dict(gateway.settings)
    gateway.settings.update(chosen)
    gateway.write_config()
    reload(gateway)
    try:
        yield
    finally:
        gateway.settings = before
        gateway.write_config()
        reload(gateway)


@pytest.mark.parametrize(("action", "allowed"), [("allow", True), ("deny", False)])
def test_need_more_as_the_operator_wants_it(gateway: Gateway, action: str, allowed: bool) -> None:
    # The other way round than the policy would have it.
    with (
        configured(gateway, exceptions={"need_more": action}),
        pair(gateway.lab, 7002 if allowed else 7001) as (client, server),
    ):
        client.sendall(b"G")
        assert receive(server, 1) == b"G"
        record = record_of(gateway, port_of(client), event="verdict")
        assert (record["verdict"], record["reason"]) == (action, "need_more")
        if allowed:
            client.sendall(b"oes on")
            assert receive(server, 6) == b"oes on"
        else:
            client.sendall(b"oes on")
            assert remains(server) == (b"", "reset")


BROKEN = b"GET / HTTP/1.1\r\nHost: lab\r\nno colon\r\n\r\n"


@pytest.mark.parametrize("action", ["deny", "allow", "inspect"])
def test_parse_error_as_the_operator_wants_it(gateway: Gateway, action: str) -> None:
    with configured(gateway, exceptions={"parse_error": action}), pair(gateway.lab, 7080) as (client, server):
        client.sendall(BROKEN)
        record = record_of(gateway, port_of(client), event="verdict")
        if action == "allow":
            assert receive(server, len(BROKEN)) == BROKEN
            assert (record["verdict"], record["reason"]) == ("allow", "parse_error")
            return
        assert remains(server) == (b"", "reset")
        # Inspected as unknown, it meets a rule file that knows nothing of it.
        assert (record["verdict"], record["reason"]) == ("deny", "parse_error" if action == "deny" else "no_rule")


@pytest.mark.parametrize("action", ["deny", "allow", "inspect"])
def test_reassembly_limit_as_the_operator_wants_it(gateway: Gateway, action: str) -> None:
    with (
        configured(gateway, exceptions={"reassembly_limit": action}),
        peers.listen(gateway.lab, 7080) as listener,
        peers.Stranger(gateway.lab) as stranger,
    ):
        connection = stranger.connect(7080)
        server, _ = listener.accept()
        with server:
            content = request("/" + "x" * 30_000)
            # All but the first hundred bytes, in more pieces than the inspector keeps.
            for at in range(100, len(content), 100):
                connection.send(content[at : at + 100], at)
            record = record_of(gateway, connection.sport, event="verdict")
            if action == "allow":
                assert (record["verdict"], record["reason"]) == ("allow", "reassembly_limit")
                connection.send(content[:100], 0)
                server.settimeout(peers.PATIENCE)
                assert receive(server, len(content)) == content
            else:
                assert remains(server) == (b"", "reset")
                assert (record["verdict"], record["reason"]) == (
                    "deny",
                    "reassembly_limit" if action == "deny" else "no_rule",
                )


def test_a_hole_has_the_time_that_the_operator_gives_it(gateway: Gateway) -> None:
    with (
        configured(gateway, inspector={"gap": 1}),
        peers.listen(gateway.lab, 7080) as listener,
        peers.Stranger(gateway.lab) as stranger,
    ):
        connection = stranger.connect(7080)
        server, _ = listener.accept()
        with server:
            began = time.monotonic()
            connection.send(request("/echo")[10:], 10)
            record = record_of(gateway, connection.sport, event="verdict")
            assert (record["verdict"], record["reason"]) == ("deny", "reassembly_limit")
            assert time.monotonic() - began >= 1
            assert remains(server) == (b"", "reset")
