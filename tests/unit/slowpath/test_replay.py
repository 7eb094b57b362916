"""Replay: crafted captures, and the shared ones against their truth."""

from __future__ import annotations

import gzip
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fastpath.abi import Verdict
from fastpath.policy.model import Policy
from fastpath.policy.read import load_policy
from slowpath.core.frame import ACK, FIN, SYN
from slowpath.record import Record
from slowpath.replay import CaptureError, PolicyFile, Replay, read_capture, replay
from slowpath.rules.ruleset import RuleSet, load_rules
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.wire import CLIENT, SERVER, Connection, tcp_frame, udp_frame, valid

ROOT = Path(__file__).parents[3]
RULES = load_rules([ROOT / "configs" / "rules.d"])
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
ADMIN = b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def pcap(frames: Iterable[bytes], *, link: int = 1, order: str = "<", ticks: float = 1e6, step: float = 0.001) -> bytes:
    magic = 0xA1B23C4D if ticks > 1e6 else 0xA1B2C3D4
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for number, frame in enumerate(frames):
        stamp = 1_700_000_000 + number * step
        out += struct.pack(order + "IIII", int(stamp), int(stamp % 1 * ticks), len(frame), len(frame)) + frame
    return out


def pcapng(frames: Iterable[bytes]) -> bytes:
    out = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
    for frame in frames:
        padded = frame + bytes(-len(frame) % 4)
        size = 32 + len(padded)
        out += (
            struct.pack("<IIIIIII", 6, size, 0, 0, 1_000_000, len(frame), len(frame)) + padded + struct.pack("<I", size)
        )
    return out


def conversation(*turns: tuple[int, bytes], connection: Connection | None = None, sport: int = 40000) -> list[bytes]:
    """A connection's frames: handshake, then (side, data)."""
    c = connection or Connection(sport=sport)
    packets = [c.segment(0, at=0, flags=SYN), c.segment(1, at=0, flags=SYN | ACK), c.client(flags=ACK)]
    packets += [c.segment(side, data) for side, data in turns]
    packets += [c.segment(0, flags=ACK | FIN), c.segment(1, flags=ACK | FIN)]
    return [bytes(packet.frame) for packet in packets]


def run(path: Path, data: bytes, rules: RuleSet | None = None, policy: Policy | None = None) -> list[Record]:
    path.write_bytes(data)
    return [valid(record) for record in replay(path, rules, policy)]


def policy(path: Path, text: str) -> Policy:
    path.write_text(text)
    return load_policy(path, RULES.digest)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ticks", [1e6, 1e9])
def test_pcap(order: str, ticks: float, tmp_path: Path) -> None:
    (record,) = run(tmp_path / "a.pcap", pcap(conversation((0, GET), (1, OK)), order=order, ticks=ticks))
    assert (record["first"], record["protocol"], record["verdict"]) == ("http", "http", "inspect")
    assert record["ts"] == pytest.approx(1_700_000_000.003)
    assert record["http"] == {"method": "GET", "path": "/", "host": "a.example"}


def test_pcapng_gzip_and_other_links(tmp_path: Path) -> None:
    frames = conversation((0, GET), (1, OK))
    assert run(tmp_path / "a.pcapng", pcapng(frames))[0]["protocol"] == "http"
    assert run(tmp_path / "a.pcap.gz", gzip.compress(pcap(frames)))[0]["protocol"] == "http"
    raw = pcap([frame[14:] for frame in frames], link=101)
    assert run(tmp_path / "raw.pcap", raw)[0]["protocol"] == "http"
    cooked = pcap([bytes(14) + frame[12:] for frame in frames], link=113)
    assert run(tmp_path / "sll.pcap", cooked)[0]["protocol"] == "http"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a capture"),
        (b"hello, this is no capture at all", "not a capture"),
        (pcap([])[:20], "file's header"),
        (pcap([b"x"], link=147), "link type 147"),
        (b"\x1f\x8b" + bytes(30), "damaged|not a capture"),
    ],
)
def test_no_capture(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=words):
        run(tmp_path / "a.pcap", data)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(replay(tmp_path / "none.pcap"))


ALLOWED = "rules: [{id: web, proto: tcp, app: http, action: allow, log: all}]\n"


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("cut", [1, 10, 60])
@pytest.mark.parametrize("form", [pcap, pcapng])
def test_records_before_the_damage_come_out(form: Any, cut: int, judged: bool, tmp_path: Path) -> None:
    whole = form([*conversation((0, GET), (1, OK)), tcp_frame(CLIENT, SERVER, 1, 2, 3, 4, ACK, b"x" * 100)])
    path = tmp_path / "cut.pcap"
    path.write_bytes(whole[:-cut])
    records = replay(path, RULES, policy(tmp_path / "policy.yaml", ALLOWED) if judged else None)
    assert next(records)["protocol"] == "http"
    with pytest.raises(CaptureError, match="middle of a packet"):
        next(records)


def test_lying_packet_size(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="packet 1 claims"):
        run(tmp_path / "a.pcap", pcap([]) + struct.pack("<IIII", 1, 1, 1 << 31, 1 << 31))


def test_without_policy_one_record_a_flow(tmp_path: Path) -> None:
    frames = conversation((0, GET), (1, OK), (0, ADMIN), (1, OK))
    frames += conversation((1, b"SSH-2.0-OpenSSH_9\r\n"), (0, b"SSH-2.0-PuTTY\r\n"), sport=40001)
    frames += [udp_frame(CLIENT, SERVER, 5000, 53, b"\x80 noise")]
    records = run(tmp_path / "a.pcap", pcap(frames))
    assert Counter(record["protocol"] for record in records) == {"http": 1, "ssh": 1, "unknown": 1}
    assert {record["verdict"] for record in records} == {"inspect"}
    assert {record["rule"] for record in records} == {"default"}


def test_policy_and_rules_judge(tmp_path: Path) -> None:
    judged = policy(
        tmp_path / "policy.yaml",
        """
rules:
  - {id: web, proto: tcp, app: [http, http2], action: inspect, rules: [web]}
  - {id: calls, proto: tcp, app: grpc, action: inspect, rules: [greeter]}
  - {id: no-ssh, proto: tcp, app: ssh, action: deny}
  - {id: closed, ports: [23], proto: tcp, action: deny, priority: 1}
""",
    )
    client = h2.Sender()
    server = h2.Sender()
    frames = conversation((0, GET), (1, OK), (0, ADMIN))
    frames += conversation((0, b"SSH-2.0-x\r\n"), sport=40001)
    frames += conversation(
        *((0, h2.START), (1, h2.settings()), (0, client.call(1, "/lab.Echo/Say")), (1, server.response(1))),
        (0, client.call(3, "/lab.Admin/Wipe")),
        sport=40002,
    )
    frames += conversation((0, b"\xff\xfb\x01"), connection=Connection(sport=40003, dport=23))
    found = [
        (
            record["flow"]["sport"],
            record["protocol"],
            record["verdict"],
            record["reason"],
            record["rule"],
            record["path"],
        )
        for record in run(tmp_path / "a.pcap", pcap(frames), RULES, judged)
    ]
    assert found == [
        (40000, "http", "allow", "rule", "web", "inspector"),
        (40000, "http", "deny", "rule", "web", "inspector"),
        (40001, "ssh", "deny", "protocol", "no-ssh", "inspector"),
        (40002, "grpc", "allow", "rule", "calls", "inspector"),
        (40002, "grpc", "deny", "no_rule", "calls", "inspector"),
        (40003, "unknown", "deny", "policy", "closed", "kernel"),
    ]


def test_a_capture_knows_tags_and_no_zones(tmp_path: Path) -> None:
    judged = policy(
        tmp_path / "policy.yaml",
        """
default: {action: deny, log: all}
defaults: [{from_zone: lan, to_zone: dmz, action: allow}]
rules:
  - {id: lan, proto: tcp, from_zone: lan, action: allow}
  - {id: tagged, proto: tcp, vlan: 7, action: deny}
  - {id: through, proto: tcp, ports: 23, direction: through, action: deny}
""",
    )
    plain = conversation((0, b"x"))
    tagged = [frame[:12] + b"\x81\x00\x00\x07" + frame[12:] for frame in conversation((0, b"x"), sport=40001)]
    telnet = conversation((0, b"x"), connection=Connection(sport=40002, dport=23))
    records = run(tmp_path / "a.pcap", pcap([*plain, *tagged, *telnet]), RULES, judged)
    assert [(record["flow"]["sport"], record["rule"]) for record in records] == [
        (40000, "default"), (40001, "tagged"), (40002, "through"),
    ]  # fmt: skip


def test_new_connection_on_the_same_ports(tmp_path: Path) -> None:
    frames = conversation((0, GET), (1, OK))
    frames += conversation((0, b"SSH-2.0-x\r\n"), connection=Connection(isn=(5, 6)))
    records = run(tmp_path / "a.pcap", pcap(frames))
    assert [(record["session"], record["protocol"]) for record in records] == [(1, "http"), (2, "ssh")]


def test_years_between_packets(tmp_path: Path) -> None:
    frames = conversation((0, GET), (1, OK))
    assert run(tmp_path / "a.pcap", pcap(frames, step=50_000_000.0))


# -- the shared captures --------------------------------------------------------------------------------------------

SHARED = ROOT.parent / "shared" / "pcaps"
COVERED = {"http", "http2", "grpc", "dns", "mysql", "tls", "ssh", "redis", "postgres", "mongodb"}
TRUTH = {"h2c_prior": "http2", "h2c_upgrade": "http", "tls_pq": "tls", "dns_tcp": "dns"}

# (file, source, its port): why it is not named as the truth has it. The inspector must be right about all others.
MISSES = {
    (
        "nDPI__http_asymmetric.pcapng",
        "192.168.1.103",
        1044,
    ): "one direction is missing, what is left acknowledges bytes never sent",
    ("nDPI__websocket.pcap", "192.168.43.135", 12345): "begins within a websocket; nothing of HTTP is in the capture",
    ("nDPI__soap.pcap", "85.154.114.113", 56028): "XML without HTTP, its beginning is missing",
    ("nDPI__dns.pcap", "82.178.113.245", 47255): "IP in PPPoE, which the gateway does not judge",
    (
        "nDPI__mongo_false_positive.pcapng",
        "188.75.184.20",
        49542,
    ): "no TLS record in it; the kernel and the parsers agree on unknown",
    ("nDPI__discord_mid_flow.pcap", "66.22.242.132", 50001): "empty datagrams, nothing to judge",
    ("zeek__http__connect-with-smtp.pcap", "79.26.245.236", 3378): "two targets in the request line, which is no HTTP",
    ("zeek__redis__oss-fuzz-473580107.pcap", "10.0.0.1", 63945): "fuzzed, no request line in it",
    ("zeek__tcp__payload-synack.pcap", "192.168.0.1", 80): "a request in the server's SYN: a server does not send one",
    (
        "zeek__tcp__reassembly.pcap",
        "63.193.213.194",
        2564,
    ): "the capture cut the packet with the end of the request line",
    ("zeek__ipv4__fragmented-3.pcap", "210.54.213.247", 1265): "fragments whose first is missing",
    (
        "zeek__ipv6-http-atomic-frag.pcap",
        "2001:db8:1::2",
        36951,
    ): "HTTP/0.9 is named, and refused; the truth calls it unknown",
    (
        "zeek__ipv6-http-atomic-frag.pcap",
        "2001:db8:1::2",
        45805,
    ): "a type 0 routing header is dropped before anything is judged",
    ("suricata-verify__eve-overlap-payload-01__tcp-overlap.pcap", "1.1.1.1", 12345): "overlap with other bytes: denied",
    ("suricata-verify__eve-overlap-payload-04-partial-overlap__tcp-overlap2.pcap", "1.1.1.1", 12345): "the same",
    (
        "suricata-verify__tcp-urgp-01-oob__tcp-urgent1.pcap",
        "10.10.10.44",
        43950,
    ): "an urgent byte makes two readings: denied",
    ("suricata-verify__tcp-split-handshake-02-5whs__split-handshake-5whs.pcap", "1.1.1.1", 12345): "payload is `EVIL`",
    (
        "suricata-verify__bug-6244-tcp-rst-with-data__tcp-rst-with-data.pcap",
        "1.1.1.1",
        12345,
    ): "payload is `Please Let Me In!`",
    (
        "redis__http_cross_protocol.pcap",
        "10.0.0.1",
        40000,
    ): "an HTTP request to a Redis server: HTTP is what it is, and refused",
}


def truth(folder: str) -> dict[str, list[dict[str, Any]]]:
    lines = SHARED / folder / "truth.jsonl"
    assert lines.is_file(), f"{lines} is missing: the shared captures belong beside the checkout, as shared/pcaps"
    by_file: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines.read_text().splitlines():
        row = json.loads(line)
        by_file[row["file"]].append(row)
    return by_file


def ends(row: dict[str, Any]) -> frozenset[tuple[str, int]]:
    return frozenset(((row["src"], row["sport"]), (row["dst"], row["dport"])))


def expected(row: dict[str, Any]) -> str:
    name = TRUTH.get(row["truth"], row["truth"])
    return name if name in COVERED else "unknown"


def named(row: dict[str, Any], records: list[Record]) -> bool:
    """gRPC and what else shows later is in `protocol`, the first bytes are in `first`."""
    names = {name for record in records for name in (record["first"], record["protocol"])}
    return expected(row) in (names if row["truth"] == "grpc" else {record["first"] for record in records})


def test_public_captures() -> None:
    wrong, right = [], Counter[str]()
    for file, rows in truth("public").items():
        flows: dict[frozenset[tuple[str, int]], list[Record]] = defaultdict(list)
        for record in replay(SHARED / "public" / file):
            flows[ends(record["flow"])].append(valid(record))
        for row in rows:
            ok = named(row, flows[ends(row)])
            right[expected(row)] += ok
            if ok == ((file, row["src"], row["sport"]) in MISSES):
                wrong.append((file, row["sport"], row["truth"], [(r["first"], r["reason"]) for r in flows[ends(row)]]))
    assert wrong == []
    assert right["http"] >= 58
    assert min(right[name] for name in ("http2", "mysql", "postgres", "redis", "ssh", "tls", "dns")) >= 4


MUST = {"identify", "identify_or_deny", "deny", "not_final_allow"}


def test_evasion_captures() -> None:
    """Everything is open here but the rows' own demand: named, or denied, or never allowed for good."""
    wrong, seen = [], Counter[str]()
    for file, rows in truth("evasion").items():
        records = [valid(record) for record in replay(SHARED / "evasion" / file)]
        for row in rows:
            assert row["must"] in MUST
            ok = named(row, records)
            denied = any(record["verdict"] == "deny" for record in records)
            seen[row["must"]] += 1
            if row["must"] == "identify":
                ok = ok != ((file, row["src"], row["sport"]) in MISSES)
            elif row["must"] == "identify_or_deny":
                ok = ok or denied
            else:
                continue
            if not ok:
                wrong.append((file, row["mutation"], [(r["first"], r["reason"]) for r in records]))
    assert wrong == []
    assert seen["identify"] > 200


SERVER_FIRST = "the server's greeting names it, before the client sends what is ambiguous"
ALLOWED_ANYWAY = {
    "mysql__ipfrag_overlap.pcap": SERVER_FIRST + "; the overlapping fragments are dropped",
    "smtp__overlap_junk_first.pcap": SERVER_FIRST,
    "ssh__overlap_junk_first.pcap": SERVER_FIRST,
    "ssh__urg_oob_byte.pcap": SERVER_FIRST,
    "tls__sni_nul.pcap": "the server name is not read yet",
}


def test_evasion_verdicts(tmp_path: Path) -> None:
    """`deny` and `not_final_allow` under a policy that knows every protocol, requests of HTTP by rule files."""
    text = """
rules:
  - {id: web, proto: tcp, app: [http, http2], action: inspect, rules: [web]}
  - {id: calls, proto: tcp, app: grpc, action: inspect, rules: [greeter]}
  - {id: names, proto: [tcp, udp], app: [dns, unknown], action: allow, log: all}
  - {id: rest, proto: tcp, app: [tls, mysql, postgres, redis, mongodb, ssh], action: allow, log: all}
"""
    judged = policy(tmp_path / "policy.yaml", text)
    wrong = []
    for file, rows in truth("evasion").items():
        if all(row["must"] not in {"deny", "not_final_allow"} for row in rows):
            continue
        one = Replay(RULES, PolicyFile(judged))
        with (SHARED / "evasion" / file).open("rb") as stream:
            records = [valid(record) for record in one._packets(read_capture(stream))]
        # An allow is final once it is written back, which waits for the receiver's acknowledgement.
        final = any(s.decided and s.decided.verdict == Verdict.ALLOW for s in one.kernel._sessions.values())
        denied = any(record["verdict"] == "deny" for record in records)
        demands = {row["must"] for row in rows}
        failed = ("deny" in demands and not denied) or ("not_final_allow" in demands and final and not denied)
        if failed != (file in ALLOWED_ANYWAY):
            wrong.append((file, demands, [(r["protocol"], r["verdict"], r["reason"]) for r in records]))
    assert wrong == []
