"""Replay: crafted captures, and the shared ones against their truth."""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fastpath.policy.model import Policy
from fastpath.policy.read import load_policy
from slowpath.core.frame import ACK, FIN, SYN
from slowpath.core.model import Limits
from slowpath.record import Record
from slowpath.replay import CaptureError, PolicyFile, Replay, replay
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


@pytest.mark.parametrize(("down", "verdict"), [("allow", "allow"), ("deny", "deny")])
def test_flows_beyond_the_bound_fail_as_their_rule_says(tmp_path: Path, down: str, verdict: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        f"rules: [{{id: w, proto: tcp, ports: 80, action: inspect, rules: [web], on_inspector_down: {down}}}]\n"
    )
    policy = PolicyFile(load_policy(file, RULES.digest))
    frames = []
    for port in (1000, 1001):
        c = Connection(sport=port)
        frames += [
            bytes(packet.frame)
            for packet in (c.segment(0, at=0, flags=SYN), c.segment(1, at=0, flags=SYN | ACK), c.client(b"GET /"))
        ]
    judged = Replay(RULES, policy, limits=Limits(max_flows=1))
    records = [valid(record) for record in judged.run((n / 1e3, frame) for n, frame in enumerate(frames))]
    assert [(r["flow"]["sport"], r["verdict"], r["reason"]) for r in records][:1] == [
        (1000, verdict, "reassembly_limit")
    ]
