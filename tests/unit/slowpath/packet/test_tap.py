from __future__ import annotations

import struct

import pytest

from slowpath.packet.tap import (
    DATA_VALID,
    NEEDS_CSUM,
    TP_STATUS_VLAN_TPID_VALID,
    TP_STATUS_VLAN_VALID,
    VNET,
    Frame,
    _with_tag,
)

MACS = bytes(range(12))
REST = b"\x08\x00" + b"ip header and so on"
HEADER = VNET.pack(NEEDS_CSUM, 1, 54, 1448, 34, 16)


def auxiliary(status: int, tci: int = 0, tpid: int = 0) -> bytes:
    """struct tpacket_auxdata (linux/if_packet.h)."""
    return struct.pack("=IIIHHHH", status, 100, 100, 0, 14, tci, tpid)


def test_without_a_tag_a_frame_stays_as_it_is() -> None:
    assert _with_tag(HEADER, MACS + REST, auxiliary(1)) == (HEADER, MACS + REST)


@pytest.mark.parametrize(
    ("status", "tpid", "wanted"),
    [
        (TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, 0x88A8, b"\x88\xa8"),
        (TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, 0x8100, b"\x81\x00"),
        # Kernels that don't say which: 802.1Q.
        (TP_STATUS_VLAN_VALID, 0, b"\x81\x00"),
    ],
)
def test_a_tag_is_put_back_behind_the_addresses(status: int, tpid: int, wanted: bytes) -> None:
    _, octets = _with_tag(HEADER, MACS + REST, auxiliary(status, 0x6064, tpid))
    assert octets == MACS + wanted + b"\x60\x64" + REST


def test_tag_zero_is_a_tag() -> None:
    """Priority tagging: VLAN 0 (IEEE 802.1Q 6.9)."""
    _, octets = _with_tag(HEADER, MACS + REST, auxiliary(TP_STATUS_VLAN_VALID, 0))
    assert octets == MACS + b"\x81\x00\x00\x00" + REST


def test_the_checksum_starts_behind_the_tag() -> None:
    header, _ = _with_tag(HEADER, MACS + REST, auxiliary(TP_STATUS_VLAN_VALID, 5))
    assert VNET.unpack(header) == (NEEDS_CSUM, 1, 58, 1448, 38, 16)


def test_what_has_no_checksum_or_length_to_move_keeps_its_zeros() -> None:
    plain = VNET.pack(0, 0, 0, 0, 0, 0)
    header, _ = _with_tag(plain, MACS + REST, auxiliary(TP_STATUS_VLAN_VALID, 5))
    assert header == plain


@pytest.mark.parametrize(("flags", "known"), [(0, False), (NEEDS_CSUM, True), (DATA_VALID, True), (4, False)])
def test_who_vouches_for_the_checksum(flags: int, known: bool) -> None:
    assert Frame(b"", VNET.pack(flags, 0, 0, 0, 0, 0)).checksum_known is known
