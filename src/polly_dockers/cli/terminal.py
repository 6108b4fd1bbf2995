"""What the commands know of the terminal, and what they say on stderr."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

PATIENCE = 5.0
"""Seconds after which a person is told what the command is waiting for."""

_SEQUENCE = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[ -/]*[0-~])")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def asks() -> bool:
    """Tell whether a person can be asked: keyboard and stderr are a terminal; stdout may be a pipe."""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def shows() -> bool:
    """Tell whether stdout is a terminal, whose width counts."""
    return sys.stdout.isatty()


def colours(stream: TextIO | None = None) -> bool:
    """Tell whether stdout, or another stream, may be coloured (https://no-color.org)."""
    return (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def patience(what: str) -> Iterator[None]:
    """Say after five seconds what a person is waiting for, and go on; within another such wait, say nothing."""
    if _waiting or not sys.stderr.isatty():
        yield
        return
    _waiting.append(what)
    timer = threading.Timer(PATIENCE, say, (f"Still waiting for {what}; Ctrl-C ends it.",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _waiting.clear()


_waiting: list[str] = []


def clean(text: str) -> str:
    """Return text of other people without what could move the cursor, change colours or turn the direction of reading.

    Line ends and tabs become spaces.
    """
    return " ".join(_UNSAFE.sub("", re.sub(r"\s", " ", _SEQUENCE.sub("", text))).split())


def escaped(text: str) -> str:
    r"""Return a message in which control characters, of a name that somebody made up, are written as ``\x1b``."""

    def spelled(found: re.Match[str]) -> str:
        number = ord(found[0])
        return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"  # noqa: PLR2004 - two digits or four

    return re.sub("(?![\n\t])" + _UNSAFE.pattern, spelled, text)


def say(text: str) -> None:
    """Print a line for the person, on stderr; where nobody can read that, it is no failure."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        print(escaped(text), file=sys.stderr, flush=True)


def success(text: str) -> None:
    """Say that it worked, in the words that people know."""
    say(f"Success: {text}")
