"""Content patterns on one core: the shipped ones and 500 more over payloads of 1 KB, warm, and over hostile ones.

Both engines: RE2 behind the automaton of literals, and Hyperscan. Beside them, in the same run, with the same patterns
and payloads: Python's `re`, one pattern after another, and RE2's `Set` by itself. Hostile payloads are near-matches,
made for each pattern; each is new to the automata.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import re2

from bench.results import Result
from bench.rounds import interleaved, one_cpu, quantile
from fastpath.document import Problems
from slowpath.rules.patterns import MAX_MEMORY, Automaton, Pattern, load_patterns
from slowpath.rules.scan import BUDGET, BUDGET_OF_BYTE, Scanner
from slowpath.rules.vectors import Databases
from tests.near import hostile

SHIPPED = Path(__file__).parents[1] / "configs" / "patterns.d"
MORE = 500
SIZE = 1024
PAYLOADS = 64
HOSTILE = 2000
ROUNDS = 3
NEW = 1000
TARGET = 10_000
# What README says that the budget of 1 KB comes to.
BUDGET_MS = 3.0

_TEXT = """
account address amount basket branch cache category change channel client colour comment company contact content
country coupon currency customer default delivery department description device discount document domain email
enabled event example expires feature filter folder format gender group header height image index inventory invoice
item label language level limit locale location message method minimum mobile module month network notice number
offset option order origin package page parent partner payment period person phone picture platform position price
product profile project quantity query quote rating reason receipt record reference region release report request
response result return review revenue sample schedule search section select sender server service session setting
shipping size source status stock store street subject supplier support system target tax team template theme title
total tracking transfer type union unit update user value vendor version view volume warehouse website weight width
"""
_WORDS = tuple(_TEXT.split())


def more(count: int = MORE, seed: int = 5) -> str:
    """A file of patterns as tokens, assignments, calls and addresses have them; the same each time."""
    rng = random.Random(seed)
    names: list[str] = []
    while len(names) < count:
        name = "".join(rng.choice("bcdfghklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
        if name not in names:
            names.append(name)
    kinds = (
        (r"\b{0}_[A-Za-z0-9]{{32}}\b", "exact"),
        (r"\b{0}-(?:live|prod)-[0-9a-f]{{24,40}}", "exact"),
        (r"{0}_?(?:key|token)[''\"]?\s{{0,3}}[=:]\s{{0,3}}[''\"]?[a-z0-9/+]{{20}}", "ignore"),
        (r"\b{0}\s{{0,4}}\(\s{{0,4}}(?:0x[0-9a-f]{{2}}|[''\"]|\d)", "ignore"),
        (r"/(?:admin|cgi-bin)/{0}[a-z]{{0,6}}\.(?:php|asp|jsp)\?[a-z]{{1,8}}=", "ignore"),
        (r"<{0}[\s/][^>]{{0,40}}\bon[a-z]{{3,12}}\s{{0,4}}=", "ignore"),
        (r";\s{{0,4}}{0}\s{{1,4}}(?:--|/\*|[''\"])", "ignore"),
    )
    lines = ["name: more", "patterns:"]
    for number, name in enumerate(names):
        regex, case = kinds[number % len(kinds)]
        lines.append(f"- {{id: {name}, description: of the bench, case: {case}, regex: '{regex.format(name)}'}}")
    return "\n".join(lines) + "\n"


def patterns_of(texts: Sequence[str] = ()) -> tuple[Pattern, ...]:
    """The shipped ones, and of these files."""
    problems = Problems()
    with TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            Path(folder, f"{number}.yaml").write_text(text)
        found = load_patterns([*sorted(SHIPPED.glob("*.yaml")), *sorted(Path(folder).glob("*.yaml"))], problems)
    problems.raise_if_any()
    return tuple(found)


def payloads() -> dict[str, list[bytes]]:
    """Ordinary ones by kind, of 1 KB each."""
    rng = random.Random(6)

    def words(count: int) -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(count))

    def form() -> bytes:
        return b"&".join(
            f"{rng.choice(_WORDS)}={words(rng.randint(1, 4)).replace(' ', '+')}%20{rng.randint(0, 9999)}".encode()
            for _ in range(60)
        )

    def text() -> bytes:
        entry = {rng.choice(_WORDS): rng.choice([rng.randint(0, 10**9), words(6), None, [words(2)]]) for _ in range(40)}
        return json.dumps(entry).encode()

    def page() -> bytes:
        row = '<div class="{}"><a href="/{}/{}">{}</a></div>\n'
        return "".join(
            row.format(rng.choice(_WORDS), rng.choice(_WORDS), rng.randint(1, 999), words(5)) for _ in range(20)
        ).encode()

    kinds: dict[str, Callable[[], bytes]] = {
        "json": text, "form": form, "html": page, "random": lambda: rng.randbytes(SIZE),
    }  # fmt: skip
    return {name: [(make() * 2 + b" " * SIZE)[:SIZE] for _ in range(PAYLOADS)] for name, make in kinds.items()}


def bench() -> Iterator[Result]:
    """Payloads a second, milliseconds of the worst."""
    text = more()
    start = time.process_time()
    patterns = patterns_of([text])
    scanner = Scanner(patterns)
    scanner.compile()
    yield Result("patterns.compile", "ms", (time.process_time() - start) * 1e3, note=f"{len(patterns)} patterns")
    start = time.process_time()
    again = Scanner(patterns_of([text]))
    again.compile()
    yield Result("patterns.compile_again", "ms", (time.process_time() - start) * 1e3)
    with TemporaryDirectory() as folder:
        for name in ("compile", "from_disk"):
            start = time.process_time()
            vectors = Scanner(patterns, Databases(Path(folder)))
            vectors.compile()
            yield Result(f"patterns.hyperscan.{name}", "ms", (time.process_time() - start) * 1e3)
            if name == "compile":
                del vectors  # one that is in use is not read again
    kinds = payloads()
    subjects: dict[str, Callable[[], float]] = {}
    for kind, texts in kinds.items():
        subjects[kind] = partial(_rate, scanner.scan, texts, 0.1)
        subjects[f"hyperscan.{kind}"] = partial(_rate, vectors.scan, texts, 0.1)
        subjects[f"re2_set.{kind}"] = partial(_rate, _set_of(patterns), texts, 0.1)
        subjects[f"re.{kind}"] = partial(_rate, _one_by_one(patterns), texts[:4], 0.0)
    rates = {name: max(values) for name, values in interleaved(subjects).items()}
    for kind in kinds:
        yield Result(f"patterns.{kind}", "1/s", rates[kind], target=TARGET, better="higher")
        yield Result(f"patterns.hyperscan.{kind}", "1/s", rates[f"hyperscan.{kind}"], target=TARGET, better="higher")
    for kind in kinds:
        yield Result(f"patterns.re2_set.{kind}", "1/s", rates[f"re2_set.{kind}"], better="higher")
        yield Result(f"patterns.re.{kind}", "1/s", rates[f"re.{kind}"], better="higher")
    yield from _hostile(patterns)
    yield from _reload("", scanner, kinds["json"], None)
    yield from _reload("hyperscan.", vectors, kinds["json"], Databases())


def _rate(scan: Callable[[bytes], object], texts: Sequence[bytes], long_enough: float) -> float:
    done, start = 0, time.process_time()
    while True:
        for each in texts:
            scan(each)
        done += len(texts)
        if (taken := time.process_time() - start) > long_enough:
            return done / taken


def _hostile(patterns: Sequence[Pattern]) -> Iterator[Result]:
    """Of each payload the shortest time of rounds, each with new automata: disturbances only ever add."""
    for name, size in (("1kb", SIZE), ("64kb", 64 * SIZE)):
        rng = random.Random(7)
        texts = [hostile(patterns, rng, size) for _ in range(HOSTILE * SIZE // size)]
        target = BUDGET_MS * (BUDGET + BUDGET_OF_BYTE * size) / (BUDGET + BUDGET_OF_BYTE * SIZE)
        for engine, databases in (("", None), ("hyperscan.", Databases())):
            with one_cpu():
                rounds = [_times(_cold(patterns, databases).scan, texts) for _ in range(ROUNDS)]
            ours = [min(each) for each in zip(*rounds, strict=True)]
            scanner = Scanner(patterns, databases)
            over = sum(scanner.scan(text).over for text in texts)
            yield Result(f"patterns.{engine}hostile_{name}.worst", "ms", max(ours) * 1e3, target=round(target, 1))
            yield Result(f"patterns.{engine}hostile_{name}.p50", "ms", quantile(ours, 0.5) * 1e3)
            yield Result(f"patterns.{engine}hostile_{name}.over", "share", over / len(texts))
        with one_cpu():
            bare = _times(_set_of(patterns), texts)
        yield Result(f"patterns.re2_set.hostile_{name}.worst", "ms", max(bare) * 1e3)


def _times(scan: Callable[[bytes], object], texts: Sequence[bytes]) -> list[float]:
    times = []
    for text in texts:
        start = time.process_time()
        scan(text)
        times.append(time.process_time() - start)
    return times


def _cold(patterns: Sequence[Pattern], databases: Databases | None) -> Scanner:
    """With automata that have seen nothing yet."""
    re2.purge()
    scanner = Scanner((replace(each, automaton=Automaton(each.regex, fold=each.fold)) for each in patterns), databases)
    scanner.compile()
    return scanner


def _reload(engine: str, scanner: Scanner, texts: Sequence[bytes], databases: Databases | None) -> Iterator[Result]:
    """The longest time between two payloads: alone, and while a thread reads and compiles 1,000 new patterns."""

    def read() -> None:
        Scanner(patterns_of([more(NEW, seed=8)]), databases).compile()

    for name, work in (("alone", partial(time.sleep, 0.5)), ("meanwhile", read)):
        thread = threading.Thread(target=work)
        longest, last = 0.0, time.perf_counter()
        thread.start()
        while thread.is_alive():
            for text in texts:
                scanner.scan(text)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
        thread.join()
        yield Result(f"patterns.{engine}reload_gap.{name}", "ms", longest * 1e3)


def _set_of(patterns: Sequence[Pattern]) -> Callable[[bytes], object]:
    """RE2's own, with as much memory as all of ours."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.max_mem = MAX_MEMORY * len(patterns)
    options.log_errors = False
    found = re2.Set.SearchSet(options)
    for pattern in patterns:
        found.Add((b"(?i)" if pattern.fold else b"") + pattern.regex)
    found.Compile()
    return found.Match


def _one_by_one(patterns: Sequence[Pattern]) -> Callable[[bytes], object]:
    """Python's, which goes back and tries again."""
    searches = [
        re.compile(pattern.regex, re.DOTALL | (re.IGNORECASE if pattern.fold else 0)).search for pattern in patterns
    ]

    def scan(text: bytes) -> list[bool]:
        return [search(text) is not None for search in searches]

    return scan
