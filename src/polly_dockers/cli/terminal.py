"""What the terminal can do, and messages on stderr."""

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
"""Seconds after which the command says what it is waiting for."""

_SEQUENCE = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[ -/]*[0-~])")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def asks() -> bool:
    """Return whether a person can be asked: stdin and stderr are a terminal; stdout may be a pipe."""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def shows() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def colours(stream: TextIO) -> bool:
    """Return whether a stream may be coloured (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def patience(what: str) -> Iterator[None]:
    """Say after five seconds what the command is waiting for, once in a command. An inner wait says nothing."""
    if _waiting:
        yield
        return
    _waiting.append(what)
    timer = threading.Timer(PATIENCE, _say_waiting, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _waiting.clear()


_waiting: list[str] = []
_said: list[str] = []


def _say_waiting(what: str) -> None:
    if not _said:
        _said.append(what)
        say(f"Still waiting for {what}.{' Press Ctrl-C to stop.' if sys.stderr.isatty() else ''}")


def clean(text: str) -> str:
    """Return other people's text without characters that move the cursor or change colours or the text direction.

    Newlines and tabs become spaces.
    """
    return " ".join(_UNSAFE.sub("", re.sub(r"\s", " ", _SEQUENCE.sub("", text))).split())


def escaped(text: str) -> str:
    r"""Return a message with its control characters written as ``\x1b``, because names in it may contain some."""

    def spelled(found: re.Match[str]) -> str:
        number = ord(found[0])
        return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"  # noqa: PLR2004 - two digits or four

    return re.sub("(?![\n\t])" + _UNSAFE.pattern, spelled, text)


def say(text: str) -> None:
    """Print a line for the person on stderr. It is not an error if stderr can't be written."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        print(escaped(text), file=sys.stderr, flush=True)


def success(text: str) -> None:
    """Print that the command succeeded, with the word that scripts look for."""
    say(f"Success: {text}")
