"""The verdict word: one aligned 64-bit value, so that nobody ever sees half a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from fastpath import abi

RULE_MAX = (1 << 24) - 1
REVISION_MAX = (1 << 24) - 1


@dataclass(slots=True)
class Word:
    """`ms_session.verdict` taken apart. `rule` 0 is the default, else 1 + index in the revision's rules."""

    # Not frozen, which makes one three times as dear: each record has one. Nobody changes them.

    verdict: abi.Verdict
    scope: abi.Scope = abi.Scope.NONE
    monitor: bool = False
    reset: bool = False
    reason: abi.Reason = abi.Reason.NONE
    rule: int = 0
    revision: int = 0

    def pack(self) -> int:
        """The word. ValueError if rule or revision do not fit their 24 bits."""
        if not 0 <= self.rule <= RULE_MAX:
            raise ValueError(f"rule {self.rule} does not fit 24 bits")
        if not 0 <= self.revision <= REVISION_MAX:
            raise ValueError(f"revision {self.revision} does not fit 24 bits")
        return (
            self.verdict
            | self.scope << abi.Word.SCOPE
            | self.monitor << abi.Word.MONITOR
            | self.reset << abi.Word.RESET
            | self.reason << abi.Word.REASON
            | self.rule << abi.Word.RULE
            | self.revision << abi.Word.REVISION
        )

    @classmethod
    def unpack(cls, word: int) -> Word:
        """Take a word apart. ValueError if a field holds a value this side has no name for."""
        return cls(
            verdict=abi.Verdict(word & 0xF),
            scope=abi.Scope(word >> abi.Word.SCOPE & 0x3),
            monitor=bool(word >> abi.Word.MONITOR & 1),
            reset=bool(word >> abi.Word.RESET & 1),
            reason=abi.Reason(word >> abi.Word.REASON & 0xFF),
            rule=word >> abi.Word.RULE & RULE_MAX,
            revision=word >> abi.Word.REVISION & REVISION_MAX,
        )
