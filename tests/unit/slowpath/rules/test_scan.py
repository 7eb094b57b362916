"""All patterns at once find what each finds by itself, or say that they did not look."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.document import Problems
from slowpath.rules import scan
from slowpath.rules.checks import CHECKS, iban, luhn
from slowpath.rules.patterns import Automaton, Decode, Pattern, Patterns, load_patterns
from slowpath.rules.scan import Scanner
from slowpath.rules.vectors import Databases
from tests.near import example, hostile, near

SHIPPED = sorted((Path(__file__).parents[4] / "configs" / "patterns.d").glob("*.yaml"))
KEYS = """
name: keys
patterns:
  - {id: token, description: d, regex: '\\btok_[a-z0-9]{8}\\b'}
  - {id: word, description: d, regex: secret, case: ignore}
  - {id: quote, description: d, regex: "'--", decode: url}
  - {id: card, description: d, regex: '\\b\\d{4}(?: ?\\d{4}){3}\\b', check: luhn}
  - {id: ends, description: d, regex: 'zz$'}
  - {id: long, description: d, regex: 'begin.*end'}
  - {id: bytes, description: d, regex: '\\xff\\x00a.b'}
"""


def patterns_of(text: str, folder: Path) -> Patterns:
    path = folder / "p.yaml"
    path.write_text(text)
    problems = Problems()
    found = load_patterns([path], problems)
    problems.raise_if_any()
    return found


ENGINES = pytest.mark.parametrize("databases", [None, Databases()], ids=["re2", "hyperscan"])


@pytest.fixture(name="keys", scope="module", params=[None, Databases()], ids=["re2", "hyperscan"])
def few(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scanner:
    return Scanner(patterns_of(KEYS, tmp_path_factory.mktemp("p")), request.param)


def shipped() -> tuple[Pattern, ...]:
    return tuple(load_patterns(SHIPPED, Problems()))


def alone(pattern: Pattern, text: bytes) -> bool:
    """The pattern by itself, from every byte where it matches, in every reading."""
    texts = [text]
    if pattern.decode == Decode.URL:
        texts.append(unquote_to_bytes(text.replace(b"+", b" ")))
        texts.append(unquote_to_bytes(texts[-1]))
    for each in texts:
        start = 0
        while (match := pattern.automaton.regex.search(each, start)) is not None:
            if not pattern.check or CHECKS[pattern.check](match.group()):
                return True
            start = match.start() + 1
    return False


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (b"", ""),
        (b"tok_0123abcd", "token"),
        (b"xtok_0123abcd tok_0123abcde TOK_0123abcd", ""),
        (b"xtok_0123abcd, tok_0123abcd.", "token"),
        (b"my SeCrEt tok_0123abcd", "token word"),
        (b"a'--", "quote"),
        (b"a%27%2d%2D", "quote"),
        (b"a%2527--", "quote"),
        (b"a%252527--", ""),
        (b"%73ecret", ""),
        (b"4111 1111 1111 1111", "card"),
        (b"4111 1111 1111 1112", ""),
        (b"0000 4111 1111 1111 1111", "card"),
        (b"zz", "ends"),
        (b"zzz ", ""),
        (b"zz\n", ""),
        (b"begin" + b"\n" * 3000 + b"end", "long"),
        (b"\xff\x00a\nb", "bytes"),
        ("ÿ\0a\nb".encode(), ""),
    ],
)
def test_few(keys: Scanner, text: bytes, ids: str) -> None:
    found = keys.scan(text)
    assert {each.partition("/")[2] for each in found.ids} == set(ids.split())
    assert not found.over


def check_all(scanner: Scanner, patterns: Iterable[Pattern], text: bytes) -> bool:
    found = scanner.scan(text)
    expected = {pattern.id for pattern in patterns if alone(pattern, text)}
    assert found.ids <= expected
    if not found.over:
        assert found.ids == expected, text
    return found.over


@ENGINES
def test_shipped_as_each_by_itself_on_near_matches(databases: Databases | None) -> None:
    rng = random.Random(11)
    patterns = shipped()
    scanner = Scanner(patterns, databases)
    over = 0
    for number in range(150):
        text = hostile(patterns, rng, rng.choice([100, 300, 1024, 2000]))
        if number % 3 == 0:
            text = b"%" + text.hex("%").encode()
        over += check_all(scanner, patterns, text)
    assert over < 150
    for pattern in patterns:
        for _ in range(6):
            check_all(scanner, patterns, rng.choice([b"", b" ", b"x=", b"'"]) + example(pattern.regex, rng))
            check_all(scanner, patterns, near(pattern, rng) + near(pattern, rng))


PIECES = (
    *(b"tok_", b"0123abcd", b"secret", b"'", b"%27", b"--", b"%2d", b"4111 1111", b" ", b"1111"),
    *(b"zz", b"begin", b"end", b"\xff\x00a", b"b", b"%25", b"+"),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_few_as_each_by_itself(keys: Scanner, parts: list[bytes]) -> None:
    assert not check_all(keys, list(keys._patterns.values()), b"".join(parts))


def test_too_much_is_told_and_what_was_found_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = shipped()
    text = b"AKIAIOSFODNN7EXAMPLE " + hostile(patterns, random.Random(2), 1000)
    whole = Scanner(patterns).scan(text)
    monkeypatch.setattr(scan, "BUDGET_OF_BYTE", 0)
    seen = set()
    for budget in range(0, 3_000_000, 50_000):
        monkeypatch.setattr(scan, "BUDGET", budget)
        found = Scanner(patterns).scan(text)
        assert found.ids <= whole.ids
        assert found.over or found.ids == whole.ids
        seen.add(found.over)
    assert seen == {True, False}


@ENGINES
def test_it_is_reckoned_and_not_timed(databases: Databases | None) -> None:
    patterns = shipped()
    rng = random.Random(4)
    texts = [hostile(patterns, rng, 2000) for _ in range(20)]
    first = [Scanner(patterns, databases).scan(text) for text in texts]
    used = Scanner(patterns, databases)
    assert [used.scan(text) for text in reversed(texts)] == first[::-1]


@ENGINES
def test_a_long_text_costs_no_more_than_its_budget(
    monkeypatch: pytest.MonkeyPatch, databases: Databases | None
) -> None:
    """Steps are charged before they are done: RE2 is never asked for what is not paid."""
    patterns = shipped()
    scanner = Scanner(patterns, databases).compile()
    spent = [0]
    real = scanner._read

    def read(text: bytes, chosen: frozenset[int] | None, found: set[int], left: int) -> tuple[int, bool]:
        now, over = real(text, chosen, found, left)
        spent[0] += left - max(now, 0)
        return now, over

    monkeypatch.setattr(type(scanner), "_read", lambda _self, *arguments: read(*arguments))
    for seed in range(3):
        text = hostile(patterns, random.Random(seed), 64 * 1024 + 512)
        spent[0] = 0
        scanner.scan((text,))
        assert spent[0] <= scan.BUDGET + scan.BUDGET_OF_BYTE * len(text)


@ENGINES
def test_patterns_may_be_added(tmp_path: Path, databases: Databases | None) -> None:
    patterns = patterns_of(KEYS, tmp_path)
    scanner = Scanner(patterns.named("keys/word"), databases)
    text = b"secret tok_0123abcd"
    assert scanner.scan(text).ids == {"keys/word"}
    scanner.add(patterns.named("keys/token"))
    assert scanner.scan(text).ids == {"keys/word", "keys/token"}


def test_an_unchanged_pattern_is_not_compiled_again(tmp_path: Path) -> None:
    first = patterns_of(KEYS, tmp_path)
    again = patterns_of(KEYS.replace("secret", "geheim"), tmp_path)
    same = {one.id for one, other in zip(first, again, strict=True) if one.automaton is other.automaton}
    assert same == {pattern.id for pattern in first} - {"keys/word"}
    assert Automaton.of(b"secret", fold=False) is not Automaton.of(b"secret", fold=True)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (b"4111 1111 1111 1111", True), (b"4111-1111-1111-1112", False), (b"378282246310005", True),
        (b"0000000000000000", False), (b"79927398713", True), (b"79927398710", False),
    ],
)  # fmt: skip
def test_luhn(text: bytes, valid: bool) -> None:
    assert luhn(text) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (b"GB82 WEST 1234 5698 7654 32", True), (b"GB82WEST12345698765432 AND", True),
        (b"GB82 WEST 1234 5698 7654 33", False),
        (b"DE89370400440532013000", True), (b"DE8937040044053201300", False), (b"XX89370400440532013000", False),
        (b"NO9386011117947", True), (b"GB82\xffEST12345698765432", False),
    ],
)  # fmt: skip
def test_iban(text: bytes, valid: bool) -> None:
    assert iban(text) is valid


@pytest.mark.parametrize(
    ("pattern", "line", "words"),
    [
        ("{id: a, description: d}", 3, "missing regex"),
        ("{id: a/b, description: d, regex: abc}", 3, "no slash"),
        ("{id: a, description: d, regex: 'a(b'}", 3, "no pattern of RE2"),
        ("{id: a, description: d, regex: 'ab(?=c)'}", 3, "no pattern of RE2"),
        ("{id: a, description: d, regex: '[[:alpha:]]bc'}", 3, "not read here"),
        ("{id: a, description: d, regex: 'über'}", 3, "over bytes"),
        ("{id: a, description: d, regex: 'a*'}", 3, "matches nothing"),
        ("{id: a, description: d, regex: '\\d+-\\d'}", 3, "cannot be bounded"),
        ("{id: a, description: d, regex: '[a-z0-9]{70}'}", 3, "cannot be bounded"),
        ("{id: a, description: d, regex: 'ab(?:c[a-z]{0,100}d){9}'}", 3, "instructions"),
        ("{id: a, description: d, regex: abc, check: moon}", 3, "'moon' is not one of luhn, iban"),
        ("{id: a, description: d, regex: abc, decode: base64}", 3, "'base64' is not one of"),
        ("{id: a, description: d, regex: abc, severity: bad}", 3, "'bad' is not one of"),
        ("{id: a, description: d, regex: abc, samples: {must_match: {hex: x1}}}", 3, "hexadecimal"),
        ("{id: a, description: d, regex: abc}\n  - {id: a, description: d, regex: abc}", 4, "used in line 3"),
    ],
)
def test_problems_have_places(pattern: str, line: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"name: p\npatterns:\n  - {pattern}\n")
    problems = Problems()
    load_patterns([path], problems)
    assert any(str(each).startswith(f"{path}:{line}:") and words in str(each) for each in problems.found), (
        problems.found
    )


def test_few_may_be_without_a_literal(tmp_path: Path) -> None:
    for name in "ab":
        own = "".join(f"  - {{id: n{n}, description: d, regex: '\\d{{{n + 2}}}x'}}\n" for n in range(9))
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\npatterns:\n{own}")
    problems = Problems()
    load_patterns(sorted(tmp_path.glob("*.yaml")), problems)
    assert [(Path(each.file).name, each.line) for each in problems.found] == [("b.yaml", 10), ("b.yaml", 11)]


def test_names_are_used_once(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("name: p\npatterns: []\n")
    problems = Problems()
    load_patterns(sorted(tmp_path.glob("*.yaml")), problems)
    assert [str(each).rpartition(": ")[2] for each in problems.found] == [
        f"'p' is the name of {tmp_path}/a.yaml already"
    ]


def test_many_texts_share_one_budget(keys: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BUDGET_OF_BYTE", 0)
    near_miss = b"4111 1111 1111 1112"
    assert not keys.scan(near_miss).over
    told = keys.scan_each([b"a secret", *[near_miss] * 5000, b"a secret"])
    assert len(told) == 5002
    assert told[0].ids == {"keys/word"}
    over = [each.over for each in told]
    assert over == sorted(over), "what is not looked at is behind what is"
    assert over[-1]
