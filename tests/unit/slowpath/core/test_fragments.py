from __future__ import annotations

import random

from slowpath.core.fragments import MAX_SETS, TIMEOUT, Fragments
from slowpath.core.frame import Packet, checksum_ok, parse_frame
from tests.unit.slowpath.core.wire import CLIENT, SERVER, ip, tcp_frame, udp_frame

WHOLE = udp_frame(CLIENT, SERVER, 1000, 53, bytes(range(200)))


def pieces(size: int = 64) -> list[Packet]:
    """The datagram, cut."""
    body = WHOLE[34:]
    return [
        parse_frame(
            ip(CLIENT, SERVER, 17, body[at : at + size], fragment=at // 8 | (0x2000 if at + size < len(body) else 0))
        )
        for at in range(0, len(body), size)
    ]


def test_any_order() -> None:
    for seed in range(20):
        parts = pieces(24)
        random.Random(seed).shuffle(parts)
        fragments = Fragments()
        found = [fragments.push(part, 0.0) for part in parts]
        assert found[:-1] == [None] * (len(parts) - 1)
        last = found[-1]
        assert last is not None
        assert bytes(last.payload) == bytes(range(200))
        assert not last.fragment
        assert checksum_ok(last)


def test_copies_are_harmless_overlaps_are_not() -> None:
    fragments = Fragments()
    parts = pieces()
    assert fragments.push(parts[0], 0.0) is None
    assert fragments.push(parts[0], 0.0) is None
    assert fragments.refused == 0
    assert fragments.push(parse_frame(ip(CLIENT, SERVER, 17, bytes(64), fragment=0x2004)), 0.0) is None
    assert fragments.refused == 1
    assert [fragments.push(part, 0.0) for part in parts] == [None] * len(parts)


def test_old_sets_go() -> None:
    fragments = Fragments()
    parts = pieces()
    fragments.push(parts[0], 0.0)
    assert [fragments.push(part, TIMEOUT + 1) for part in parts[1:]] == [None] * (len(parts) - 1)
    assert fragments.push(parts[0], TIMEOUT + 2) is not None


def test_lies_about_size() -> None:
    fragments = Fragments()
    for word in (0x3FFF, 0x1FFF):
        fragments.push(parse_frame(ip(CLIENT, SERVER, 17, bytes(64), fragment=word)), 0.0)
    assert fragments.refused == 1
    odd = Fragments()
    odd.push(parse_frame(ip(CLIENT, SERVER, 17, bytes(63), fragment=0x2000)), 0.0)
    assert odd.refused == 1, "only the last one may be odd"


def test_bounded() -> None:
    fragments = Fragments()
    for number in range(MAX_SETS + 50):
        src = f"10.{number >> 8}.{number & 255}.1"
        fragments.push(parse_frame(ip(src, SERVER, 17, bytes(64), fragment=0x2000)), 0.0)
    assert len(fragments._sets) == MAX_SETS


def test_whole_packets_are_not_cut() -> None:
    assert not parse_frame(tcp_frame(CLIENT, SERVER, 1, 2, 3, 4, 16)).fragment
