"""What a long operation shows on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from polly_dockers.server.cli.progress import Bar, Counter

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], list[str]]:
    """What is drawn on a terminal of so many columns, one text for each update."""

    def draw(columns: int, work: Callable[[], None]) -> list[str]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with os.fdopen(theirs, "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            work()
            monkeypatch.undo()
        some = b""
        with contextlib.suppress(OSError):  # the end of what was drawn
            while more := os.read(ours, 10_000):
                some += more
        os.close(ours)
        return some.decode().replace("\r\n", "").split("\r\x1b[K")[1:]

    return draw


def work() -> None:
    """A progress bar that advances by one byte, and ends."""
    bar = Bar("checking", 16_600_000)
    bar.add(1)
    bar.end()


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 160])
def test_a_bar_stays_on_its_line(drawn: Callable[[int, Callable[[], None]], list[str]], columns: int) -> None:
    """The bar is drawn again on one line, and never wraps to a second one."""
    lines = drawn(columns, work)
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("checking")
        assert len(line) < columns
        assert columns == 60 or ("[" in line) == (columns >= 80), line


def test_a_count_stays_on_its_line(drawn: Callable[[int, Callable[[], None]], list[str]]) -> None:
    """Parts that do not fit are not drawn."""
    assert drawn(20, lambda: Counter().show("12345678901234567890123")) == ["1234567890123456789"]
