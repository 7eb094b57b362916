"""Counters of the inspector."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Counters, all growing but `flows`, `held_bytes` (frames) and `kept_bytes` (frames and all else)."""

    packets: int = 0
    released: int = 0
    discarded: int = 0
    no_session: int = 0
    bad_checksum: int = 0
    bad_ack: int = 0
    duplicates: int = 0
    fragments: int = 0
    judged: int = 0
    requests: int = 0
    forwarded_incomplete: int = 0
    evicted: int = 0
    flows: int = 0
    held_bytes: int = 0
    kept_bytes: int = 0
    unwritten: int = 0
    midstream: int = 0
    need_more: int = 0
    parse_error: int = 0
    reassembly_limit: int = 0
    overlap_conflict: int = 0
    pattern_budget: int = 0
