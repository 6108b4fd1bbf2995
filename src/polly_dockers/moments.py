"""Moments as people write them: ``tomorrow``, ``2026-12-24``, ``2026-12-24 18:00``, ``+30d``; ``7d`` is a week ago."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

_SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400}
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_SPAN: Final = re.compile(r"([+-]?)([0-9]{1,6})([mhd])")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse(text: str, now: dt.datetime, *, end: bool) -> dt.datetime:
    """The moment that ``text`` names, in the time zone of this machine; raises ValueError for anything else.

    A day is its first moment, with ``end`` its last. A span that begins with ``+`` is added to ``now``; any other is
    taken off.
    """
    words = text.strip().lower()
    span = _SPAN.fullmatch(words)
    if span is not None:
        length = dt.timedelta(seconds=int(span[2]) * _SECONDS[span[3]])
        try:
            return now + length if span[1] == "+" else now - length
        except OverflowError as error:
            raise ValueError(text) from error
    if words in _DAYS:
        return _day(now.date() + dt.timedelta(days=_DAYS[words]), end=end)
    if _DATE.fullmatch(words):
        return _day(dt.date.fromisoformat(words), end=end)
    if not _DATE.match(words):
        raise ValueError(text)
    moment = dt.datetime.fromisoformat(words.upper())
    return moment if moment.tzinfo is not None else _local(moment)


def _day(date: dt.date, *, end: bool) -> dt.datetime:
    return _local(dt.datetime.combine(date, dt.time(23, 59, 59, 999_000) if end else dt.time()))


def _local(moment: dt.datetime) -> dt.datetime:
    """The moment of a clock on the wall, in the time zone of this machine."""
    try:
        return moment.astimezone()
    except OverflowError as error:
        raise ValueError(moment) from error
