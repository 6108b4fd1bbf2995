"""Passwords as they come from standard input and from a keyboard. Standard library only.

A password is text. The server gets it as UTF-8, in whichever way it was typed, and compares it in Unicode's normal form
C, so that an ``é`` of one key and one of two are the same. Bytes are taken for UTF-8 where they are that, else for the
encoding of the locale. What can't be read either way is refused, and no message shows any of it.
"""

from __future__ import annotations

import sys
from typing import IO

from polly_dockers.system import process

LONGEST = 65_536
"""Bytes of a line that are read at most."""
_MARKS = (b"\xff\xfe", b"\xfe\xff")


class UnreadableError(Exception):
    """What was given can't be a password; the message says why and shows nothing of it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def line(what: str, stream: IO[bytes] | None = None) -> str:
    """Return the next line of stdin, or of the stream, without its end and without a byte order mark.

    Raises UnreadableError for an empty line, and for what is not text.
    """
    content = (stream or sys.stdin.buffer).readline(LONGEST)
    if content.startswith(_MARKS) or b"\x00" in content:
        msg = f"stdin is not UTF-8 where {what} is read. Windows PowerShell writes UTF-16 to files: save it as UTF-8."
        raise UnreadableError(msg)
    text = decoded(content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").removesuffix(b"\r"), what)
    if not text:
        msg = f"stdin is empty where {what} is read."
        raise UnreadableError(msg)
    return text


def typed(text: str, what: str) -> str:
    """Return what a terminal or the environment gave, where some bytes may have been no text in the locale's encoding.

    Raises UnreadableError as ``decoded``.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        encoding = sys.stdin.encoding or "utf-8"
        return decoded(text.encode(encoding, "surrogateescape"), what)
    return text


def decoded(content: bytes, what: str) -> str:
    """Return the text of the bytes: UTF-8, else the locale's encoding. Raises UnreadableError where neither fits."""
    for encoding in ("utf-8", sys.stdin.encoding or "utf-8"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    msg = f"{what[0].upper()}{what[1:]} is neither UTF-8 nor in the encoding of the locale. Use UTF-8, or set LC_ALL."
    raise UnreadableError(msg)


def ask(question: str, what: str) -> str:
    """Return what a person types at the terminal of stdin, without showing it; the question is on stderr.

    The terminal has its echo again afterwards, also when a signal ends the command. Raises UnreadableError, and
    EOFError when the terminal is closed.
    """
    import termios  # noqa: PLC0415 - not on Windows

    with process.restored_terminal():
        descriptor = sys.stdin.fileno()
        settings = termios.tcgetattr(descriptor)
        settings[3] = settings[3] & ~termios.ECHO | termios.ICANON
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, settings)
        print(question, end="", file=sys.stderr, flush=True)
        content = sys.stdin.buffer.readline(LONGEST)
        print(file=sys.stderr)
    if not content:
        raise EOFError
    return decoded(content.removesuffix(b"\n").removesuffix(b"\r"), what)
