"""Spans of time: ``30m``, ``12h``, ``7d``; and moments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from polly_dockers.cli.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60}


def seconds(text: str, option: str = "--expires", *, least: str = "1m", longest: str = "365d") -> int:
    """Return the seconds of a span from the least to the longest. Raises UsageError for anything else."""
    result = _seconds(text.strip().lower())
    if not _seconds(least) <= result <= _seconds(longest):
        right = "30m, 12h and 7d" if least.endswith("m") else "36h, 30d and 730d"
        msg = f"{option} {text!r} is not a span of time from {least} to {longest}. Right are {right}."
        raise UsageError(msg)
    return result


def moment(text: str, option: str, now: datetime, *, end: bool) -> datetime:
    """Return the moment that an option names; a day is its first moment, with ``end`` its last. Raises UsageError.

    ``now`` is what time it is on the server: that of this machine may be wrong.
    """
    from polly_dockers import moments

    try:
        return moments.parse(text, now, end=end)
    except ValueError as error:
        right = (
            "tomorrow, 2026-12-24, '2026-12-24 18:00' and +30d"
            if option == "--as-of"
            else ("yesterday, 2026-11-24, '2026-11-24 18:00' and 7d (seven days ago)")
        )
        msg = f"{option} {text!r} is not a time. Right are {right}."
        raise UsageError(msg) from error


def text(seconds: int) -> str:
    """A span as it is written: in days, hours, minutes, or seconds, whatever leaves no rest."""
    for unit, length in _SECONDS.items():
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([mhd])", text)
    return int(match[1]) * _SECONDS[match[2]] if match else 0
