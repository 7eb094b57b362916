"""Request smuggling over HTTP/1: a second request hidden in, or behind, one whose end servers place differently. Either
nobody gets it (the connection is denied), or it has one reading: as a request it is judged, as a body it is none.
"""

from __future__ import annotations

import pytest

from tests.hostile.attack import Quick, judged, no_admin, through, told
from tests.hostile.smuggling import FORMS, HIDDEN, Form, Reading

RULES = no_admin("http")
each_form = pytest.mark.parametrize("form", FORMS, ids=str)


def sent(data: bytes, size: int) -> Quick:
    """In segments of so many bytes."""
    p = Quick(judged("http"), RULES)
    for at in range(0, len(data), size):
        p.client(data[at : at + size])
        p.wait(0.001)
    p.wait(0.03)
    return p


def test_the_table_is_one() -> None:
    assert len({form.name for form in FORMS}) == len(FORMS) >= 300


@each_form
def test_one_reading_or_none(form: Form) -> None:
    p = sent(form.data, 1 << 16)
    denied = [record for record in p.records if record["verdict"] == "deny"]
    if form.reading == Reading.BODY:
        assert denied == []
        assert through(p) == form.data
        p.client(HIDDEN)
        assert p.records[-1]["l7_rule"] == "no-admin", "behind the body it is a request"
        assert HIDDEN not in through(p)[len(form.data) :]
        return
    assert len(denied) == 1
    assert HIDDEN not in through(p)
    if form.reading == Reading.REQUEST:
        assert denied[0]["l7_rule"] == "no-admin"
    else:
        # HTTP/0.9 has no version, and so no name.
        assert denied[0]["reason"] == ("default" if denied[0]["first"] == "unknown" else "parse_error")


@each_form
def test_cuts_change_nothing(form: Form) -> None:
    p = sent(form.data, 1)
    assert told(p) == told(sent(form.data, 1 << 16))
    assert form.reading == Reading.BODY or HIDDEN not in through(p)
