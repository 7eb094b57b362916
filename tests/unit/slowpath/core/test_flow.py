from __future__ import annotations

from fastpath.abi import Protocol
from parsers.base import TO_CLIENT, TO_SERVER
from slowpath.core.flow import Flow, Held, State
from slowpath.core.model import SessionInfo
from tests.unit.slowpath.core.wire import CLIENT, CLIENT6, SERVER, SERVER6, Connection


def made(connection: Connection, *, midstream: bool = False) -> Flow:
    isn = (None, None) if midstream else connection.isn
    info = SessionInfo(7, connection.server_is_a, isn, midstream)
    return Flow(connection.key, info, connection.client(b"hello", at=0))


def test_a_new_flow() -> None:
    flow = made(Connection())
    assert (flow.session_id, flow.state, flow.first, flow.kept) == (7, State.IDENTIFY, Protocol.NONE, 0)
    assert [stream and stream.start for stream in flow.streams] == [0xFFFFFF01, 5001]


def test_the_client_is_the_source_whichever_end_of_the_key_it_is() -> None:
    for src, dst in ((CLIENT, SERVER), (SERVER, CLIENT), (CLIENT6, SERVER6), (SERVER6, CLIENT6)):
        connection = Connection(src, dst, 40000, 80)
        flow = made(connection)
        assert flow.fields == {"src": src, "sport": 40000, "dst": dst, "dport": 80, "l4": "tcp"}
        a_to_b = not connection.server_is_a
        assert (flow.direction(a_to_b), flow.direction(not a_to_b)) == (TO_SERVER, TO_CLIENT)


def test_midstream_begins_with_what_comes_first() -> None:
    connection = Connection()
    flow = made(connection, midstream=True)
    stream = flow.stream(TO_SERVER, connection.client(b"x", at=500))
    assert stream.start == (connection.isn[0] + 501) & 0xFFFFFFFF
    assert flow.streams[TO_CLIENT] is None


def test_swap_turns_everything() -> None:
    connection = Connection()
    flow = made(connection, midstream=True)
    packet = connection.client(b"abc", at=0)
    stream = flow.stream(TO_SERVER, packet)
    flow.buffers[TO_SERVER].extend(b"abc")
    flow.safe[TO_SERVER] = 3
    flow.held.append(Held(packet, TO_SERVER, 3, 0.0))
    before = flow.server_is_a
    flow.swap()
    assert flow.streams == [None, stream]
    assert (bytes(flow.buffers[TO_CLIENT]), flow.safe) == (b"abc", [0, 3])
    assert flow.held[0].direction == TO_CLIENT
    assert flow.server_is_a != before


def test_kept_counts_all() -> None:
    flow = made(Connection())
    stream = flow.streams[0]
    assert stream is not None
    stream.push(0, b"abc")
    stream.push(10, b"de")
    flow.buffers[0].extend(b"abc")
    flow.held_bytes = 100
    assert flow.kept == 100 + 3 + 2 + 3
