"""Start and end of a command's process: standard streams, signals, the terminal. Standard library only.

A command may start without a terminal, with closed descriptors or in a locale with few characters, and a signal may
interrupt it. ``polly``, ``docker-credential-polly`` and ``polly-server`` all use this module.
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
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 plus the number of the signal, as in shells."""
PIPE_CLOSED = 141
_ENDING = ("SIGTERM", "SIGHUP")


def prepare() -> None:
    """Make sure that stdin, stdout and stderr exist, and that the locale makes no output fail.

    A closed stdin becomes an empty one, and writing to a closed stdout fails. Otherwise a file or connection that is
    opened later would get its number.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, flags)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process exits
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Discard what is left for stdout after a failed write, so that the exit does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()


def write_data(text: str) -> None:
    """Print text for programs on stdout, as UTF-8 in every locale. Raises OSError.

    A byte of a name that is not UTF-8 is written as an escape.
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
    """Let SIGTERM and SIGHUP raise SystemExit in the block, so that unfinished work is undone as after Ctrl-C.

    The exit code is 128 plus the signal's number. A signal that is ignored, as by nohup, stays ignored.
    """
    with _handled(_ENDING, lambda handler: handler is signal.SIG_DFL, _end):
        yield


@contextlib.contextmanager
def held_signals() -> Iterator[list[int]]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the block is finished.

    Yields a list to which the number of each signal is added when it arrives. A signal that is ignored, or kills the
    process by default, still does so.
    """
    held: list[int] = []
    try:
        with _handled(("SIGINT", *_ENDING), callable, lambda number, _: held.append(number)):
            yield held
    finally:
        if held:
            signal.raise_signal(held[0])


@contextlib.contextmanager
def _handled(
    names: Iterable[str], chosen: Callable[[object], bool], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Let a handler receive signals in the block: those of ``names`` whose present handler is ``chosen``.

    Only the main thread can set handlers, so in another one nothing changes.
    """
    before = {}
    for name in names if threading.current_thread() is threading.main_thread() else ():
        number = getattr(signal, name, None)
        if number is not None and chosen(signal.getsignal(number)):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def restored_terminal() -> Iterator[None]:
    """Restore the settings of stdin's terminal, such as its echo, at the end of the block, also after a signal."""
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
