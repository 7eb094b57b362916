"""The naive evaluator against expectations written by hand."""

from ipaddress import ip_address, ip_network

import pytest

from fastpath.abi import Action, Protocol, Reason, RuleFlag, Scope, Verdict
from fastpath.policy.evaluate import Walk, evaluate
from fastpath.policy.model import ANY_APP, ICMP, TCP, UDP, Default, Log, Policy, Rule, RuleFileUse, all_protocols
from fastpath.word import Word

A, D, INSPECT = Action.ALLOW, Action.DENY, Action.INSPECT
HTTP, TLS, SSH, DNS = (1 << p for p in (Protocol.HTTP, Protocol.TLS, Protocol.SSH, Protocol.DNS))
FILES = (RuleFileUse("web", "abc"),)


def mapped(text: str) -> bytes:
    address = ip_address(text)
    return (bytes(10) + b"\xff\xff" if address.version == 4 else b"") + address.packed


def rule(action: Action, apps: int = ANY_APP, **fields: object) -> Rule:
    return Rule("r", action, apps=apps, log=Log.NONE, **fields)  # type: ignore[arg-type]


def ask(*rules: Rule, possible: int = 0, l4: int = TCP, default: Action = D) -> str:
    """Verdict, number of the rule and reason, in short."""
    policy = Policy(rules, Default(default, log=Log.NONE))
    walk = evaluate(policy, mapped("10.0.0.1"), mapped("10.0.0.2"), l4, 80, possible=possible)
    return f"{walk.verdict.name.lower()} {walk.rule} {walk.reason.name.lower()}"


def test_first_match_wins() -> None:
    assert ask() == "deny 0 default"
    assert ask(default=A) == "allow 0 default"
    assert ask(rule(A), rule(D)) == "allow 1 policy"
    assert ask(rule(D), rule(A)) == "deny 1 policy"
    assert ask(rule(D, protocols=(UDP,)), rule(INSPECT, rule_files=FILES)) == "inspect 2 policy"


def test_open_rules_leave_the_flow_undecided() -> None:
    assert ask(rule(A, HTTP)) == "undecided 1 pending"
    assert ask(rule(D, HTTP), rule(A)) == "undecided 1 pending"
    assert ask(rule(D, SSH), default=A) == "undecided 1 pending"
    assert ask(rule(INSPECT, HTTP, rule_files=FILES)) == "undecided 1 pending"
    # The first open rule is named, whichever of them would allow.
    assert ask(rule(D, SSH), rule(A, HTTP)) == "undecided 1 pending"
    assert ask(rule(D, protocols=(UDP,)), rule(D, SSH), rule(A, HTTP)) == "undecided 2 pending"


def test_open_rules_that_agree_on_denial_decide() -> None:
    assert ask(rule(D, SSH)) == "deny 0 default"
    assert ask(rule(D, SSH), rule(D, HTTP), rule(D)) == "deny 3 policy"


def test_open_rules_that_agree_on_allow_still_wait() -> None:
    # Which rule the record names depends on the protocol.
    assert ask(rule(A, HTTP), rule(A)) == "undecided 1 pending"


def test_rules_behind_a_certain_one_do_not_count() -> None:
    assert ask(rule(D), rule(A, HTTP)) == "deny 1 policy"
    assert ask(rule(A), rule(D, HTTP)) == "allow 1 policy"


def test_known_protocol() -> None:
    assert ask(rule(A, HTTP), possible=HTTP) == "allow 1 protocol"
    assert ask(rule(A, HTTP), possible=TLS) == "deny 0 default"
    assert ask(rule(D, SSH), rule(A), possible=SSH) == "deny 1 protocol"
    # A rule on addresses alone decides too, now for good.
    assert ask(rule(D, SSH), rule(A), possible=HTTP) == "allow 2 protocol"
    assert ask(rule(A, HTTP | TLS), possible=TLS) == "allow 1 protocol"


def test_some_protocols_possible() -> None:
    assert ask(rule(A, HTTP | TLS), possible=HTTP | TLS) == "allow 1 policy"
    assert ask(rule(A, HTTP | TLS), possible=HTTP | SSH) == "undecided 1 pending"
    assert ask(rule(D, SSH), rule(A), possible=HTTP | TLS) == "allow 2 policy"


def test_inspect_without_rule_files_identifies_first() -> None:
    assert ask(rule(INSPECT)) == "undecided 1 pending"
    assert ask(rule(INSPECT), rule(D, SSH), rule(A), possible=SSH) == "deny 2 protocol"
    assert ask(rule(INSPECT), possible=HTTP) == "deny 0 default"
    assert ask(rule(INSPECT, HTTP), rule(A), possible=HTTP) == "allow 2 protocol"
    assert ask(rule(INSPECT, HTTP), rule(A), possible=HTTP | TLS) == "undecided 1 pending"
    assert ask(rule(INSPECT, HTTP | TLS), rule(A), possible=HTTP | TLS) == "undecided 1 pending"
    assert ask(rule(INSPECT, SSH), rule(A), possible=HTTP | TLS) == "allow 2 policy"
    assert ask(rule(D), rule(INSPECT)) == "deny 1 policy"


def test_ip_protocols_without_a_choice_are_certain_from_the_start() -> None:
    assert ask(rule(INSPECT), rule(A), l4=ICMP) == "allow 2 policy"
    assert ask(rule(A, protocols=(ICMP,)), l4=ICMP) == "allow 1 policy"
    assert ask(rule(A, 1 << Protocol.UNKNOWN), l4=47) == "allow 1 policy"
    assert ask(rule(A, DNS), l4=UDP) == "undecided 1 pending"
    assert ask(rule(A, HTTP), rule(A), l4=UDP) == "allow 2 policy"


def test_no_mask_means_all_that_the_ip_protocol_carries() -> None:
    for l4 in (TCP, UDP, ICMP, 47):
        for rules in ((rule(A, DNS), rule(D)), (rule(INSPECT), rule(A)), (rule(A, all_protocols(TCP)),)):
            assert ask(*rules, l4=l4) == ask(*rules, l4=l4, possible=all_protocols(l4))


def test_attributes_and_hash_of_the_rule_that_decides() -> None:
    policy = Policy(
        (
            Rule("ssh", D, apps=SSH, protocols=(TCP,), reset=True, log=Log.ALL),
            Rule("files", INSPECT, rule_files=FILES, protocols=(TCP,), monitor=True, down_allow=True, log=Log.NONE),
        ),
        Default(reset=True, log=Log.DENY),
    )

    def walk(possible: int, l4: int = TCP) -> Walk:
        return evaluate(policy, mapped("10.0.0.1"), mapped("fd00::1"), l4, 22, possible=possible)

    ssh, files = policy.rules
    assert walk(SSH) == Walk(Verdict.DENY, Reason.PROTOCOL, Scope.CONNECTION, 1, ssh.flags, ssh.hash)
    assert walk(HTTP) == Walk(Verdict.INSPECT, Reason.PROTOCOL, Scope.CONNECTION, 2, files.flags, files.hash)
    # Nothing is decided, so there is nothing to keep after a reload.
    assert walk(0) == Walk(Verdict.UNDECIDED, Reason.PENDING, Scope.NONE, 1, ssh.flags, 0)
    assert walk(0, ICMP) == Walk(Verdict.DENY, Reason.DEFAULT, Scope.NONE, 0, RuleFlag.RESET | RuleFlag.LOG_DENY, 0)
    assert Word.unpack(walk(HTTP).word(7)) == Word(
        Verdict.INSPECT, Scope.CONNECTION, monitor=True, reset=False, reason=Reason.PROTOCOL, rule=2, revision=7
    )
    assert Word.unpack(walk(SSH).word(1)).reset


@pytest.mark.parametrize(
    ("networks", "address", "within"),
    [
        ([], "10.0.0.1", True),
        ([], "fd00::1", True),
        (["10.0.0.0/30"], "10.0.0.3", True),
        (["10.0.0.0/30"], "10.0.0.4", False),
        (["10.0.0.0/30"], "9.255.255.255", False),
        (["10.0.0.0/30", "10.0.0.4/32"], "10.0.0.4", True),
        (["0.0.0.0/0"], "255.255.255.255", True),
        (["0.0.0.0/0"], "::1", False),
        (["0.0.0.0/0"], "::a00:1", False),
        (["::/0"], "fd00::1", True),
        (["::/0"], "10.0.0.1", False),
        (["::/64"], "0.0.0.1", False),
        (["::/64"], "::ffff:1:1:1", True),
        (["fd00::/127"], "fd00::1", True),
        (["fd00::/127"], "fd00::2", False),
    ],
)
def test_prefixes(networks: list[str], address: str, within: bool) -> None:
    wanted = tuple(ip_network(text) for text in networks)
    own, other = mapped(address), mapped("192.0.2.1")
    by_source = evaluate(Policy((rule(A, sources=wanted),)), own, other, TCP)
    by_destination = evaluate(Policy((rule(A, destinations=wanted),)), other, own, TCP)
    assert (by_source.verdict == Verdict.ALLOW) is within
    assert (by_destination.verdict == Verdict.ALLOW) is within


@pytest.mark.parametrize(
    ("l4", "port", "match"),
    [(TCP, 79, False), (TCP, 80, True), (TCP, 90, True), (TCP, 91, False), (TCP, 443, True), (UDP, 80, False)],
)
def test_ports(l4: int, port: int, match: bool) -> None:
    policy = Policy((rule(A, protocols=(TCP,), ports=((80, 90), (443, 443))),))
    walk = evaluate(policy, mapped("10.0.0.1"), mapped("10.0.0.2"), l4, port)
    assert (walk.verdict == Verdict.ALLOW) is match


def test_an_address_is_16_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes, not 4"):
        evaluate(Policy(), bytes(4), bytes(16), TCP)
