"""What the inspector makes of the shared captures, whole replays against their truth.

`python -m tests.captures.accuracy` prints it as Markdown.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastpath.abi import Action, Verdict
from fastpath.policy.read import load_policy
from parsers.base import TCP, UDP
from parsers.identify import SUPPORTED
from slowpath.core.frame import FrameError, checksum_ok, parse_frame
from slowpath.core.model import Exceptions
from slowpath.record import Record
from slowpath.replay import PolicyFile, Replay, open_capture, read_capture
from slowpath.rules.ruleset import RuleSet, load_rules
from tests.captures.streams import CAPTURES, truths

# What the truth calls by names of its own.
FIRST = {"h2c_prior": "http2", "h2c_upgrade": "http", "tls_pq": "tls", "dns_tcp": "dns", "grpc": "http2"}

# (file, source port): why nothing is named there. Tools that go by ports do name them.
NOTHING_TO_NAME = {
    ("nDPI__dns.pcap", 47255): "IP in PPPoE, which is no flow to the gateway",
    ("suricata-verify__bug-6244-tcp-rst-with-data__tcp-rst-with-data.pcap", 12345): "payload is `Please Let Me In!`",
    ("suricata-verify__tcp-split-handshake-02-5whs__split-handshake-5whs.pcap", 12345): "payload is `EVIL`",
    ("suricata-verify__eve-overlap-payload-01__tcp-overlap.pcap", 12345): "`GOOD`, overlapped by `EVIL`: denied",
    ("suricata-verify__eve-overlap-payload-04-partial-overlap__tcp-overlap2.pcap", 12345): "`GOOD`, then `XXX`: denied",
    ("suricata-verify__tcp-urgp-01-oob__tcp-urgent1.pcap", 43950): "an urgent byte makes two readings: denied",
    ("zeek__redis__oss-fuzz-473580107.pcap", 63945): "fuzzed until no request line is left",
}

# Where the bytes are right and the truth is not.
TRUTH_DOUBTED = {
    ("zeek__ipv6-http-atomic-frag.pcap", 36951): "unknown, it says, of an HTTP/0.9 request like its neighbours'",
    ("redis__http_cross_protocol.pcap", 40000): "an HTTP request to a Redis server: HTTP is what it is",
}


@dataclass(slots=True)
class Judged:
    """A line of truth.jsonl and what was said of its flow: the names of its first bytes, all names, verdicts."""

    truth: dict[str, Any]
    first: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    verdicts: list[str] = field(default_factory=list)
    final: bool = False  # allowed for good

    @property
    def key(self) -> tuple[str, int]:
        return self.truth["file"], self.truth["sport"]

    @property
    def expected(self) -> str:
        name = FIRST.get(self.truth["truth"], self.truth["truth"])
        return name if name in SUPPORTED else "unknown"

    @property
    def said(self) -> str:
        """The right name if it was said, else a wrong one if there is one."""
        named = self.first - {"unknown"}
        return self.expected if self.expected in self.first else min(named, default="unknown")

    @property
    def outcome(self) -> str:
        if self.truth["truth"] == "grpc" and self.said == self.expected:
            return "right" if "grpc" in self.names else "silent"
        return "right" if self.said == self.expected else "silent" if self.said == "unknown" else "wrong"

    @property
    def certain(self) -> bool:
        """Public tools agree, and its start is in the capture."""
        return bool(self.truth["agree"] and (self.truth["l4"] == "udp" or self.truth["syn"]))


def judge_public(*, other_ports: bool = False) -> list[Judged]:
    """Every flow, without a policy."""
    judged = []
    for file, rows in by_file("public").items():
        frames = _frames(CAPTURES / "public" / file, other_ports=other_ports)
        flows: dict[frozenset[tuple[str, int]], list[Record]] = defaultdict(list)
        for record in Replay().run(frames):
            flows[_ends(record["flow"])].append(record)
        for row in rows:
            one = Judged(row)
            _note(one, flows[_ends(row, other_ports=other_ports)])
            judged.append(one)
    return judged


POLICY = """
rules:
  - {id: requests, proto: tcp, app: [http, http2, grpc], action: inspect, rules: [requests, calls]}
  - {id: rest, proto: [tcp, udp], app: [unknown, dns, memcached], action: allow, log: all}
  - {id: hellos, proto: tcp, app: tls, action: inspect, rules: [hellos], log: all}
  - {id: tcp, proto: tcp, action: allow, log: all, app: [
       mysql, postgres, redis, mongodb, kafka, ssh, amqp, mqtt, smtp, ftp, smb, rdp, websocket]}
  - {id: quic, proto: udp, app: quic, action: allow, log: all}
"""
REQUESTS = """
name: requests
protocol: [http, http2]
rules:
  - id: every
    match: {http.path: {prefix: /}}
    action: allow
    samples: {must_match: [{http.path: /}], must_not_match: [{http.path: "*"}]}
"""
CALLS = """
name: calls
protocol: grpc
rules:
  - id: every
    match: {grpc.service: {glob: "**"}}
    action: allow
    samples: {must_match: [{grpc.service: a.B, grpc.method: C}], must_not_match: [{protocol: http, http.path: /}]}
"""


# Any name will do, or none, but it has to be read.
HELLOS = """
name: hellos
protocol: tls
rules:
  - id: every
    match: {tls.version: {glob: "**"}}
    action: allow
    samples: {must_match: [{tls.version: "1.3"}], must_not_match: [{tls.sni: a}]}
"""


def judge_evasion() -> list[Judged]:
    """Every capture, under a policy and rules that name and allow every protocol, request by request where there are
    requests.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, text in (("policy", POLICY), ("requests", REQUESTS), ("calls", CALLS), ("hellos", HELLOS)):
            (place / f"{name}.yaml").write_text(text)
        rules = load_rules([place / f"{name}.yaml" for name in ("requests", "calls", "hellos")])
        policy = PolicyFile(load_policy(place / "policy.yaml", rules.digest))
    return [one for file, rows in by_file("evasion").items() for one in _evasion(file, rows, rules, policy)]


def _evasion(file: str, rows: list[dict[str, Any]], rules: RuleSet, policy: PolicyFile) -> Iterator[Judged]:
    # Where the beginning is missing, what comes is to be named.
    replay = Replay(rules, policy, Exceptions(midstream=Action.INSPECT))
    # Without the end of the capture, which would settle what waits for a receiver's acknowledgement.
    records = list(replay._packets(_frames(CAPTURES / "evasion" / file)))
    final = any(
        session.decided is not None and session.decided.verdict == Verdict.ALLOW
        for session in replay.kernel._sessions.values()
    )
    records += replay._end()
    for row in rows:
        one = Judged(row, final=final)
        _note(one, records)
        yield one


def _note(one: Judged, records: Iterable[Record]) -> None:
    for record in records:
        one.first.add(record["first"])
        one.names.update((record["first"], record["protocol"]))
        one.verdicts.append(record["verdict"])


def by_file(folder: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in truths(folder):
        found[row["file"]].append(row)
    return found


def _ends(row: dict[str, Any], *, other_ports: bool = False) -> frozenset[tuple[str, int]]:
    sport, dport = row["sport"], row["dport"]
    if other_ports:
        sport, dport = another_port(sport), another_port(dport)
    return frozenset(((row["src"], sport), (row["dst"], dport)))


def _frames(path: Path, *, other_ports: bool = False) -> Iterator[tuple[float, bytes]]:
    with open_capture(path) as stream:
        for stamp, frame in read_capture(stream):
            yield stamp, with_other_ports(frame) if other_ports else frame


def another_port(port: int) -> int:
    """One for one; of the well-known ones none stays one."""
    return port ^ 0x5555


def with_other_ports(frame: bytes) -> bytes:
    """The frame from and to other ports, its checksum as good or bad as before (RFC 1624)."""
    try:
        packet = parse_frame(frame)
    except FrameError:
        return frame
    at = packet.l4_offset
    if packet.l4 not in {TCP, UDP} or (packet.place is not None and packet.place.offset) or len(frame) < at + 8:
        return frame
    changed = bytearray(frame)
    where = at + (16 if packet.l4 == TCP else 6)
    checksum = int.from_bytes(changed[where : where + 2], "big")
    for here in (at, at + 2):
        old = int.from_bytes(changed[here : here + 2], "big")
        new = another_port(old)
        changed[here : here + 2] = new.to_bytes(2, "big")
        total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + new
        checksum = ~(total % 0xFFFF or 0xFFFF) & 0xFFFF
    whole = bytes(changed)
    # None at all, or left to the card, which sums the ports up as well.
    kept = changed[where : where + 2] == b"\0\0" or (not packet.fragment and checksum_ok(parse_frame(whole)))
    if not kept and where + 2 <= len(changed):
        changed[where : where + 2] = checksum.to_bytes(2, "big")
        whole = bytes(changed)
    return whole


def confusion(judged: Iterable[Judged]) -> str:
    """Markdown: a row for each truth, a column for each name that was said."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in judged:
        counts[one.expected][one.said] += 1
    names = sorted(
        {name for row in counts.values() for name in row} | set(counts), key=lambda name: (name == "unknown", name)
    )
    lines = [f"| truth \\ said | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(str(counts[name][said] or '') for said in names)} |"
        for name in names
        if name in counts
    ]
    return "\n".join(lines)


def outcomes(judged: Iterable[Judged]) -> Counter[str]:
    """right, wrong, silent."""
    return Counter(one.outcome for one in judged)


def evasion_table(judged: Iterable[Judged]) -> str:
    """Markdown: a row for each mutation and what it must come to."""
    rows: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for one in judged:
        rows[one.truth["must"], one.truth["mutation"]].append(one)
    lines = [
        "| must | mutation | flows | named right | wrong | allowed for good | denied |",
        "|---|---|---|---|---|---|---|",
    ]
    for (must, mutation), ones in sorted(rows.items()):
        told = outcomes(ones)
        final, denied = sum(one.final for one in ones), sum("deny" in one.verdicts for one in ones)
        lines.append(f"| {must} | {mutation} | {len(ones)} | {told['right']} | {told['wrong']} | {final} | {denied} |")
    return "\n".join(lines)


def main() -> None:
    for title, other_ports in (("as captured", False), ("every port replaced", True)):
        judged = judge_public(other_ports=other_ports)
        supported = [one for one in judged if one.expected != "unknown"]
        for kind, ones in (
            ("start seen, tools agree", [one for one in supported if one.certain and one.key not in NOTHING_TO_NAME]),
            ("nothing there to name", [one for one in supported if one.certain and one.key in NOTHING_TO_NAME]),
            ("tools agree, from the middle", [one for one in supported if one.truth["agree"] and not one.certain]),
            ("tools disagree", [one for one in supported if not one.truth["agree"]]),
            ("other protocols", [one for one in judged if one.expected == "unknown"]),
        ):
            told = outcomes(ones)
            print(
                f"{title}, {kind}: {len(ones)} flows, "
                + ", ".join(f"{told[o]} {o}" for o in ("right", "wrong", "silent"))
            )
        if not other_ports:
            print("\n" + confusion(judged) + "\n")
    print("\n" + evasion_table(judge_evasion()))


if __name__ == "__main__":
    main()
