"""Long work shows itself: one line on stderr with how far it is, its rate, and how long it will take still."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Final

from polly_dockers.formatting import size

_EVERY: Final = 0.2
"""Seconds between two drawings."""
_WIDTH: Final = 24
_LEAST: Final = 8
"""Letters of a bar, at most and at least: where there is no room, there is none."""
_MINUTE: Final = 60
_HOUR: Final = 3600


def duration(seconds: float) -> str:
    """A time for people: 12 s, 3:05 min, 2:10 h."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)}:{int(seconds % _MINUTE):02} min"
    return f"{int(seconds // _HOUR)}:{int(seconds % _HOUR // _MINUTE):02} h"


def _columns() -> int:
    """How many letters a line of the terminal has, but the last: behind that some go on to the next line."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return (columns or shutil.get_terminal_size().columns) - 1


def _draw(line: str) -> None:
    """Draw the line in the place of the last one; what the terminal has no room for would begin another line."""
    print(f"\r\x1b[K{line[: _columns()]}", end="", file=sys.stderr, flush=True)


class Bar:
    """A bar for work of so many bytes; nothing is drawn where stderr is no terminal."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._drawn = 0.0
        self._shows = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """So many bytes more are done."""
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
        _draw(f"{self._what} {bar}{figures if bar else figures.lstrip()}")

    def end(self) -> None:
        """Leave the line as it is at the end."""
        if self._shows:
            self._draw(time.monotonic())
            print(file=sys.stderr)


class Counter:
    """A line that tells how far work of unknown length has come; nothing is drawn where stderr is no terminal."""

    def __init__(self) -> None:
        self._drawn = 0.0
        self._shows = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Draw the line anew, if it is time."""
        now = time.monotonic()
        if self._shows and now - self._drawn >= _EVERY:
            self._drawn = now
            _draw(text)

    def end(self) -> None:
        """Take the line away."""
        if self._shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
