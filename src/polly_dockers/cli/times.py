"""Spans of time (``30m``, ``12h``, ``7d``) and points in time (``tomorrow``, ``2026-12-24 18:00``, ``+30d``)."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Final

from polly_dockers.cli.errors import UsageError

_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60}
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_SPAN: Final = re.compile(r"([+-]?)([0-9]{1,6})([mhd])")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def seconds(text: str, option: str = "--expires", *, least: str = "1m", longest: str = "365d") -> int:
    """Return the seconds of a span of time from ``least`` to ``longest``. Raises UsageError for anything else."""
    result = _seconds(text.strip().lower())
    if not _seconds(least) <= result <= _seconds(longest):
        right = "30m, 12h and 7d" if least.endswith("m") else "36h, 30d and 730d"
        msg = f"{option} {text!r} is not a span of time from {least} to {longest}. Valid examples: {right}."
        raise UsageError(msg)
    return result


def text(seconds: int) -> str:
    """Return a span in the largest unit (days, hours, minutes, seconds) that divides it evenly: ``7d``, ``36h``."""
    for unit, length in _SECONDS.items():
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def moment(text: str, option: str, now: datetime, *, end: bool) -> datetime:
    """Return the point in time that an option names, as ``parse`` does. Raises UsageError for anything else.

    ``now`` is the time on the server, because the clock of this machine may be wrong.
    """
    try:
        return parse(text, now, end=end)
    except ValueError as error:
        right = (
            "tomorrow, 2026-12-24, '2026-12-24 18:00' and +30d"
            if option == "--as-of"
            else "yesterday, 2026-11-24, '2026-11-24 18:00' and 7d (seven days ago)"
        )
        msg = f"{option} {text!r} is not a time. Valid examples: {right}."
        raise UsageError(msg) from error


def parse(text: str, now: datetime, *, end: bool) -> datetime:
    """Return the point in time that ``text`` names, in the time zone of this machine. Raises ValueError.

    A day stands for its first moment, or with ``end`` for its last one. A span that begins with ``+`` is added to
    ``now``; any other span is subtracted.
    """
    words = text.strip().lower()
    span = _SPAN.fullmatch(words)
    if span is not None:
        length = timedelta(seconds=int(span[2]) * _SECONDS[span[3]])
        try:
            return now + length if span[1] == "+" else now - length
        except OverflowError as error:
            raise ValueError(text) from error
    if words in _DAYS:
        return _day(now.date() + timedelta(days=_DAYS[words]), end=end)
    if _DATE.fullmatch(words):
        return _day(date.fromisoformat(words), end=end)
    if not _DATE.match(words):
        raise ValueError(text)
    result = datetime.fromisoformat(words.upper())
    return result if result.tzinfo is not None else _local(result)


def _day(day: date, *, end: bool) -> datetime:
    return _local(datetime.combine(day, time(23, 59, 59, 999_000) if end else time()))


def _local(naive: datetime) -> datetime:
    """Return a local time with the time zone of this machine. Raises ValueError where it has none."""
    try:
        return naive.astimezone()
    except OverflowError as error:
        raise ValueError(naive) from error


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([mhd])", text)
    return int(match[1]) * _SECONDS[match[2]] if match else 0
