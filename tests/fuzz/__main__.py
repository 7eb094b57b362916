"""``python -m tests.fuzz PARSER [OPTION...]``: coverage-guided fuzzing with atheris; options are libFuzzer's.

The corpus begins with the parser's conversations and grows in .cache/fuzz/PARSER. An input that breaks something is
left in the current folder; ``python -m tests.fuzz PARSER FILE`` runs it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["parsers"]):
    from parsers.registry import PARSERS
    from tests.fuzz.target import one_input, seeds

CACHE = Path(__file__).parents[2] / ".cache" / "fuzz"


def main() -> None:
    """Run until told to stop."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARSERS:
        sys.exit(f"usage: python -m tests.fuzz PARSER [OPTION...]; parsers: {', '.join(PARSERS)}")
    name, *options = sys.argv[1:]
    corpus = CACHE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"conversation-{number}").write_bytes(seed)
    files = [] if any(not option.startswith("-") for option in options) else [str(corpus)]
    limits = ["-timeout=5", "-rss_limit_mb=1024", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *limits, *options, *files], lambda data: one_input(name, data))
    atheris.Fuzz()


main()
