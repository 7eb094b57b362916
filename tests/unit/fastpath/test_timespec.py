from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fastpath.timespec import parse_time

NOW = datetime(2025, 11, 24, 14, 5, 30, tzinfo=UTC).timestamp()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Spelled out, so that no zone database is needed.
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("90s", 90),
        ("1w", 604800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("0s", 0),
    ],
)
def test_ago(text: str, ago: float) -> None:
    assert parse_time(text, NOW) == NOW - ago


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-01-02T03:04:05Z", "2025-01-02T03:04:05+00:00"),
        ("2025-01-02t03:04:05z", "2025-01-02T03:04:05+00:00"),
        ("2025-01-02T03:04:05.123456Z", "2025-01-02T03:04:05.123456+00:00"),
        ("2025-01-02T03:04:05.123456789Z", "2025-01-02T03:04:05.123456+00:00"),
        ("2025-01-02T03:04:05-05:30", "2025-01-02T08:34:05+00:00"),
        ("2025-01-02 03:04Z", "2025-01-02T03:04:00+00:00"),
        ("2025-01-02T03:04:05", "2025-01-02T02:04:05+00:00"),
        ("2025-07-02T03:04:05", "2025-07-02T01:04:05+00:00"),
        ("2025-01-02", "2025-01-01T23:00:00+00:00"),
        ("today", "2025-11-23T23:00:00+00:00"),
        ("Yesterday", "2025-11-22T23:00:00+00:00"),
        ("now", "2025-11-24T14:05:30+00:00"),
        ("10:00", "2025-11-24T09:00:00+00:00"),
        ("23:59:59.5", "2025-11-24T22:59:59.5+00:00"),
        ("@1700000000.25", "2023-11-14T22:13:20.25+00:00"),
        (" 5m ", "2025-11-24T14:00:30+00:00"),
    ],
)
def test_moments(text: str, moment: str, berlin: None) -> None:
    assert parse_time(text, NOW) == at(moment)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-01-02", "2025-01-02T00:00:00+00:00"),
        ("2025-07-02T03:04:05", "2025-07-02T03:04:05+00:00"),
        ("2025-07-02T03:04:05+02:00", "2025-07-02T01:04:05+00:00"),
        ("today", "2025-11-24T00:00:00+00:00"),
        ("yesterday", "2025-11-23T00:00:00+00:00"),
        ("10:00", "2025-11-24T10:00:00+00:00"),
    ],
)
def test_utc(text: str, moment: str, berlin: None) -> None:
    assert parse_time(text, NOW, utc=True) == at(moment)


def test_yesterday_is_of_the_calendar(berlin: None) -> None:
    after_the_clock_change = at("2025-10-27T00:30:00+01:00")
    assert parse_time("yesterday", after_the_clock_change) == at("2025-10-26T00:00:00+02:00")
    assert parse_time("today", after_the_clock_change) - parse_time("yesterday", after_the_clock_change) == 25 * 3600


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "m", "5x", "-5m", "5m ago", "1h 30m", "24:00", "9:00", "12:60", "2025-13-01", "2025-02-30", "20250102",
        "2025-W01-1", "2025-01-02T03:04:61Z", "2025-01-02T03:04:05+25:00", "tomorrow", "@", "@x", "nan", "inf",
        "\N{ARABIC-INDIC DIGIT FIVE}m", "0000-00-00", "9" * 400 + "d", "2025-01-02T", "10:00Z",
    ],
)  # fmt: skip
def test_refused_with_the_legal_forms(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        parse_time(text, NOW)


def test_very_long_ago_is_still_a_time() -> None:
    assert parse_time("999999999999d", NOW) < 0
