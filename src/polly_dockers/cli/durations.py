"""Spans of time: ``30m``, ``12h``, ``7d``."""

from __future__ import annotations

import re

from polly_dockers.cli.failures import UsageError

_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
_LONGEST = 365 * 86_400


def seconds(text: str, option: str = "--expires") -> int:
    """Return the seconds of 1m to 365d. Raises UsageError for anything else."""
    match = re.fullmatch(r"([0-9]{1,9})([mhd])", text.strip().lower())
    result = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not _SECONDS["m"] <= result <= _LONGEST:
        msg = f"{option} {text!r} is no span of time from 1m to 365d. Right are 30m, 12h and 7d."
        raise UsageError(msg)
    return result
