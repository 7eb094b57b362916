"""The 1,000 rules that nftables and the gateway are both given.

None but the last matches the bench's traffic, and neighbours differ in address and port, so
nothing can be merged: what looks at rules one by one looks at all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNT = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """Allow TCP from a source to a destination prefix, on one port."""

    source: str
    destination: str
    port: int


def decoys() -> list[Rule]:
    """All but the last."""
    return [
        Rule(f"10.{100 + n % 100}.{n // 10}.0/24", f"172.16.{n % 256}.{n // 256}/32", 1000 + n)
        for n in range(COUNT - 1)
    ]


def nftables() -> str:
    """For ``nft -f``: stateful as is usual, established flows first, and nothing else passes."""
    lines = [f"ip saddr {rule.source} ip daddr {rule.destination} tcp dport {rule.port} accept" for rule in decoys()]
    body = "\n".join(f"    {line}" for line in lines)
    return f"""\
table inet bench {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
{body}
    ip saddr 10.77.0.0/16 ip daddr 10.77.0.0/16 accept
  }}
}}
"""


def flowtable(interfaces: tuple[str, ...]) -> str:
    """For ``nft -f``: every flow that connection tracking knows goes into the flowtable of these interfaces."""
    return f"""\
table inet bench {{
  flowtable fast {{
    hook ingress priority 0; devices = {{ {", ".join(interfaces)} }};
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    meta l4proto {{ tcp, udp }} flow add @fast
  }}
}}
"""


# Rule files of the inspector, by name.
BY_SERVICE = """\
name: by-service
protocol: grpc
rules:
  - id: lab
    match: {grpc.service: [lab.Echo, lab.Admin]}
    action: allow
    samples:
      must_match: [{grpc.service: lab.Echo, grpc.method: Say}]
      must_not_match: [{grpc.service: lab.Other, grpc.method: Say}]
"""
BY_PROTOCOL = """\
name: by-protocol
protocol: grpc
rules:
  - id: any-call
    action: allow
    samples:
      must_match: [{grpc.service: any.Service, grpc.method: Any}]
"""
BY_PATH = """\
name: by-path
protocol: http
rules:
  - id: files
    match: {http.method: GET, http.path: {glob: "/*.bin"}}
    action: allow
    samples:
      must_match: [{http.method: GET, http.path: /1024.bin, http.host: lab}]
      must_not_match: [{http.method: GET, http.path: /admin, http.host: lab}]
"""
RULE_FILES = {"by-service": BY_SERVICE, "by-protocol": BY_PROTOCOL, "by-path": BY_PATH}
