"""Points in time as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

FORMS = "5m, 1h30m, 2d (ago), 14:05, 2025-11-24, 2025-11-24T14:05:00Z, today, yesterday, now, @1700000000"

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:ms|[smhdw]))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
_CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# RFC 3339; seconds and zone may be left out, and people separate with a space.
_STAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_EPOCH = re.compile(r"@[0-9]{1,12}(?:\.[0-9]{1,9})?")


def parse_time(text: str, now: float, *, utc: bool = False) -> float:
    """Seconds since 1970 UTC. What names no zone is local time, or UTC with `utc`; a time of day
    is today's. ValueError with the legal forms.
    """
    try:
        moment = _parse(text.strip(), now, utc=utc)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{text!r} is no time ({error}); legal are {FORMS}") from None
    if moment is None:
        raise ValueError(f"{text!r} is no time; legal are {FORMS}")
    return moment


def _parse(text: str, now: float, *, utc: bool) -> float | None:
    if _AGO.fullmatch(text):
        return now - sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if _EPOCH.fullmatch(text):
        return float(text[1:])
    if _STAMP.fullmatch(text):
        # Only upper case is known to fromisoformat.
        return _epoch(datetime.fromisoformat(text.upper()), utc=utc)
    if _DATE.fullmatch(text):
        return _epoch(datetime.fromisoformat(text), utc=utc)
    today = datetime.fromtimestamp(now, UTC if utc else None).date()
    if _CLOCK.fullmatch(text):
        return _epoch(datetime.combine(today, time.fromisoformat(text)), utc=utc)
    match text.lower():
        case "now":
            return now
        case "today":
            return _epoch(datetime.combine(today, time()), utc=utc)
        case "yesterday":
            # By the calendar: a day of a clock change has 23 or 25 hours.
            return _epoch(datetime.combine(today - timedelta(days=1), time()), utc=utc)
    return None


def _epoch(moment: datetime, *, utc: bool) -> float:
    if moment.tzinfo is None and utc:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
