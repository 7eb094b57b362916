"""First packets through a lab's gateway: SYNs of flows of any addresses, thrown away where the server is."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from bench import testrun
from bench.flows import SHIFTS, Flow
from fastpath.libbpf import TCX_INGRESS, Program, tcx_attach
from tests.lab.namespaces import Address, Lab, LabError, Namespace, ip

# r0 = TC_ACT_SHOT; exit
_DROP = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=BBhi", 0x95, 0, 0, 0)
_ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


class Openings:
    """The flows of one lab, the same again and again from other ports. As in bench/traffic.py all of a packet's way
    runs in the call that sends it.
    """

    def __init__(self, lab: Lab, flows: Sequence[Flow]) -> None:
        self._lab = lab
        self._flows = flows
        self._shift = 0
        macs = {place: lab.call(place, lambda: _mac("eth0")) for place in (Namespace.CLIENT, Namespace.SERVER)}
        gateway = lab.call(Namespace.GATEWAY, _open_gateway)
        self._link = gateway + macs[Namespace.CLIENT]
        server = macs[Namespace.SERVER].hex(":")
        commands = []
        for address, everywhere in ((Address.SERVER4, "0.0.0.0/0"), (Address.SERVER6, "::/0")):
            # Nobody there answers questions any more.
            commands += [
                f"neigh replace {address} lladdr {server} dev seg1 nud permanent",
                f"route replace {everywhere} via {address}",
            ]
        ip(*commands, namespace=lab.netns(Namespace.GATEWAY))
        lab.call(Namespace.SERVER, _drop_all)
        self._socket = lab.call(Namespace.CLIENT, _packet_socket)

    def close(self) -> None:
        """The lab's own end is not ours."""
        self._socket.close()

    def cpu(self) -> float:
        """Send all; nanoseconds of CPU a packet."""
        if self._shift == SHIFTS:
            raise LabError(f"more than {SHIFTS} rounds")
        frames = [self._frame(flow, self._shift) for flow in self._flows]
        self._shift += 1
        send = self._socket.send
        before = self._lab.call(Namespace.SERVER, _received)
        start = time.thread_time_ns()
        for frame in frames:
            send(frame)
        spent = time.thread_time_ns() - start
        if (arrived := self._lab.call(Namespace.SERVER, _received) - before) < len(frames):
            raise LabError(f"{arrived} of {len(frames)} packets arrived")
        return spent / len(frames)

    def send(self, flow: Flow) -> bytes:
        """One of them, once; the segment."""
        frame = self._frame(flow, 0)
        self._socket.send(frame)
        return frame[-testrun.TCP_BYTES :]

    def _frame(self, flow: Flow, shift: int) -> bytes:
        return self._link + _ETHERTYPES[flow.version] + flow.syn(shift)


def _open_gateway() -> bytes:
    # Sources of anywhere come from the client's side, against the routes.
    for name in ("all", "default", "seg0", "seg1"):
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0", encoding="ascii")
    return _mac("seg0")


def _mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
        probe.bind((interface, 0))
        address: bytes = probe.getsockname()[4]
        return address


def _drop_all() -> None:
    tcx_attach(Program.load("drop", _DROP), socket.if_nametoindex("eth0"), TCX_INGRESS)


def _packet_socket() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind(("eth0", 0))  # protocol 0: receives nothing
    return made


def _received() -> int:
    """Frames at the server's interface, thrown away or not."""
    lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[2]) for line in lines if line.lstrip().startswith("eth0:"))
