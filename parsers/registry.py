"""Which parser reads which protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from parsers.amqp import AmqpParser
from parsers.base import UDP, Field, Parser
from parsers.dns import DnsParser
from parsers.ftp import FtpParser
from parsers.http1 import Http1Parser
from parsers.http2 import Http2Parser
from parsers.kafka import KafkaParser
from parsers.memcached import MemcachedParser
from parsers.mongodb import MongodbParser
from parsers.mqtt import MqttParser
from parsers.mysql import MysqlParser
from parsers.postgres import PostgresParser
from parsers.quic import QuicParser
from parsers.rdp import RdpParser
from parsers.redis import RedisParser
from parsers.smb import SmbParser
from parsers.smtp import SmtpParser
from parsers.ssh import SshParser
from parsers.tls import TlsParser
from parsers.websocket import WebSocketParser

_ALL: Final[tuple[type[Parser], ...]] = (
    Http1Parser,
    Http2Parser,
    AmqpParser,
    DnsParser,
    FtpParser,
    KafkaParser,
    MemcachedParser,
    MongodbParser,
    MqttParser,
    MysqlParser,
    PostgresParser,
    QuicParser,
    RdpParser,
    RedisParser,
    SmbParser,
    SmtpParser,
    SshParser,
    TlsParser,
    WebSocketParser,
)

# By name of design.md. gRPC is HTTP/2 until its first request tells.
PARSERS: Final[Mapping[str, type[Parser]]] = {each.name: each for each in _ALL}
# All that rules may ask for, by name.
FIELDS: Final[Mapping[str, Field]] = {field.name: field for each in _ALL for field in each.fields}


def field_of(name: str) -> Field:
    """Of what units say and rules ask for; of ``http.header.accept`` it is the family ``http.header``. KeyError."""
    field = FIELDS.get(name)
    if field is None or field.keyed:
        family, key = family_of(name), name.count(".") > 1
        if family is None or not key:
            raise KeyError(name)
        return family
    return field


def family_of(name: str) -> Field | None:
    """The keyed field that a name belongs to, whatever its key."""
    field = FIELDS.get(".".join(name.split(".", 2)[:2]))
    return field if field is not None and field.keyed else None


def make_parser(name: str, l4: int) -> Parser | None:
    """A new one for a connection or a flow of datagrams; None where nobody reads that protocol over this transport."""
    parser = PARSERS.get(name)
    if parser is None or l4 not in parser.transports:
        return None
    # Only those of datagrams take the argument.
    options = {"datagrams": True} if l4 == UDP else {}
    return parser(**options)
