from __future__ import annotations

import enum
import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastpath import document
from fastpath.document import InvalidDocumentError, Node, Problems, load, read_text


class Fruit(enum.IntEnum):
    APPLE = 1
    PEAR = 2
    WORM = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.yaml"


def problems(path: Path, text: str, read: Callable[[Node], Any]) -> list[tuple[int, str, str]]:
    """Line, path and message of everything wrong with `text`."""
    path.write_text(text)
    with pytest.raises(InvalidDocumentError) as caught:
        load(path, read)
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    return [(problem.line, problem.path, problem.message) for problem in caught.value.problems]


def first(read: Callable[[Node], Any]) -> Callable[[Node], Any]:
    """Reader of the field `x`."""
    return lambda node: read(node.mapping(required=["x"])["x"])


@pytest.mark.parametrize(
    ("text", "read", "value"),
    [
        ("x: hello", Node.text, "hello"),
        ("x: 12", Node.text, "12"),  # a name may look like a number
        ("x: 12", lambda node: node.integer(0, 12), 12),
        ("x: 0x1f", lambda node: node.integer(0, 100), 31),
        ("x: -1", lambda node: node.integer(-1, 0), -1),
        ("x: 1e-1", lambda node: node.number(0, 1), 0.1),
        ("x: 1", lambda node: node.number(0, 1), 1.0),
        ("x: yes", Node.boolean, True),
        ("x: False", Node.boolean, False),
        ("x: pear", lambda node: node.choice(Fruit), Fruit.PEAR),
        ("x: 10.0.0.0/8", Node.network, ipaddress.ip_network("10.0.0.0/8")),
        ("x: 2001:db8::1", Node.network, ipaddress.ip_network("2001:db8::1/128")),
        ("x: [a, b]", lambda node: node.collect(Node.text), ["a", "b"]),
        ("x: a", lambda node: node.collect(Node.text), ["a"]),
        ("x: []", lambda node: node.collect(Node.text), []),
        ("x:", lambda node: node.is_null, True),
        ("x: ''", lambda node: node.is_null, False),
        ("x: [1]", lambda node: (node.is_sequence, node.is_mapping), (True, False)),
        ("x: {a: 1}", lambda node: (node.is_sequence, node.is_mapping), (False, True)),
        ("base: &b {a: 1}\nx: *b", lambda node: list(node.mapping(optional=None)), ["a"]),
    ],
)
def test_values(path: Path, text: str, read: Callable[[Node], Any], value: object) -> None:
    path.write_text(text)
    assert load(path, lambda node: read(node.mapping(required=["x"], optional=["base"])["x"])) == value


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        ("x: [a]", Node.text, "expected text"),
        ("x:", Node.text, "expected text"),
        ("x: ''", Node.text, "must not be empty"),
        ("x: abcd", lambda node: node.text(max_length=3), "longer than 3 characters"),
        ("x: a", lambda node: node.integer(0, 9), "expected a whole number, not 'a'"),
        ("x: '1'", lambda node: node.integer(0, 9), "expected a whole number, not '1'"),
        ("x: 1.5", lambda node: node.integer(0, 9), "expected a whole number, not '1.5'"),
        ("x: 010", lambda node: node.integer(0, 9), "expected a whole number, not '010'"),  # 8 or 10?
        ("x: 1:30", lambda node: node.integer(0, 99), "expected a whole number, not '1:30'"),
        ("x: 10", lambda node: node.integer(0, 9), "10 is not within 0..9"),
        (f"x: {'9' * 9000}", lambda node: node.integer(0, 9), f"expected a whole number, not '{'9' * 40}'"),
        ("x: .nan", lambda node: node.number(0, 1), "expected a number, not '.nan'"),
        ("x: nan", lambda node: node.number(0, 1), "nan is not within 0..1"),
        ("x: 1e999", lambda node: node.number(0, 1), "inf is not within 0..1"),
        ("x: {}", lambda node: node.number(0, 1), "expected a number"),
        ("x: 1", Node.boolean, "expected true or false, not '1'"),
        ("x: [true]", Node.boolean, "expected true or false, not something else"),
        ("x: PEAR", lambda node: node.choice(Fruit), "'PEAR' is not one of apple, pear, worm"),
        (
            "x: worm",
            lambda node: node.choice(Fruit, allowed=[Fruit.APPLE, Fruit.PEAR]),
            "'worm' is not one of apple, pear",
        ),
        ("x: 10.0.0.1/8", Node.network, "10.0.0.1/8 has host bits set"),
        ("x: 10.0.0", Node.network, "'10.0.0' does not appear to be an IPv4 or IPv6 network"),
        ("x: a", Node.items, "expected a list"),
        ("x: a", Node.mapping, "expected a mapping"),
    ],
)
def test_wrong_values(path: Path, text: str, read: Callable[[Node], Any], message: str) -> None:
    assert problems(path, text, first(read)) == [(1, "x", message)]


def test_all_problems_at_once_in_order_of_their_lines(path: Path) -> None:
    text = """\
rules:
  - name: a
    port: 99999
  - port: x
  - name: c
    prot: 1
    port: 80
    port: 81
"""

    def rule(node: Node) -> tuple[str, int]:
        fields = node.mapping(required=["name"], optional=["port"])
        return fields["name"].text(), fields["port"].integer(0, 65535)

    found = problems(path, text, lambda node: node.mapping(required=["rules"])["rules"].collect(rule))
    assert found == [
        (3, "rules[0].port", "99999 is not within 0..65535"),
        (4, "rules[1]", "missing name"),
        (6, "rules[2]", "unknown field 'prot'; known here: name, port"),
        (8, "rules[2]", "'port' is given twice"),
    ]


def test_text_of_a_problem_has_its_place(path: Path) -> None:
    path.write_text("a:\n  b: 1\n")
    with pytest.raises(InvalidDocumentError) as caught:
        load(path, lambda node: node.mapping(required=["a"])["a"].mapping(required=["b"])["b"].items())
    assert str(caught.value) == f"{path}:2: a.b: expected a list"


def test_attempt_confines_a_problem(path: Path) -> None:
    seen: list[str | None] = []

    def read(node: Node) -> None:
        seen.extend(item.attempt(Node.text) for item in node.items())

    assert problems(path, "[a, [], c]", read) == [(1, "[1]", "expected text")]
    assert seen == ["a", None, "c"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "the document is empty"),
        ("# only a comment\n", 0, "the document is empty"),
        ("a: [1\nb: 2\n", 2, "not YAML: "),
        ("a: b: c", 1, "not YAML: "),
        ("a: 1\n---\nb: 2\n", 2, "not YAML: but found another document"),
        ("a: *nowhere", 1, "not YAML: found undefined alias 'nowhere'"),
        ("a: \x07", 0, "not YAML: "),
        ("a: &a [" + "*a," * 1001 + "]", 1, "not YAML: too many aliases"),
    ],
)
def test_no_document(path: Path, text: str, line: int, message: str) -> None:
    [(where, inside, said)] = problems(path, text, lambda node: node)
    assert (where, inside) == (line, "")
    assert said.startswith(message)


def test_what_is_nested_too_deep_is_no_document(path: Path) -> None:
    # Python's recursion limit or libyaml's depth, whichever comes first; only the latter has a place.
    [(where, inside, said)] = problems(path, "[" * 100_000, lambda node: node)
    assert (where in {0, 1}, inside) == (True, "")
    assert said.startswith("not YAML: ")


def test_a_tag_constructs_nothing(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "made"
    text = f"x: !!python/object/apply:os.mkdir [{target}]"
    assert problems(path, text, first(Node.text)) == [(1, "x", "expected text")]
    assert not target.exists()


def test_names_of_fields_are_plain_text(path: Path) -> None:
    found = problems(path, "? [a]\n: 1\nx: 2\n", lambda node: node.mapping(optional=None))
    assert found == [(1, "", "a field's name must be plain text")]


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"a: \xff")
    large = tmp_path / "large"
    large.write_text("a" * 11)
    monkeypatch.setattr(document, "MAX_BYTES", 10)
    for path, message in (
        (binary, "not UTF-8 at byte 3"),
        (large, "larger than 10 bytes"),
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(InvalidDocumentError) as caught:
            load(path, lambda node: node)
        assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(("changes", "message"), [(2, None), (99, "changed each of 5 times while it was read")])
def test_a_file_is_read_as_it_was_at_one_time(
    path: Path, changes: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("x: 0")
    looks = 0

    def fstat(number: int) -> os.stat_result:
        nonlocal looks
        looks += 1
        # The first look is before the reading, the next behind it, and so on.
        if looks % 2 == 0 and looks // 2 <= changes:
            path.write_text(f"x: {'1' * looks}")
        return os.stat(number)

    monkeypatch.setattr(document.os, "fstat", fstat)
    problems = Problems()
    text = read_text(path, problems)
    assert text == (None if message else "x: 1111")
    assert [problem.message for problem in problems.found] == ([message] if message else [])


def test_what_is_no_regular_file_is_read_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x: 1")
    os.close(writer)
    assert read_text(Path(f"/dev/fd/{reader}"), Problems()) == "x: 1"
    os.close(reader)
