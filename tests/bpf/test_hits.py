"""What is counted for rules: each way that a session ends or changes its rule, and packets that have none."""

from __future__ import annotations

import random
from collections import defaultdict
from ipaddress import ip_network
from pathlib import Path

import pytest

from fastpath import abi
from fastpath.abi import Action, Zone
from fastpath.hits import Figures, Hits, Ledger
from fastpath.policy.model import Default, PairDefault, Policy, Rule
from fastpath.policy.names import write_names
from fastpath.word import Word
from tests.bpf.harness import Flow, Kernel, judged, key_of, rule

pytestmark = pytest.mark.root

WEB = rule("web", "allow", tcp=80)
DNS = rule("dns", "allow", udp=53)
NO = rule("no", "deny", tcp=81)
OTHER = rule("other", "allow", tcp=4444)
GET = b"GET / HTTP/1.1\r\n\r\n"


class Counting:
    """A kernel whose rules are counted, from zero."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel = kernel
        self._run_dir = folder / "run"
        self._ids: dict[int, list[str]] = {}
        self.ledger = Ledger(kernel.pins, self._run_dir, folder / "state")
        self.ledger.reset()

    def policy(self, *rules: Rule, default: str = "deny", pairs: tuple[PairDefault, ...] = ()) -> int:
        """Apply one, always as a new revision."""
        policy = Policy(rules, Default(Action[default.upper()]), defaults=pairs, zones=("lan", "dmz"))
        revision = self.kernel.apply(policy)
        write_names(self._run_dir, revision, policy)
        self._ids[revision] = ["default", *(each.id for each in (*rules, *pairs))]
        if self.kernel.replaced is not None:
            self.ledger.take_over(self.kernel.replaced, self._ids[revision])
        return revision

    def rule_of(self, session: abi.Session) -> str:
        word = Word.unpack(session.verdict)
        return self._ids[word.revision][word.rule]

    def hits(self) -> Hits:
        return self.ledger.total().hits

    def figures(self) -> dict[str, tuple[int, int]]:
        """Sessions and packets by rule, of those that have any."""
        return {name: each.values[:2] for name, each in self.hits().rules.items() if any(each.values)}

    def live(self) -> dict[str, int]:
        """Live sessions by rule."""
        return {name: each.sessions for name, each in self.ledger.total().live.rules.items()}

    def delete(self, flow: Flow, l4: int, end: abi.End = abi.End.TIMEOUT) -> int:
        """As a sweep does."""
        session = self.kernel.session(flow.key(l4))
        assert session is not None
        return self.kernel.commands.delete([(flow.key(l4), session.id, session.last_jiffies)], end)

    def close(self, flow: Flow, l4: int) -> None:
        """As the operator does."""
        session = self.kernel.session(flow.key(l4))
        assert session is not None
        assert self.kernel.command(abi.Op.CLOSE, flow.key(l4), id=session.id).status == abi.Status.OK


@pytest.fixture
def counting(kernel: Kernel, tmp_path: Path) -> Counting:
    return Counting(kernel, tmp_path)


# --- sessions --------------------------------------------------------------------------------------------------------


def test_live_sessions_count(counting: Counting, flow: Flow) -> None:
    counting.policy(NO, WEB, DNS)
    counting.kernel.open(flow)
    data = flow.data(b"x" * 100)
    counting.kernel.send(data)
    counting.kernel.send(Flow(flow.version, dport=81).segment("S"))
    counting.kernel.send(Flow(flow.version, dport=82).segment("S"))
    assert counting.figures() == {"web": (1, 4), "no": (1, 1), "default": (1, 1)}
    sizes = [len(packet) - 14 for packet in (*flow.handshake(), data)]
    assert counting.hits().rules["web"].bytes == sum(sizes)
    assert counting.live() == {"web": 1, "no": 1, "default": 1}


def test_defaults_of_pairs_of_zones_count(counting: Counting, flow: Flow) -> None:
    indexes = (counting.kernel.namespace.ifindex[name] for name in ("seg0", "seg1"))
    counting.kernel.manage(*indexes, zones=[int(Zone.FIRST), int(Zone.FIRST) + 1])
    counting.policy(DNS, pairs=(PairDefault(Action.ALLOW, from_zone="lan", to_zone="dmz"),))
    counting.kernel.send(flow.segment("S"))
    assert counting.delete(flow, 6) == 1
    assert counting.figures() == {"default:lan>dmz": (1, 1)}


def test_segments_of_a_super_packet_count(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    counting.kernel.open(flow)
    counting.kernel.send(flow.data(b"x" * 3000), gso_segs=3, gso_size=1000)
    assert counting.figures() == {"web": (1, 6)}


def test_an_ended_session_counts_once(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    counting.kernel.open(flow)
    assert counting.delete(flow, 6) == 1
    assert (counting.figures(), counting.live()) == ({"web": (1, 3)}, {})


def test_a_session_that_the_sweep_could_not_delete_stays(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    old = counting.kernel.open(flow)
    counting.kernel.tick()
    counting.kernel.send(flow.data(b"x"))
    assert not counting.kernel.commands.delete([(flow.key(6), old.id, old.last_jiffies)], abi.End.TIMEOUT)
    assert counting.figures() == {"web": (1, 4)}


def test_an_expired_session_gives_way(counting: Counting, flow: Flow) -> None:
    counting.policy(DNS)
    counting.kernel.settings(timeouts={"udp": 0.01})
    datagram = Flow(flow.version, dport=53).datagram(b"x")
    counting.kernel.send(datagram)
    counting.kernel.tick(0.05)
    counting.kernel.send(datagram)
    assert (counting.figures(), counting.live()) == ({"dns": (2, 2)}, {"dns": 1})


def test_a_replaced_session(counting: Counting, flow: Flow) -> None:
    counting.policy(NO, WEB)
    denied = Flow(flow.version, dport=81)
    counting.kernel.send(denied.segment("S"))
    counting.kernel.send(denied.segment("S", 7000))
    assert (counting.figures(), counting.live()) == ({"no": (2, 2)}, {"no": 1})


def test_a_closed_session(counting: Counting, flow: Flow) -> None:
    counting.policy(OTHER, WEB, DNS)
    counting.kernel.open(flow)
    counting.close(flow, 6)
    assert counting.kernel.send(flow.data(b"x")).said == "redirect closed"
    datagram = Flow(flow.version, dport=53)
    counting.kernel.send(datagram.datagram(b"x"))
    counting.close(datagram, 17)
    assert (counting.figures(), counting.live()) == ({"web": (1, 4), "dns": (1, 1)}, {"web": 1})
    # Its rule has another number now.
    counting.policy(WEB)
    counting.kernel.send(flow.data(b"x"))
    counting.delete(flow, 6)
    assert counting.figures() == {"web": (1, 5), "dns": (1, 1)}


def test_the_gateways_own_traffic_is_no_rules(counting: Counting, flow: Flow) -> None:
    counting.policy(DNS)
    own = flow.segment("S")
    assert judged(counting.kernel.send(own, "ms_egress").entry) == "allow host 0"
    before = counting.hits()
    assert (before.rules.get("default"), before.host.values[:2]) == (None, (1, 1))
    counting.policy(OTHER, DNS)
    counting.kernel.send(own, "ms_egress")
    counting.delete(flow, 6)
    after = counting.hits()
    assert (after.rules.get("default"), after.host.values[:2]) == (None, (1, 2))


# --- packets without a session ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pressure", "sessions"), [(abi.Pressure.HIGH, 1), (abi.Pressure.FULL, 0)])
def test_a_full_table(counting: Counting, pressure: abi.Pressure, sessions: int) -> None:
    counting.policy(DNS, NO)
    counting.kernel.revisions.press(pressure)
    for _ in range(2):
        assert counting.kernel.send(Flow(dport=53).datagram(b"x")).said == "pass"
        assert counting.kernel.send(Flow(dport=81).segment("S")).said == "drop policy"
        assert counting.kernel.send(Flow(dport=82).segment("S")).said == "drop default"
    assert counting.figures() == {"dns": (sessions, 2), "no": (0, 2), "default": (0, 2)}


def test_a_stray_reset(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    counting.kernel.send(flow.segment("R"))
    assert counting.figures() == {"web": (0, 1)}


# --- another rule ----------------------------------------------------------------------------------------------------


def test_a_rule_that_moves_keeps_its_figures(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    counting.kernel.open(flow)
    counting.policy(DNS, NO, WEB)
    assert counting.figures() == {"web": (1, 3)}
    counting.kernel.send(flow.data(b"x"))
    assert (counting.figures(), counting.live()) == ({"web": (1, 4)}, {"web": 1})
    counting.delete(flow, 6)
    assert counting.figures() == {"web": (1, 4)}


def test_a_session_is_divided_where_a_reload_gives_it_to_another_rule(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    counting.kernel.open(flow)
    counting.policy(NO, rule("renamed", "allow", tcp=80))
    counting.kernel.send(flow.data(b"x"))
    assert (counting.figures(), counting.live()) == ({"web": (1, 3), "renamed": (0, 1)}, {"renamed": 1})
    counting.policy(rule("shut", "deny", tcp=80))
    counting.kernel.send(flow.data(b"x"))
    assert counting.figures() == {"web": (1, 3), "renamed": (0, 1), "shut": (0, 1)}
    counting.delete(flow, 6)
    assert counting.figures() == {"web": (1, 3), "renamed": (0, 1), "shut": (0, 1)}


def test_a_session_that_ends_before_it_is_judged_again(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    counting.kernel.open(flow)
    counting.policy(NO)
    counting.kernel.revisions.retire()
    counting.delete(flow, 6)
    assert counting.figures() == {"web": (1, 3)}


def test_what_a_session_is_found_to_be_gets_all_of_it(counting: Counting, flow: Flow) -> None:
    counting.policy(rule("tls", "allow", tcp=80, app="tls"), rule("http", "allow", tcp=80, app="http"))
    counting.kernel.open(flow)
    assert counting.figures() == {"tls": (1, 3)}
    counting.kernel.send(flow.data(GET))
    assert counting.figures() == {"http": (1, 4)}


def test_what_waits_over_a_reload_too(counting: Counting, flow: Flow) -> None:
    counting.policy(rule("tls", "allow", tcp=80, app="tls"), rule("http", "allow", tcp=80, app="http"))
    counting.kernel.open(flow)
    counting.policy(rule("ssh", "allow", tcp=80, app="ssh"), rule("web", "allow", tcp=80, app="http"))
    counting.kernel.send(flow.data(b"", flags="A"))
    counting.kernel.send(flow.data(GET))
    assert counting.figures() == {"web": (1, 5)}


def inspected(counting: Counting, flow: Flow) -> abi.Session:
    counting.policy(rule("files", "inspect", tcp=80, app="http", files=True))
    counting.kernel.commands.heartbeat()
    counting.kernel.open(flow)
    return counting.kernel.send(flow.data(GET)).entry


def test_a_verdict_of_the_inspector(counting: Counting, flow: Flow) -> None:
    session = inspected(counting, flow)
    word = session.verdict & ~0xFF0F | abi.Verdict.DENY | abi.Reason.NO_RULE << abi.Word.REASON
    revision = session.verdict >> abi.Word.REVISION
    answer = counting.kernel.command(abi.Op.VERDICT, flow.key(6), id=session.id, revision=revision, verdict=word)
    assert answer.status == abi.Status.OK
    counting.kernel.send(flow.data(b"x", len(GET)))
    counting.delete(flow, 6)
    assert counting.figures() == {"files": (1, 5)}


def test_the_inspector_asks_after_a_reload(counting: Counting, flow: Flow) -> None:
    session = inspected(counting, flow)
    counting.policy(NO, rule("web", "inspect", tcp=80, app="http", files=True))
    possible = 1 << abi.Protocol.HTTP
    for _ in range(2):
        assert counting.kernel.commands.judge(flow.key(6), session.id, possible).status == abi.Status.OK
    counting.kernel.send(flow.data(b"x", len(GET)))
    counting.delete(flow, 6)
    assert counting.figures() == {"files": (1, 4), "web": (0, 1)}


# --- many revisions --------------------------------------------------------------------------------------------------


def test_counters_of_old_revisions_go_to_the_file(counting: Counting, flow: Flow) -> None:
    counting.policy(WEB)
    counting.kernel.open(flow)
    counting.delete(flow, 6)
    for _ in range(2 * abi.Limit.HITS_SLOTS):
        counting.policy(NO, WEB)
        assert counting.figures() == {"web": (1, 3)}


def test_a_session_older_than_all_counters(counting: Counting) -> None:
    idle, ends = Flow(sport=1), Flow(sport=2)
    counting.policy(WEB)
    counting.kernel.open(idle)
    counting.kernel.open(ends)
    for _ in range(abi.Limit.HITS_SLOTS):
        counting.policy(NO, rule("renamed", "allow", tcp=80))
    assert counting.figures() == {"web": (2, 6)}
    # It goes over undivided.
    counting.kernel.send(idle.data(b"x"))
    assert counting.figures() == {"web": (1, 3), "renamed": (1, 4)}
    lost = counting.hits().lost
    counting.delete(ends, 6)
    assert counting.figures() == {"renamed": (1, 4)}
    assert counting.hits().lost.values[:2] == (lost.sessions + 1, lost.packets + 3)


# --- a random run ----------------------------------------------------------------------------------------------------

RELOADS = abi.Limit.HITS_SLOTS - 1


@pytest.mark.parametrize("seed", range(4))
def test_every_packet_counts_for_the_rule_that_judged_it(counting: Counting, seed: int) -> None:
    choose = random.Random(seed)
    kernel = counting.kernel
    flows = [Flow(choose.choice((4, 6)), sport=1000 + n, dport=choose.randrange(1, 9)) for n in range(25)]
    expected: dict[str, Figures] = defaultdict(Figures)
    seen: set[int] = set()
    for step in range(800):
        if step % (800 // RELOADS + 1) == 0:
            counting.policy(*random_rules(choose), default=choose.choice(("allow", "deny")))
        flow = choose.choice(flows)
        packet = choose.choice((flow.datagram(b"x"), flow.echo(flow.sport), flow.segment("S"), flow.data(b"x")))
        key = key_of(packet)
        assert key is not None
        before = kernel.session(key)
        if before is not None and choose.randrange(12) == 0:
            kernel.command(abi.Op.CLOSE, key, id=before.id)
        elif before is not None and choose.randrange(12) == 0:
            kernel.commands.delete([(key, before.id, before.last_jiffies)], abi.End.TIMEOUT)
        else:
            session = kernel.send(packet).entry
            old = sum(before.packets) if before is not None and before.id == session.id else 0
            # A segment outside of the window counts for nobody.
            counted = sum(session.packets) - old
            expected[counting.rule_of(session)].add(session.id not in seen, counted, counted * (len(packet) - 14))
            seen.add(session.id)
    assert len(expected) > 3
    assert {name: each.values for name, each in expected.items() if any(each.values)} == {
        name: each.values for name, each in counting.hits().rules.items() if any(each.values)
    }


def random_rules(choose: random.Random) -> list[Rule]:
    """Of few ids, so that they come and go."""
    protocols, sources = ((), (6,), (17,), (1, 58)), ((), (ip_network("10.77.1.0/24"),), (ip_network("fd77:1::/64"),))
    return [
        Rule(
            name, choose.choice((Action.ALLOW, Action.DENY)), choose.choice(sources), protocols=choose.choice(protocols)
        )
        for name in choose.sample("abcdefgh", choose.randrange(1, 6))
    ]
