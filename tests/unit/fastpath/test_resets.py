"""Packets that end a connection, as scapy reads them."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from fastpath import abi
from fastpath.resets import resets

CLIENT = {4: "10.0.0.1", 6: "2001:db8::1"}
SERVER = {4: "10.0.0.2", 6: "2001:db8::2"}


def packed(text: str) -> bytes:
    found = ip_address(text)
    return found.packed if found.version == 6 else bytes(10) + b"\xff\xff" + found.packed


def made(version: int, *, server_is_a: bool = False, **fields: Any) -> list[tuple[Packet, bytes]]:
    ends = [(packed(CLIENT[version]), 40000), (packed(SERVER[version]), 80)]
    if server_is_a:
        ends.reverse()
    key = abi.Key(port_a=socket.htons(ends[0][1]), port_b=socket.htons(ends[1][1]), l4=6)
    key.addr_a[:], key.addr_b[:] = ends[0][0], ends[1][0]
    session = abi.Session(flags=abi.SessionFlag.SERVER_IS_A if server_is_a else 0)
    for name, values in fields.items():
        getattr(session, name)[:] = values
    kind = IP if version == 4 else IPv6
    return [(kind(raw), destination) for raw, destination in resets(bytes(key), session)]


def brief(packet: Packet) -> tuple[str, int, str, int, int, int]:
    return packet.src, packet.sport, packet.dst, packet.dport, packet[TCP].seq, packet[TCP].ack


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("server_is_a", [False, True])
def test_each_end_gets_what_it_acknowledged_last(version: int, server_is_a: bool) -> None:
    found = made(version, server_is_a=server_is_a, isn=(100, 900), ack=(950, 130))
    client, server = CLIENT[version], SERVER[version]
    assert [brief(packet) for packet, _ in found] == [
        (client, 40000, server, 80, 130, 950),
        (server, 80, client, 40000, 950, 130),
    ]
    assert [destination for _, destination in found] == [packed(server), packed(client)]
    for packet, _ in found:
        assert (packet[TCP].flags, packet[TCP].dataofs, len(packet)) == ("RA", 5, 40 if version == 4 else 60)
        sent = packet[TCP].chksum
        del packet[TCP].chksum
        again = (IP if version == 4 else IPv6)(bytes(packet))
        assert again[TCP].chksum == sent


def test_what_is_on_its_way_may_have_arrived() -> None:
    found = made(4, isn=(100, 900), ack=(950, 130), end=(180, 950))
    assert [brief(packet)[4] for packet, _ in found] == [130, 180, 950]


def test_an_opening_is_refused_with_its_number_acknowledged() -> None:
    to_server, to_client = (brief(packet) for packet, _ in made(4, isn=(0xFFFFFFFF, 0)))
    assert to_client[4:] == (0, 0)
    assert to_server[4] == 0
    to_server, to_client = (brief(packet) for packet, _ in made(4, isn=(100, 0)))
    assert to_server[4] == 101
    assert to_client[4:] == (0, 101)
