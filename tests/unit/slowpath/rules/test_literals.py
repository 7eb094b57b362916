"""What every match contains: told rightly, or not at all."""

import random

import pytest
import re2

from slowpath.rules.literals import SyntaxNotReadError, shape_of
from tests.near import example


def words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


@pytest.mark.parametrize(
    ("regex", "literals", "width"),
    [
        (rb"\bgh[ps]_[A-Za-z0-9]{36}\b", "ghp_ ghs_", 40),
        (rb"AKIA[A-Z]{2}", "akia", 6),
        (rb"-----BEGIN (?:RSA |EC )?KEY", "-----begin\x00rsa\x00key -----begin\x00ec\x00key -----begin\x00key", 18),
        (rb"abc+d", "abc", None),
        (rb"xa{1,3}yz", "ayz xa", 6),
        (rb"(?:ab){3}", "ababab", 6),
        (rb"(?:x*ab){1,3}cd", "ab cd", None),
        (rb"(?:abc|def)[0-9]+gh", "abc def", None),
        (rb"(?:abc|d)", "", 3),
        (rb"a?b?c?", "", 3),
        (rb"\d{3}-\d{2}", "", 6),
        (rb"(?i)Union", "union", 5),
        (rb"(?:union|union select)", "union", 12),
        (rb"\xe9\xe8ab", "ab", 4),
        (rb"[^a]bc", "bc", 3),
        (rb".bc$", "bc", 3),
    ],
)
def test_shapes(regex: bytes, literals: str, width: int | None) -> None:
    shape = shape_of(regex)
    known = frozenset(each.replace(b"\0", b" ") for each in words(literals))
    # Of several that are as good one is taken.
    assert shape.literals == known or (len(known) == 2 and len(shape.literals) == 1 and shape.literals < known), shape
    assert shape.width == width


@pytest.mark.parametrize(
    "regex",
    [
        rb"[[:alpha:]]x",
        rb"a{,3}b",
        rb"[a[:digit:]]",
        rb"\Qab\E",
        rb"\pLab",
        rb"(?U)ab",
        rb"ab\z",
        rb"ab{02}",
        rb"ab{1,02}",
        rb"ab{00,3}",
    ],
)
def test_what_python_reads_otherwise_is_refused(regex: bytes) -> None:
    with pytest.raises(SyntaxNotReadError):
        shape_of(regex)


_ATOMS = (rb"a", rb"b", rb"ab", rb"[ab]", rb"[^a]", rb".", rb"\d", rb"\s", rb"\b", rb"(?i:AB)", rb"\x41", rb"xyz")


def random_regex(rng: random.Random, depth: int = 2) -> bytes:
    def part() -> bytes:
        if depth == 0 or rng.random() < 0.4:
            return rng.choice(_ATOMS)
        inner = b"(?:" + random_regex(rng, depth - 1) + b")"
        return inner + rng.choice([b"", b"?", b"*", b"+", b"{2}", b"{1,3}", b"{0,2}", b"+?", b"{2,}"])

    parts = [b"".join(part() for _ in range(rng.randint(1, 4))) for _ in range(rng.choice([1, 1, 2, 3]))]
    return b"|".join(parts)


def test_every_match_has_one_of_the_literals_and_is_no_longer() -> None:
    rng = random.Random(3)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    with_literals = 0
    for _ in range(400):
        regex = random_regex(rng)
        shape = shape_of(regex)
        compiled = re2.compile(regex, options)
        with_literals += bool(shape.literals)
        for _ in range(6):
            match = compiled.search(example(regex, rng) + rng.choice([b"", b" ", b"ab"]))
            if match is None:
                continue
            text = match.group()
            assert shape.width is None or len(text) <= shape.width, (regex, text)
            assert not shape.literals or any(each in text.lower() for each in shape.literals), (regex, text, shape)
    assert with_literals > 60
