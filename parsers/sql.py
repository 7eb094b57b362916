"""What a statement of MySQL/MariaDB or PostgreSQL does and to which tables: a lexer, and one pass over its tokens.

No grammar: the words that precede a table in either dialect are known (FROM, JOIN, INTO, UPDATE, TABLE ...), and what
is not recognised is named rather than left out: a table too many makes an allow rule refuse, one too few would not.
Names of common table expressions are no tables where they are visible, and only there. What the text alone does not
say makes it `unsure`: code that runs other text (CALL, EXECUTE, DO, query_to_xml ...), objects that hold code, words
that begin no known statement, unterminated quotes, and whatever servers of one dialect read in two ways:
quotes behind backslashes while the session's mode is not known, executable comments for some versions only, ``1.e``.
Functions and views that the database's owner defined are not looked into.

Why not sqlglot or sqlparse: they build trees. Measured on 198 statements of mysqldump, psql, pg_dump and drivers,
sqlglot takes 11 times as long and sqlparse 16 times; on an INSERT of 1000 rows 800 times; 300 parentheses end in a
RecursionError. sqlglot fails on four of these statements and names no table of LOCK, PREPARE, DECLARE or comments that
MySQL runs. Time here is linear: patterns are possessive, each byte is looked at a fixed number of times, and no more
than `LOOKED_AT` of them.

MySQL 8.0 Reference Manual 11 and 15, sql/sql_lex.cc; MariaDB Knowledge Base "SQL Language Structure"; PostgreSQL 17
documentation, chapters 4.1 and VI, scan.l.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# No more of a statement is read; what is longer is `cut`.
LOOKED_AT: Final = 64 * 1024
# Names of one statement that are kept, in bytes and number; levels of parentheses.
_NAMES_SIZE: Final = 8 * 1024
_NAMES: Final = 256
_DEPTH: Final = 512


@dataclass(frozen=True, slots=True)
class Session:
    """What of a session decides how text is read.

    `escapes`: backslashes escape in plain quotes (None: not known); `encoding`: text is UTF-8, or of another encoding
    whose bytes below 0x80 are ASCII; `database`: what MySQL puts before names that have none (None: not known).
    """

    mysql: bool
    escapes: bool | None
    encoding: bool = True
    database: bytes | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What was read. Each list is in the order of the text, nothing twice.

    `verbs`: first words of all statements and subqueries, lower case, without WITH; ``into`` for a SELECT that writes,
    ``program`` for COPY from or to one. `tables`: names without quotes, parts joined by dots. `files`: of the server
    or the client, and programs. `cut`: there is more than was looked at. `used`: the database that USE names last.
    `sets`: it may change how later text is read; `encoding`: what SET NAMES and the like name last.
    """

    verbs: tuple[bytes, ...] = ()
    tables: tuple[bytes, ...] = ()
    files: tuple[bytes, ...] = ()
    unsure: bool = False
    cut: bool = False
    used: bytes | None = None
    sets: bool = False
    encoding: bytes | None = None

    @property
    def size(self) -> int:
        """About what it takes to keep it."""
        return 64 + sum(16 + len(each) for each in (*self.verbs, *self.tables, *self.files))


def read(text: bytes, session: Session, *, cut: bool = False) -> Statement:
    """Read what is sent as one text. `cut`: the caller has left off its end."""
    cut = cut or len(text) > LOOKED_AT
    return _Reader(text[:LOOKED_AT], session, cut=cut).statement()


# Tokens: words, names in quotes, literals (or several with commas between), and one character of anything else.
_WORD: Final = 1
_QUOTED: Final = 2
_LITERAL: Final = 3
_MARK: Final = 6
_SPECIAL, _COMMENT, _LEFT_OUT = 4, 5, 7

_NUMBER = rb"(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?"
# Digits that letters follow are a name in MySQL, unless it is 1e5; so is what follows a name and its dot.
_MYSQL_NUMBER = (
    rb"(?:\d++[eE][+-]?\d++|\d++(?![\w$\x80-\xff])(?:\.\d*+)?(?:[eE][+-]?\d++)?"
    rb"|(?<![\w$\x80-\xff`])\.\d++(?:[eE][+-]?\d++)?)"
)

# What stands between quotes. CPython before 3.11.5 repeats groups wrongly where the repetition is possessive
# (gh-106052): these are unrolled, and atomic as a whole.
_DOUBLED: Final = rb"(?>[^']*+(?:''[^']*+)*)"
_ESCAPED: Final = rb"(?>[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*)"


def _lexer(*, mysql: bool, escapes: bool) -> re.Pattern[bytes]:
    """One pattern for every token, a group for each kind; white space behind a token belongs to it. The special
    ones are MySQL's double quotes and PostgreSQL's dollar quotes.
    """
    inside = _ESCAPED if escapes else _DOUBLED
    literal = rb"'" + inside + rb"'"
    if mysql:
        word = rb"[\w$\x80-\xff]++"
        quoted = rb"`" + _DOUBLED.replace(b"'", b"`") + rb"`"
        special = rb'"' + inside.replace(b"'", b'"') + rb'"'
        comment = rb"/\*(?:M?!(?:\d{5,6})?)?"
        left_out = rb"--(?=[\x00-\x20]|\Z)[^\n]*+|#[^\n]*+|\\N"
        number = _MYSQL_NUMBER
    else:
        word = rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*+"
        quoted = rb'(?:[uU]&)?"' + _DOUBLED.replace(b"'", b'"') + rb'"'
        literal = rb"(?:[eE]'" + _ESCAPED + rb"'|(?:[uU]&)?" + literal + rb")"
        special = rb"\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*+)?\$"
        comment = rb"/\*"
        left_out = rb"--[^\r\n]*+|\$\d++"
        number = _NUMBER
    literal = rb"(?:" + literal + rb"|" + number + rb")"
    # A comma before a literal is before no table: the values of a row are one token.
    literals = literal + rb"(?:\s*+,\s*+" + literal + rb")*"
    mark = rb"""[(),;.{}@*=:?+<>!|&^~%\[\]/\\-]"""
    # Literals come first for their prefixes; a group that fails takes no number from the others.
    kinds = {
        _LITERAL: literals,
        _QUOTED: quoted,
        _SPECIAL: special,
        _COMMENT: comment,
        _LEFT_OUT: left_out,
        _WORD: word,
        _MARK: mark,
    }
    groups = b"|".join(b"(?P<k%d>%b)" % each for each in kinds.items())
    return re.compile(rb"(?s)(?:" + groups + rb")\s*+")


def _rows(*, escapes: bool) -> re.Pattern[bytes]:
    """Rows of nothing but plain literals."""
    value = rb"(?:-?[\d.]++|'" + (_ESCAPED if escapes else _DOUBLED) + rb"'|NULL|null|DEFAULT)"
    row = rb"(?>\(\s*+" + value + rb"(?:\s*+,\s*+" + value + rb")*\s*+\))"
    return re.compile(rb"(?s)" + row + rb"(?:\s*+,\s*+" + row + rb")*")


_ROWS: Final = {escapes: _rows(escapes=escapes) for escapes in (False, True)}
_LEXERS: Final = {
    (mysql, escapes): _lexer(mysql=mysql, escapes=escapes) for mysql in (False, True) for escapes in (False, True)
}
_NESTED: Final = re.compile(rb"/\*|\*/")
_SPACE: Final = re.compile(rb"\s*+")
# In encodings of two bytes the second may look like these.
_TRAIL: Final = re.compile(rb"[\x80-\xff][;\\`@\[\]^{|}~]")
# MySQL and MariaDB of today run comments for servers up to this one.
_RUN_BY_ALL: Final = 50099


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


# First words of statements whose tables, if any, stand behind the words that `_Reader` knows.
_KNOWN: Final = _words(
    "select values show use set begin start commit rollback savepoint release end abort reset discard listen notify"
    " unlisten deallocate close fetch move checkpoint kill flush unlock xa help purge insert replace update delete"
    " merge truncate table create alter drop rename lock analyze optimize check repair checksum vacuum cluster"
    " reindex refresh describe desc explain handler copy load grant revoke declare prepare comment do with"
)
# What these do is not in their text.
_OPAQUE: Final = _words("call execute")
_QUERIES: Final = _words("select values table with")
_CHANGES: Final = _words("insert update delete merge replace")
# Objects of CREATE, ALTER and DROP: those that are no tables, and those that hold code or stand for what is elsewhere.
_HARMLESS: Final = _words("user role group type domain collation tablespace")
_CODE: Final = _words(
    "function procedure trigger event rule extension language aggregate package server policy statistics publication"
    " subscription cast operator transform conversion access default system logfile undo resource body routine large"
    " wrapper"
)
_OF_TABLES: Final = _words("trigger rule policy")
_EXPLAINING: Final = _words("explain describe desc analyze")
_EXPLAINS: Final = _words("analyze verbose extended partitions format json tree traditional local no_write_to_binlog")
# Behind these a list of tables is over. What may be an alias in a dialect is not one of its words.
_ENDS: Final = {
    False: _words(
        "where group having order limit select union except intersect fetch offset into returning window for"
    ),
    True: _words("where group having order limit select union into"),
}
# Between the word that a table follows and the table; no table can be named so.
_MODIFIERS: Final = {
    False: _words("only lateral into table"),
    True: _words("lateral into table low_priority delayed high_priority ignore"),
}
_OF_DEFINITIONS: Final = _words("if not exists concurrently")
_OF_INTO: Final = _words("temp temporary unlogged local global")
_DEFINES: Final = _words("create alter drop refresh reindex truncate")
# No table can be named so: where one stands instead, what came before was no keyword but, say, a label.
_NO_TABLE: Final = {
    False: _words(
        "from where group having order limit union except intersect into on using with select as for window returning"
        " fetch offset and or when then else end case join left right inner cross natural full outer"
    ),
    True: _words(
        "from where group having order limit union into on using with select as for and or when then else case join"
        " left right inner outer cross natural set values fetch straight_join"
    ),
}
# Their TABLE begins a list.
_LISTS: Final = _words("drop truncate lock check repair optimize checksum analyze grant revoke flush rename")
# FROM of these names no table, and none in the parentheses of those.
_FROM_OTHER: Final = _words("revoke fetch move copy import purge")
_FROM_INSIDE: Final = _words("extract trim substring substr overlay position mid")
# What may stand between SELECT and MySQL's modifier STRAIGHT_JOIN.
_SELECTING: Final = _words("select all distinct distinctrow high_priority")
_SETS: Final = _words("union except intersect minus")
_OF_TABLE: Final = _words("columns fields index indexes keys")
_RENAMED: Final = _words("column index key constraint attribute value")
# Functions that run text as SQL, read files, or change how text is read.
_DYNAMIC: Final = re.compile(
    rb"(?:dblink\w*|(?:query|cursor|table|schema|database)_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table"
    rb"|pg_(?:read|ls|file|logical)_\w+|lo_\w+|loread|lowrite|set_config|load_file|sys_exec|sys_eval)\Z"
)
# Settings that change what later text means.
_ENCODINGS: Final = _words("names charset character_set_client client_encoding")
_SETTINGS: Final = _ENCODINGS | _words("sql_mode character standard_conforming_strings backslash_quote")
# MySQL's tables that stand for others.
_STANDS_FOR: Final = _words("federated connect spider connection tabname")

# What the next name is: none of a table, a table or a common table expression, a table that is changed.
_NOTHING, _TABLE, _TARGET = 0, 1, 2
# What may begin at a word: nothing, a query, any statement.
_QUERY, _ANY = 1, 2
# States of a WITH list: what came last is WITH or a comma, a name, AS, a body that is open, one that is closed.
_LISTING, _NAMED, _AS, _OPEN, _CLOSED = 1, 2, 3, 4, 5


class _Level:
    """What is known between two parentheses."""

    __slots__ = ("after", "commas", "hidden", "inside", "name", "names", "recursive", "using")

    def __init__(self) -> None:
        self.commas = _NOTHING  # what follows a comma
        self.inside = False  # FROM is no clause here
        self.using = False  # USING names tables
        self.names = 0  # state of its WITH list
        self.name = b""
        self.recursive = False
        self.hidden: list[bytes] = []  # its common table expressions
        self.after = (_NOTHING, 0)  # what is expected and may begin behind it


class _Reader:
    """One pass over a text."""

    def __init__(self, text: bytes, session: Session, *, cut: bool) -> None:
        self._text = text
        self._session = session
        self._mysql = session.mysql
        self._cut = self._unsure = cut
        self._verbs: dict[bytes, None] = {}
        self._tables: dict[bytes, None] = {}
        self._files: dict[bytes, None] = {}
        self._size = 0
        self._database = session.database
        self._used: bytes | None = None
        self._sets = False
        self._encoding: bytes | None = None
        self._begin()

    def _begin(self) -> None:
        """A statement begins."""
        self._level = _Level()
        self._levels = [self._level]
        self._visible: dict[bytes, int] = {}
        self._verb = b""  # of the statement, not of its parts
        self._start = _ANY
        self._empty = True
        self._expects = _NOTHING
        self._parts: list[bytes] = []  # of the name that is being read
        self._dot = False
        self._defines = False  # CREATE, ALTER or DROP, and not yet what
        self._on = False  # ON names a table
        self._whole = False  # the name is a database's
        self._deletes = False
        self._into = False
        self._renames = False
        self._of_table = False
        self._takes_encoding = False
        # What came before: a word and the word before it, a word or a name, a mark.
        self._word = self._before = self._name = self._mark = b""

    def statement(self) -> Statement:
        """All of it."""
        for kind, value in self._tokens():
            if self._parts and not self._goes_on(kind, value):
                self._finish(value)
            self._empty &= value == b";"
            if kind == _WORD:
                self._on_word(value)
            elif kind == _MARK:
                self._on_mark(value)
                if len(self._levels) > _DEPTH:
                    self._unsure = True
                    break
            elif kind == _QUOTED:
                self._on_quoted(value)
            else:
                self._on_literal(value)
        self._end()
        return Statement(
            tuple(self._verbs),
            tuple(self._tables),
            tuple(self._files),
            self._unsure,
            self._cut,
            self._used,
            self._sets,
            self._encoding,
        )

    def _end(self) -> None:
        """A statement has ended."""
        if self._parts:
            self._finish(b"")
        self._unsure |= self._defines or len(self._levels) > 1 or not (self._empty or self._verb)

    # Tokens.

    def _tokens(self) -> Iterator[tuple[int, bytes]]:
        text, session = self._text, self._session
        escapes = self._mysql if session.escapes is None else session.escapes
        match, rows = _LEXERS[self._mysql, escapes].match, _ROWS[escapes].match
        if not session.encoding and _TRAIL.search(text):
            self._unsure = True
        at = _SPACE.match(text).end()  # type: ignore[union-attr]
        running = False  # in an executable comment
        while at < len(text):
            found = match(text, at)
            if found is None:
                self._unsure = True
                return
            kind = int(found.lastgroup[1:])  # type: ignore[index]
            start, end = found.span(found.lastgroup)  # type: ignore[arg-type]
            at = found.end()
            if kind == _MARK and (self._mark == b"," or self._word == b"values") and text[start] == 0x28:
                row = rows(text, start)
                if row:
                    kind, end = _LITERAL, row.end()
                    at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
            if kind == _WORD:
                value = text[start:end]
                if not session.encoding and not value.isascii():
                    self._unsure = True
                yield kind, value
            elif kind == _MARK:
                if running and text[start : start + 2] == b"*/":
                    running = False
                    at = _SPACE.match(text, start + 2).end()  # type: ignore[union-attr]
                    continue
                yield kind, text[start:end]
            elif kind == _LITERAL:
                value = text[start:end]
                if session.escapes is None and b"\\'" in value:
                    self._unsure = True
                if self._mysql and value[-1:] == b"." and text[end : end + 1] in {b"e", b"E"}:
                    self._unsure = True  # 1.e( and 1.e.x: MySQL drops the number
                yield kind, value
            elif kind == _QUOTED:
                yield kind, self._unquoted(text[start:end])
            elif kind == _SPECIAL and self._mysql:
                # A name with ANSI_QUOTES, else text; where a table may stand it is one.
                value = text[start:end]
                if session.escapes is not False and b'\\"' in value:
                    self._unsure = True
                yield (_QUOTED, value[1:-1].replace(b'""', b'"')) if self._named_next() else (_LITERAL, value)
            elif kind == _SPECIAL:
                close = text.find(text[start:end], end)
                if close < 0:
                    self._unsure = True
                    return
                at = _SPACE.match(text, close + end - start).end()  # type: ignore[union-attr]
                yield _LITERAL, text[start : close + end - start]
            elif kind == _COMMENT:
                opening = text[start:end]
                if b"!" in opening:
                    version = opening.partition(b"!")[2]
                    if running or b"M" in opening or len(version) > 5 or int(version or b"0") > _RUN_BY_ALL:
                        self._unsure = True
                    running = True
                    continue
                close = self._comment(end)
                if close < 0:
                    self._unsure = True
                    return
                at = _SPACE.match(text, close).end()  # type: ignore[union-attr]
        if running:
            self._unsure = True

    def _comment(self, at: int) -> int:
        """Its end; PostgreSQL's nest."""
        if self._mysql:
            close = self._text.find(b"*/", at)
            return close + 2 if close >= 0 else -1
        depth = 1
        for found in _NESTED.finditer(self._text, at):
            depth += 1 if found[0] == b"/*" else -1
            if not depth:
                return found.end()
        return -1

    def _unquoted(self, value: bytes) -> bytes:
        if value[:1] in {b"u", b"U"}:
            self._unsure |= b"\\" in value
            value = value[2:]
        quote = value[:1]
        return value[1:-1].replace(quote + quote, quote)

    # Names of tables.

    def _named_next(self) -> bool:
        return self._expects != _NOTHING or self._dot or self._level.names == _LISTING or self._verb == b"use"

    def _goes_on(self, kind: int, value: bytes) -> bool:
        """The token belongs to the name before it."""
        if self._dot:
            return kind in {_WORD, _QUOTED} or value == b"*"
        return kind == _MARK and value == b"."

    def _on_name(self, value: bytes) -> None:
        """A name, in quotes or not, or a part of one."""
        level = self._level
        if self._dot:
            self._parts.append(value)
            self._dot = False
        elif self._expects:
            self._parts = [value]
        elif level.names == _LISTING:
            level.name, level.names = value, _NAMED
        elif self._verb == b"use":
            self._used = self._database = value

    def _finish(self, behind: bytes) -> None:
        """The name of a table is complete."""
        parts, kind = self._parts, self._expects
        self._parts, self._expects, self._dot = [], _NOTHING, False
        if kind == _TABLE and behind == b"(":
            return  # a function
        if self._verb == b"delete" and len(parts) > 1 and parts[-1] == b"*":
            parts = parts[:-1]
        if self._whole:
            parts, self._whole = [parts[0], b"*"], False
        if self._into:
            self._say(b"into")
            self._into = False
        if len(parts) == 1:
            if kind == _TABLE and self._visible.get(parts[0]):
                return
            if self._mysql:
                if parts[0].lower() == b"dual":
                    return
                if self._database is None:
                    self._unsure = True
                elif self._database:
                    parts = [self._database, *parts]
        self._keep(self._tables, b".".join(parts))

    def _keep(self, names: dict[bytes, None], name: bytes) -> None:
        if name in names:
            return
        self._size += len(name)
        if self._size > _NAMES_SIZE or len(names) >= _NAMES:
            self._unsure = True
            return
        names[name] = None

    def _say(self, verb: bytes) -> None:
        self._keep(self._verbs, verb)

    def _hide_nothing(self) -> None:
        """No common table expression is visible from here on."""
        self._visible.clear()
        for level in self._levels:
            level.hidden.clear()

    def _hide(self, level: _Level) -> None:
        level.hidden.append(level.name)
        self._visible[level.name] = self._visible.get(level.name, 0) + 1

    # Words.

    def _on_quoted(self, value: bytes) -> None:
        self._on_name(value)
        self._setting(value.lower())
        self._word = self._before = self._mark = b""
        self._name = value.lower()
        self._start = 0

    def _on_word(self, value: bytes) -> None:
        word = value.lower()
        start, self._start = self._start, 0
        self._setting(word)
        # Behind a dot nothing is a keyword. ODBC has a dot before a table: FROM .t
        if self._dot or self._mark == b".":
            self._on_name(value if self._mysql else word)
            self._before, self._word, self._name, self._mark = b"", b"", word, b""
            return
        if not self._verb:
            self._verb = word
            self._unsure |= word not in _KNOWN and word not in _OPAQUE
            self._do(word)
        elif not (start and self._begins(word, start)):
            self._inside(word, value if self._mysql else word)
        self._before, self._word, self._name, self._mark = self._word, word, word, b""

    def _setting(self, word: bytes) -> None:
        if self._takes_encoding:
            self._encoding, self._takes_encoding = word, False
        elif self._verb == b"set":
            if word in _SETTINGS:
                self._sets = True
            self._takes_encoding = word in _ENCODINGS or (word == b"set" and self._word == b"character")

    def _begins(self, word: bytes, start: int) -> bool:
        """A query begins within a statement, or a statement that another is about."""
        if word in _QUERIES and not (word == b"table" and self._verb in _EXPLAINING):
            if start == _ANY or word != b"values":
                self._do(word)
            return True
        if start != _ANY:
            return False
        if self._verb in _EXPLAINING and word in _EXPLAINS:
            self._start = _ANY
            return True
        if word in _CHANGES or word in _OPAQUE or (self._verb in {b"explain", b"set"} and word in _KNOWN):
            self._do(word)
            return True
        return False

    def _do(self, word: bytes) -> None:
        """A verb where one may stand."""
        level = self._level
        level.commas = self._expects = _NOTHING
        if word == b"with":
            level.names, level.recursive = _LISTING, False
            return
        level.names = 0
        self._say(b"select" if word == b"table" else word)
        if self._verb == b"merge" and word in _CHANGES and level is self._levels[0] and self._word:
            return  # of the target
        if len(self._levels) == 1:
            self._verb = word
        match word:
            case b"select":
                level.inside = False
            case b"table":
                self._expects = _TABLE
            case b"insert" | b"replace" | b"copy" | b"handler" | b"cluster":
                self._expects = _TARGET
            case b"update":
                self._expects = _TARGET
                level.commas = _TARGET if self._mysql else _NOTHING
            case b"truncate" | b"vacuum":
                self._expects = level.commas = _TARGET
            case b"analyze" | b"lock" if not self._mysql:
                self._expects = level.commas = _TARGET
            case b"delete":
                self._deletes = level.using = True
            case b"merge":
                level.using = True
            case b"create" | b"alter" | b"drop":
                self._defines = True
            case b"grant" | b"revoke":
                self._on = True
            case b"explain" | b"describe" | b"desc" | b"analyze":
                self._start = _ANY
                self._expects = _TARGET if self._mysql and word != b"analyze" else _NOTHING
            case b"call":
                self._unsure = True
            case b"execute":
                self._unsure = self._sets = True
            case b"do" if not self._mysql:
                self._unsure = self._sets = True
            case b"reset" | b"discard":
                self._sets = True

    def _inside(self, word: bytes, value: bytes) -> None:
        """A word within a statement; `value` is it where it is a name."""
        level = self._level
        if level.names and self._lists(word, value):
            return
        if word == b"select":
            if not self._on:
                self._do(word)
            return
        if word == b"with" and self._verb in {b"insert", b"replace"}:
            self._do(word)
            return
        if self._defines and self._defined(word):
            return
        if self._verb == b"use" and self._word == b"use":
            self._on_name(value)
            return
        if self._expects and self._expected(word, value):
            return
        if level.commas and word in _ENDS[self._mysql] and self._word != b"for":
            level.commas = _NOTHING
        match word:
            case b"from":
                self._from()
            case b"in" if self._verb == b"show" and self._mysql:
                self._from()
            case b"join" if self._word != b"for":
                self._expects, level.using = _TABLE, False
            case b"straight_join" if self._mysql and (level.commas or self._word not in _SELECTING):
                self._expects, level.using = _TABLE, False
            case b"into":
                self._expects = _TARGET
                self._into = self._verb not in {b"merge", b"load"}
            case b"table" if self._word != b"returns":
                if self._verb in _CHANGES:
                    self._say(b"select")
                self._expects = _TARGET if self._verb in _KNOWN - _QUERIES else _TABLE
                level.commas = _TARGET if self._verb in _LISTS else _NOTHING
            case b"tables" if self._verb in {b"lock", b"flush", b"rename"}:
                self._expects = level.commas = _TARGET
            case b"using" if level.using:
                self._expects = level.commas = _TABLE
                level.using = False
            case b"on" if self._on:
                self._on = self._verb in {b"grant", b"revoke"} and self._on
                self._expects = _TARGET
                level.commas = _TARGET if self._on else _NOTHING
            case b"set" if level.commas == _TARGET:
                level.commas = _NOTHING
            case b"union" | b"except" | b"intersect" | b"minus":
                self._start = _QUERY
                if self._mysql and self._verb in {b"create", b"alter"}:
                    self._expects = _TABLE  # UNION=(t, u) of MERGE tables
            case b"all" | b"distinct" if self._word in _SETS:
                self._start = _QUERY
            case b"as" if self._verb in {b"create", b"prepare", b"declare"}:
                self._start = _ANY
            case b"for" if self._verb in {b"declare", b"set"}:
                self._start = _ANY
            case b"then" | b"atomic" if self._verb in {b"merge", b"begin"}:
                self._start = _ANY
            case b"not" if self._verb == b"begin":
                self._unsure = True  # a block of MariaDB
            case b"duplicate" | b"conflict" | b"returning":
                self._hide_nothing()
            case b"create" | b"grant" if not self._on and self._verb != b"show":
                # What CREATE SCHEMA goes on with.
                self._hide_nothing()
                self._unsure = True
            case b"program" if self._verb == b"copy":
                self._say(word)
            case b"view" if self._verb == b"refresh":
                self._expects = _TARGET
            case b"index" | b"schema" | b"database" | b"system" if self._verb == b"reindex":
                self._unsure = True
            case _:
                self._defining(word)

    def _lists(self, word: bytes, value: bytes) -> bool:
        """Of a WITH list."""
        level = self._level
        if level.names == _LISTING:
            if word == b"recursive":
                level.recursive = True
            else:
                level.name, level.names = value, _NAMED
            return True
        if level.names == _NAMED:
            level.names = _AS if word == b"as" else 0
            return bool(level.names)
        if level.names == _AS:
            if word in {b"not", b"materialized"}:
                return True
            level.names = 0
        if level.names == _CLOSED and word not in {b"search", b"cycle"}:
            # No statement that is known follows the list.
            self._unsure |= self._verb == b"with" and level is self._levels[0]
        return False

    def _expected(self, word: bytes, value: bytes) -> bool:
        """Where a table may stand."""
        if word in _MODIFIERS[self._mysql]:
            return True
        if word in _OF_DEFINITIONS and self._verb in _DEFINES:
            return True
        if self._into and word in _OF_INTO and not self._mysql:
            return True
        if self._into and word in {b"outfile", b"dumpfile"}:
            self._say(b"into")
            self._expects, self._into = _NOTHING, False
            return True
        if self._word == b"{" or (self._word == b"table" and self._verb == b"show" and word == b"status"):
            return True
        if self._on and self._word == b"on" and word != b"table" and self._is_object(word):
            self._expects = _NOTHING
            return True
        if word in _NO_TABLE[self._mysql]:
            self._expects = _NOTHING
            return False
        self._on_name(value)
        return True

    def _is_object(self, word: bytes) -> bool:
        """GRANT ON what is no table."""
        if word == b"all" or word in _CODE or (word in {b"schema", b"database", b"sequence", b"foreign", b"domain"}):
            self._unsure = True
            return True
        return False

    def _from(self) -> None:
        level = self._level
        if level.inside or (self._word == b"distinct" and self._before in {b"is", b"not"}):
            return
        outermost = level is self._levels[0]
        if self._word == b"values" and self._verb in {b"create", b"alter"} and outermost:
            return  # the bounds of a partition
        if outermost and self._verb in _FROM_OTHER:
            return
        if outermost and self._verb == b"prepare":
            self._unsure = self._sets = True
            return
        if outermost and self._verb == b"show":
            self._whole = not self._of_table
            self._of_table = False
            self._expects = _TARGET
            return
        self._expects = level.commas = _TARGET if self._deletes else _TABLE
        self._deletes = False

    def _defined(self, word: bytes) -> bool:
        """CREATE, ALTER or DROP of what?"""
        if word in {b"table", b"view", b"sequence"}:
            self._expects = _TARGET
            self._level.commas = _TARGET if self._verb == b"drop" else _NOTHING
        elif word in {b"database", b"schema"}:
            self._expects, self._whole = _TARGET, True
        elif word == b"index":
            self._on = True
            self._unsure |= self._verb != b"create" and not self._mysql
        elif word in _CODE:
            self._unsure = True
            self._on = word in _OF_TABLES
        elif word not in _HARMLESS:
            return False
        self._defines = False
        return True

    def _defining(self, word: bytes) -> None:
        """What only some statements say."""
        if self._renames:
            self._renames = False
            if word in {b"to", b"as"}:
                self._expects = _TARGET
            elif self._mysql and word not in _RENAMED:
                self._expects = _TARGET
                self._on_name(word)
        elif word == b"rename":
            self._renames = self._verb == b"alter"
        elif word == b"to":
            if self._verb == b"rename":
                self._expects = _TARGET
        elif word in {b"references", b"inherits", b"inherit"} and not self._on:
            self._expects = _TARGET if self._verb in {b"create", b"alter"} else _NOTHING
        elif word == b"like":
            self._expects = _TARGET if self._verb == b"create" else _NOTHING
        elif (word == b"of" and self._word == b"partition") or (
            word == b"partition" and self._word in {b"attach", b"detach"}
        ):
            self._expects = _TARGET
        elif word in _STANDS_FOR and self._mysql:
            self._unsure |= self._verb in {b"create", b"alter"}
        elif word in _OF_TABLE and self._verb == b"show":
            self._of_table = True
        elif (self._verb == b"comment" and self._word == b"on") or (word == b"foreign" and self._verb == b"import"):
            self._unsure = True

    # All else.

    def _on_literal(self, value: bytes) -> None:
        if self._takes_encoding:
            self._encoding, self._takes_encoding = value.strip(b"'\"").lower(), False
        named = self._word in {b"infile", b"outfile", b"dumpfile", b"program"}
        if named or (self._verb == b"copy" and len(self._levels) == 1 and self._word in {b"from", b"to"}):
            self._keep(self._files, value[value.find(b"'") + 1 :].strip(b"'\"$"))
        self._expects = _NOTHING
        self._start = 0
        self._word = self._before = self._name = self._mark = b""

    def _on_mark(self, mark: bytes) -> None:
        start, self._start = self._start, 0
        level = self._level
        match mark:
            case b"(":
                self._opened()
            case b")":
                self._closed()
            case b";":
                self._end()
                self._begin()
                return
            case b",":
                if level.names == _CLOSED:
                    level.names = _LISTING
                else:
                    self._expects = level.commas
            case b".":
                self._dot = bool(self._parts)
            case b"*" if self._dot or (self._expects and self._on):
                self._on_name(mark)
            case b"{" if self._expects and self._mysql:
                self._word, self._mark = mark, mark
                return
            case b"=" if self._word in {b"union", b"format"}:
                self._start = start
            case _:
                self._expects = _NOTHING
        self._word = self._before = b""
        if mark != b".":
            self._name = b""
        self._mark = mark

    def _opened(self) -> None:
        level, inner = self._level, _Level()
        self._start = _QUERY
        if level.names == _AS:
            level.names = _OPEN
            self._start = _ANY
            if level.recursive:
                self._hide(level)
        elif self._expects and self._verb in _EXPLAINING | {b"vacuum", b"cluster"} and self._word == self._verb:
            inner.after = (self._expects, 0)
            self._expects = _NOTHING
        elif self._word in _EXPLAINING and self._word == self._verb:
            inner.after = (_NOTHING, _ANY)
        elif self._expects:
            inner.commas = self._expects
            self._start = _ANY if self._verb == b"copy" else _QUERY
        elif self._name:
            inner.inside = self._name in _FROM_INSIDE
            if _DYNAMIC.match(self._name):
                self._unsure = True
                self._sets |= self._name == b"set_config"
        self._level = inner
        self._levels.append(inner)

    def _closed(self) -> None:
        if len(self._levels) == 1:
            self._unsure = True
            return
        inner = self._levels.pop()
        for name in inner.hidden:
            self._visible[name] -= 1
        level = self._level = self._levels[-1]
        self._expects, self._start = inner.after
        if level.names == _OPEN:
            level.names = _CLOSED
            self._start = _ANY
            if not level.recursive:
                self._hide(level)
