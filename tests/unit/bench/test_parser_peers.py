from __future__ import annotations

import pytest

from bench import parsers
from bench.parser_peers import peers

PEERS = peers(parsers._GET, parsers._ANSWER, parsers._calls()[:20])


@pytest.mark.parametrize("what", PEERS)
def test_all_read_all_of_it(what: str) -> None:
    ours, theirs = PEERS[what]
    assert ours() > 0
    for read in theirs.values():
        # Each asserts that it has understood.
        assert read() > 0
