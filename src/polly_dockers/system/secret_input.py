"""Reading passwords from standard input and from a terminal. Standard library only.

A password is text. The server receives it as UTF-8 and compares it in Unicode's normal form C, so that an ``é`` typed
with one key or with two is the same. Bytes are decoded as UTF-8, or else in the encoding of the locale. If neither
fits, the password is refused, and no message shows any of it.
"""

from __future__ import annotations

import sys
from typing import IO

from polly_dockers.system import process

LONGEST = 65_536
"""Most bytes that are read of a line."""
_MARKS = (b"\xff\xfe", b"\xfe\xff")


class UnreadableError(Exception):
    """The input can't be a password. The message says why and shows nothing of it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def line(what: str, stream: IO[bytes] | None = None) -> str:
    """Return the next line of stdin, or of the stream, without line break and byte order mark.

    ``what`` names the input in messages. Raises UnreadableError for an empty line, and for bytes that are not text.
    """
    content = (stream or sys.stdin.buffer).readline(LONGEST)
    if content.startswith(_MARKS) or b"\x00" in content:
        msg = f"stdin is not UTF-8 where {what} is read. Windows PowerShell writes UTF-16 to files: save it as UTF-8."
        raise UnreadableError(msg)
    text = decoded(content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").removesuffix(b"\r"), what)
    if not text:
        msg = f"stdin is empty where {what} is read. Give each password on a line of its own."
        raise UnreadableError(msg)
    return text


def typed(text: str, what: str) -> str:
    """Return text of a terminal or the environment, with bytes that the locale could not decode read as UTF-8.

    Raises UnreadableError as ``decoded``.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        encoding = sys.stdin.encoding or "utf-8"
        return decoded(text.encode(encoding, "surrogateescape"), what)
    return text


def decoded(content: bytes, what: str) -> str:
    """Return the text of bytes in UTF-8, else in the locale's encoding. Raises UnreadableError if neither fits."""
    for encoding in ("utf-8", sys.stdin.encoding or "utf-8"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    msg = f"{what[0].upper()}{what[1:]} is neither UTF-8 nor in the encoding of the locale. Use UTF-8, or set LC_ALL."
    raise UnreadableError(msg)


def ask(question: str, what: str) -> str:
    """Return what a person types at the terminal of stdin, without showing it. The question is on stderr.

    The echo of the terminal is restored, also after a signal. Raises UnreadableError, and EOFError when the terminal is
    closed.
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
