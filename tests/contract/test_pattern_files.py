"""Every shipped pattern file is read, every pattern has samples that hold, and ordinary text has none of them."""

import base64
import json
import random
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from fastpath.document import Problems
from slowpath.rules.patterns import Pattern, Patterns, load_patterns
from slowpath.rules.scan import Scanner
from slowpath.rules.schema import patterns_schema

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "patterns.d").glob("*.yaml"))


def read() -> Patterns:
    problems = Problems()
    found = load_patterns(FILES, problems)
    problems.raise_if_any()
    return found


PATTERNS = tuple(read())
ALL = Scanner(PATTERNS)


def test_the_shipped_files() -> None:
    assert [path.stem for path in FILES] == list(read().sets)
    assert set(read().sets) >= {"dlp", "waf"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_schema_fits(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), patterns_schema())


def test_the_schema_is_in_step() -> None:
    assert json.loads((ROOT / "configs" / "patterns.schema.json").read_text()) == patterns_schema(), "make abi"


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_samples(pattern: Pattern) -> None:
    assert pattern.must_match, "a pattern needs samples that it must match"
    assert pattern.must_not_match, "a pattern needs samples that it must not match"
    alone = Scanner([pattern])
    for sample in pattern.must_match:
        for found in (alone.scan(sample), ALL.scan(sample)):
            assert pattern.id in found.ids, sample
            assert not found.over
    for sample in pattern.must_not_match:
        for found in (alone.scan(sample), ALL.scan(sample)):
            assert pattern.id not in found.ids, sample
            assert not found.over


def of_the_repository() -> Iterator[tuple[str, bytes]]:
    """Prose, programs and configuration; what is about attacks and secrets itself is left out, and a file that reads
    /proc/self/maps.
    """
    for pattern in (
        "CHANGELOG.md",
        "Makefile",
        "pyproject.toml",
        "fastpath/**/*.py",
        "slowpath/core/*.py",
        "bpf/lib/*.h",
    ):
        for path in sorted(ROOT.glob(pattern)):
            if path.name == "bcc_child.py":
                continue
            yield str(path.relative_to(ROOT)), path.read_bytes()


def made() -> Iterator[tuple[str, bytes]]:
    """What requests and answers are full of."""
    rng = random.Random(1)
    pictures = b"".join(
        b'<img src="data:image/png;base64,%s">' % base64.b64encode(rng.randbytes(900)) for _ in range(60)
    )
    yield "pictures", pictures
    yield "ids", "\n".join(str(uuid.UUID(bytes=rng.randbytes(16))) for _ in range(2000)).encode()
    orders = [
        {
            "order": f"{rng.randint(2023, 2026)}-{rng.randint(10**6, 10**7)}",
            "phone": f"+49 {rng.randint(100, 999)} {rng.randint(10**6, 10**7)}",
            "at": f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T12:{rng.randint(10, 59)}:00Z",
            "millis": rng.randint(1_700_000_000_000, 1_800_000_000_000),
            "tracking": f"1Z{rng.randint(10**15, 10**16)}",
            "price": rng.randint(1, 10**5) / 100,
            "hash": rng.randbytes(32).hex(),
            "note": "please select a union of colours, and update the order; insert it into the table",
        }
        for _ in range(400)
    ]
    yield "orders", json.dumps(orders).encode()
    form = {
        "name": "O'Reilly & Sons",
        "q": "black or white; cat and dog",
        "text": "What's new? it's \"quoted\" - really --",
        "n": "1=1",
    }
    yield "form", urllib.parse.urlencode(form).encode()
    yield (
        "style",
        b"a{color:#fff;background:url('../img/x.png')}\n/* union of styles */\n@media (min-width:1px){.b{margin:0}}",
    )
    yield (
        "page",
        (
            b"<!DOCTYPE html><html><head><title>Shop</title></head><body class='a'>Select your country from the list,"
            b" or drop us a line. <a href='/products?id=42&sort=price&page=2'>next</a> 2001:db8::1</body></html>"
        ),
    )
    yield "hex", rng.randbytes(20_000).hex().encode()
    yield "random", rng.randbytes(50_000)
    yield "base64", base64.b64encode(rng.randbytes(50_000))


CORPUS = [*of_the_repository(), *made()]


@pytest.mark.parametrize(("name", "text"), CORPUS, ids=[name for name, _ in CORPUS])
def test_ordinary_text_has_none(name: str, text: bytes) -> None:
    for start in range(0, len(text), 4096):
        found = ALL.scan(text[start : start + 4096])
        assert found.ids == frozenset(), name
        assert not found.over, name
