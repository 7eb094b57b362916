from __future__ import annotations

import struct

import pytest

from fastpath.loader.objects import NotPortableError, relocate


def instruction(op: int, source: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", op, source << 4 | 1, 0, value)


def wide(source: int, value: int, high: int = 0) -> bytes:
    return instruction(0x18, source, value) + instruction(0, 0, high)


def test_descriptors_of_maps_are_replaced_and_nothing_else() -> None:
    # The second half of a wide load may look like one itself.
    constant = instruction(0x18, 0, 5) + instruction(0x18, 1, 5)
    code = [instruction(0xB7, 0, 5), wide(1, 5), constant, wide(1, 6), instruction(0x95)]
    assert relocate(b"".join(code), {5: 0, 6: 1}) == b"".join([code[0], wide(1, 0), constant, wide(1, 1), code[4]])


def test_there_and_back() -> None:
    code = wide(1, 19) + wide(1, 7) + instruction(0x95)
    assert relocate(relocate(code, {19: 0, 7: 1}), {0: 19, 1: 7}) == code


@pytest.mark.parametrize(
    "code",
    [
        wide(1, 4),  # no map of ours
        wide(2, 5),  # BPF_PSEUDO_MAP_VALUE
        wide(3, 5),  # BPF_PSEUDO_BTF_ID
        wide(1, -1),
        instruction(0x95)[:-1],
    ],
)
def test_what_is_not_known_is_refused(code: bytes) -> None:
    with pytest.raises(NotPortableError):
        relocate(code, {5: 0})
