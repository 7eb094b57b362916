"""Read again in pieces, a policy is what it is read whole: the same rules, the same problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastpath.document import InvalidDocumentError
from fastpath.policy import read as read_module
from fastpath.policy import rules as rules_module
from fastpath.policy.model import Policy
from fastpath.policy.pieces import cut
from fastpath.policy.read import Reader
from fastpath.policy.source import Source
from tests.unit.fastpath.policy import DIGESTS

HEADS = [
    "default: deny\n",
    "groups:\n  web: [10.0.0.0/24, fd00::/64]\n  app: [web, 10.1.0.0/16]\n",
    "groups:\n  web: [10.0.0.0/25]\n  app: [web, 10.1.0.0/16]\n",
    "groups: {web: 10.0.0.1, other: {include: web, exclude: 10.0.0.1}}\n",
    "services: {dns: {proto: [tcp, udp], ports: 53}}\n",
    "services: {dns: [{proto: udp, ports: 53}, {proto: tcp}]}\n",
    "mode: monitor\n",
    "default:\n  action: deny\n  log: all\n",
    "# a comment: rules\n",
    "colour: red\n",
    '"mode": "\nrules:\n  - a"\n',
    "default: >\n  deny\n",
    "mode: &m monitor\n",
    "%YAML 1.1\n---\n",
    "{\n",
    "x: [\n",
    "mode: |\n  monitor",
]
ITEMS = [
    "{id: a, action: allow}\n",
    "{id: a, from: web, action: deny}\n",
    "{id: b, from: [web, 10.9.0.0/16], to: app, service: dns, action: allow}\n",
    '{id: c, from: "w\\x65b", action: allow}\n',
    "id: d\n    action: inspect\n    rules: [web]\n",
    "id: e\n    description: |+\n      text: of\n\n      - two\n\n    action: deny\n",
    "id: f\n    action: deny\n    description: |+\n      last\n",
    "id: g  # comment\n    # another\n    action: allow\n\n# at the margin\n",
    '{id: h, description: "R&D", action: allow}\n',
    "{id: i, description: a & b, action: allow}\n",
    '{id: "j\n',
    'k", action: deny}\n',
    "&x {id: l, action: allow}\n",
    "*x\n",
    "{id: m, colour: red, action: deny}\n",
    "{id: n, to: nowhere, action: deny}\n",
    "id: o\n    description: over\n      - two lines\n    action: deny\n",
    "'p\n",
    "- {id: q, action: deny}\n",
    "\n",
    "{id: r, action: allow,\n   from: web}\n",
    "{id: s,\taction: allow}\n",
    "{id: t\x85, action: allow}\n",
    "id: u\n   action: deny\n",
    "id: v\n  action: deny\n",
    "{id: w, priority: 5, action: [}\n",
    'x"\n  -\n    id: x\n    action: deny\n',
    "{id: y, mode: enforce, action: deny}\n  stray\n",
]
INDENTS = ["", "  ", "    "]
LISTS = ["rules:\n", "rules:  # these\n\n  # first\n", "rules: []\n", " rules:\n", "rules:\n-\n", ""]
TAILS = [
    "",
    "",
    "mode: enforce\n",
    "# end\n",
    "rules: []\n",
    "---\nb: 1\n",
    'foo: "}\n',
    "-\n",
    "services: {s: {proto: esp}}",
]

TEXTS = st.builds(
    lambda head, line, indents, items, tail, many: (
        "".join(head)
        + line
        + "".join(f"{indents[0] if n else indents[1]}- {item}" for n, item in enumerate(items, many))
        + tail
    ),
    st.lists(st.sampled_from(HEADS), max_size=3),
    st.one_of(st.just(LISTS[0]), st.just(LISTS[0]), st.sampled_from(LISTS)),
    st.tuples(st.sampled_from(INDENTS), st.sampled_from(INDENTS)),
    st.lists(st.sampled_from(ITEMS), max_size=6),
    st.sampled_from(TAILS),
    st.integers(0, 1),
)
# Mostly what is right, so that much is kept from one to the next.
GOOD = st.builds(
    lambda head, indent, items, tail: "".join(head) + "rules:\n" + "".join(f"{indent}- {i}" for i in items) + tail,
    st.lists(st.sampled_from(HEADS[:7]), max_size=3, unique_by=lambda head: head[:4]),
    st.sampled_from(INDENTS[:2]),
    st.lists(st.sampled_from(ITEMS[:9] + ITEMS[16:17] + ITEMS[20:21]), min_size=1, max_size=8, unique=True),
    st.sampled_from(TAILS[:4]),
)


def files(*texts: str) -> Source:
    return Source(folder=True, files={f"{n}.yaml": text.encode() for n, text in enumerate(texts)})


def file(text: str) -> Source:
    return Source(folder=False, files={"p": text.encode()})


def outcome(reader: Reader, source: Source) -> tuple[Policy | None, list[str]]:
    try:
        return reader.read(Path("p"), source, DIGESTS.get), []
    except InvalidDocumentError as error:
        return None, [str(problem) for problem in error.problems]


def whole(source: Source, monkeypatch: pytest.MonkeyPatch) -> tuple[Policy | None, list[str]]:
    with monkeypatch.context() as patch:
        patch.setattr(read_module, "cut", lambda _: None)
        return outcome(Reader(), source)


A, B = "- {id: a, action: deny}\n", "- {id: b, action: deny}\n"
BLOCK = "- id: c\n  action: deny\n  description: |\n    x\n"
# Each is wrong when what it shows is not seen to.
FOLLOWING = [
    [f"rules:\n{A}{BLOCK}", f"rules:\n{A}{BLOCK}".rstrip()],
    [f"rules:\n{A}", f"rules:\n{BLOCK.replace('|', '|+')}{A}{B}"],
    [
        'rules:\n- {id: "x\n- y", action: deny}\n-\n  id: z\n  action: deny\n',
        'rules:\n- {id: "x\n- z", action: deny}\n',
    ],
    [f"rules:\n-  # comment\n  id: c\n  action: deny\n{A}"],
    [
        f"rules:\n- {{id: c, action: deny, from: &x {n}}}\n- {{id: d, action: deny, to: *x}}\n"
        for n in ("10.0.0.1", "10.0.0.2")
    ],
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.one_of(GOOD, GOOD, TEXTS), min_size=1, max_size=2), min_size=2, max_size=5))
@example([[text] for text in FOLLOWING[0]])
@example([[text] for text in FOLLOWING[1]])
@example([[text] for text in FOLLOWING[2]])
@example([[text] for text in FOLLOWING[3]])
@example([[text] for text in FOLLOWING[4]])
def test_read_again_is_read_whole(versions: list[list[str]]) -> None:
    reader = Reader()
    with pytest.MonkeyPatch.context() as patch:
        for texts in versions:
            source = files(*texts)
            expected, problems = whole(source, patch)
            assert outcome(reader, source) == (expected, problems)
            if expected is not None:
                again, _ = outcome(reader, source)
                assert again == expected
                assert [rule.hash for rule in again.rules] == [rule.hash for rule in expected.rules]  # type: ignore[union-attr]


POLICY = """\
groups:
  web: [10.0.0.0/24]
  all: [web, 10.1.0.0/16]
services: {dns: {proto: udp, ports: 53}, www: {proto: tcp, ports: 80}}
rules:
  - {id: a, from: web, action: allow}
  - {id: b, from: [all, web], service: dns, action: allow}
  - {id: c, to: 10.9.0.0/16, service: www, action: inspect, rules: web}
"""


def reread(
    monkeypatch: pytest.MonkeyPatch, first: str, second: str, digests: dict[str, str] | None = None
) -> list[str]:
    """Ids of the rules that are read when one policy follows another."""
    reader, read_ids = Reader(), []
    reader.read(Path("p"), file(first), DIGESTS.get)
    real = rules_module.read_rule

    def rule(*given: Any) -> Any:
        made = real(*given)
        read_ids.append(made.id)
        return made

    monkeypatch.setattr(read_module, "read_rule", rule)
    reader.read(Path("p"), file(second), (digests or DIGESTS).get)
    return read_ids


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", ""),
        ("id: b, ", "id: bb, ", ["bb"]),
        ("rules:\n", "rules:\n  # moved\n", ""),
        ("  - {id: a", "  - {id: new, action: deny}\n  - {id: a", ["new"]),
        ("  - {id: a, from: web, action: allow}\n", "", ""),
        ("  - {id: a", "  - {id: new, action: deny}\n  # before a\n  - {id: a", ["new"]),
        ("10.1.0.0/16]", "10.2.0.0/16]", ["b"]),
        ("10.0.0.0/24]", "10.0.0.0/25]", ["a", "b", "c"]),  # c names a rule file like the group: once too often
        ("[10.0.0.0/24]", "[10.0.0.128/25, 10.0.0.0/25]", ""),
        ("ports: 53", "ports: 5353", ["b"]),
        ("groups:", "mode: monitor\ngroups:", ["a", "b", "c"]),
        ("groups:", "default: allow\ngroups:", ""),
    ],
)  # fmt: skip
def test_only_what_changed_is_read(old: str, new: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert reread(monkeypatch, POLICY, POLICY.replace(old, new, 1)) == list(expected)


def test_a_rule_that_moves_to_another_place_or_file_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = "- {id: a, action: deny}\n", "-\n  # below\n  id: b\n  action: deny\n", "- {id: c, action: deny}\n"
    b = b.replace("-\n ", "- # beside\n ")
    reader = Reader()
    reader.read(Path("p"), files(f"rules:\n{a}{b}{c}", f"rules:\n{c.replace('c', 'd', 1)}"), DIGESTS.get)
    monkeypatch.setattr(read_module, "read_rule", None)
    policy = reader.read(Path("p"), files(f"rules:\n{a}{c}", f"rules:\n{c.replace('c', 'd', 1)}{b}"), DIGESTS.get)
    places = {rule.id: (rule.file, rule.line) for rule in policy.rules}
    assert places == {"a": ("p/0.yaml", 2), "c": ("p/0.yaml", 3), "d": ("p/1.yaml", 2), "b": ("p/1.yaml", 5)}


def test_a_rule_file_that_changed_changes_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reread(monkeypatch, POLICY, POLICY, {"web": "other"}) == ["c"]


def test_rules_that_stay_share_networks_with_new_ones() -> None:
    reader = Reader()
    texts = (
        POLICY,
        POLICY.replace("dns: {", "more: {proto: esp}, dns: {") + "  - {id: d, from: [all, web], action: deny}\n",
    )
    policies = [reader.read(Path("p"), file(t), DIGESTS.get) for t in texts]
    assert policies[0].rules[1] is policies[1].rules[1]
    assert policies[1].rules[3].sources is policies[1].rules[1].sources


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("id: b", "id: a", "p:7: rules[1]: id 'a' is used in line 6 already"),
        ("action: allow", "action: perhaps", "p:6: rules[0].action: 'perhaps' is not one of allow, deny, inspect"),
        ("[all, web]", "[all, web", "p:7: not YAML: did not find expected ',' or ']'"),
        ("[10.0.0.0/24]", "[]", "p:2: groups.web: a list without members"),
    ],
)
def test_behind_a_mistake_what_was_right_is_not_read_again(
    old: str, new: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader()
    outcome(reader, file(POLICY))
    assert problem in outcome(reader, file(POLICY.replace(old, new)))[1]
    monkeypatch.setattr(read_module, "_whole", None)
    monkeypatch.setattr(read_module, "_shared", None)
    assert outcome(reader, file(POLICY))[1] == []


def test_names_left_behind_are_forgotten() -> None:
    reader = Reader()
    for n in range(1500):
        text = f"rules:\n  - {{id: a, from: 10.{n >> 8}.{n & 255}.0/24, action: deny}}\n"
        reader.read(Path("p"), file(text), DIGESTS.get)
    assert reader._last is not None
    assert reader._last.shared.groups.remembered < 1100


@pytest.mark.parametrize(
    "text",
    [
        "rules: [{id: a, action: deny}]\n", "rules:\n  - {id: a}", "a: *b\nrules:\n  - {id: a}\n",
        "rules:\n  - {id: a,\tb: c}\n", "rules:\n  -\n    id: a\n  - {id: b}\n", "---\nrules:\n  - {id: a}\n",
        "a: b\r\nrules:\n  - {id: a}\n",
    ],
)  # fmt: skip
def test_what_is_not_cut(text: str) -> None:
    assert cut(text) is None


def test_a_text_is_its_pieces() -> None:
    text = "a: b\nrules:\n  # first\n  - id: R&D\n    x: y\n\n# between\n  - {id: b}\ntail: 1\n"
    pieces = cut(text)
    assert pieces is not None
    assert (pieces.line, pieces.first, pieces.indent) == (2, 4, "  ")
    assert pieces.items == ["id: R&D\n    x: y\n\n# between", "{id: b}"]
    assert pieces.frame() == "a: b\nrules:\n  # first\n" + "#\n" * 5 + "tail: 1\n"
    assert pieces.some({1}) == "\nrules:\n#\n#\n#\n#\n#\n  - {id: b}\n"
