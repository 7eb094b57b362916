"""The kernel half as the inspector sees it: sessions, the policy's walk, verdicts."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

from fastpath import abi
from fastpath.commands import Commands
from fastpath.loader.pins import SESSIONS, Pins
from fastpath.policy.names import NamedRule, Names, read_names
from fastpath.word import Word
from slowpath.core.frame import Packet
from slowpath.core.model import Decide, Judgement, SessionInfo
from slowpath.record.model import DEFAULT_RULE

GONE = Judgement(abi.Verdict.DENY, abi.Reason.CLOSED)
# Revisions whose names are kept at hand.
KEPT = 8
# Verdict words whose meaning is; a word has its revision and rule in it.
KEPT_JUDGEMENTS = 4096
_L4 = abi.Key.l4.offset
_ONLY = bytes(4)  # key of an array of one
# Looked at for every frame.
_TCP, _LISTEN = int(socket.IPPROTO_TCP), int(abi.Tcp.LISTEN)
_MIDSTREAM, _SERVER_IS_A = int(abi.SessionFlag.MIDSTREAM), int(abi.SessionFlag.SERVER_IS_A)
# A policy is applied in milliseconds, a verdict in microseconds.
REVISION_TRIES = 100


class RuleNames:
    """Rule numbers to rules, by revision."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._known: dict[int, Names] = {}

    def rule(self, revision: int, number: int) -> NamedRule | None:
        """Rule of a verdict word; None when the revision's names are gone."""
        names = self._known.get(revision)
        if names is None:
            try:
                names = read_names(self._run_dir, revision)
            except (OSError, ValueError):
                names = None
            if names is None:
                return None
            while len(self._known) >= KEPT:
                self._known.pop(min(self._known))
            self._known[revision] = names
        try:
            return names.rule(number)
        except IndexError:
            return None

    def name(self, revision: int, index: int) -> str:
        """Id of the rule with this index (number less one), for records."""
        rule = self.rule(revision, index + 1)
        return rule.id if rule is not None else f"#{index + 1}"


class KernelSessions:
    """`slowpath.core.model.Kernel` on the pinned maps and programs."""

    def __init__(self, pins: Pins, names: RuleNames) -> None:
        self.commands = Commands(pins)
        self._session = abi.Session()  # the one last looked up
        self._lookup = pins.map(SESSIONS).into(self._session)
        self._config = abi.Config()
        self._read_config = pins.map("config").into(self._config)
        self._names = names
        self._pending: list[abi.Command] = []
        self._judgements: dict[int, Judgement] = {}  # by verdict word, for each packet asks
        self.revision = 0
        self.refused = 0

    def session(self, key: bytes) -> SessionInfo | None:
        """See `slowpath.core.model.Kernel`."""
        if not self._lookup(key):
            return None
        session = self._session
        flags, isn, tcp, ack, released = session.flags, session.isn, session.tcp, session.ack, session.released
        begun = key[_L4] == _TCP and not flags & _MIDSTREAM
        return SessionInfo(
            session.id,
            bool(flags & _SERVER_IS_A),
            (
                isn[0] if begun and tcp[0] != _LISTEN else None,
                isn[1] if begun and tcp[1] != _LISTEN else None,
            ),
            # Frames were released before: another inspector saw the start, this one will not.
            bool(flags & _MIDSTREAM or released[0] or released[1]),
            session.rule_hash,
            self._judgement(session.verdict),
            (ack[0] or None, ack[1] or None),
        )

    def judge(self, key: bytes, session_id: int, possible: int) -> Judgement:
        """See `slowpath.core.model.Kernel`."""
        answer = self.commands.judge(key, session_id, possible)
        return self._judgement(answer.verdict) if answer.status == abi.Status.OK else GONE

    def decide(self, decision: Decide) -> None:
        """Queue a verdict; `flush` sends it."""
        word = Word.unpack(decision.judgement.word)
        self._pending.append(
            abi.Command(
                op=abi.Op.VERDICT,
                key=abi.Key.from_buffer_copy(decision.key),
                id=decision.session_id,
                verdict=Word(
                    decision.verdict, decision.scope, decision.judgement.monitor, decision.judgement.reset,
                    decision.reason, word.rule, word.revision,
                ).pack(),
                revision=word.revision,
                protocol=decision.protocol,
                first_protocol=decision.first_protocol,
            )
        )  # fmt: skip

    def discard(self, packet: Packet) -> None:
        """Queue word of a held frame that will not come back."""
        key, a_to_b = packet.flow
        if not self._lookup(key):
            return
        session = self._session
        server_is_a = bool(session.flags & _SERVER_IS_A)
        direction = abi.Direction.SERVER if a_to_b != server_is_a else abi.Direction.CLIENT
        self._pending.append(
            abi.Command(
                op=abi.Op.DISCARD, key=abi.Key.from_buffer_copy(key), id=session.id, direction=direction, count=1
            )
        )

    def flush(self) -> None:
        """Send what is queued. A verdict under a policy that has gone is refused: an allow is the inspector's to
        judge anew, a denial must stand before the frame that it denies is given back for the kernel to answer.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        for command, answer in zip(pending, self.commands.apply(pending), strict=True):
            if answer.status != abi.Status.STALE_REVISION:
                continue
            self.refused += 1
            if Word.unpack(command.verdict).verdict == abi.Verdict.DENY:
                self._insist(command)

    def refresh(self) -> bool:
        """True when the policy's revision is another than at the last call."""
        self._read_config(_ONLY)
        before, self.revision = self.revision, self._config.revision
        return before not in {0, self.revision}

    def _insist(self, command: abi.Command) -> None:
        """Deny under the policy in force by now, whatever it says: bytes of the flow were refused already."""
        old = Word.unpack(command.verdict)
        for _ in range(REVISION_TRIES):
            answer = self.commands.judge(bytes(command.key), command.id, 0)
            if answer.status != abi.Status.OK:
                return  # no session: the tap takes no frame of it
            word = Word.unpack(answer.verdict)
            command.verdict = replace(old, rule=word.rule, revision=word.revision).pack()
            command.revision = word.revision
            if self.commands.apply([command])[0].status != abi.Status.STALE_REVISION:
                return
        raise OSError("the policy changes faster than a verdict can be written")

    def _judgement(self, raw: int) -> Judgement:
        found = self._judgements.get(raw)
        if found is not None:
            return found
        word = Word.unpack(raw)
        rule = self._names.rule(word.revision, word.rule)
        if rule is None:
            return Judgement(
                word.verdict, word.reason, DEFAULT_RULE, word.revision, (), word.monitor, word.reset, "deny", raw
            )
        fail = abi.Action.ALLOW if rule.down == "allow" else abi.Action.DENY
        if len(self._judgements) >= KEPT_JUDGEMENTS:
            self._judgements.clear()
        found = self._judgements[raw] = Judgement(
            word.verdict, word.reason, rule.id, word.revision, rule.rule_files, word.monitor, word.reset, rule.log, raw,
            fail,
        )  # fmt: skip
        return found
