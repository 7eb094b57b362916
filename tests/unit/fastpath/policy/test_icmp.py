"""Types and codes, read and told."""

import pytest

from fastpath.policy.icmp import read_type, type_text, type_texts
from fastpath.policy.model import ICMP, ICMP6


@pytest.mark.parametrize(
    ("text", "l4", "span"),
    [
        ("echo-request", ICMP, (0x0800, 0x08FF)),
        ("echo-request", ICMP6, (0x8000, 0x80FF)),
        ("echo-reply", ICMP, (0x0000, 0x00FF)),
        ("3/4", ICMP, (0x0304, 0x0304)),
        ("destination-unreachable/4", ICMP6, (0x0104, 0x0104)),
        ("255/255", ICMP6, (0xFFFF, 0xFFFF)),
        ("0/0", ICMP, (0, 0)),
        ("255", ICMP, (0xFF00, 0xFFFF)),
    ],
)
def test_what_a_text_comes_to(text: str, l4: int, span: tuple[int, int]) -> None:
    assert read_type(text, l4) == span


@pytest.mark.parametrize(
    ("text", "l4", "message"),
    [
        ("packet-too-big", ICMP, "icmp has no type 'packet-too-big'; it has echo-reply, destination-unreachable"),
        ("timestamp-request", ICMP6, "icmp6 has no type 'timestamp-request'; it has destination-unreachable"),
        ("256", ICMP, "'256': types and codes are within 0..255"),
        ("3/256", ICMP, "'3/256': types and codes are within 0..255"),
        ("3/", ICMP, "'3/' is not a type or a type and code"),
        ("-1", ICMP, "is not a type"),
        ("3/echo", ICMP, "is not a type"),
        ("٨", ICMP, "is not a type"),
        ("Echo-Request", ICMP, "is not a type"),
    ],
)
def test_what_is_no_type(text: str, l4: int, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_type(text, l4)
    assert message in str(caught.value)


def test_for_people() -> None:
    assert type_texts(ICMP, 0x07FE, 0x0801) == ["7/254", "7/255", "echo-request/0", "echo-request/1"]
    assert type_texts(ICMP6, 0x8000, 0x81FF) == ["echo-request", "echo-reply"]
    assert [type_text(ICMP, number) for number in (0x0800, 0x0304, 0x0700)] == [
        "echo-request", "destination-unreachable/4", "7",
    ]  # fmt: skip
