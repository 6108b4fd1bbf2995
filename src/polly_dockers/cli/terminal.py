"""What the terminal can do, and messages on stderr."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import threading
from typing import TYPE_CHECKING

from polly_dockers.formatting import INDENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

PATIENCE = 5.0
"""Seconds after which the command says what it is waiting for."""

_SEQUENCE = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[ -/]*[0-~])")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


_QUOTED = r"""(?:"[^"]*"|'[^']*')"""
_VALUE = rf"(?:{_QUOTED}|(?!&&|polly)(?=\S*[^a-z\s.,;:)])\S+|[a-z]+(?= --| &&|[.,;:)]|$))"
_PART = rf"(?: --[a-z-]+(?:[ =](?:{_QUOTED}|(?!--)\S+))?| {_VALUE})"
_GROUPS = "dockers|members|org|profiles|tokens|audit|user|key"
_ONE = (
    rf"(?:polly(?:-server)? (?:(?:(?:{_GROUPS}) )?[a-z][a-z-]*{_PART}*|--(?:help|version)\b)"
    rf'|docker (?:pull|push|login|logout|build|tag){_PART}*|eval "[^"]*")'
)
_COMMAND = re.compile(rf"(?<!\S){_ONE}(?: && {_ONE})*")
"""A command in a sentence. It may have a word more, but not one less."""
_WHOLE = re.compile(
    rf"(?<!\w)(?:`[^`]*`|{_QUOTED}(?!\w))\S*|(?<![\S(])\(?{_ONE}(?: && {_ONE})*|(?<!\S)--[a-z][a-z-]* {_VALUE}"
)
"""What is kept on one line: a text in back-ticks or quotes, a command, and an option with its value."""


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


def width(stream: TextIO) -> int:
    """Return how many columns the terminal of a stream has; COLUMNS overrides it."""
    if stream is sys.stdout or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    with contextlib.suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def cells(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    import wcwidth  # only if needed: the import takes some milliseconds

    return max(0, wcwidth.wcswidth(text))


def fitted(text: str, stream: TextIO) -> str:
    """Return a message as it is printed to a stream. For a terminal, lines that are too long are wrapped."""
    if not stream.isatty():
        return text
    room = width(stream)
    return "\n".join(each for line in text.split("\n") for each in wrapped(line, room))


def wrapped(line: str, room: int) -> list[str]:
    """Return the lines of a line that is longer than ``room`` columns, broken between words.

    A line that begins with ``INDENT`` is not broken: it is a command or a name to copy. In other lines, no word is
    broken, no quotation, and no command of polly, polly-server or docker; one after a colon has a line of its own.
    """
    if cells(line) <= room or line.startswith(INDENT):
        return [line]
    lines, at = [], 0
    for found in _COMMAND.finditer(line):
        command = found[0].rstrip(".,;:)")
        before, end = line[at : found.start()], found.start() + len(command)
        stop = re.match(r"[.,;]?(?: |$)", line[end:])
        if before.endswith(": ") and stop and stop[0] != " ":
            lines += [*_broken(before, room), command]
            at = end + len(stop[0])
    return lines + (_broken(line[at:], room) if line[at:] else [])


def _broken(text: str, room: int) -> list[str]:
    """Return a text in lines of at most ``room`` columns, except for words, commands and quotations that are longer."""
    whole = _WHOLE.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines: list[str] = []
    for word in whole.split():
        if lines and cells(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [each.replace("\0", " ") for each in lines]


def say(text: str) -> None:
    """Print a message for the person on stderr. It is not an error if stderr can't be written."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        print(fitted(escaped(text), sys.stderr), file=sys.stderr, flush=True)


def success(text: str) -> None:
    """Print that the command succeeded, with the word that scripts look for."""
    say(f"Success: {text}")
