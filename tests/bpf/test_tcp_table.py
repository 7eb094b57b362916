"""The table of transitions in the C code is RFC 9293 figure 5."""

from __future__ import annotations

import itertools

import pytest

from fastpath import abi
from tests.bpf.tcp_table import SOURCE, Table, mermaid, read

# Figure 5 as far as a segment shows it: what a state's end does, as the figure says, and the event in the code.
FIGURE = {
    ("CLOSED", "active OPEN, snd SYN"): ("SYN", "SYN_SENT"),
    ("LISTEN", "SEND, snd SYN"): ("SYN", "SYN_SENT"),
    ("LISTEN", "rcv SYN, snd SYN,ACK"): ("SYN_ACK", "SYN_RECEIVED"),
    ("SYN_SENT", "rcv SYN, snd SYN,ACK"): ("SYN_ACK", "SYN_RECEIVED"),
    ("SYN_SENT", "rcv SYN,ACK, snd ACK"): ("ACKS_SYN", "ESTABLISHED"),
    ("SYN_RECEIVED", "rcv ACK of SYN"): ("SYN_ACKED", "ESTABLISHED"),
    ("SYN_RECEIVED", "CLOSE, snd FIN"): ("FIN", "FIN_WAIT_1"),
    ("ESTABLISHED", "CLOSE, snd FIN"): ("FIN", "FIN_WAIT_1"),
    ("ESTABLISHED", "rcv FIN, snd ACK"): ("ACKS_FIN", "CLOSE_WAIT"),
    ("FIN_WAIT_1", "rcv ACK of FIN"): ("FIN_ACKED", "FIN_WAIT_2"),
    ("FIN_WAIT_1", "rcv FIN, snd ACK"): ("ACKS_FIN", "CLOSING"),
    ("FIN_WAIT_2", "rcv FIN, snd ACK"): ("ACKS_FIN", "TIME_WAIT"),
    ("CLOSE_WAIT", "CLOSE, snd FIN"): ("FIN", "LAST_ACK"),
    ("CLOSING", "rcv ACK of FIN"): ("FIN_ACKED", "TIME_WAIT"),
    ("LAST_ACK", "rcv ACK of FIN"): ("FIN_ACKED", "CLOSED"),
}

# The rest of the figure shows no segment (passive OPEN, CLOSE in LISTEN and SYN_SENT, the 2 MSL timeout) or is a reset,
# which ends both sides from any state (3.10.7) without the table.

# What the code has besides.
BESIDES = {
    ("ACKS_FIN", "SYN_RECEIVED"): ("CLOSE_WAIT", "3.10.7.4, eighth: a FIN may come before the ACK of the SYN"),
}
ILLEGAL = {
    ("SENDS", "LISTEN"): "sends nothing before its SYN",
    ("SENDS", "SYN_SENT"): "has no number of the peer to acknowledge: only ACKS_SYN leads out, or a SYN and ACK",
    ("SYN_ACK", "CLOSED"): "answers a SYN with a reset (3.10.7.1)",
    ("FIN", "LISTEN"): "CLOSE sends nothing there (3.10.4)",
    ("FIN", "SYN_SENT"): "CLOSE sends nothing there (3.10.4)",
    ("ACKS_FIN", "LISTEN"): "has got no SYN, so no FIN",
    ("ACKS_FIN", "SYN_SENT"): "has got no SYN, so no FIN",
    ("FIN_ACKED", "LISTEN"): "has sent no FIN",
    ("FIN_ACKED", "SYN_SENT"): "has sent no FIN",
}


@pytest.fixture(scope="module")
def table() -> Table:
    return read(SOURCE.read_text())


def test_every_event_has_an_answer_in_every_state(table: Table) -> None:
    events = {event for event, _ in table}
    assert events == {"SENDS", "SYN", "SYN_ACK", "FIN", "ACKS_SYN", "ACKS_FIN", "SYN_ACKED", "FIN_ACKED"}
    assert set(table) == set(itertools.product(events, abi.Tcp.__members__))


@pytest.mark.parametrize(("state", "said"), FIGURE)
def test_the_figure_is_in_the_code(table: Table, state: str, said: str) -> None:
    event, then = FIGURE[state, said]
    assert table[event, state] == then


def test_everything_else_in_the_code_has_its_reason(table: Table) -> None:
    figure = {(event, state): then for (state, _), (event, then) in FIGURE.items()}
    besides = {place: then for place, (then, _) in BESIDES.items()}
    changes = {place: then for place, then in table.items() if then not in {None, place[1]}}
    assert changes == figure | besides
    assert {place for place, then in table.items() if then is None} == set(ILLEGAL)


def test_the_drawing_has_every_change(table: Table) -> None:
    drawn = mermaid(table).splitlines()
    assert drawn[0] == "stateDiagram-v2"
    assert "    FIN_WAIT_1 --> CLOSING: ACKS_FIN" in drawn
    assert len(drawn) == 1 + len(FIGURE) + len(BESIDES)


@pytest.mark.parametrize("row", ["MS_TCP_ROW(CLO)", "MS_TCP_ROW(" + ", ".join(["CLO"] * 12) + ")"])
def test_a_row_of_another_length_is_an_error(row: str) -> None:
    text = SOURCE.read_text()
    with pytest.raises(ValueError, match="zip"):
        read(f"{text}\n#define MS_TCP_ROW_MORE {row}\n")
