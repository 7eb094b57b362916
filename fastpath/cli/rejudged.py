"""What `policy diff --sessions` says of the live sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastpath import abi
from fastpath.abi import Protocol
from fastpath.config import Config
from fastpath.gateway import open_map
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.icmp import has_types, type_text
from fastpath.policy.model import TCP, UDP
from fastpath.rejudge import Alike, Change, Effect, Rejudged, Sum, rejudge, tally
from fastpath.selection import RuleNames, address, batches, l4_name
from fastpath.text import escape

SHOWN = 10  # pairs of rules of one change
WIDTH = 40


def rejudge_live(config: Config, tables: Tables) -> dict[str, Any]:
    """Ready for JSON: what `tables` would make of the sessions that there are, largest changes first."""
    names = RuleNames(config.run_dir)
    raw = open_map(config, "config").lookup(bytes(4))
    zoned_since = abi.Config.from_buffer_copy(raw).zoned_since if raw is not None else 0
    found = tally(batches(open_map(config, "sessions"), names), zoned_since)
    return as_json(rejudge(found, tables, names, config.exception("midstream")))


def as_json(result: Rejudged) -> dict[str, Any]:
    """The same of a result."""
    changes = [_change(*effects, change) for effects, change in result.changes.items()]
    changes.sort(key=lambda each: (-each["sessions"], -each["bytes"], str(each["old"]), str(each["new"])))
    return {
        "live": sum((each["sessions"] for each in changes), result.unchanged.sessions),
        "unchanged": _sum(result.unchanged),
        "other_rule": _sum(result.other_rule),
        "unplaced": _sum(result.unplaced),
        "changes": changes,
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """For people."""
    kept, other = result["unchanged"]["sessions"], result["other_rule"]["sessions"]
    by = f" ({other} of them by another rule)" if other else ""
    yield f"sessions: {result['live']} live, {kept} keep their verdict{by}"
    if unplaced := result["unplaced"]["sessions"]:
        yield f"  of {unplaced} it is not known between which zones they go: judged as in none"
    for change in result["changes"]:
        yield f"  {_effect(change['old'])} -> {_effect(change['new'])}: {_amount(change)}"
        for pair in change["rules"][:SHOWN]:
            yield f"    by {escape(pair['old'], WIDTH)} -> {escape(pair['new'], WIDTH)}: {_amount(pair)}"
        if len(change["rules"]) > SHOWN:
            yield f"    and {len(change['rules']) - SHOWN} more"
        for each in change["examples"]:
            port = "" if each["port"] is None else f" port {each['port']}"
            port += "" if each["type"] is None else f" {each['type']}"
            app = "" if each["app"] is None else f" {each['app']}"
            yield f"    such as {each['from']} > {each['to']} {each['proto']}{port}{app}: {_amount(each)}"


def _change(old: Effect, new: Effect, change: Change) -> dict[str, Any]:
    pairs = sorted(change.rules.items(), key=lambda pair: (-pair[1].sessions, -pair[1].bytes, pair[0]))
    return {
        "old": {"verdict": old.verdict.name.lower(), "enforced": old.enforced},
        "new": {"verdict": new.verdict.name.lower(), "enforced": new.enforced},
        **_sum(change.sum),
        "rules": [{"old": old_rule, "new": new_rule, **_sum(amount)} for (old_rule, new_rule), amount in pairs],
        "examples": [_example(alike) | {"old": ids[0], "new": ids[1]} for alike, *ids in change.examples],
    }


def _example(alike: Alike) -> dict[str, Any]:
    return {
        "from": address(int.from_bytes(alike.client, "big")),
        "to": address(int.from_bytes(alike.server, "big")),
        "proto": l4_name(alike.l4),
        "port": alike.dport if alike.l4 in {TCP, UDP} else None,
        "type": type_text(alike.l4, alike.dport) if has_types(alike.l4) else None,
        "app": Protocol(alike.protocol).name.lower() if alike.protocol else None,
        "sessions": alike.sessions,
        "bytes": alike.bytes,
    }


def _sum(amount: Sum) -> dict[str, int]:
    return {"sessions": amount.sessions, "bytes": amount.bytes}


def _effect(effect: Mapping[str, Any]) -> str:
    return str(effect["verdict"]) if effect["enforced"] else f"{effect['verdict']} (monitor: not enforced)"


def _amount(amount: Mapping[str, int]) -> str:
    return f"{amount['sessions']} session{'' if amount['sessions'] == 1 else 's'}, {amount['bytes']} bytes"
