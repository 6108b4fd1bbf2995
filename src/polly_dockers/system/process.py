"""How the process of a command begins and ends, whatever it was started from. Standard library only.

A command may be started without a terminal, with closed descriptors, in a locale that has few letters, and be ended by
a signal in the middle of something. What is done here holds for ``polly``, ``docker-credential-polly`` and
``polly-server`` alike.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of the signal, as shells have it."""
PIPE_CLOSED = 141
_ENDING = ("SIGTERM", "SIGHUP")


def prepare() -> None:
    """Make sure that stdin, stdout and stderr exist, and that no text ends the command because of the locale.

    A closed stdin is empty, and writing to a closed stdout fails as it should: no file or connection that is opened
    later gets its number.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, flags)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Let what is still to be written to stdout go nowhere, after writing has failed: nothing complains at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()


def write_data(text: str) -> None:
    """Print text for programs on stdout, as UTF-8 whatever the locale. Raises OSError.

    A byte of a name that is no UTF-8 is written as an escape.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="backslashreplace"))
    sys.stdout.flush()


def exit_now(code: int) -> NoReturn:
    """Exit at once, after exit handlers and with all output written. A usual exit of the interpreter takes seconds."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what sys.exit would call
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def undone_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that what is under way is undone as after Ctrl-C.

    The exit code is 128 and the signal's number. A signal that is ignored, as by nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held_signals() -> Iterator[list[int]]:
    """Let what the block does come to its end: Ctrl-C, SIGTERM and SIGHUP act behind it.

    Yields the numbers of those that came, as they come. A signal that is ignored, or ends the process at once, still
    does so.
    """
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = {}
    for name in ("SIGINT", *_ENDING):
        number = getattr(signal, name, None)
        if number is not None and callable(signal.getsignal(number)):
            before[number] = signal.signal(number, lambda number, _: held.append(number))
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def restored_terminal() -> Iterator[None]:
    """Give the terminal of stdin its settings back, its echo above all, however a question ends: also by a signal."""
    if os.name == "nt" or not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415 - not on Windows

    descriptor = sys.stdin.fileno()
    settings = termios.tcgetattr(descriptor)
    with undone_by_signals():
        try:
            yield
        finally:
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(descriptor, termios.TCSANOW, settings)
