from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.sql import LOOKED_AT, Session, Statement, read

MYSQL = Session(mysql=True, escapes=True, database=b"shop")
POSTGRES = Session(mysql=False, escapes=False)


def said(statement: Statement) -> tuple[str, str]:
    return b" ".join(statement.verbs).decode(), b" ".join(statement.tables).decode()


# In both dialects; of MySQL without the database that it adds.
BOTH = [
    ("SELECT 1", "select", ""),
    ("SELECT * FROM a, b AS c, (SELECT 1 FROM d) x JOIN e ON e.i=a.i, f ORDER BY a, b", "select", "a b d e f"),
    ("select * from a where x in (select y from b) group by c, d", "select", "a b"),
    ("(SELECT 1 FROM a) UNION ALL (SELECT 2 FROM b)", "select", "a b"),
    ("((SELECT 1 FROM a))", "select", "a"),
    ("SELECT * FROM (a CROSS JOIN b) JOIN (c JOIN d ON 1=1) ON 2=2", "select", "a b c d"),
    ("SELECT * FROM db . t", "select", "db.t"),
    ("SELECT t.from, t.update, t.x FROM t", "select", "t"),
    ("SELECT a.x = b.y, c FROM a JOIN b ON a.i = 1, c", "select", "a b c"),
    ("SELECT extract(year FROM b), trim(both 'x' FROM c), substring(d FROM 2) FROM a", "select", "a"),
    ("SELECT 1; DROP TABLE x; -- hi", "select drop", "x"),
    (";; SELECT 1 ;", "select", ""),
    ("WITH x AS (SELECT * FROM x), y(a) AS (SELECT * FROM x) SELECT * FROM y, z", "select", "x z"),
    ("WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT n+1 FROM x) SELECT * FROM x", "select", ""),
    ("SELECT (WITH s AS (SELECT 1) SELECT * FROM s), 1 FROM s", "select", "s"),
    ("(WITH a AS (SELECT 1) SELECT * FROM a) UNION SELECT * FROM a", "select", "a"),
    ("WITH s AS (SELECT 1) SELECT * FROM q.s", "select", "q.s"),
    ("WITH s AS (SELECT 1) DELETE FROM s", "select delete", "s"),
    ("WITH s AS (SELECT 1) UPDATE s SET x=1", "select update", "s"),
    ("INSERT INTO t (a,b) VALUES (1,'x;y'), (2, 'O''Reilly')", "insert", "t"),
    ("INSERT INTO t VALUES (1,2),(3,(SELECT x FROM u)),(4,5)", "insert select", "t u"),
    ("INSERT INTO t SELECT a FROM u WHERE b = 1", "insert select", "t u"),
    ("INSERT INTO trim (SELECT * FROM secret)", "insert select", "trim secret"),
    ("INSERT INTO t WITH c AS (SELECT 1) SELECT * FROM c", "insert select", "t"),
    ("DELETE FROM t WHERE x = 1", "delete", "t"),
    ("UPDATE t SET a = 1, b = 2 WHERE c IN (SELECT 1 FROM u)", "update select", "t u"),
    ("TRUNCATE TABLE a", "truncate", "a"),
    ("TRUNCATE a", "truncate", "a"),
    ("DROP TABLE IF EXISTS a, b", "drop", "a b"),
    ("DROP VIEW a, b", "drop", "a b"),
    ("CREATE TABLE a (id int REFERENCES b(id), c varchar(3), FOREIGN KEY (d) REFERENCES e (f))", "create", "a b e"),
    ("CREATE TEMPORARY TABLE IF NOT EXISTS a (x int)", "create", "a"),
    ("CREATE TABLE a AS SELECT * FROM b", "create select", "a b"),
    ("CREATE OR REPLACE VIEW v AS SELECT * FROM b", "create select", "v b"),
    ("CREATE UNIQUE INDEX i ON t (a, b)", "create", "t"),
    ("ALTER TABLE a ADD x int, DROP y, RENAME TO q", "alter", "a q"),
    ("ALTER TABLE a RENAME COLUMN b TO c", "alter", "a"),
    ("DROP DATABASE hr", "drop", "hr.*"),
    ("CREATE USER x", "create", ""),
    ("GRANT SELECT, INSERT ON t TO u", "grant", "t"),
    ("REVOKE ALL ON t FROM u", "revoke", "t"),
    ("EXPLAIN SELECT * FROM t", "explain select", "t"),
    ("SET x = (SELECT y FROM t)", "set select", "t"),
    ("BEGIN", "begin", ""),
    ("TABLE x", "select", "x"),
    ("SELECT 1 UNION TABLE x", "select", "x"),
    ("INSERT INTO a TABLE b", "insert select", "a b"),
    ("VALUES (1)", "values", ""),
    ("SELECT 1e5FROM t", "select", "t"),
    ("SELECT 1.FROM t", "select", "t"),
    ("SELECT .5FROM t", "select", "t"),
    ("SELECT'x'FROM t", "select", "t"),
    ("SELECT/**/1/**/FROM/**/a/**/./**/b", "select", "a.b"),
    ("SELECT 1 -- FROM x\nFROM t", "select", "t"),
    ("", "", ""),
    (" \n;", "", ""),
]
ONLY_MYSQL = [
    ("INSERT IGNORE INTO `a b`.`c``d` SET x=1 ON DUPLICATE KEY UPDATE x=VALUES(x)", "insert", "a b.c`d"),
    ("REPLACE LOW_PRIORITY t VALUES (1)", "replace", "shop.t"),
    ("INSERT t VALUES (1)", "insert", "shop.t"),
    ("UPDATE IGNORE a JOIN b USING (id), c SET a.x=1, b.y=2", "update", "shop.a shop.b shop.c"),
    ("DELETE a, b FROM a JOIN b USING (id) WHERE 1", "delete", "shop.a shop.b"),
    ("DELETE FROM a, b.* USING a JOIN b JOIN c", "delete", "shop.a shop.b shop.c"),
    ("CREATE TABLE a LIKE b", "create", "shop.a shop.b"),
    ("CREATE TABLE m (a int) ENGINE=MERGE UNION=(s, t)", "create", "shop.m shop.s shop.t"),
    ("RENAME TABLE a TO b, c TO d", "rename", "shop.a shop.b shop.c shop.d"),
    ("ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b", "alter", "shop.a shop.b"),
    ("LOCK TABLES a READ, b AS c WRITE", "lock", "shop.a shop.b"),
    ("FLUSH TABLES a, b WITH READ LOCK", "flush", "shop.a shop.b"),
    ("GRANT ALL ON *.* TO u", "grant", "*.*"),
    ("GRANT ALL ON hr.* TO u", "grant", "hr.*"),
    ("USE hr; SELECT * FROM salaries", "use select", "hr.salaries"),
    ("LOAD DATA LOCAL INFILE '/x' INTO TABLE t FIELDS TERMINATED BY ','", "load", "shop.t"),
    ("SELECT * FROM t INTO OUTFILE '/x'", "select into", "shop.t"),
    ("SELECT a FROM t INTO @x", "select", "shop.t"),
    ("SHOW TABLES FROM hr", "show", "hr.*"),
    ("SHOW FULL COLUMNS FROM t", "show", "shop.t"),
    ("SHOW CREATE TABLE t", "show", "shop.t"),
    ("DESC t", "desc", "shop.t"),
    ("EXPLAIN FORMAT=JSON SELECT * FROM t", "explain select", "shop.t"),
    ("ANALYZE TABLE a, b", "analyze", "shop.a shop.b"),
    ("HANDLER t OPEN", "handler", "shop.t"),
    ("SELECT STRAIGHT_JOIN x FROM a STRAIGHT_JOIN b", "select", "shop.a shop.b"),
    ("SELECT 1 FROM a FOR SYSTEM_TIME ALL STRAIGHT_JOIN b", "select", "shop.a shop.b"),
    (
        "INSERT INTO t WITH c AS (SELECT 1) SELECT * FROM c ON DUPLICATE KEY UPDATE x=(SELECT 1 FROM c)",
        "insert select",
        "shop.t shop.c",
    ),
    ("SELECT * FROM {oj a LEFT OUTER JOIN b ON 1}", "select", "shop.a shop.b"),
    ("SELECT * FROM .t", "select", "shop.t"),
    ("SELECT * FROM (a, b), c", "select", "shop.a shop.b shop.c"),
    ("SELECT * FROM a USE INDEX FOR JOIN (i), b", "select", "shop.a shop.b"),
    ("SELECT * FROM a FORCE INDEX FOR ORDER BY (i), b", "select", "shop.a shop.b"),
    ("SELECT * FROM a offset, b", "select", "shop.a shop.b"),
    ("SELECT 1 FROM DUAL", "select", ""),
    ('SELECT "a" FROM "b"', "select", "shop.b"),
    ("SELECT \\NFROM t", "select", "shop.t"),
    ("SELECT 1 # FROM q\n FROM t", "select", "shop.t"),
    ("SELECT 1 --1 FROM t", "select", "shop.t"),
    ("SELECT /* /* */ 1 FROM t", "select", "shop.t"),
    ("SELECT 'a\\' FROM t' FROM u", "select", "shop.u"),
    ("SELECT/*!50000 a FROM*/ t /*! , u */", "select", "shop.t shop.u"),
    ("/*!40101 SET NAMES utf8 */", "set", ""),
    ("SELECT * FROM 1a.2b", "select", "1a.2b"),
]
ONLY_POSTGRES = [
    ("WITH x AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM x", "delete insert select", "t u"),
    ("UPDATE ONLY a AS z SET x=1, y=2 FROM b, c WHERE z.i=b.i", "update", "a b c"),
    ("DELETE FROM a USING b, c WHERE a.x=b.x", "delete", "a b c"),
    ("MERGE INTO t USING u ON t.a=u.a WHEN MATCHED THEN UPDATE SET x=1", "merge update", "t u"),
    ("COPY t (a,b) FROM STDIN", "copy", "t"),
    ("COPY (SELECT * FROM t) TO '/tmp/x'", "copy select", "t"),
    ("COPY t FROM PROGRAM 'id'", "copy program", "t"),
    ("SELECT * INTO TEMP n FROM t", "select into", "n t"),
    ("INSERT INTO temp VALUES (1)", "insert", "temp"),
    ("INSERT INTO t(a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a=excluded.a RETURNING a", "insert", "t"),
    ("EXPLAIN (ANALYZE, VERBOSE) DELETE FROM t", "explain delete", "t"),
    ("LOCK TABLE a, b IN SHARE MODE", "lock", "a b"),
    ("VACUUM (FULL) a, b", "vacuum", "a b"),
    ("PREPARE p(int) AS SELECT * FROM t WHERE a=$1", "prepare select", "t"),
    ("DECLARE c CURSOR FOR SELECT * FROM t", "declare select", "t"),
    ("FETCH ALL FROM c", "fetch", ""),
    ("SELECT * FROM t FOR UPDATE OF t", "select", "t"),
    ('SELECT * FROM "A b"."C""d", ABC', "select", 'A b.C"d abc'),
    ("SELECT * FROM generate_series(1,2) g, t", "select", "t"),
    ("SELECT a IS DISTINCT FROM b FROM t", "select", "t"),
    ("SELECT * FROM a set, secret", "select", "a secret"),
    ("SELECT 1FROM t", "select", "t"),
    ("SELECT 'a\\' FROM t; --'", "select", "t"),
    ("SELECT E'a\\' FROM t' FROM u", "select", "u"),
    ("SELECT $x$ FROM a $x$, $$ FROM b $$ FROM c", "select", "c"),
    ("SELECT a$b$ FROM c WHERE d = 'x$b$'", "select", "c"),
    ("SELECT /* /* */ FROM x */ 1 FROM y", "select", "y"),
    ("SELECT 1 -- FROM x\rFROM t", "select", "t"),
    ("CREATE TABLE p PARTITION OF q FOR VALUES FROM (1) TO (2)", "create", "p q"),
    ("CREATE TABLE a () INHERITS (b, c)", "create", "a b c"),
    ("ALTER TABLE t ATTACH PARTITION x FOR VALUES IN (1)", "alter", "t x"),
    ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", "refresh", "v"),
    ("COMMENT ON TABLE t IS 'x'", "comment", "t"),
    ('WITH "X" AS (SELECT 1) SELECT * FROM x', "select", "x"),
    # Keywords may be labels.
    ("SELECT 1 join FROM a, b", "select", "a b"),
    ("SELECT 1 table FROM a", "select", "a"),
    ("SELECT 1 straight_join FROM a", "select", "a"),
    ("SELECT 1 values FROM a", "select", "a"),
    ("SELECT 1 AS from FROM a", "select", "a"),
    ("SELECT x.not distinct FROM a AS x", "select", "a"),
    ("INSERT INTO a SELECT x table FROM b", "insert select", "a b"),
]


@pytest.mark.parametrize(("text", "verbs", "tables"), BOTH)
def test_both_dialects(text: str, verbs: str, tables: str) -> None:
    mysql, postgres = read(text.encode(), MYSQL), read(text.encode(), POSTGRES)
    assert said(postgres) == (verbs, tables)
    assert said(mysql) == (verbs, " ".join(each if "." in each else f"shop.{each}" for each in tables.split()))
    assert (mysql.unsure, postgres.unsure, mysql.cut) == (False, False, False)


@pytest.mark.parametrize(("text", "verbs", "tables"), ONLY_MYSQL)
def test_mysql(text: str, verbs: str, tables: str) -> None:
    statement = read(text.encode(), MYSQL)
    assert said(statement) == (verbs, tables)
    assert not statement.unsure


@pytest.mark.parametrize(("text", "verbs", "tables"), ONLY_POSTGRES)
def test_postgres(text: str, verbs: str, tables: str) -> None:
    statement = read(text.encode(), POSTGRES)
    assert said(statement) == (verbs, tables)
    assert not statement.unsure


@pytest.mark.parametrize(
    "text",
    [
        "frobnicate x",
        "CALL p(1)",
        "EXECUTE p",
        "SELECT 'abc",
        "SELECT /* FROM t",
        "SELECT (1",
        "SELECT 1)",
        "CREATE FUNCTION f() RETURNS int RETURN 1",
        "CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "DROP PROCEDURE p",
        "CREATE",
        "'x'",
        "SELECT \x01 FROM t",
    ],
)
def test_what_neither_can_be_sure_of(text: str) -> None:
    assert read(text.encode(), MYSQL).unsure
    assert read(text.encode(), POSTGRES).unsure


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM /*!99999 a, */ b",
        "/*!99999 WITH secret AS (SELECT 1) */ SELECT * FROM secret",
        "SELECT /*M!100100 a */ FROM t",
        "SELECT /*!500001 a */ FROM t",
        "SELECT /*! /*! 1 */ */ FROM t",
        "SELECT /*! 1 FROM t",
        "SELECT 1.e(x)FROM t",
        'SELECT "a\\" FROM t" FROM u',
        "PREPARE p FROM 'DROP TABLE x'",
        "EXECUTE IMMEDIATE 'DROP TABLE x'",
        "SELECT load_file('/etc/passwd')",
        "BEGIN NOT ATOMIC DELETE FROM t; END",
        "CREATE TABLE t (a int) ENGINE=FEDERATED CONNECTION='mysql://u@h/d/secret'",
        "SELECT `a FROM t",
    ],
)
def test_what_mysql_reads_in_two_ways(text: str) -> None:
    assert read(text.encode(), MYSQL).unsure


@pytest.mark.parametrize(
    "text",
    [
        "DO $$ begin end $$",
        "SELECT query_to_xml('select 1', true, true, '')",
        "SELECT * FROM dblink('', 'select 1') AS t(a int)",
        "SELECT * FROM \"dblink\"('', 'select 1') AS t(a int)",
        "SELECT pg_catalog.pg_read_file('x')",
        "SELECT set_config('standard_conforming_strings', 'off', false)",
        "SELECT $x$ FROM t",
        'SELECT * FROM U&"\\0061"',
        "GRANT SELECT ON ALL TABLES IN SCHEMA s TO u",
        "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y",
        "DROP INDEX i",
        "CREATE EXTENSION dblink",
        "CREATE SCHEMA s CREATE VIEW v AS WITH t AS (SELECT 1) SELECT 1 FROM t CREATE VIEW w AS SELECT * FROM t",
        "CREATE SCHEMA s GRANT SELECT ON t TO u",
        "CREATE TABLE a AS EXECUTE p",
    ],
)
def test_what_postgres_runs_that_its_text_does_not_say(text: str) -> None:
    assert read(text.encode(), POSTGRES).unsure


def test_quotes_behind_backslashes_are_sure_where_the_mode_is_known() -> None:
    text = b"SELECT 'a\\' FROM t; -- '"
    for mysql in (False, True):
        assert read(text, Session(mysql, escapes=None, database=b"")).unsure
        known = read(text, Session(mysql, escapes=False, database=b""))
        assert (known.tables, known.unsure) == ((b"t",), False)
        assert read(text + b"'", Session(mysql, escapes=True)).verbs == (b"select",)
        assert not read(b"SELECT 'a\\n'", Session(mysql, escapes=None)).unsure


def test_a_database_that_is_not_known() -> None:
    assert read(b"SELECT 1 FROM t", Session(mysql=True, escapes=True)).unsure
    known = read(b"SELECT 1 FROM a.t; USE b; SELECT 2 FROM t", Session(mysql=True, escapes=True))
    assert (known.tables, known.unsure, known.used) == ((b"a.t", b"b.t"), False, b"b")
    assert read(b"SELECT 1 FROM t", Session(mysql=True, escapes=True, database=b"")).tables == (b"t",)


def test_encodings_whose_bytes_may_be_a_quote() -> None:
    other = Session(mysql=True, escapes=True, encoding=False, database=b"")
    utf8 = Session(mysql=True, escapes=True, database=b"")
    for text in (b"SELECT '\xbf\\' FROM t -- '", b"SELECT 1 FROM\xa0t"):
        assert read(text, other).unsure
        assert read(b"SELECT '\xc3\xa9 x' FROM t", other) == read(b"SELECT '\xc3\xa9 x' FROM t", utf8)
    assert not read(b"SELECT '\xc3\xa9\\n' FROM t", utf8).unsure


@pytest.mark.parametrize(
    ("text", "encoding", "sets"),
    [
        (b"SET NAMES gbk", b"gbk", True),
        (b"SET NAMES 'utf8mb4' COLLATE 'utf8mb4_bin'", b"utf8mb4", True),
        (b"SET CHARACTER SET latin1", b"latin1", True),
        (b"SET @@session.sql_mode = 'ANSI_QUOTES'", None, True),
        (b"SET `sql_mode` = ''", None, True),
        (b"SET autocommit = 0", None, False),
    ],
)
def test_settings_that_change_how_text_is_read(text: bytes, encoding: bytes | None, sets: bool) -> None:
    statement = read(text, MYSQL)
    assert (statement.encoding, statement.sets) == (encoding, sets)


def test_files() -> None:
    assert read(b"LOAD DATA INFILE '/a' INTO TABLE t", MYSQL).files == (b"/a",)
    assert read(b"SELECT 1 INTO DUMPFILE '/b'", MYSQL).files == (b"/b",)
    assert read(b"COPY t TO '/c'", POSTGRES).files == (b"/c",)
    assert read(b"COPY t TO PROGRAM 'id > /tmp/x'", POSTGRES).files == (b"id > /tmp/x",)


def test_no_more_than_so_much_is_looked_at() -> None:
    text = b"INSERT INTO t VALUES " + b",".join([b"(1,'abc')"] * 20000)
    assert len(text) > LOOKED_AT
    statement = read(text, MYSQL)
    assert (statement.verbs, statement.tables, statement.cut, statement.unsure) == (
        (b"insert",),
        (b"shop.t",),
        True,
        True,
    )
    assert read(b"SELECT 1", MYSQL, cut=True).unsure


def test_names_are_bounded() -> None:
    many = read(b"SELECT 1 FROM " + b",".join(b"t%d" % number for number in range(5000)), POSTGRES)
    assert len(many.tables) == 256
    assert many.unsure
    large = read(b"SELECT 1 FROM " + b",".join(b"t%d" % number * 400 for number in range(50)), POSTGRES)
    assert sum(map(len, large.tables)) <= 8 * 1024
    assert large.unsure
    assert read(b"x" * 60000, POSTGRES).verbs == ()


@pytest.mark.parametrize("session", [MYSQL, POSTGRES], ids=["mysql", "postgres"])
@pytest.mark.parametrize(
    "piece",
    [
        b"(", b"()", b"'", b"'a", b"''", b"$a$ $b$ ", b"/*", b"/**/", b"/*!50000 ", b" from a", b"a,", b"'\\'", b"1,",
        b"with a as (select 1),", b"1e", b"1.", b".", b"@", b"--\n", b"x", b" ", b"1", b"`", b'"', b"(1,", b",(1,1",
        b"a.", b"values(", b"select ", b"\\", b"\xff", b";", b"e'\\",
    ],
)  # fmt: skip
def test_time_is_linear(piece: bytes, session: Session) -> None:
    def took(size: int) -> float:
        text = (b"select 1 from t, " + piece * size)[:size]
        best = 1e9
        for _ in range(3):
            start = time.process_time()
            read(text, session)
            best = min(best, time.process_time() - start)
        return best

    # 16 times as much: 16 times as long, 256 times were it quadratic. Microseconds do not count.
    assert took(64 * 1024) < 64 * took(4 * 1024) + 0.01


@given(st.binary(max_size=200))
def test_anything_is_read(text: bytes) -> None:
    for session in (MYSQL, POSTGRES, Session(mysql=True, escapes=None, encoding=False)):
        read(text, session)


@given(
    st.lists(
        st.sampled_from(
            b"select from where with recursive as ( ) , ; . * table update delete insert into using on set a b 'x' "
            b'"y" '
            b"`z` 1 1. = { @ union all explain copy drop create grant merge then for use rename to partition of".split()
        ),
        max_size=30,
    )
)
def test_any_words_are_read(words: list[bytes]) -> None:
    for session in (MYSQL, POSTGRES):
        statement = read(b" ".join(words), session)
        assert len(set(statement.tables)) == len(statement.tables)


@pytest.mark.parametrize(
    "text", ["SELECT 1 FROM a WHERE x = 1, b", "SELECT 'x' , FROM t", "INSERT INTO a VALUES (1), (b)"]
)
def test_what_follows_a_comma_behind_a_literal_is_read(text: str) -> None:
    # A possessive repetition of CPython 3.11.2 loses it.
    assert said(read(text.encode(), POSTGRES)) == said(read(text.replace("1", "x").encode(), POSTGRES))
