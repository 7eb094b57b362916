"""What the inspector's daemon spends on a new flow in service: frames from the tap, its session and policy looked up in
the kernel's maps, the verdict written back, the record written. Each flow is a new connection with one HTTP request to
nginx, ruled by path; handshakes and bare acknowledgements pass in the kernel and cost the inspector nothing.

`bench/inspector.py` has the same without a kernel, where the inspector sees those too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from bench.gateway import SLOWPATH, Gateway
from bench.results import HIGHER, Result
from bench.traffic import make
from tests.lab import servers
from tests.lab.namespaces import Address, Lab, LabError, Namespace

POLICY = "rules:\n- {id: by-path, proto: tcp, ports: 80, action: inspect, rules: by-path}\n"
WARM, FLOWS = 200, 3000
ROUNDS = 3
_GET = b"GET /1024.bin HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"


def bench() -> Iterator[Result]:
    """Flows a second of the inspector's CPU time; best round."""
    with Lab() as lab, servers.running(lab, (servers.Nginx,)), Gateway(lab, POLICY) as gateway:
        _open(lab, WARM)
        pid = gateway.children[SLOWPATH].pid
        rates = []
        for _ in range(ROUNDS):
            before, judged = _cpu(pid), gateway.status(SLOWPATH)["inspector"]["requests"]
            _open(lab, FLOWS)
            rates.append(FLOWS / (_cpu(pid) - before))
            if (told := gateway.status(SLOWPATH)["inspector"]["requests"] - judged) != FLOWS:
                raise LabError(f"the inspector judged {told} requests of {FLOWS}")
    yield Result("inspected_flows", "flows/s", max(rates), better=HIGHER)


def _open(lab: Lab, count: int) -> None:
    def requests() -> None:
        for _ in range(count):
            with make(socket.SOCK_STREAM) as peer:
                peer.connect((str(Address.SERVER4), 80))
                peer.sendall(_GET)
                answer = b""
                while part := peer.recv(1 << 16):
                    answer += part
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise LabError(f"HTTP: {answer[:80]!r}")

    lab.call(Namespace.CLIENT, requests)


def _cpu(pid: int) -> float:
    """Seconds that a process has spent, in the kernel too."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
