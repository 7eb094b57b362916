"""Redis: what redis-py 8.1, redis-cli and a Redis 7.0 said, shortened."""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def said(
    name: bytes, *keys: bytes, user: bytes = b"default", database: int = 0, **more: Value
) -> tuple[str, dict[str, Value]]:
    fields: dict[str, Value] = {"redis.command": name, "redis.user": user, "redis.database": database}
    if keys:
        fields["redis.keys"] = keys
    return "redis", fields | {f"redis.{field}": value for field, value in more.items()}


CONVERSATIONS = [
    Conversation(
        "redis-py with RESP3",
        "redis",
        (
            (TO_SERVER, b"*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$5\r\nalice\r\n$6\r\nsecret\r\n"),
            (
                TO_CLIENT,
                (
                    b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:6\r\n"
                    b"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
                ),
            ),
            (TO_SERVER, b"*4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nLIB-NAME\r\n$8\r\nredis-py\r\n"),
            (TO_CLIENT, b"-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n"),
            (TO_SERVER, b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"),
            (TO_CLIENT, b"+OK\r\n"),
            (
                TO_SERVER,
                (
                    b"*1\r\n$5\r\nMULTI\r\n*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n"
                    b"*3\r\n$6\r\nINCRBY\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n$4\r\nEXEC\r\n"
                ),
            ),
            (TO_CLIENT, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:2\r\n"),
            (TO_SERVER, command(b"EVAL", b"return KEYS[1]", b"2", b"x", b"y", b"z") + command(b"GET", b"big")),
            (TO_CLIENT, b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n$1\r\nx\r\n$2000\r\n" + b"v" * 2000 + b"\r\n"),
            (TO_SERVER, command(b"config", b"SET", b"maxmemory", b"0") + command(b"SET", b"big", b"\r\n*1" * 500)),
        ),
        (
            said(b"hello", user=b"alice"),
            said(b"client", user=b"alice", subcommand=b"setinfo"),
            said(b"select", user=b"alice", database=3),
            said(b"multi", user=b"alice", database=3),
            said(b"mset", b"a", b"b", user=b"alice", database=3),
            said(b"incrby", b"a", user=b"alice", database=3),
            said(b"exec", user=b"alice", database=3),
            said(b"eval", b"x", b"y", user=b"alice", database=3),
            said(b"get", b"big", user=b"alice", database=3),
            said(b"config", user=b"alice", database=3, subcommand=b"set"),
            said(b"set", b"big", user=b"alice", database=3),
        ),
    ),
    Conversation(
        "redis-py with RESP2 and a subscription",
        "redis",
        (
            (TO_SERVER, b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n"),
            (TO_CLIENT, b"+OK\r\n"),
            (TO_SERVER, b"*2\r\n$7\r\nHGETALL\r\n$1\r\nh\r\n"),
            (TO_CLIENT, b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n"),
            (TO_SERVER, b"*3\r\n$9\r\nSUBSCRIBE\r\n$2\r\nc1\r\n$2\r\nc2\r\n"),
            (TO_CLIENT, b"*3\r\n$9\r\nsubscribe\r\n$2\r\nc1\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$2\r\nc2\r\n:2\r\n"),
            (TO_CLIENT, b"*3\r\n$7\r\nmessage\r\n$2\r\nc1\r\n$2\r\nhi\r\n"),
            (TO_SERVER, b"*1\r\n$11\r\nUNSUBSCRIBE\r\n"),
        ),
        (
            said(b"select", database=2),
            said(b"hgetall", b"h", database=2),
            said(b"subscribe", database=2, channels=(b"c1", b"c2")),
            said(b"unsubscribe", database=2),
        ),
    ),
    Conversation(
        "inline and what the server declines",
        "redis",
        (
            (TO_SERVER, b'PING\r\n\r\nset inl "a\\x41 b"\r\nGET inl\n*0\r\n*1\r\n$4\r\nPING\r\n'),
            (TO_CLIENT, b"+PONG\r\n+OK\r\n$4\r\naA b\r\n+PONG\r\n"),
            (
                TO_SERVER,
                b"AUTH alice wrong\r\nSELECT 6\r\nGET a\r\nSELECT 99\r\nGET b\r\nRESET\r\nGET c\r\nMONITOR\r\n",
            ),
            (TO_CLIENT, b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            (TO_CLIENT, b"+OK\r\n"),
            (TO_CLIENT, b"$-1\r\n-ERR DB index is out of range\r\n"),
            (TO_CLIENT, b"$-1\r\n+RESET\r\n"),
            (TO_CLIENT, b'$-1\r\n+OK\r\n+1795868416.338902 [0 127.0.0.1:44728] "PING"\r\n'),
        ),
        (
            said(b"ping"),
            said(b"set", b"inl"),
            said(b"get", b"inl"),
            said(b"ping"),
            said(b"auth", user=b"alice"),
            said(b"select", database=6),
            said(b"get", b"a", database=6),
            said(b"select", database=99),
            said(b"get", b"b", database=6),
            said(b"reset"),
            said(b"get", b"c"),
            said(b"monitor"),
        ),
    ),
]
