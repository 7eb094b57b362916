"""YAML documents whose every value knows its place.

Configuration, policy and rule files are read through `Node`: a reader asks for
what it expects, problems are collected with file, line and path, and `load`
raises all of them at once. Unknown and duplicate fields are problems, never
ignored. The YAML itself is PyYAML's; only its composed nodes are used, so no
tag can construct an object.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import gc
import ipaddress
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from yaml.composer import Composer, ComposerError
from yaml.resolver import Resolver

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Larger than any policy of the design's target size (100,000 rules), small
# enough that a wrong path (a capture, a device) cannot fill memory.
MAX_BYTES = 64 * 1024 * 1024
MAX_ALIASES = 1000
# Of a file that somebody writes to meanwhile.
MAX_READS = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: ``file:line: path: message``."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class InvalidDocumentError(Exception):
    """All problems of one or more documents; ``str()`` has a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(slots=True)
class Problems:
    """Collector that `Node` writes to."""

    found: list[Problem] = field(default_factory=list)

    def raise_if_any(self) -> None:
        """Raise InvalidDocumentError when something was found."""
        if self.found:
            raise InvalidDocumentError(sorted(self.found, key=lambda p: (p.file, p.line)))


class _UnreadableError(Exception):
    """A value that was reported already; stops the reader of the enclosing item."""


_NULL = "tag:yaml.org,2002:null"


class _Document:
    """What all nodes of a document share."""

    __slots__ = ("file", "problems")

    def __init__(self, file: str, problems: Problems) -> None:
        self.file = file
        self.problems = problems


class Node:
    """A YAML value with its place. Every reading method reports and raises on a wrong type;
    `attempt` confines that to one item, so that the rest of the document is still checked.
    """

    __slots__ = ("_document", "_key", "_node", "_parent")

    def __init__(self, node: yaml.Node, document: _Document, parent: Node | None = None, key: str | int = "") -> None:
        self._node = node
        self._document = document
        self._parent = parent
        self._key = key

    @property
    def file(self) -> str:
        """The document's."""
        return self._document.file

    @property
    def problems(self) -> Problems:
        """Where they are reported."""
        return self._document.problems

    @property
    def path(self) -> str:
        """From the document's root: ``rules[0].from[1]``; of the root itself "" ."""
        steps: list[str] = []
        node: Node = self
        while node._parent is not None:
            steps.append(f"[{node._key}]" if isinstance(node._key, int) else f".{node._key}")
            node = node._parent
        return "".join(reversed(steps)).lstrip(".")

    @property
    def line(self) -> int:
        """1-based line of the value."""
        return int(self._node.start_mark.line) + 1

    def report(self, message: str) -> None:
        """Add a problem at this place."""
        self._document.problems.found.append(Problem(self.file, self.line, self.path, message))

    def fail(self, message: str) -> _UnreadableError:
        """Report, and return what the caller raises."""
        self.report(message)
        return _UnreadableError(message)

    def attempt(self, read: Callable[[Node], T]) -> T | None:
        """`read(self)`, or None when it reported a problem."""
        try:
            return read(self)
        except _UnreadableError:
            return None

    @property
    def is_null(self) -> bool:
        """Nothing stands there (``key:`` with no value)."""
        return isinstance(self._node, yaml.ScalarNode) and self._node.tag == _NULL

    @property
    def is_sequence(self) -> bool:
        """The value is a list."""
        return isinstance(self._node, yaml.SequenceNode)

    @property
    def is_empty(self) -> bool:
        """The value is a list of nothing."""
        return self.is_sequence and not self._node.value

    @property
    def is_mapping(self) -> bool:
        """The value is a mapping."""
        return isinstance(self._node, yaml.MappingNode)

    @property
    def is_block(self) -> bool:
        """A list or mapping without brackets or braces."""
        return getattr(self._node, "flow_style", None) is False

    def mapping(
        self,
        *,
        required: Iterable[str] = (),
        optional: Iterable[str] | None = None,
        others: Callable[[str], bool] = lambda _: False,
    ) -> dict[str, Node]:
        """Fields by name. Unknown names, but for `others`, are reported (`optional=None`: any name is welcome);
        missing required ones are reported and raise.
        """
        if not isinstance(self._node, yaml.MappingNode):
            raise self.fail("expected a mapping")
        required = list(required)
        known = None if optional is None else {*required, *optional}
        fields: dict[str, Node] = {}
        for key_node, value_node in self._node.value:
            name = key_node.value
            welcome = known is None or name in known or (isinstance(name, str) and others(name))
            if isinstance(key_node, yaml.ScalarNode) and name not in fields and welcome:
                fields[name] = Node(value_node, self._document, self, name)
                continue
            # Of a field that is not read the mapping's path is told, with its own line.
            key = Node(key_node, self._document, self._parent, self._key)
            if not isinstance(key_node, yaml.ScalarNode):
                key.report("a field's name must be plain text")
            elif name in fields:
                key.report(f"{name!r} is given twice")
            elif known is not None:
                key.report(f"unknown field {name!r}; known here: {', '.join(sorted(known))}")
        missing = [name for name in required if name not in fields]
        if missing:
            raise self.fail(f"missing {', '.join(missing)}")
        return fields

    def items(self) -> list[Node]:
        """Elements of a list."""
        if not isinstance(self._node, yaml.SequenceNode):
            raise self.fail("expected a list")
        return [Node(child, self._document, self, index) for index, child in enumerate(self._node.value)]

    def numbered(self, index: int) -> Node:
        """The same value as another element of its list."""
        return Node(self._node, self._document, self._parent, index)

    def items_or_one(self) -> list[Node]:
        """Elements of a list; a single value counts as a list of one."""
        return self.items() if self.is_sequence else [self]

    def collect(self, read: Callable[[Node], T]) -> list[T]:
        """`read` of every element, those with problems left out."""
        if not self.is_sequence:
            value = self.attempt(read)
            return [] if value is None else [value]
        return [value for value in (item.attempt(read) for item in self.items()) if value is not None]

    def text(self, *, max_length: int = 4096) -> str:
        """Plain text, not empty."""
        if not isinstance(self._node, yaml.ScalarNode) or self._node.tag == _NULL:
            raise self.fail("expected text")
        value = str(self._node.value)
        if not value:
            raise self.fail("must not be empty")
        if len(value) > max_length:
            raise self.fail(f"longer than {max_length} characters")
        return value

    def integer(self, low: int, high: int) -> int:
        """A whole number within [low, high]."""
        value = self._scalar("tag:yaml.org,2002:int", "a whole number")
        try:
            number = int(value, 0)
        except ValueError:
            raise self.fail(f"expected a whole number, not {value[:40]!r}") from None
        if not low <= number <= high:
            raise self.fail(f"{number} is not within {low}..{high}")
        return number

    def number(self, low: float, high: float) -> float:
        """A number within [low, high]."""
        if not isinstance(self._node, yaml.ScalarNode):
            raise self.fail("expected a number")
        try:
            number = float(self._node.value)
        except ValueError:
            raise self.fail(f"expected a number, not {self._node.value!r}") from None
        if not low <= number <= high:  # also refuses nan
            raise self.fail(f"{number:g} is not within {low:g}..{high:g}")
        return number

    def boolean(self) -> bool:
        """True or false."""
        return self._scalar("tag:yaml.org,2002:bool", "true or false").lower() in ("true", "yes", "on")

    def choice(self, kind: type[E], *, allowed: Iterable[E] | None = None) -> E:
        """A member of an enum, by its lower-case name."""
        names: dict[str, E] = _names(kind, None if allowed is None else tuple(allowed))
        value = self.text()
        if value not in names:
            raise self.fail(f"{value!r} is not one of {', '.join(names)}")
        return names[value]

    def network(self) -> Network:
        """An address or CIDR prefix, IPv4 or IPv6, without host bits."""
        value = self.text()
        try:
            return ipaddress.ip_network(value)
        except ValueError as error:
            raise self.fail(str(error)) from None

    def _scalar(self, tag: str, what: str) -> str:
        if not isinstance(self._node, yaml.ScalarNode) or self._node.tag != tag:
            shown = repr(self._node.value)[:40] if isinstance(self._node, yaml.ScalarNode) else "something else"
            raise self.fail(f"expected {what}, not {shown}")
        return str(self._node.value)


@functools.cache
def _names(kind: type[E], allowed: tuple[E, ...] | None) -> dict[str, E]:
    """Members of an enum by lower-case name."""
    return {member.name.lower(): member for member in (kind if allowed is None else allowed)}


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """No search for cycles among millions of new objects, which have none: it took six times what making them takes."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


# A PyYAML that was built where libyaml is missing has none of it.
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Composer(Composer, Resolver):
    """Composes nodes with places; refuses alias bombs. Takes events, of libyaml where there is one: slower than to
    let that compose by itself, and tells better what is wrong with anchors and aliases.
    """

    def __init__(self, text: str) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        self._events = yaml.parse(text, Loader=_PARSER)
        self._next: yaml.Event | None = next(self._events, None)
        self._aliases = 0

    def check_event(self, *choices: type[yaml.Event]) -> bool:
        """The next event is one of these."""
        return self._next is not None and (not choices or isinstance(self._next, choices))

    def peek_event(self) -> yaml.Event | None:
        """The next event."""
        return self._next

    def get_event(self) -> yaml.Event | None:
        """Take the next event."""
        event, self._next = self._next, next(self._events, None)
        return event

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if isinstance(self._next, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                mark: Any = self._next.start_mark
                raise yaml.MarkedYAMLError(problem="too many aliases", problem_mark=mark)
        return super().compose_node(parent, index)


def compose(text: str, file: str, problems: Problems) -> Node | None:
    """Root of a document, or None after reporting why there is none."""
    try:
        with without_collector():
            root = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.found.append(Problem(file, mark.line + 1 if mark else 0, "", f"not YAML: {error.problem}"))
        return None
    except (yaml.YAMLError, RecursionError) as error:
        problems.found.append(Problem(file, 0, "", f"not YAML: {str(error).splitlines()[0]}"))
        return None
    if root is None:
        problems.found.append(Problem(file, 0, "", "the document is empty"))
        return None
    return Node(root, _Document(file, problems))


def _compose(text: str) -> yaml.Node | None:
    # Each alias has its asterisk.
    if _PARSER is not yaml.SafeLoader and text.count("*") <= MAX_ALIASES:
        loader = _PARSER(text)
        try:
            node: yaml.Node | None = loader.get_single_node()
            return node
        except ComposerError:
            pass
        finally:
            loader.dispose()
    return _Composer(text).get_single_node()


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """Differs when a file was replaced or written to; () for what is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_bytes(path: Path, problems: Problems) -> bytes | None:
    """A file as it was at one time, or None after reporting why it cannot be read."""
    try:
        for _ in range(MAX_READS):
            with path.open("rb") as stream:
                before = stamp(os.fstat(stream.fileno()))
                raw = stream.read(MAX_BYTES + 1)
                after = stamp(os.fstat(stream.fileno()))
            if before == after:
                break
        else:
            message = f"changed each of {MAX_READS} times while it was read"
            problems.found.append(Problem(str(path), 0, "", message))
            return None
    except OSError as error:
        problems.found.append(Problem(str(path), 0, "", error.strerror or str(error)))
        return None
    if len(raw) > MAX_BYTES:
        problems.found.append(Problem(str(path), 0, "", f"larger than {MAX_BYTES} bytes"))
        return None
    return raw


def decode(raw: bytes, file: str, problems: Problems) -> str | None:
    """Its text, or None after reporting that it is none."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        problems.found.append(Problem(file, 0, "", f"not UTF-8 at byte {error.start}"))
        return None


def read_text(path: Path, problems: Problems) -> str | None:
    """Text of a file as it was at one time, or None after reporting why it cannot be read."""
    raw = read_bytes(path, problems)
    return None if raw is None else decode(raw, str(path), problems)


def load(path: Path, read: Callable[[Node], T]) -> T:
    """Read a file with `read`; raises InvalidDocumentError with all problems."""
    problems = Problems()
    text = read_text(path, problems)
    root = compose(text, str(path), problems) if text is not None else None
    value = root.attempt(read) if root is not None else None
    problems.raise_if_any()
    assert value is not None
    return value
