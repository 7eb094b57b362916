"""PostgreSQL: what psql, psycopg and asyncpg said to PostgreSQL 15."""

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation

_PSQL = (
    (TO_SERVER, b"\x00\x00\x00\x08\x04\xd2\x16/"),
    (TO_CLIENT, b"N"),
    (
        TO_SERVER,
        b"\x00\x00\x00:\x00\x03\x00\x00user\x00app\x00database\x00postgres\x00application_name\x00psql\x00\x00",
    ),
    (
        TO_CLIENT,
        (
            b"R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x1aapplication_name\x00psql\x00S"
            b"\x00\x00\x00\x19client_encoding\x00UTF8\x00S\x00\x00\x00\x17DateStyle\x00ISO, M"
            b"DY\x00S\x00\x00\x00&default_transaction_read_only\x00off\x00S\x00\x00\x00\x17in"
            b"_hot_standby\x00off\x00S\x00\x00\x00\x19integer_datetimes\x00on\x00S\x00\x00"
            b"\x00\x1bIntervalStyle\x00postgres\x00S\x00\x00\x00\x14is_superuser\x00on\x00S"
            b"\x00\x00\x00\x19server_encoding\x00UTF8\x00S\x00\x00\x002server_version\x0015.1"
            b"8 (Debian 15.18-0+deb12u1)\x00S\x00\x00\x00\x1esession_authorization\x00app\x00"
            b"S\x00\x00\x00#standard_conforming_strings\x00on\x00S\x00\x00\x00\x15TimeZone"
            b"\x00Etc/UTC\x00K\x00\x00\x00\x0c\x00\x00\x16\xddv$0\x99Z\x00\x00\x00\x05I"
        ),
    ),
    (
        TO_SERVER,
        b"Q\x00\x00\x00ISELECT name FROM orders o JOIN hr.salaries s ON s.id = o.id LIMIT 1;\x00",
    ),
    (
        TO_CLIENT,
        (
            b"T\x00\x00\x00\x1d\x00\x01name\x00\x00\x00@\x04\x00\x02\x00\x00\x00\x19\xff\xff"
            b"\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x0c\x00\x01\x00\x00\x00\x02n1C\x00\x00"
            b"\x00\rSELECT 1\x00Z\x00\x00\x00\x05I"
        ),
    ),
    (TO_SERVER, b"Q\x00\x00\x00\x1fCOPY (SELECT 1) TO STDOUT;\x00"),
    (
        TO_CLIENT,
        (
            b"H\x00\x00\x00\t\x00\x00\x01\x00\x00d\x00\x00\x00\x061\nc\x00\x00\x00\x04C\x00"
            b"\x00\x00\x0bCOPY 1\x00Z\x00\x00\x00\x05I"
        ),
    ),
    (TO_SERVER, b"Q\x00\x00\x00%COPY  hr.salaries FROM STDIN csv\x00"),
    (TO_CLIENT, b"G\x00\x00\x00\x0b\x00\x00\x02\x00\x00\x00\x00"),
    (TO_SERVER, b"d\x00\x00\x00\x0c1,2\n3,4\nc\x00\x00\x00\x04"),
    (TO_CLIENT, b"C\x00\x00\x00\x0bCOPY 2\x00Z\x00\x00\x00\x05I"),
    (TO_SERVER, b"Q\x00\x00\x00\x13SELECT nosuch;\x00"),
    (
        TO_CLIENT,
        (
            b'E\x00\x00\x00iSERROR\x00VERROR\x00C42703\x00Mcolumn "nosuch" does not exist\x00'
            b"P8\x00Fparse_relation.c\x00L3665\x00RerrorMissingColumn\x00\x00Z\x00\x00\x00"
            b"\x05I"
        ),
    ),
    (TO_SERVER, b"Q\x00\x00\x004BEGIN; DELETE FROM orders WHERE id = 0; COMMIT;\x00"),
    (
        TO_CLIENT,
        b"C\x00\x00\x00\nBEGIN\x00C\x00\x00\x00\rDELETE 0\x00C\x00\x00\x00\x0bCOMMIT\x00Z\x00\x00\x00\x05I",
    ),
    (TO_SERVER, b"X\x00\x00\x00\x04"),
)
_PSYCOPG = (
    (
        TO_SERVER,
        b"\x00\x00\x00:\x00\x03\x00\x00user\x00app\x00database\x00postgres\x00application_name\x00shop\x00\x00",
    ),
    (
        TO_CLIENT,
        (
            b"R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x1aapplication_name\x00shop\x00S"
            b"\x00\x00\x00\x19client_encoding\x00UTF8\x00S\x00\x00\x00\x17DateStyle\x00ISO, M"
            b"DY\x00S\x00\x00\x00&default_transaction_read_only\x00off\x00S\x00\x00\x00\x17in"
            b"_hot_standby\x00off\x00S\x00\x00\x00\x19integer_datetimes\x00on\x00S\x00\x00"
            b"\x00\x1bIntervalStyle\x00postgres\x00S\x00\x00\x00\x14is_superuser\x00on\x00S"
            b"\x00\x00\x00\x19server_encoding\x00UTF8\x00S\x00\x00\x002server_version\x0015.1"
            b"8 (Debian 15.18-0+deb12u1)\x00S\x00\x00\x00\x1esession_authorization\x00app\x00"
            b"S\x00\x00\x00#standard_conforming_strings\x00on\x00S\x00\x00\x00\x15TimeZone"
            b"\x00Etc/UTC\x00K\x00\x00\x00\x0c\x00\x00\x16\xe0\xf3\x1d9\x04Z\x00\x00\x00\x05I"
        ),
    ),
    (TO_SERVER, b"Q\x00\x00\x00\nBEGIN\x00"),
    (TO_CLIENT, b"C\x00\x00\x00\nBEGIN\x00Z\x00\x00\x00\x05T"),
    (
        TO_SERVER,
        (
            b"P\x00\x00\x00/\x00SELECT name FROM orders WHERE id=$1\x00\x00\x01\x00\x00\x00"
            b"\x15B\x00\x00\x00\x16\x00\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x02\x00\x01"
            b"\x00\x01\x00\x00D\x00\x00\x00\x06P\x00E\x00\x00\x00\t\x00\x00\x00\x00\x00S\x00"
            b"\x00\x00\x04"
        ),
    ),
    (
        TO_CLIENT,
        (
            b"1\x00\x00\x00\x042\x00\x00\x00\x04T\x00\x00\x00\x1d\x00\x01name\x00\x00\x00@"
            b"\x04\x00\x02\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x0c"
            b"\x00\x01\x00\x00\x00\x02n1C\x00\x00\x00\rSELECT 1\x00Z\x00\x00\x00\x05T"
        ),
    ),
    (
        TO_SERVER,
        (
            b"P\x00\x00\x00=_pg3_0\x00UPDATE hr.salaries SET x=$1 WHERE id=$2\x00\x00\x02\x00"
            b"\x00\x00\x15\x00\x00\x00\x15S\x00\x00\x00\x04"
        ),
    ),
    (TO_CLIENT, b"1\x00\x00\x00\x04Z\x00\x00\x00\x05T"),
    (
        TO_SERVER,
        (
            b"B\x00\x00\x00$\x00_pg3_0\x00\x00\x02\x00\x01\x00\x01\x00\x02\x00\x00\x00\x02"
            b"\x00\x01\x00\x00\x00\x02\x00\x01\x00\x01\x00\x00D\x00\x00\x00\x06P\x00E\x00\x00"
            b"\x00\t\x00\x00\x00\x00\x00S\x00\x00\x00\x04"
        ),
    ),
    (
        TO_CLIENT,
        b"2\x00\x00\x00\x04n\x00\x00\x00\x04C\x00\x00\x00\x10UPDATE 1004\x00Z\x00\x00\x00\x05T",
    ),
    (
        TO_SERVER,
        (
            b"B\x00\x00\x00$\x00_pg3_0\x00\x00\x02\x00\x01\x00\x01\x00\x02\x00\x00\x00\x02"
            b"\x00\x02\x00\x00\x00\x02\x00\x02\x00\x01\x00\x00D\x00\x00\x00\x06P\x00E\x00\x00"
            b"\x00\t\x00\x00\x00\x00\x00S\x00\x00\x00\x04"
        ),
    ),
    (TO_CLIENT, b"2\x00\x00\x00\x04n\x00\x00\x00\x04C\x00\x00\x00\rUPDATE 3\x00Z\x00\x00\x00\x05T"),
    (
        TO_SERVER,
        (
            b"P\x00\x00\x006\x00INSERT INTO hr.salaries VALUES ($1,$2)\x00\x00\x02\x00\x00"
            b"\x00\x15\x00\x00\x00\x15B\x00\x00\x00\x1e\x00\x00\x00\x02\x00\x01\x00\x01\x00"
            b"\x02\x00\x00\x00\x02\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00D\x00\x00"
            b"\x00\x06P\x00E\x00\x00\x00\t\x00\x00\x00\x00\x00P\x00\x00\x006\x00INSERT INTO h"
            b"r.salaries VALUES ($1,$2)\x00\x00\x02\x00\x00\x00\x15\x00\x00\x00\x15B\x00\x00"
            b"\x00\x1e\x00\x00\x00\x02\x00\x01\x00\x01\x00\x02\x00\x00\x00\x02\x00\x01\x00"
            b"\x00\x00\x02\x00\x01\x00\x01\x00\x00D\x00\x00\x00\x06P\x00E\x00\x00\x00\t\x00"
            b"\x00\x00\x00\x00S\x00\x00\x00\x04H\x00\x00\x00\x04"
        ),
    ),
    (
        TO_CLIENT,
        (
            b"1\x00\x00\x00\x042\x00\x00\x00\x04n\x00\x00\x00\x04C\x00\x00\x00\x0fINSERT 0 1"
            b"\x001\x00\x00\x00\x042\x00\x00\x00\x04n\x00\x00\x00\x04C\x00\x00\x00\x0fINSERT "
            b"0 1\x00Z\x00\x00\x00\x05T"
        ),
    ),
    (TO_SERVER, b"Q\x00\x00\x00\x0bCOMMIT\x00"),
    (TO_CLIENT, b"C\x00\x00\x00\x0bCOMMIT\x00Z\x00\x00\x00\x05I"),
    (TO_SERVER, b"X\x00\x00\x00\x04"),
)
_ASYNCPG = (
    (
        TO_SERVER,
        b"\x00\x00\x00<\x00\x03\x00\x00client_encoding\x00'utf-8'\x00user\x00app\x00database\x00postgres\x00\x00",
    ),
    (
        TO_CLIENT,
        (
            b"R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x16application_name\x00\x00S\x00"
            b"\x00\x00\x19client_encoding\x00UTF8\x00S\x00\x00\x00\x17DateStyle\x00ISO, MDY"
            b"\x00S\x00\x00\x00&default_transaction_read_only\x00off\x00S\x00\x00\x00\x17in_h"
            b"ot_standby\x00off\x00S\x00\x00\x00\x19integer_datetimes\x00on\x00S\x00\x00\x00"
            b"\x1bIntervalStyle\x00postgres\x00S\x00\x00\x00\x14is_superuser\x00on\x00S\x00"
            b"\x00\x00\x19server_encoding\x00UTF8\x00S\x00\x00\x002server_version\x0015.18 (D"
            b"ebian 15.18-0+deb12u1)\x00S\x00\x00\x00\x1esession_authorization\x00app\x00S"
            b"\x00\x00\x00#standard_conforming_strings\x00on\x00S\x00\x00\x00\x15TimeZone\x00"
            b"Etc/UTC\x00K\x00\x00\x00\x0c\x00\x00\x16\xe3^\xea\xd1\x04Z\x00\x00\x00\x05I"
        ),
    ),
    (
        TO_SERVER,
        (
            b"P\x00\x00\x00=__asyncpg_stmt_1__\x00SELECT name FROM orders WHERE id=$1\x00\x00"
            b"\x00D\x00\x00\x00\x18S__asyncpg_stmt_1__\x00H\x00\x00\x00\x04"
        ),
    ),
    (
        TO_CLIENT,
        (
            b"1\x00\x00\x00\x04t\x00\x00\x00\n\x00\x01\x00\x00\x00\x17T\x00\x00\x00\x1d\x00"
            b"\x01name\x00\x00\x00@\x04\x00\x02\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00"
            b"\x00"
        ),
    ),
    (
        TO_SERVER,
        (
            b"B\x00\x00\x00*\x00__asyncpg_stmt_1__\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00"
            b"\x04\x00\x00\x00\x01\x00\x01\x00\x01E\x00\x00\x00\t\x00\x00\x00\x00\x00S\x00"
            b"\x00\x00\x04"
        ),
    ),
    (
        TO_CLIENT,
        b"2\x00\x00\x00\x04D\x00\x00\x00\x0c\x00\x01\x00\x00\x00\x02n1C\x00\x00\x00\rSELECT 1\x00Z\x00\x00\x00\x05I",
    ),
    (TO_SERVER, b'Q\x00\x00\x00"DELETE FROM nosuch WHERE id=7\x00'),
    (
        TO_CLIENT,
        (
            b'E\x00\x00\x00iSERROR\x00VERROR\x00C42P01\x00Mrelation "nosuch" does not exist'
            b"\x00P13\x00Fparse_relation.c\x00L1392\x00RparserOpenTable\x00\x00Z\x00\x00\x00"
            b"\x05I"
        ),
    ),
    (TO_SERVER, b"Q\x00\x00\x00'DELETE FROM hr.salaries WHERE id=7\x00"),
    (TO_CLIENT, b"C\x00\x00\x00\rDELETE 0\x00Z\x00\x00\x00\x05I"),
    (TO_SERVER, b"X\x00\x00\x00\x04"),
)


def _said(
    command: bytes, verbs: str | None = None, tables: str = "", application: bytes = b""
) -> tuple[str, dict[str, Value]]:
    fields: dict[str, Value] = {
        "postgres.command": command,
        "postgres.user": b"app",
        "postgres.database": b"postgres",
    }
    if verbs is not None:
        fields["postgres.verb"] = tuple(verbs.encode().split())
        fields["postgres.tables"] = tuple(tables.encode().split())
        fields["postgres.unsure"] = fields["postgres.cut"] = 0
    return "postgres", fields | ({"postgres.application": application} if application else {})


CONVERSATIONS = [
    Conversation(
        "queries and copies, encryption declined",
        "postgres",
        _PSQL,
        (
            _said(b"startup", application=b"psql"),
            _said(b"query", "select", "orders hr.salaries", b"psql"),
            _said(b"query", "copy select", "", b"psql"),
            _said(b"query", "copy", "hr.salaries", b"psql"),
            _said(b"query", "select", "", b"psql"),
            _said(b"query", "begin delete commit", "orders", b"psql"),
        ),
    ),
    Conversation(
        "statements without and with a name, pipelined",
        "postgres",
        _PSYCOPG,
        (
            _said(b"startup", application=b"shop"),
            _said(b"query", "begin", "", b"shop"),
            _said(b"parse", "select", "orders", b"shop"),
            _said(b"execute", "select", "orders", b"shop"),
            _said(b"parse", "update", "hr.salaries", b"shop"),
            _said(b"execute", "update", "hr.salaries", b"shop"),
            _said(b"execute", "update", "hr.salaries", b"shop"),
            _said(b"parse", "insert", "hr.salaries", b"shop"),
            _said(b"execute", "insert", "hr.salaries", b"shop"),
            _said(b"parse", "insert", "hr.salaries", b"shop"),
            _said(b"execute", "insert", "hr.salaries", b"shop"),
            _said(b"query", "commit", "", b"shop"),
        ),
    ),
    Conversation(
        "a statement that fails",
        "postgres",
        _ASYNCPG,
        (
            _said(b"startup"),
            _said(b"parse", "select", "orders"),
            _said(b"execute", "select", "orders"),
            _said(b"query", "delete", "nosuch"),
            _said(b"query", "delete", "hr.salaries"),
        ),
    ),
    Conversation(
        "a request to cancel",
        "postgres",
        ((TO_SERVER, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x12\x34\x56\x78\x9a\xbc"),),
        (("postgres", {"postgres.command": b"cancel"}),),
    ),
]
