"""Hyperscan finds what RE2 finds, or is not asked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import re2

from fastpath.document import Problems
from slowpath.rules import vectors
from slowpath.rules.literals import shape_of
from slowpath.rules.patterns import load_patterns
from slowpath.rules.scan import Scanner
from slowpath.rules.vectors import Database, Databases, expression_of
from tests.near import example
from tests.unit.slowpath.rules.test_literals import random_regex

SHIPPED = sorted((Path(__file__).parents[4] / "configs" / "patterns.d").glob("*.yaml"))
# Where engines differ: what is a space, a word's end, a letter of either case, the end of a text.
TAILS = (b"", b"\n", b" ", b"\v", b"\x1c", b"\x85", b"ab", b"AB", b"\xe9", b"\xc9", b"k", b"_", b"\0")
ODD = (
    rb"\s\S[^\s]", rb"ab$", rb"^ab", rb"\Bb", rb"[^\W_]x", rb"(?i:k)\b", rb"[\D\S]a", rb"(?i)[^a]b", rb"\xe9.",
    rb"a$|b",
    rb"(?:(?i:a)b)c", rb"(?i:a(?-i:b))", rb"[\x00-\xff]b", rb"(?i)[\x00-\xff]b", rb"a{2,}?b", rb"[]a]b", rb"[\]\-^]x",
    rb"\|a",
)  # fmt: skip


def engine_of(regex: bytes, *, fold: bool) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.case_sensitive = not fold
    options.log_errors = False
    return re2.compile(regex, options)


def test_what_re2_finds() -> None:
    rng = random.Random(12)
    regexes = [*ODD, *(random_regex(rng) for _ in range(300))]
    regexes = [regex for regex in regexes if engine_of(regex, fold=True).search(b"") is None]
    asked = {n: (regex, n % 2 == 1) for n, regex in enumerate(each for each in regexes for _ in range(2))}
    written = {n: expression_of(regex, fold=fold) for n, (regex, fold) in asked.items()}
    database = Databases().of({n: each for n, each in written.items() if each is not None})
    assert database is not None
    assert len(database.taken) > len(asked) * 3 // 4
    engines = {n: engine_of(regex, fold=fold) for n, (regex, fold) in asked.items()}
    texts = {
        rng.choice(TAILS) + example(rng.choice(regexes), rng) + rng.choice(TAILS) + rng.choice(TAILS)
        for _ in range(250)
    }
    for text in texts:
        found = set(database.scan(text))
        for number in database.taken:
            expression = written[number]
            assert expression is not None
            if engines[number].search(text) is not None:
                assert number in found, (asked[number], text, expression)
            elif expression.exact:
                assert number not in found, (asked[number], text, expression)


# Short ones: an engine takes other ways to these, and where few stand together.
ATOMS = (
    rb"a", rb"b", rb"[ab]", rb"ab", rb"-", rb"\S", rb"\w", rb"\W", rb".", rb"x", rb"[^a]", rb"\d", rb"(?:ab)?",
    rb"a{1,3}", rb"[a-f]{2}", rb"\s*", rb"q.*", rb"cde", rb"(?i:X)", rb"\b", rb"$",
)  # fmt: skip


def few(rng: random.Random, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        sides = (b"".join(rng.choice(ATOMS) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 3)))
        regex = b"|".join(sides)
        if engine_of(regex, fold=False).search(b"") is None:
            found.append(regex)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_few_and_short_ones_wherever_they_match(count: int) -> None:
    rng = random.Random(count)
    matched = 0
    for _ in range(60):
        regexes = few(rng, count)
        written = {n: expression_of(regex, fold=False) for n, regex in enumerate(regexes)}
        asked = {n: each for n, each in written.items() if each is not None}
        database = Databases().of(asked)
        if database is None:
            continue  # none of them can match, or only nothing
        engines = [engine_of(regex, fold=False) for regex in regexes]
        for _ in range(60):
            before = bytes(
                rng.choice(b"zzzz .\n") for _ in range(rng.choice((0, 3, 8, 15, 16, 17, 20, 33, 40, 69, 150)))
            )
            text = (
                before
                + bytes(rng.choice(b"abxX-1c\n. ") for _ in range(rng.randint(1, 5)))
                + rng.choice((b"", b" zz z" * 5))
            )
            found = set(database.scan(text))
            for number in database.taken:
                if engines[number].search(text) is not None:
                    matched += 1
                    assert number in found, (regexes, number, text)
                elif asked[number].exact:
                    assert number not in found, (regexes, number, text)
    assert matched > 500


def test_an_engine_that_misses_matches_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    doubts = vectors.unusable.__wrapped__
    assert doubts() == ""
    monkeypatch.setattr(vectors, "library_version", lambda: "5.4.12")
    assert doubts() == "hyperscan's library 5.4.12 may miss matches; 5.4.2 does not"
    monkeypatch.setattr(vectors, "library_version", lambda: "5.4.2")
    scan = Database.scan
    monkeypatch.setattr(Database, "scan", lambda self, text: scan(self, text) if len(text) < 50 else [])
    assert doubts() == "hyperscan misses matches on this machine"
    monkeypatch.setattr(vectors, "_compile", lambda _: vectors.hyperscan.loadb(b"", 1))
    assert doubts().startswith("hyperscan does not work on this machine")
    monkeypatch.setattr(vectors, "hyperscan", None)
    assert doubts().startswith("hyperscan is not installed")


def test_an_engine_that_fails_leaves_all_to_re2(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Databases, "_known", {})
    patterns = tuple(load_patterns(SHIPPED, Problems()))
    text = b"key AKIAIOSFODNN7EXAMPLE 4111111111111111 ' or 1=1 --"
    expected = Scanner(patterns).scan(text)
    scanner = Scanner(patterns, Databases())
    assert scanner.scan(text + b" ").ids == expected.ids

    class Broken:
        def scan(self, *_: object, **__: object) -> None:
            raise vectors.hyperscan.ScratchInUseError

    database = scanner.compile()._database
    assert database is not None
    database._compiled = Broken()
    assert scanner.scan(text) == expected
    assert scanner.scan(text + b"  ").ids == expected.ids
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("regex", "fold"),
    [
        (rb"(?m)^ab", False), (rb"(?m:ab$)", False), (rb"\xe9ab", True), (rb"(?i:[a\xe9]b)", False),
        (rb"(?-s:a.b)", False),
    ],
)  # fmt: skip
def test_what_might_be_missed_is_not_written(regex: bytes, fold: bool) -> None:
    shape_of(regex)
    assert expression_of(regex, fold=fold) is None


def test_an_end_is_looked_at_again() -> None:
    exact = expression_of(rb"a\$b", fold=False)
    end = expression_of(rb"ab$", fold=False)
    assert (exact is not None and exact.exact, end is not None and end.exact) == (True, False)


@pytest.fixture(name="made")
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many expressions were compiled each time; nothing is known from before."""
    monkeypatch.setattr(Databases, "_known", {})
    vectors.library_version()  # looked for once
    real = vectors._compile
    counts: list[int] = []

    def count(texts: dict[int, str]) -> Any:
        counts.append(len(texts))
        return real(texts)

    monkeypatch.setattr(vectors, "_compile", count)
    return counts


def expressions(*regexes: bytes) -> dict[int, vectors.Expression]:
    found = {n: expression_of(regex, fold=False) for n, regex in enumerate(regexes)}
    return {n: each for n, each in found.items() if each is not None}


def numbers(database: Database | None, text: bytes) -> list[int]:
    assert database is not None
    return database.scan(text)


def test_a_database_is_compiled_once(
    made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    asked = expressions(b"abc", b"def")
    first = Databases(folder).of(asked)
    assert Databases(folder).of(asked) is first
    monkeypatch.setattr(Databases, "_known", {})  # another process
    kept = Databases(folder).of(asked)
    assert kept is not first
    assert numbers(kept, b"a def") == numbers(first, b"a def") == [1]
    assert made == [2]
    assert numbers(Databases(folder).of(expressions(b"abc", b"dex")), b"dex") == [1]
    assert made == [2, 2]
    monkeypatch.setattr(Databases, "_known", {})
    for entry in folder.iterdir():
        entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    assert numbers(Databases(folder).of(asked), b"abc") == [0]
    assert made == [2, 2, 2]
    assert "damaged" in caplog.text


def test_one_of_another_machine_is_compiled_anew(
    made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Databases(tmp_path / "cache").of(expressions(b"abc"))
    monkeypatch.setattr(Databases, "_known", {})

    def refuse(*_: object) -> None:
        raise vectors.hyperscan.DatabasePlatformError

    monkeypatch.setattr(vectors.hyperscan, "loadb", refuse)
    assert numbers(Databases(tmp_path / "cache").of(expressions(b"abc")), b"abc") == [0]
    assert made == [1, 1]


def test_what_is_too_large_stays_with_re2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Databases, "_known", {})
    vectors.library_version()  # looked for once
    real = vectors._compile
    patterns = tuple(load_patterns(SHIPPED, Problems()))
    large = next(pattern for pattern in patterns if pattern.id == "dlp/aws-access-key")
    refused = [expression.text for expression in [expression_of(large.regex, fold=False)] if expression is not None]

    def refuse(texts: dict[int, str]) -> Any:
        if any(each in text for text in texts.values() for each in refused):
            raise vectors.hyperscan.error("Pattern is too large.")
        return real(texts)

    monkeypatch.setattr(vectors, "_compile", refuse)
    scanner = Scanner(patterns, Databases())
    database = scanner.compile()._database
    assert database is not None
    left = {pattern.id for number, pattern in enumerate(patterns) if number not in database.taken}
    text = b"key AKIAIOSFODNN7EXAMPLE 4111111111111111"
    assert left == {large.id}
    assert scanner.scan(text).ids == Scanner(patterns).scan(text).ids > left
    refused.append("")
    assert Scanner(patterns, Databases()).scan(text).ids == scanner.scan(text).ids
