"""Accuracy of identification: every flow of the shared captures, through the whole replay, against its truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest

from parsers.base import TCP, UDP
from parsers.identify import Match, identify
from slowpath.core.frame import FrameError, checksum_ok, flow_key, parse_frame
from slowpath.replay import open_capture, read_capture
from tests.captures.accuracy import (
    NOTHING_TO_NAME,
    TRUTH_DOUBTED,
    Judged,
    another_port,
    by_file,
    confusion,
    evasion_table,
    judge_evasion,
    judge_public,
    outcomes,
    with_other_ports,
)
from tests.captures.streams import CAPTURES, flows_of

RIGHT = 0.99
NAMED = 0.94


@pytest.fixture(scope="module", params=[False, True], ids=["as captured", "every port replaced"])
def public(request: pytest.FixtureRequest) -> list[Judged]:
    return judge_public(other_ports=request.param)


@pytest.fixture(scope="module")
def evasion() -> list[Judged]:
    return judge_evasion()


def supported(judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if one.expected != "unknown"]


def test_flows_with_their_start_are_named_right(public: list[Judged]) -> None:
    ones = [one for one in supported(public) if one.certain and one.key not in NOTHING_TO_NAME]
    assert len(ones) > 200
    assert outcomes(ones)["right"] >= RIGHT * len(ones), [one.key for one in ones if one.outcome != "right"]


def test_each_supported_protocol_of_the_captures_is_named(public: list[Judged]) -> None:
    found = {one.expected for one in supported(public)}
    assert found >= {"kafka", "memcached", "mqtt", "smtp", "ftp", "smb", "rdp", "quic"}
    assert {one.expected for one in supported(public) if one.outcome == "right"} == found


def test_nothing_is_named_wrongly(public: list[Judged]) -> None:
    """Nor what begins in the middle, nor what tools disagree on, nor another protocol."""
    assert [(one.key, one.first) for one in public if one.outcome == "wrong" and one.key not in TRUTH_DOUBTED] == []


def test_where_there_is_nothing_to_name_nothing_is_named(public: list[Judged]) -> None:
    ones = [one for one in public if one.key in NOTHING_TO_NAME]
    assert {one.key for one in ones} == set(NOTHING_TO_NAME)
    assert {one.outcome for one in ones} == {"silent"}


def test_what_begins_in_the_middle_is_mostly_named(public: list[Judged]) -> None:
    ones = [one for one in supported(public) if not one.certain]
    assert outcomes(ones)["right"] >= 0.8 * len(ones)


def test_the_matrix_counts_every_flow(public: list[Judged]) -> None:
    rows = confusion(public).splitlines()[2:]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")[1:]]
    assert sum(int(cell) for cell in cells if cell) == len(public)


def test_each_evasion_is_seen_through(evasion: list[Judged]) -> None:
    """Of a row at most one flow is not named, of all at least 94 %; none is named wrongly."""
    rows: dict[str, list[Judged]] = defaultdict(list)
    for one in evasion:
        if one.truth["must"] == "identify" and one.key not in TRUTH_DOUBTED:
            rows[one.truth["mutation"]].append(one)
    unnamed = {name: sum(one.outcome != "right" for one in ones) for name, ones in rows.items()}
    assert {name: count for name, count in unnamed.items() if count > 1} == {}
    every = [one for ones in rows.values() for one in ones]
    assert len(every) > 200
    assert outcomes(every)["right"] >= NAMED * len(every)
    assert outcomes(every)["wrong"] == 0


def test_what_is_plain_is_allowed(evasion: list[Judged]) -> None:
    plain = [one for one in evasion if one.truth["mutation"] == "plain"]
    assert [one.key for one in plain if not one.verdicts or set(one.verdicts) != {"allow"}] == []
    # Requests are judged for as long as there are any.
    assert {one.truth["truth"] for one in plain if not one.final} == {"http", "grpc"}


# (file, source port): why it is allowed for good all the same.
ALLOWED_ANYWAY = {
    ("amqp__ipfrag_overlap.pcap", 40000): "its message is too short for a fragment that overlaps: there is none",
}


def test_what_must_not_is_not_allowed_for_good(evasion: list[Judged]) -> None:
    ones = [one for one in evasion if one.truth["must"] in {"deny", "not_final_allow"}]
    assert len(ones) > 40
    assert {one.key for one in ones if one.final} == set(ALLOWED_ANYWAY)


def test_what_must_be_denied_is(evasion: list[Judged]) -> None:
    ones = [one for one in evasion if one.truth["must"] == "deny" and one.key not in ALLOWED_ANYWAY]
    assert [one.key for one in ones if "deny" not in one.verdicts] == []
    either = [one for one in evasion if one.truth["must"] == "identify_or_deny"]
    assert [one.key for one in either if one.outcome != "right" and "deny" not in one.verdicts] == []


def test_the_table_has_every_row(evasion: list[Judged]) -> None:
    rows = [row.split("|") for row in evasion_table(evasion).splitlines()[2:]]
    assert sum(int(row[3]) for row in rows) == len(evasion)
    assert {row[2].strip() for row in rows} == {one.truth["mutation"] for one in evasion}


@pytest.mark.parametrize("name", ["nDPI__http.pcapng", "zeek__dns53.pcap", "zeek__ipv4__fragmented-3.pcap"])
def test_replaced_ports_change_nothing_else(name: str) -> None:
    changed = 0
    with open_capture(CAPTURES / "public" / name) as stream:
        for _, frame in read_capture(stream):
            try:
                before = parse_frame(frame)
            except FrameError:
                continue
            after = parse_frame(with_other_ports(frame))
            if before.fragment:
                continue
            assert (after.sport, after.dport) == (another_port(before.sport), another_port(before.dport))
            assert after.payload == before.payload
            assert checksum_ok(after) == checksum_ok(before)
            changed += flow_key(after) != flow_key(before) and after.l4 >= TCP
    assert changed or name.startswith("zeek__ipv4")


# (truth, name): what of the middle of its flows looks like another's beginning, to either side, and is one.
LOOKS_LIKE = {
    ("rdp", "tls"): "TLS within RDP",
    ("nats", "redis"): "`PING`, of both",
    ("telnet", "redis"): "the program ping speaks first of PING",
    ("http", "ssh"): "a client that speaks HTTP to a server of SSH",
    ("unknown", "http"): "see TRUTH_DOUBTED",
}


def test_the_middle_of_a_flow_is_not_taken_for_the_beginning_of_another() -> None:
    """Whatever was said in any flow, as if it were the first bytes of either side."""
    wrong, asked = set(), 0
    for file, rows in by_file("public").items():
        for flow in flows_of(file):
            ports = {flow.truth["sport"], flow.truth["dport"]}
            own = {name for row in rows if ports & {row["sport"]} for name in (row["truth"], row.get("final")) if name}
            for _, data in flow.parts[1:400]:
                for sides in ((data, b""), (b"", data)):
                    answer = identify(*sides, TCP if flow.truth["l4"] == "tcp" else UDP)
                    asked += 1
                    if isinstance(answer, Match) and answer.protocol not in own:
                        wrong |= {(name, answer.protocol) for name in own}
    assert asked > 8000
    assert wrong == set(LOOKS_LIKE)
