"""Progress of long work: one line on stderr with what is done, the rate, and the time left."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Final

from polly_dockers.formatting import size
from polly_dockers.system.durations import SECONDS_PER_HOUR

_EVERY: Final = 0.2
"""Seconds between two drawings."""
_WIDTH: Final = 24
"""Most characters of a bar."""
_LEAST: Final = 8
"""Fewest characters of a bar. If the terminal has no room for them, there is no bar."""
_MINUTE: Final = 60
"""Seconds."""


def duration(seconds: float) -> str:
    """A duration for people: 12 s, 3:05 min, 2:10 h."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < SECONDS_PER_HOUR:
        return f"{int(seconds // _MINUTE)}:{int(seconds % _MINUTE):02} min"
    return f"{int(seconds // SECONDS_PER_HOUR)}:{int(seconds % SECONDS_PER_HOUR // _MINUTE):02} h"


def _columns() -> int:
    """Characters of a terminal line, less one: after the last, some terminals begin a new line."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return (columns or shutil.get_terminal_size().columns) - 1


def _overwrite_line(line: str) -> None:
    """Print the line over the previous one, cut to the width of the terminal."""
    print(f"\r\x1b[K{line[: _columns()]}", end="", file=sys.stderr, flush=True)


class Bar:
    """A bar for work whose size in bytes is known. Nothing is drawn if stderr is not a terminal."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._drawn = 0.0
        self._shows = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """Add bytes that are done."""
        self._done += count
        now = time.monotonic()
        if self._shows and now - self._drawn >= _EVERY:
            self._drawn = now
            self._draw(now)

    def _draw(self, now: float) -> None:
        part = min(1.0, self._done / self._total) if self._total else 1.0
        rate = self._done / max(now - self._began, 0.001)
        left = f", {duration((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        figures = f"{part:4.0%} {size(self._done)} of {size(self._total)}, {size(rate)}/s{left}"
        room = min(_WIDTH, _columns() - len(f"{self._what} [] {figures}"))
        bar = f"[{('=' * round(part * room)).ljust(room)}] " if room >= _LEAST else ""
        _overwrite_line(f"{self._what} {bar}{figures if bar else figures.lstrip()}")

    def end(self) -> None:
        """Draw the final state, and end the line."""
        if self._shows:
            self._draw(time.monotonic())
            print(file=sys.stderr)


class Counter:
    """A line for work of unknown size. Nothing is drawn if stderr is not a terminal."""

    def __init__(self) -> None:
        self._drawn = 0.0
        self._shows = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Draw the text, unless the previous one was drawn a moment ago."""
        now = time.monotonic()
        if self._shows and now - self._drawn >= _EVERY:
            self._drawn = now
            _overwrite_line(text)

    def end(self) -> None:
        """Delete the line."""
        if self._shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
