"""``python -m bench [NAME...]``: run all benches or some, show the figures and keep them in results.json.

Needs root: labs are network namespaces, programs are loaded. BENCH_ROUNDS shortens a trial, BENCH_RULES leaves out
policies of more rules.
"""

from __future__ import annotations

import importlib
import sys
import time

from bench.results import merge, table
from fastpath.exit import CommandError
from tests.lab.namespaces import LabError

NAMES = (
    "packet_cost",
    "hit_parts",
    "round_trip",
    "connections",
    "udp_packets",
    "cpu_per_packet",
    "new_grpc_connection",
    "grpc_round_trip",
    "fast_path_share",
    "start_up",
    "tables",
    "live_sessions",
    "million_sessions",
    "first_packet",
    "first_packet_lab",
    "policy_load",
    "reload_under_load",
    "rejudge",
    "parsers",
    "inspector",
    "inspected_flows",
    "patterns",
)


def main() -> int:
    """Run what is asked for; 2 for a name that is none."""
    wanted = sys.argv[1:] or list(NAMES)
    if unknown := set(wanted) - set(NAMES):
        sys.stderr.write(f"bench: no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}\n")
        return 2
    for name in wanted:
        module = importlib.import_module(f"bench.{name}")
        start = time.monotonic()
        results = list(module.bench())
        merge(results)
        sys.stdout.write(f"{name}, {time.monotonic() - start:.0f} s\n{table(results)}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (CommandError, LabError, OSError) as error:
        sys.stderr.write(f"bench: {error}\n")
        sys.exit(1)
