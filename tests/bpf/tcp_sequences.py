"""TCP conversations as the middle sees them, written as RFC 9293 draws them (figures 6 to 13).

A line is one segment and what must be known after it:

    > SYN,ACK 0 1 len=100 win=1000   SYN_SENT SYN_RECEIVED  tcp_ack   # RFC 9293 3.10.7.4: why

`>` client to server, `<` back; flags; sequence number behind the sender's initial one; acknowledgment behind the
peer's; options (len, win, ws = window scale, ts = timestamp value); the states of client and server. Then, if the
segment is illegal, the statistic that counts it (`closed`: it is dropped for that reason); and behind `#`, where
nf_conntrack is of another opinion about the state or about what is legal, the RFC section by which ours is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from scapy.packet import Packet

from tests.bpf.harness import Flow

WINDOW = 1000
LEGAL = ""
FLAGS = {"SYN": "S", "ACK": "A", "FIN": "F", "RST": "R", "PSH": "P", "URG": "U"}
OPTIONS = {"len": 0, "win": WINDOW, "ws": -1, "ts": -1}


@dataclass(frozen=True)
class Step:
    """One segment, and what holds after it."""

    text: str
    back: bool
    flags: frozenset[str]
    seq: int
    ack: int
    options: dict[str, int] = field(hash=False)
    states: tuple[str, str]
    illegal: str
    differs: str

    @property
    def end(self) -> int:
        """Behind its last sequence number."""
        return self.seq + self.options["len"] + len(self.flags & {"SYN", "FIN"})

    def packet(self, flow: Flow, isn: tuple[int, int]) -> Packet:
        """As scapy writes it."""
        packet = flow.segment(
            "".join(FLAGS[flag] for flag in sorted(self.flags)),
            isn[self.back] + self.seq,
            isn[not self.back] + self.ack if "ACK" in self.flags else 0,
            b"x" * self.options["len"],
            back=self.back,
        )
        packet["TCP"].window = self.options["win"]
        options = []
        if self.options["ws"] >= 0:
            options.append(("WScale", self.options["ws"]))
        if self.options["ts"] >= 0:
            options.append(("Timestamp", (self.options["ts"], 0)))
        packet["TCP"].options = options
        return packet


@dataclass(frozen=True)
class Sequence:
    """A conversation. `loose`: nf_conntrack may pick it up without its SYN, as we do."""

    topic: str
    name: str
    script: str
    isn: tuple[int, int] = (1000, 5000)
    loose: bool = False

    def __str__(self) -> str:
        return f"{self.topic}: {self.name}"

    @property
    def steps(self) -> list[Step]:
        """Its segments."""
        return [parse(line) for line in self.script.splitlines() if line.strip()]


def parse(line: str) -> Step:
    """One line; ValueError with the line if it is none."""
    said, _, differs = line.partition("#")
    words = said.split()
    try:
        arrow, flags, seq, *rest = words
        ack = number(rest.pop(0)) if "ACK" in flags.split(",") else 0
        options = dict(OPTIONS)
        while "=" in rest[0]:
            name, _, value = rest.pop(0).partition("=")
            options[name] = number(value)
        client, server, *illegal = rest
        if arrow not in {"<", ">"} or len(illegal) > 1 or options.keys() != OPTIONS.keys():
            raise ValueError(line)
    except (ValueError, IndexError) as error:
        raise ValueError(f"no segment: {line!r}") from error
    return Step(
        " ".join(words),
        arrow == "<",
        frozenset(flags.split(",")),
        number(seq),
        ack,
        options,
        (client, server),
        illegal[0] if illegal else LEGAL,
        differs.strip(),
    )


def number(text: str) -> int:
    """`1000`, `1+65535` or `1-2`."""
    return sum(int(part) for part in text.replace("-", "+-").split("+") if part)


def turned(script: str) -> str:
    """The same with the sides exchanged (not for an opening: the client is who sends the first SYN)."""
    lines = []
    for line in script.splitlines():
        if line.strip():
            step = parse(line)
            said, mark, differs = line.partition("#")
            words = said.split()
            client, server = step.states
            place = len(words) - 2 - bool(step.illegal)
            words[0] = ">" if step.back else "<"
            words[place : place + 2] = [server, client]
            lines.append(" ".join(words) + f" {mark} {differs}".rstrip())
    return "\n".join(lines)


# --- pieces ----------------------------------------------------------------------------------------------------------

SYN = """
> SYN 0               SYN_SENT     LISTEN
"""
HALF = f"""{SYN}
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED
"""
OPEN = f"""{HALF}
> ACK 1 1             ESTABLISHED  ESTABLISHED
"""
# 100 bytes each way: the next numbers are 101.
TALK = f"""{OPEN}
> PSH,ACK 1 1 len=100     ESTABLISHED  ESTABLISHED
< PSH,ACK 1 101 len=100   ESTABLISHED  ESTABLISHED
> ACK 101 101             ESTABLISHED  ESTABLISHED
"""
FIN = f"""{TALK}
> FIN,ACK 101 101     FIN_WAIT_1   ESTABLISHED
"""
FIN_ACKED = f"""{FIN}
< ACK 101 102         FIN_WAIT_2   CLOSE_WAIT
"""
BOTH_FIN = f"""{FIN_ACKED}
< FIN,ACK 101 102     FIN_WAIT_2   LAST_ACK
"""
CLOSED = f"""{BOTH_FIN}
> ACK 102 102         TIME_WAIT    CLOSED
"""
CROSSED_FIN = f"""{FIN}
< FIN,ACK 101 101     FIN_WAIT_1   FIN_WAIT_1
"""


def conversations() -> Iterator[Sequence]:
    """All of them."""
    yield from openings()
    yield from simultaneous_openings()
    yield from closings()
    yield from resets()
    yield from after_resets()
    yield from retransmissions()
    yield from wraps()
    yield from reuses()
    yield from pick_ups()
    yield from scales()
    yield from half_closes()
    yield from payload_on_syn()
    yield from keep_alives()
    yield from windows()
    yield from syns_in_the_midst()


def openings() -> Iterator[Sequence]:
    """RFC 9293 figure 6, and what may come between."""
    scripts = {
        "figure 6": f"""{OPEN}
> ACK 1 1 len=10      ESTABLISHED  ESTABLISHED
""",
        "the SYN is sent again": f"""{SYN}
> SYN 0               SYN_SENT     LISTEN
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED
> ACK 1 1             ESTABLISHED  ESTABLISHED
""",
        "the SYN and ACK is sent again": f"""{HALF}
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED
> ACK 1 1             ESTABLISHED  ESTABLISHED
< SYN,ACK 0 1         ESTABLISHED  ESTABLISHED
> ACK 1 1             ESTABLISHED  ESTABLISHED
""",
        "the third segment carries data": f"""{HALF}
> PSH,ACK 1 1 len=100     ESTABLISHED  ESTABLISHED
< ACK 1 101               ESTABLISHED  ESTABLISHED
""",
        "the third segment carries data and FIN": f"""{HALF}
> FIN,ACK 1 1 len=100     FIN_WAIT_1   ESTABLISHED
< ACK 1 102               FIN_WAIT_2   CLOSE_WAIT
""",
        "refused": f"""{SYN}
< RST,ACK 0 1         CLOSED       CLOSED
""",
        "refused for another number": f"""{SYN}
< RST,ACK 0 2         SYN_SENT     LISTEN        tcp_reset   # RFC 9293 3.10.7.3
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED              # RFC 9293 3.10.7.3
""",
        "refused without an acknowledgment": f"""{SYN}
< RST 0               SYN_SENT     LISTEN        tcp_reset   # RFC 9293 3.10.7.3
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED              # RFC 9293 3.10.7.3
""",
        "a listener acknowledges another number": f"""{SYN}
< SYN,ACK 0 7         SYN_SENT     LISTEN        tcp_ack
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED
""",
        "a listener cannot send data": f"""{SYN}
< PSH,ACK 0 1 len=10  SYN_SENT     LISTEN        tcp_state   # RFC 9293 3.3.2
< FIN,ACK 0 1         SYN_SENT     LISTEN        tcp_state
""",
        "an opener cannot send data before it has the peer's number": f"""{SYN}
> PSH,ACK 1 1 len=10  SYN_SENT     LISTEN        tcp_state
> ACK 1 1             SYN_SENT     LISTEN        tcp_state
""",
        "an old half-open connection answers (figure 9)": f"""{SYN}
< ACK 500 77777       SYN_SENT     LISTEN
> RST 77777           SYN_SENT     LISTEN                    # RFC 9293 3.5.1
> SYN 0               SYN_SENT     LISTEN
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED
""",
        "another SYN before any answer replaces the first": f"""{SYN}
> SYN 70000           SYN_SENT     LISTEN
< SYN,ACK 0 70001     SYN_SENT     SYN_RECEIVED
> ACK 70001 1         ESTABLISHED  ESTABLISHED
""",
    }
    for name, script in scripts.items():
        yield Sequence("open", name, script)


def simultaneous_openings() -> Iterator[Sequence]:
    """RFC 9293 figure 7; 3.5: both ends send a SYN."""
    crossed = f"""{SYN}
< SYN 0               SYN_SENT     SYN_SENT
"""
    scripts = {
        "figure 7": f"""{crossed}
> SYN,ACK 0 1         SYN_RECEIVED SYN_SENT
< SYN,ACK 0 1         ESTABLISHED  SYN_RECEIVED
> ACK 1 1 len=10      ESTABLISHED  ESTABLISHED
""",
        "answered by the server first": f"""{crossed}
< SYN,ACK 0 1         SYN_SENT     SYN_RECEIVED
> SYN,ACK 0 1         SYN_RECEIVED ESTABLISHED
< ACK 1 1 len=10      ESTABLISHED  ESTABLISHED
""",
        "the SYNs are sent again": f"""{crossed}
> SYN 0               SYN_SENT     SYN_SENT
< SYN 0               SYN_SENT     SYN_SENT
> SYN,ACK 0 1         SYN_RECEIVED SYN_SENT
< SYN,ACK 0 1         ESTABLISHED  SYN_RECEIVED
""",
        "answered by an ACK alone": f"""{crossed}
> SYN,ACK 0 1         SYN_RECEIVED SYN_SENT
< ACK 1 1             ESTABLISHED  ESTABLISHED
""",
        "given up": f"""{crossed}
> RST 1               CLOSED       CLOSED
""",
    }
    for name, script in scripts.items():
        yield Sequence("simultaneous open", name, script)


CLOSES = {
    "one after the other": BOTH_FIN + "> ACK 102 102  TIME_WAIT CLOSED",
    "the second FIN acknowledges the first": FIN
    + """
< FIN,ACK 101 102     FIN_WAIT_2   LAST_ACK
> ACK 102 102         TIME_WAIT    CLOSED
""",
    "crossed": CROSSED_FIN
    + """
> ACK 102 102         CLOSING      FIN_WAIT_2                # RFC 9293 3.3.2
< ACK 102 102         TIME_WAIT    TIME_WAIT
""",
    "crossed, the other side acknowledges first": CROSSED_FIN
    + """
< ACK 102 102         FIN_WAIT_2   CLOSING                   # RFC 9293 3.3.2
> ACK 102 102         TIME_WAIT    TIME_WAIT
""",
}


def closings() -> Iterator[Sequence]:
    """RFC 9293 figures 12 and 13: either side first, one after the other or crossed."""
    for order, script in CLOSES.items():
        yield Sequence("close", f"client first, {order}", script)
        yield Sequence("close", f"server first, {order}", TALK + turned(script.removeprefix(TALK)))
        last = " ".join(parse(script.strip().splitlines()[-1]).states)
        yield Sequence("close", f"{order}, last ACK sent again", script + f"\n> ACK 102 102 {last}")
        yield Sequence(
            "close",
            f"{order}, then data",
            script + f"\n> PSH,ACK 102 102 len=10 {last} tcp_fin  # RFC 9293 3.10.7.4",
        )


def resets() -> Iterator[Sequence]:
    """RFC 9293 3.10.7, RFC 5961 3.2: a RST of either side in every state, where its number lies."""
    prefixes = {
        "SYN_SENT LISTEN": SYN,
        "SYN_SENT SYN_RECEIVED": HALF,
        "SYN_SENT SYN_SENT": SYN + "< SYN 0  SYN_SENT SYN_SENT",
        "SYN_RECEIVED SYN_SENT": SYN + "< SYN 0  SYN_SENT SYN_SENT\n> SYN,ACK 0 1  SYN_RECEIVED SYN_SENT",
        "ESTABLISHED ESTABLISHED": TALK,
        "FIN_WAIT_1 ESTABLISHED": FIN,
        "FIN_WAIT_2 CLOSE_WAIT": FIN_ACKED,
        "FIN_WAIT_1 FIN_WAIT_1": CROSSED_FIN,
        "CLOSING FIN_WAIT_2": CROSSED_FIN + "> ACK 102 102  CLOSING FIN_WAIT_2  # RFC 9293 3.3.2",
        "FIN_WAIT_2 LAST_ACK": BOTH_FIN,
        "TIME_WAIT CLOSED": CLOSED,
        "TIME_WAIT TIME_WAIT": CLOSES["crossed"],
    }
    for states, prefix in prefixes.items():
        steps = Sequence("", "", prefix).steps
        for back in (False, True):
            yield from resets_after(states, prefix, steps, back=back)


def resets_after(states: str, prefix: str, steps: list[Step], *, back: bool) -> Iterator[Sequence]:
    """Resets of one side in one state."""
    mine = [step for step in steps if step.back == back]
    theirs = [step for step in steps if step.back != back and "ACK" in step.flags]
    arrow, side = ("<", "server") if back else (">", "client")
    if states == "SYN_SENT LISTEN" and not back:
        # The receiver may hold an older connection, whose acknowledgment it answers.
        cases = {"its next": ("RST 1", "CLOSED CLOSED"), "far off": ("RST 500000", f"{states} # RFC 9293 3.5.1")}
    elif states == "SYN_SENT LISTEN":
        cases = {
            "refusing the SYN": ("RST,ACK 0 1", "CLOSED CLOSED"),
            "refusing another": ("RST,ACK 0 9", f"{states} tcp_reset"),
            "far off": ("RST 500000", f"{states} tcp_reset # RFC 9293 3.10.7.3"),
        }
    else:
        expected = max([step.ack for step in theirs], default=1)
        edge = max([step.ack + step.options["win"] for step in theirs], default=1 + WINDOW)
        after = max(step.end for step in mine)
        # nf_conntrack lets any RST end a connection that begins to close, and while it has seen no acknowledgment.
        rfc = " # RFC 5961 3.2"
        established, opens = states == "ESTABLISHED ESTABLISHED", "SYN" in states and bool(theirs)
        blind = not theirs and (back or states != "SYN_SENT SYN_SENT")
        cases = {
            "what is expected": (f"RST {expected}", "CLOSED CLOSED"),
            "behind the last sent": (f"RST {after}", "CLOSED CLOSED"),
            "inside the window": (f"RST {expected + 5}", states + rfc * (not established and not blind)),
            "at the edge of the window": (f"RST {edge}", states + rfc * (not established)),
            "behind the window": (f"RST {edge + 1}", f"{states} tcp_reset" + rfc * (not blind)),
            "before the window": (f"RST {expected - 1}", f"{states} tcp_reset" + rfc * (not established and not opens)),
            "far off": (
                f"RST {edge + (1 << 30)}",
                f"{states} tcp_reset" + rfc * (not established and not opens and not blind),
            ),
        }
    for name, (segment, then) in cases.items():
        yield Sequence("RST", f"{states}, from the {side}, {name}", f"{prefix}\n{arrow} {segment}  {then}")


def after_resets() -> Iterator[Sequence]:
    """What still comes from who has not got the reset, or was asked again."""
    scripts = {
        "a FIN": f"""{TALK}
< RST 101                        CLOSED       CLOSED
> FIN,ACK 101 101                CLOSED       CLOSED
""",
        "acknowledgments, and another reset": f"""{TALK}
< RST 101                        CLOSED       CLOSED
> ACK 101 101                    CLOSED       CLOSED
< RST 101                        CLOSED       CLOSED
""",
        "data": f"""{TALK}
< RST 101                        CLOSED       CLOSED
> PSH,ACK 101 101 len=10         CLOSED       CLOSED        closed     # RFC 9293 3.10.7.1
""",
        "the SYN and ACK again": f"""{HALF}
> RST 1                          CLOSED       CLOSED
< SYN,ACK 0 1                    CLOSED       CLOSED
""",
        "the SYN is refused behind its answer": f"""{HALF}
< RST,ACK 0-5000 1               CLOSED       CLOSED                   # RFC 9293 3.10.7.3
< RST,ACK 0-5000 1               CLOSED       CLOSED                   # RFC 9293 3.10.7.3
""",
    }
    for name, script in scripts.items():
        yield Sequence("after a reset", name, script)


def retransmissions() -> Iterator[Sequence]:
    """RFC 9293 3.8.1: what was sent comes again, whole, in part or late."""
    scripts = {
        "before its acknowledgment": f"""{OPEN}
> ACK 1 1 len=100     ESTABLISHED  ESTABLISHED
> ACK 1 1 len=100     ESTABLISHED  ESTABLISHED
< ACK 1 101           ESTABLISHED  ESTABLISHED
""",
        "after its acknowledgment": f"""{TALK}
> ACK 1 1 len=100     ESTABLISHED  ESTABLISHED
< ACK 101 101         ESTABLISHED  ESTABLISHED
""",
        "together with new data": f"""{TALK}
> ACK 101 101 len=100 ESTABLISHED  ESTABLISHED
> ACK 51 101 len=300  ESTABLISHED  ESTABLISHED
< ACK 101 351         ESTABLISHED  ESTABLISHED
""",
        "a hole is filled": f"""{TALK}
> ACK 201 101 len=100 ESTABLISHED  ESTABLISHED
< ACK 101 101         ESTABLISHED  ESTABLISHED
> ACK 101 101 len=100 ESTABLISHED  ESTABLISHED
< ACK 101 301         ESTABLISHED  ESTABLISHED
""",
        "the FIN": f"""{FIN}
> FIN,ACK 101 101     FIN_WAIT_1   ESTABLISHED               # RFC 9293 3.10.7.4
< ACK 101 102         FIN_WAIT_2   CLOSE_WAIT                # RFC 9293 3.10.7.4
> FIN,ACK 101 101     FIN_WAIT_2   CLOSE_WAIT                # RFC 9293 3.10.7.4
< ACK 101 102         FIN_WAIT_2   CLOSE_WAIT                # RFC 9293 3.10.7.4
""",
        "the last FIN": f"""{CLOSED}
< FIN,ACK 101 102     TIME_WAIT    CLOSED
> ACK 102 102         TIME_WAIT    CLOSED
""",
        "a late acknowledgment": f"""{TALK}
> ACK 101 101 len=100 ESTABLISHED  ESTABLISHED
< ACK 101 201         ESTABLISHED  ESTABLISHED
< ACK 101 101         ESTABLISHED  ESTABLISHED
< ACK 1 1             ESTABLISHED  ESTABLISHED
""",
        "the handshake's ACK after data": f"""{TALK}
> ACK 1 1             ESTABLISHED  ESTABLISHED
""",
    }
    for name, script in scripts.items():
        yield Sequence("retransmit", name, script)


def wraps() -> Iterator[Sequence]:
    """RFC 9293 3.4: arithmetic modulo 2^32."""
    top = 1 << 32
    for name, isn in {
        "both initial numbers are the last": (top - 1, top - 1),
        "in the client's data": (top - 50, 5000),
        "in the server's data": (1000, top - 50),
        "at the FIN": (top - 102, top - 102),
        "in the window": (top - 600, top - 600),
        "at 2^31": ((1 << 31) - 50, (1 << 31) - 50),
    }.items():
        yield Sequence("wrap", name, CLOSED, isn)
        yield Sequence(
            "wrap",
            f"{name}: outside the window",
            f"""{TALK}
> ACK 10000 101 len=10       ESTABLISHED  ESTABLISHED   tcp_sequence
< ACK 101 102                ESTABLISHED  ESTABLISHED   tcp_ack
> RST 1102                   ESTABLISHED  ESTABLISHED   tcp_reset      # RFC 5961 3.2
> RST 101                    CLOSED       CLOSED                       # RFC 5961 3.2
""",
            isn,
        )


def reuses() -> Iterator[Sequence]:
    """RFC 9293 3.6.1, RFC 6191: a new connection on the ports of one that has ended."""
    waiting = TALK + turned(CLOSES["one after the other"].removeprefix(TALK))
    stamped = """
> SYN 0 ts=1000       SYN_SENT     LISTEN
< SYN,ACK 0 1 ts=9    SYN_SENT     SYN_RECEIVED
> ACK 1 1 ts=1000     ESTABLISHED  ESTABLISHED
< FIN,ACK 1 1 ts=10   ESTABLISHED  FIN_WAIT_1
> FIN,ACK 1 2 ts=1001 LAST_ACK     FIN_WAIT_2
< ACK 2 2 ts=11       CLOSED       TIME_WAIT
"""
    scripts = {
        "a higher number": f"""{waiting}
> SYN 70000           SYN_SENT     LISTEN
< SYN,ACK 90000 70001 SYN_SENT     SYN_RECEIVED
> ACK 70001 90001     ESTABLISHED  ESTABLISHED
""",
        "the very next number": f"""{waiting}
> SYN 103             SYN_SENT     LISTEN
""",
        "the last number": f"""{waiting}
> SYN 102             CLOSED       TIME_WAIT     tcp_syn     # RFC 9293 3.6.1
""",
        "a lower number": f"""{waiting}
> SYN 50              CLOSED       TIME_WAIT     tcp_syn     # RFC 9293 3.6.1
""",
        "a lower number with a newer timestamp": f"""{stamped}
> SYN 0-5000 ts=2000  SYN_SENT     LISTEN
< SYN,ACK 0 1-5000 ts=11  SYN_SENT SYN_RECEIVED
""",
        "a lower number with an older timestamp": f"""{stamped}
> SYN 0-5000 ts=900   CLOSED       TIME_WAIT     tcp_syn     # RFC 6191 2
""",
        "by the side that waits itself": f"""{CLOSED}
> SYN 50              SYN_SENT     LISTEN
""",
        "after a reset": f"""{TALK}
> RST 101             CLOSED       CLOSED
> SYN 70000           SYN_SENT     LISTEN
""",
        "after both have closed at once": f"""{CLOSES["crossed"]}
> SYN 70000           SYN_SENT     LISTEN
""",
    }
    for name, script in scripts.items():
        yield Sequence("TIME_WAIT reuse", name, script)


def pick_ups() -> Iterator[Sequence]:
    """The start was not seen."""
    scripts = {
        "data": """
> ACK 1 1 len=100     ESTABLISHED  ESTABLISHED
< ACK 1 101 len=100   ESTABLISHED  ESTABLISHED
> ACK 101 101         ESTABLISHED  ESTABLISHED
""",
        "an acknowledgment": """
> ACK 1 1             ESTABLISHED  ESTABLISHED
< ACK 1 1 len=1000    ESTABLISHED  ESTABLISHED
> ACK 1 1001          ESTABLISHED  ESTABLISHED
""",
        "a window whose scale nobody knows": """
> ACK 1 1 win=10      ESTABLISHED  ESTABLISHED
< ACK 1 1 len=1400    ESTABLISHED  ESTABLISHED
< ACK 1401 1 len=1400 ESTABLISHED  ESTABLISHED
> ACK 1 2801 win=10   ESTABLISHED  ESTABLISHED
""",
        "then closed": """
> ACK 1 1             ESTABLISHED  ESTABLISHED
< ACK 1 1 len=100     ESTABLISHED  ESTABLISHED
> FIN,ACK 1 101       FIN_WAIT_1   ESTABLISHED
< FIN,ACK 101 2       FIN_WAIT_2   LAST_ACK
> ACK 2 102           TIME_WAIT    CLOSED
""",
        "then reset": """
> ACK 1 1             ESTABLISHED  ESTABLISHED
< ACK 1 1             ESTABLISHED  ESTABLISHED
< RST 1               CLOSED       CLOSED
""",
        "then reset from afar": """
> ACK 1 1             ESTABLISHED  ESTABLISHED
< ACK 1 1             ESTABLISHED  ESTABLISHED
< RST 1+1073741824    ESTABLISHED  ESTABLISHED   tcp_reset   # RFC 5961 3.2
""",
    }
    for name, script in scripts.items():
        yield Sequence("mid-stream", name, script, loose=True)


def scales() -> Iterator[Sequence]:
    """RFC 7323 2: a window counts in units that both SYNs must offer, and in a SYN never."""
    both = """
> SYN 0 ws=7 win=64000           SYN_SENT     LISTEN
< SYN,ACK 0 1 ws=3 win=64000     SYN_SENT     SYN_RECEIVED
> ACK 1 1 win=500                ESTABLISHED  ESTABLISHED
"""
    one = """
> SYN 0 ws=7 win=1000            SYN_SENT     LISTEN
< SYN,ACK 0 1 win=1000           SYN_SENT     SYN_RECEIVED
> ACK 1 1 win=500                ESTABLISHED  ESTABLISHED
"""
    scripts = {
        "the client's, up to its edge": f"""{both}
< ACK 1 1 len=1000               ESTABLISHED  ESTABLISHED
< ACK 62001 1 len=1000           ESTABLISHED  ESTABLISHED
< ACK 64002 1 len=1              ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
""",
        "the server's": f"""{both}
< ACK 1 1 win=10000              ESTABLISHED  ESTABLISHED
> ACK 79001 1 len=1000           ESTABLISHED  ESTABLISHED
> ACK 80002 1 len=1              ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
""",
        "not in the SYN and ACK": f"""{both}
> ACK 64002 1 len=1              ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
""",
        "only the client offers": f"""{one}
< ACK 901 1 len=100              ESTABLISHED  ESTABLISHED
< ACK 1002 1 len=1               ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
""",
        "a shift above 14 is 14": """
> SYN 0 ws=255 win=64000         SYN_SENT     LISTEN
< SYN,ACK 0 1 ws=0 win=64000     SYN_SENT     SYN_RECEIVED
> ACK 1 1 win=100                ESTABLISHED  ESTABLISHED
< ACK 1+1638399 1 len=1          ESTABLISHED  ESTABLISHED
< ACK 1+1638401 1 len=1          ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
""",
    }
    for name, script in scripts.items():
        yield Sequence("window scale", name, script)


def half_closes() -> Iterator[Sequence]:
    """RFC 9293 3.6: who has closed still receives."""
    scripts = {
        "the server goes on sending": f"""{FIN_ACKED}
< ACK 101 102 len=500            FIN_WAIT_2   CLOSE_WAIT
> ACK 102 601                    FIN_WAIT_2   CLOSE_WAIT
< FIN,ACK 601 102 len=100        FIN_WAIT_2   LAST_ACK
> ACK 102 702                    TIME_WAIT    CLOSED
""",
        "the client goes on sending": f"""{TALK}
< FIN,ACK 101 101                ESTABLISHED  FIN_WAIT_1
> ACK 101 102 len=500            CLOSE_WAIT   FIN_WAIT_2
< ACK 102 601                    CLOSE_WAIT   FIN_WAIT_2
> FIN,ACK 601 102                LAST_ACK     FIN_WAIT_2
< ACK 102 602                    CLOSED       TIME_WAIT
""",
        "data crosses the FIN": f"""{FIN}
< ACK 101 101 len=500            FIN_WAIT_1   ESTABLISHED      # RFC 9293 3.3.2
> ACK 102 601                    FIN_WAIT_1   ESTABLISHED      # RFC 9293 3.3.2
< ACK 601 102                    FIN_WAIT_2   CLOSE_WAIT
""",
        "the FIN carries data": f"""{TALK}
> FIN,ACK 101 101 len=100        FIN_WAIT_1   ESTABLISHED
< ACK 101 201                    FIN_WAIT_1   ESTABLISHED      # RFC 9293 3.3.2
< ACK 101 202                    FIN_WAIT_2   CLOSE_WAIT
""",
        "who has closed cannot send more": f"""{FIN_ACKED}
> ACK 102 101 len=10             FIN_WAIT_2   CLOSE_WAIT    tcp_fin      # RFC 9293 3.10.7.4
> FIN,ACK 102 101                FIN_WAIT_2   CLOSE_WAIT    tcp_fin      # RFC 9293 3.10.7.4
""",
    }
    for name, script in scripts.items():
        yield Sequence("half-close", name, script)


def payload_on_syn() -> Iterator[Sequence]:
    """RFC 9293 3.4, 3.10.7.2: a SYN may carry data; RFC 7413 2: the server may take it at once."""
    carried = """
> SYN 0 len=100                  SYN_SENT     LISTEN
"""
    scripts = {
        "acknowledged with the SYN": f"""{carried}
< SYN,ACK 0 101                  SYN_SENT     SYN_RECEIVED
> ACK 101 1 len=100              ESTABLISHED  ESTABLISHED
""",
        "not taken, sent again": f"""{carried}
< SYN,ACK 0 1                    SYN_SENT     SYN_RECEIVED
> ACK 1 1 len=100                ESTABLISHED  ESTABLISHED
< ACK 1 101                      ESTABLISHED  ESTABLISHED
""",
        "the server answers before the third segment": f"""{carried}
< SYN,ACK 0 101                  SYN_SENT     SYN_RECEIVED
< PSH,ACK 1 101 len=50           SYN_SENT     SYN_RECEIVED
> ACK 101 51                     ESTABLISHED  ESTABLISHED
""",
        "the SYN and ACK carries data": f"""{carried}
< SYN,ACK 0 101 len=50           SYN_SENT     SYN_RECEIVED
> ACK 101 51                     ESTABLISHED  ESTABLISHED
""",
        "more acknowledged than was sent": f"""{carried}
< SYN,ACK 0 102                  SYN_SENT     LISTEN        tcp_ack
""",
    }
    for name, script in scripts.items():
        yield Sequence("SYN data", name, script)


def keep_alives() -> Iterator[Sequence]:
    """RFC 9293 3.8.4: a probe before what is expected, with a byte or without."""
    scripts = {
        "the client's, empty": f"""{TALK}
> ACK 100 101                    ESTABLISHED  ESTABLISHED
< ACK 101 101                    ESTABLISHED  ESTABLISHED
> ACK 100 101                    ESTABLISHED  ESTABLISHED
""",
        "the server's, empty": f"""{TALK}
< ACK 100 101                    ESTABLISHED  ESTABLISHED
> ACK 101 101                    ESTABLISHED  ESTABLISHED
""",
        "with a byte": f"""{TALK}
> ACK 100 101 len=1              ESTABLISHED  ESTABLISHED
< ACK 101 101                    ESTABLISHED  ESTABLISHED
""",
        "before any data": f"""{OPEN}
> ACK 0 1                        ESTABLISHED  ESTABLISHED
< ACK 1 1                        ESTABLISHED  ESTABLISHED
< ACK 0 1 len=1                  ESTABLISHED  ESTABLISHED
""",
        "half-closed": f"""{FIN_ACKED}
< ACK 100 102                    FIN_WAIT_2   CLOSE_WAIT
> ACK 102 101                    FIN_WAIT_2   CLOSE_WAIT
> ACK 101 101                    FIN_WAIT_2   CLOSE_WAIT
""",
        "of a dead peer, answered by a reset": f"""{TALK}
> ACK 100 101                    ESTABLISHED  ESTABLISHED
< RST 101                        CLOSED       CLOSED
""",
    }
    for name, script in scripts.items():
        yield Sequence("keep-alive", name, script)


def windows() -> Iterator[Sequence]:
    """RFC 9293 3.8.6, 3.10.7.4: what the other side has room for, and what it can have acknowledged."""
    scripts = {
        "full": f"""{TALK}
> ACK 101 101 len=1000           ESTABLISHED  ESTABLISHED
< ACK 101 1101                   ESTABLISHED  ESTABLISHED
""",
        "closed, probed, opened": f"""{TALK}
< ACK 101 101 win=0              ESTABLISHED  ESTABLISHED
> ACK 101 101 len=1              ESTABLISHED  ESTABLISHED
< ACK 101 101 win=0              ESTABLISHED  ESTABLISHED
< ACK 101 102 win=500            ESTABLISHED  ESTABLISHED
> ACK 102 101 len=500            ESTABLISHED  ESTABLISHED
""",
        "closed, and the prober acknowledges meanwhile": f"""{TALK}
< ACK 101 101 win=0              ESTABLISHED  ESTABLISHED
> ACK 101 101 len=1000           ESTABLISHED  ESTABLISHED
> ACK 1101 101 len=1             ESTABLISHED  ESTABLISHED
< ACK 101 1101 len=50 win=0      ESTABLISHED  ESTABLISHED
> ACK 1102 151                   ESTABLISHED  ESTABLISHED
> ACK 1102 151 len=1             ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
""",
        "shrunk under what is under way": f"""{TALK}
< ACK 101 101 win=10             ESTABLISHED  ESTABLISHED
> ACK 101 101 len=1000           ESTABLISHED  ESTABLISHED
""",
        "beyond": f"""{TALK}
> ACK 1102 101 len=10            ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
> ACK 101 101 len=10             ESTABLISHED  ESTABLISHED
""",
        "a late copy": f"""{TALK}
> ACK 101-65000 101 len=10       ESTABLISHED  ESTABLISHED
> ACK 101 101-65000              ESTABLISHED  ESTABLISHED
""",
        "far behind": f"""{TALK}
> ACK 101-70000 101 len=10       ESTABLISHED  ESTABLISHED   tcp_sequence      # RFC 9293 3.10.7.4
""",
        "acknowledges what was never sent": f"""{TALK}
> ACK 101 102                    ESTABLISHED  ESTABLISHED   tcp_ack
> ACK 101 500 len=10             ESTABLISHED  ESTABLISHED   tcp_ack
< ACK 101 101                    ESTABLISHED  ESTABLISHED
""",
        "acknowledges long ago": f"""{TALK}
> ACK 101 101-70000              ESTABLISHED  ESTABLISHED   tcp_ack      # RFC 5961 5.2
""",
    }
    for name, script in scripts.items():
        yield Sequence("window", name, script)


def syns_in_the_midst() -> Iterator[Sequence]:
    """RFC 5961 4: a SYN in a connection changes nothing; its receiver answers with a challenge ACK."""
    scripts = {
        "the client's, far off": f"""{TALK}
> SYN 70000                      ESTABLISHED  ESTABLISHED   tcp_syn      # RFC 5961 4.2
< ACK 101 101                    ESTABLISHED  ESTABLISHED
""",
        "the client's, inside the window": f"""{TALK}
> SYN 500                        ESTABLISHED  ESTABLISHED   tcp_syn      # RFC 5961 4.2
< ACK 101 101                    ESTABLISHED  ESTABLISHED
""",
        "the server's": f"""{TALK}
< SYN 70000                      ESTABLISHED  ESTABLISHED   tcp_syn
""",
        "the challenge is answered by a reset (figure 9)": f"""{TALK}
> SYN 70000                      ESTABLISHED  ESTABLISHED   tcp_syn      # RFC 5961 4.2
< ACK 101 101                    ESTABLISHED  ESTABLISHED
> RST 101                        CLOSED       CLOSED
> SYN 70000                      SYN_SENT     LISTEN
""",
        "the server forgot the connection and answers it": f"""{TALK}
> SYN 70000                      ESTABLISHED  ESTABLISHED   tcp_syn      # RFC 5961 4.2
< SYN,ACK 90000 70001            CLOSED       CLOSED        closed      # RFC 9293 3.8.1: it comes again, and is judged
> SYN 70000                      SYN_SENT     LISTEN                    # RFC 9293 3.8.1
< SYN,ACK 90000 70001            SYN_SENT     SYN_RECEIVED
""",
    }
    for name, script in scripts.items():
        yield Sequence("SYN in the midst", name, script)
