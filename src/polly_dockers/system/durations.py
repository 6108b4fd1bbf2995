"""Lengths of time. Rows hold times in microseconds; settings, and what people give, are in seconds."""

from __future__ import annotations

from typing import Final

SECOND: Final = 1_000_000
"""Microseconds of a second, as of all constants here whose name does not say otherwise."""
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
SECONDS_PER_HOUR: Final = 3_600
SECONDS_PER_DAY: Final = 86_400
