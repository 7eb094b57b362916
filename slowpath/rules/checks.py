"""What a pattern's match must hold besides: check digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
# Length of an account number by country: the IBAN registry, release 97.
_IBAN: Final = MappingProxyType(
    {
        "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
        "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24,
        "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21,
        "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32,
        "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27,
        "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29,
        "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23,
        "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    }
)  # fmt: skip


def luhn(text: bytes) -> bool:
    """The digits' last is their check digit (ISO/IEC 7812-1, annex B); not one digit over and over."""
    digits = [octet - 0x30 for octet in text if 0x30 <= octet <= 0x39]
    odd, even = digits[-1::-2], digits[-2::-2]
    return len(set(digits)) > 1 and (sum(odd) + sum(_DOUBLED[digit] for digit in even)) % 10 == 0


def iban(text: bytes) -> bool:
    """It begins with an account number of its country's length whose check digits are right (ISO 13616-1, ISO 7064)."""
    plain = text.replace(b" ", b"").decode("latin-1").upper()
    length = _IBAN.get(plain[:2])
    if length is None or len(plain) < length or not plain[:length].isalnum() or not plain.isascii():
        return False
    turned = plain[4:length] + plain[:4]
    return int("".join(str(int(each, 36)) for each in turned)) % 97 == 1


CHECKS: Final[Mapping[str, Callable[[bytes], bool]]] = MappingProxyType({"luhn": luhn, "iban": iban})
