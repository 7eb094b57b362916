from __future__ import annotations

from pathlib import Path

import pytest

from fastpath import abi
from fastpath.policy.model import Policy
from fastpath.policy.names import write_names
from fastpath.policy.read import load_policy
from fastpath.word import Word
from slowpath.core.model import Decide, Judgement
from slowpath.packet.kernel import GONE, KEPT, KernelSessions, RuleNames
from tests.unit.slowpath.core.wire import Connection
from tests.unit.slowpath.packet.kernel_double import Kernel

FLOW = Connection()
REVISION = 7
POLICY = """
rules:
  - {id: first, proto: tcp, ports: 80, action: inspect, rules: [web], log: all}
  - {id: second, proto: tcp, ports: 81, action: deny, mode: monitor, deny_with: drop}
  - {id: third, proto: tcp, ports: 82, action: inspect, rules: [web], on_inspector_down: allow}
"""


def policy(folder: Path) -> Policy:
    file = folder / "policy.yaml"
    file.write_text(POLICY)
    return load_policy(file, lambda name: name)


@pytest.fixture
def names(tmp_path: Path) -> RuleNames:
    write_names(tmp_path, REVISION, policy(tmp_path))
    return RuleNames(tmp_path)


def word(**changes: object) -> int:
    fields = {"verdict": abi.Verdict.INSPECT, "reason": abi.Reason.POLICY, "rule": 1, "revision": REVISION}
    return Word(**(fields | changes)).pack()  # type: ignore[arg-type]


def session(**changes: object) -> abi.Session:
    made = abi.Session(id=5, verdict=word(), flags=abi.SessionFlag.SERVER_IS_A if FLOW.server_is_a else 0)
    for name, value in changes.items():
        if isinstance(value, tuple):
            getattr(made, name)[:] = value
        else:
            setattr(made, name, value)
    return made


def decide(verdict: abi.Verdict = abi.Verdict.ALLOW) -> Decide:
    judgement = Judgement(abi.Verdict.INSPECT, rule="first", revision=REVISION, monitor=True, reset=False, word=word())
    return Decide(
        FLOW.key, 5, verdict, abi.Scope.CONNECTION, abi.Reason.RULE, abi.Protocol.GRPC, abi.Protocol.HTTP2, judgement
    )


def test_a_session_as_the_inspector_sees_it(names: RuleNames) -> None:
    established = (abi.Tcp.ESTABLISHED, abi.Tcp.ESTABLISHED)
    kernel = Kernel({FLOW.key: session(tcp=established, isn=(100, 200), rule_hash=9)})
    info = KernelSessions(kernel.pins, names).session(FLOW.key)
    assert info is not None
    assert (info.id, info.server_is_a, info.isn, info.midstream, info.rule_hash) == (
        5, FLOW.server_is_a, (100, 200), False, 9,
    )  # fmt: skip
    assert (info.judgement.rule, info.judgement.rule_files, info.judgement.log) == ("first", ("web",), "all")


@pytest.mark.parametrize(("rule", "fail"), [(1, abi.Action.DENY), (3, abi.Action.ALLOW), (0, abi.Action.DENY)])
def test_a_flow_that_is_given_up_fails_as_its_rule_says(names: RuleNames, rule: int, fail: abi.Action) -> None:
    info = KernelSessions(Kernel({FLOW.key: session(verdict=word(rule=rule))}).pins, names).session(FLOW.key)
    assert info is not None
    assert info.judgement.fail == fail


def test_no_session(names: RuleNames) -> None:
    assert KernelSessions(Kernel().pins, names).session(FLOW.key) is None


def test_a_side_whose_syn_was_not_seen_has_no_sequence_number(names: RuleNames) -> None:
    kernel = Kernel({FLOW.key: session(tcp=(abi.Tcp.SYN_SENT, abi.Tcp.LISTEN), isn=(100, 0))})
    info = KernelSessions(kernel.pins, names).session(FLOW.key)
    assert info is not None
    assert info.isn == (100, None)


@pytest.mark.parametrize(
    ("changes", "midstream"),
    [
        ({}, False),
        ({"flags": abi.SessionFlag.MIDSTREAM}, True),
        ({"held": (1, 0)}, False),
        ({"released": (0, 1)}, True),
    ],
)
def test_what_was_released_before_was_seen_by_another_inspector(
    names: RuleNames, changes: dict[str, object], midstream: bool
) -> None:
    info = KernelSessions(Kernel({FLOW.key: session(**changes)}).pins, names).session(FLOW.key)
    assert info is not None
    assert info.midstream is midstream


def test_a_verdict_is_sent_when_flushed(names: RuleNames) -> None:
    kernel = Kernel()
    sessions = KernelSessions(kernel.pins, names)
    sessions.decide(decide())
    assert kernel.applied.runs == []
    sessions.flush()
    sessions.flush()
    (command,) = kernel.applied.commands
    assert (command.op, command.id, command.revision) == (abi.Op.VERDICT, 5, REVISION)
    assert bytes(command.key) == FLOW.key
    assert (command.protocol, command.first_protocol) == (abi.Protocol.GRPC, abi.Protocol.HTTP2)
    # Rule and revision are those it was judged under, the rest is the inspector's.
    assert Word.unpack(command.verdict) == Word(
        abi.Verdict.ALLOW, abi.Scope.CONNECTION, True, False, abi.Reason.RULE, 1, REVISION
    )


def test_more_than_a_batch_goes_in_several_in_order(names: RuleNames) -> None:
    kernel = Kernel()
    sessions = KernelSessions(kernel.pins, names)
    wanted = [abi.Verdict.ALLOW if number % 3 else abi.Verdict.DENY for number in range(abi.Limit.APPLY_BATCH + 5)]
    for verdict in wanted:
        sessions.decide(decide(verdict))
    sessions.flush()
    assert [len(run) for run in kernel.applied.runs] == [abi.Limit.APPLY_BATCH, 5]
    assert [Word.unpack(command.verdict).verdict for command in kernel.applied.commands] == wanted


@pytest.mark.parametrize("side", [0, 1])
def test_a_frame_that_does_not_come_back_is_reported_in_its_direction(names: RuleNames, side: int) -> None:
    kernel = Kernel({FLOW.key: session()})
    sessions = KernelSessions(kernel.pins, names)
    sessions.discard(FLOW.segment(side, b"x", 0))
    sessions.flush()
    (command,) = kernel.applied.commands
    assert (command.op, command.id, command.count) == (abi.Op.DISCARD, 5, 1)
    assert command.direction == (abi.Direction.CLIENT if side else abi.Direction.SERVER)


def test_a_frame_without_a_session_is_reported_to_nobody(names: RuleNames) -> None:
    kernel = Kernel()
    sessions = KernelSessions(kernel.pins, names)
    sessions.discard(FLOW.client(b"x"))
    sessions.flush()
    assert kernel.applied.runs == []


def test_a_walk_of_the_policy(names: RuleNames) -> None:
    kernel = Kernel()

    def answer(command: abi.Command) -> None:
        command.verdict = word(rule=2, verdict=abi.Verdict.DENY, monitor=True)

    kernel.walked.answer = answer
    judgement = KernelSessions(kernel.pins, names).judge(FLOW.key, 5, 1 << abi.Protocol.GRPC)
    (command,) = kernel.walked.commands
    assert (command.op, command.id, command.possible) == (abi.Op.JUDGE, 5, 1 << abi.Protocol.GRPC)
    assert (judgement.verdict, judgement.rule, judgement.monitor) == (abi.Verdict.DENY, "second", True)
    assert (judgement.reset, judgement.rule_files, judgement.log) == (False, (), "deny")


def test_a_session_that_is_gone_is_denied(names: RuleNames) -> None:
    kernel = Kernel()

    def answer(command: abi.Command) -> None:
        command.status = abi.Status.NO_SESSION

    kernel.walked.answer = answer
    assert KernelSessions(kernel.pins, names).judge(FLOW.key, 5, 0) == GONE


@pytest.fixture
def changing(names: RuleNames) -> tuple[Kernel, KernelSessions]:
    """The policy has changed: the kernel takes verdicts of the next revision only."""
    kernel = Kernel()

    def apply(command: abi.Command) -> None:
        if command.revision != REVISION + 1:
            command.status, command.revision = abi.Status.STALE_REVISION, REVISION + 1

    def walk(command: abi.Command) -> None:
        command.verdict = word(revision=REVISION + 1, rule=2, verdict=abi.Verdict.ALLOW)

    kernel.applied.answer, kernel.walked.answer = apply, walk
    return kernel, KernelSessions(kernel.pins, names)


def test_an_allow_that_comes_too_late_is_left_to_be_judged_again(changing: tuple[Kernel, KernelSessions]) -> None:
    kernel, sessions = changing
    sessions.decide(decide())
    sessions.flush()
    assert len(kernel.applied.commands) == 1
    assert kernel.walked.runs == []
    assert sessions.refused == 1


def test_a_denial_that_comes_too_late_stands_under_the_new_policy(changing: tuple[Kernel, KernelSessions]) -> None:
    kernel, sessions = changing
    sessions.decide(decide(abi.Verdict.DENY))
    sessions.flush()
    _, again = kernel.applied.commands
    denied = Word.unpack(again.verdict)
    assert (denied.verdict, denied.reason, denied.rule, denied.revision) == (
        abi.Verdict.DENY, abi.Reason.RULE, 2, REVISION + 1,
    )  # fmt: skip


def test_a_policy_that_never_rests_ends_in_an_error(changing: tuple[Kernel, KernelSessions]) -> None:
    kernel, sessions = changing

    def refuse(command: abi.Command) -> None:
        command.status = abi.Status.STALE_REVISION

    kernel.applied.answer = refuse
    sessions.decide(decide(abi.Verdict.DENY))
    with pytest.raises(OSError, match="policy changes faster"):
        sessions.flush()


def test_refresh_tells_of_another_revision_once(names: RuleNames) -> None:
    kernel = Kernel()
    kernel.config.revision = REVISION
    sessions = KernelSessions(kernel.pins, names)
    assert [sessions.refresh(), sessions.refresh()] == [False, False]
    kernel.config.revision += 1
    assert [sessions.refresh(), sessions.refresh()] == [True, False]
    assert sessions.revision == REVISION + 1


def test_names_of_rules(names: RuleNames) -> None:
    assert [names.name(REVISION, index) for index in (0, 1, 3)] == ["first", "second", "#4"]
    assert names.name(REVISION + 1, 0) == "#1"
    default = names.rule(REVISION, 0)
    assert default is not None
    assert default.id == "default"


def test_names_of_few_revisions_are_kept(tmp_path: Path) -> None:
    rules = policy(tmp_path)
    names = RuleNames(tmp_path)
    for revision in range(1, KEPT + 3):
        path = write_names(tmp_path, revision, rules)
        assert names.name(revision, 0) == "first"
        path.unlink()
    assert names.name(KEPT + 2, 0) == "first"
    assert names.name(1, 0) == "#1"


def test_damaged_names_are_no_names(tmp_path: Path) -> None:
    path = write_names(tmp_path, REVISION, policy(tmp_path))
    path.write_text("{")
    assert RuleNames(tmp_path).name(REVISION, 0) == "#1"
