from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastpath.abi import Reason
from slowpath.core.frame import ACK, TCP, UDP, FrameError, Packet, checksum_ok, flow_key, parse_frame
from tests.unit.slowpath.core.wire import CLIENT, CLIENT6, SERVER, SERVER6, ip, tcp_frame, udp_frame

MAPPED = bytes(10) + b"\xff\xff"


def refused(frame: bytes) -> Reason:
    with pytest.raises(FrameError) as error:
        parse_frame(frame)
    return error.value.reason


def test_ipv4_tcp() -> None:
    packet = parse_frame(tcp_frame(CLIENT, SERVER, 1000, 80, 7, 9, ACK, b"hello"), "context")
    assert (packet.src, packet.dst) == (MAPPED + b"\x0a\0\0\1", MAPPED + b"\x0a\0\1\2")
    assert (packet.sport, packet.dport, packet.l4, packet.seq, packet.ack) == (1000, 80, TCP, 7, 9)
    assert (bytes(packet.payload), packet.vlan, packet.fragment, packet.context) == (b"hello", (), False, "context")
    assert packet.frame[packet.payload_offset :] == b"hello"


def test_ipv6_udp_vlan_and_trailer() -> None:
    packet = parse_frame(udp_frame(CLIENT6, SERVER6, 1000, 53, b"hello") + b"padding")
    assert (packet.l4, bytes(packet.payload), len(packet.src)) == (UDP, b"hello", 16)
    tagged = parse_frame(tcp_frame(CLIENT, SERVER, 1, 2, 0, 0, ACK, b"x", vlan=(5, 0x2007)))
    assert tagged.vlan == (5, 7)
    assert refused(tcp_frame(CLIENT, SERVER, 1, 2, 0, 0, ACK, b"x", vlan=(5, 6, 7))) == Reason.NOT_IP


def test_every_cut_is_refused() -> None:
    for frame in (tcp_frame(CLIENT, SERVER, 1, 2, 0, 0, ACK, b"xyz"), udp_frame(CLIENT6, SERVER6, 1, 2, b"xyz")):
        for size in range(len(frame)):
            assert refused(frame[:size]) == Reason.TRUNCATED


def test_lies() -> None:
    frame = bytearray(tcp_frame(CLIENT, SERVER, 1, 2, 0, 0, ACK, b"xyz"))
    for at, value, reason in (
        (14, 0x44, Reason.BAD_HEADER),  # header length 16
        (14, 0x65, Reason.BAD_HEADER),  # version 6
        (16, 0xFF, Reason.TRUNCATED),  # total length
        (46, 0x40, Reason.BAD_HEADER),  # data offset 16
        (46, 0xF0, Reason.TRUNCATED),  # data offset 60
    ):
        lying = frame[:at] + bytes((value,)) + frame[at + 1 :]
        assert refused(bytes(lying)) == reason
    datagram = bytearray(udp_frame(CLIENT, SERVER, 1, 2, b"xyz"))
    for length in (7, 12, 0xFFFF):
        datagram[38:40] = length.to_bytes(2, "big")
        assert refused(bytes(datagram)) == Reason.BAD_HEADER
    assert refused(bytes(12) + b"\x08\x06" + bytes(40)) == Reason.NOT_IP


def test_fragments() -> None:
    for word, offset, more in ((0x2000, 0, True), (0x0010, 128, False)):
        packet = parse_frame(ip(CLIENT, SERVER, UDP, bytes(16), fragment=word))
        assert packet.fragment
        assert packet.place is not None
        assert (packet.place.offset, packet.place.more, packet.sport) == (offset, more, 0)
    assert not parse_frame(ip(CLIENT, SERVER, UDP, struct.pack("!HHHH", 1, 2, 8, 0), fragment=0x4000)).fragment


def test_ipv6_extension_headers() -> None:
    udp = struct.pack("!HHHH", 1, 2, 8, 0)

    def chain(first: int, *headers: bytes) -> Packet:
        return parse_frame(ip(CLIENT6, SERVER6, first, b"".join(headers) + udp))

    options, last = b"\x3c" + bytes(7), b"\x11" + bytes(7)
    assert chain(0, options, last).dport == 2
    assert chain(44, b"\x11\0\0\0" + bytes(4)).dport == 2, "an atomic fragment is none (RFC 6946)"
    assert chain(44, b"\x11\0\0\x01" + bytes(4)).fragment
    with pytest.raises(FrameError, match="ext_headers"):
        chain(0, *[b"\x3c" + bytes(7)] * 9, last)
    assert chain(43, last).dport == 2, "no segments left: it says nothing (RFC 5095)"
    for kind in (b"\0", b"\4"):
        with pytest.raises(FrameError, match="source_route"):
            chain(43, b"\x11\0" + kind + b"\1" + bytes(4))
    with pytest.raises(FrameError, match="truncated"):
        chain(0, b"\x11\xff" + bytes(6))


def test_key_is_the_same_both_ways() -> None:
    one = parse_frame(tcp_frame(CLIENT, SERVER, 1000, 80, 0, 0, ACK))
    two = parse_frame(tcp_frame(SERVER, CLIENT, 80, 1000, 0, 0, ACK))
    assert flow_key(one)[0] == flow_key(two)[0]
    assert {flow_key(one)[1], flow_key(two)[1]} == {True, False}
    assert len(flow_key(one)[0]) == 40
    assert flow_key(one, zone=3)[0] != flow_key(one)[0]


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_checksums(ends: tuple[str, str]) -> None:
    for frame in (tcp_frame(*ends, 1, 2, 3, 4, ACK, b"odd"), udp_frame(*ends, 1, 2, b"even")):
        assert checksum_ok(parse_frame(frame))
        assert not checksum_ok(parse_frame(frame[:-1] + b"\xee"))
        assert checksum_ok(parse_frame(frame + b"trailer"))


def test_checksum_left_to_the_card() -> None:
    frame = bytearray(tcp_frame(CLIENT, SERVER, 1, 2, 3, 4, ACK, b"data"))
    pseudo = bytes(frame[26:34]) + struct.pack("!II", 24, TCP)
    total = sum(struct.unpack("!8H", pseudo))
    frame[50:52] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
    assert checksum_ok(parse_frame(bytes(frame)))


PLAIN = (tcp_frame(CLIENT, SERVER, 1000, 80, 7, 9, ACK, b"hello"), udp_frame(CLIENT, SERVER, 1000, 53, bytes(14)))


@given(
    st.sampled_from(PLAIN),
    st.lists(st.tuples(st.integers(14, 60), st.integers(0, 255)), max_size=4),
    st.integers(0, 8),
    st.integers(0, 8),
)
@example(PLAIN[0], [], 0, 0)
@example(PLAIN[1], [], 0, 0)
@example(PLAIN[1], [(38, 0), (39, 7)], 0, 0)
@example(PLAIN[1], [(38, 0), (39, 0)], 3, 0)
@example(PLAIN[1], [(38, 0), (39, 23)], 3, 0)
def test_what_is_read_at_one_look_is_what_the_steps_read(
    whole: bytes, damage: list[tuple[int, int]], more: int, less: int
) -> None:
    frame = bytearray(whole + bytes(more))
    for at, value in damage:
        if at < len(frame):
            frame[at] = value
    frame = frame[: len(frame) - less]

    def read(octets: bytes, tag: int) -> object:
        try:
            p = parse_frame(octets)
        except FrameError as error:
            return error.reason
        places = (p.ip_offset - tag, p.l4_offset - tag, p.payload_offset - tag)
        said = (p.src, p.dst, p.l4, p.sport, p.dport, p.seq, p.ack, p.tcp_flags, p.place, p.payload)
        return places, said, p.flow, checksum_ok(p)

    tagged = frame[:12] + b"\x81\0\0\1" + frame[12:]  # only untagged frames are read at one look
    assert read(bytes(frame), 0) == read(bytes(tagged), 4)
