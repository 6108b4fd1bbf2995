"""Writing the log to stderr without ever waiting: a pipe that nobody reads does not block requests.

A worker puts its lines into a queue of limited size, and a thread writes them. Lines that do not fit are dropped and
counted. Later the log says how many were dropped, and /metrics says so at any time. The supervisor has no such thread:
it writes a line if the pipe has room for it, and drops it otherwise.
"""

from __future__ import annotations

import atexit
import datetime as dt
import json
import os
import select
import stat
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM: Final = 4 << 20
"""Most bytes that wait to be written."""
PATIENCE: Final = 2.0
"""Seconds that a process waits at its exit for lines to be written."""


class LogWriter:
    """Writes lines to a descriptor. Loggers use it as a file."""

    def __init__(self, fd: int, room: int = ROOM) -> None:
        """``room``: most bytes that wait to be written."""
        self._fd = fd
        self._room = room
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._writing = False
        self._unreported = 0
        """Lines that were dropped since the log last reported any."""
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self.dropped = 0
        """Lines that were dropped since the process started."""

    def start(self) -> None:
        """Write on a thread from now on. A fork does not copy threads, so call it after the fork."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.drain)

    def write(self, data: bytes | str) -> None:
        """Write whole lines, or drop them. It never waits."""
        lines = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
        if self._thread is None:
            self._write_now(lines)
            return
        with self._changed:
            if self._size + len(lines) > self._room:
                self._drop(lines)
                return
            self._size += len(lines)
            self._waiting.append(lines)
            self._changed.notify_all()

    def flush(self) -> None:
        """Do nothing. Loggers call it after each line; ``drain`` waits."""

    def drain(self, seconds: float = PATIENCE) -> bool:
        """Wait until everything is written, at most so many seconds; whether it is."""
        if self._thread is None:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._writing, seconds)

    def _drop(self, lines: bytes) -> None:
        count = max(lines.count(b"\n"), 1)
        self.dropped += count
        self._unreported += count

    def _write_now(self, lines: bytes) -> None:
        try:
            _, writable, _ = select.select([], [self._fd], [], 0)
            if not writable:
                self._drop(lines)
                return
            self._put(self._report() + lines)
        except (OSError, ValueError):  # stderr is closed
            self._drop(lines)

    def _report(self) -> bytes:
        """The log line that says how many lines were dropped; empty if none were."""
        count, self._unreported = self._unreported, 0
        if not count:
            return b""
        at = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        event = "log lines were dropped because nobody read them"
        return json.dumps({"lines": count, "event": event, "level": "warning", "timestamp": at}).encode() + b"\n"

    def _run(self) -> None:
        is_open = True
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or (self._unreported and is_open))  # noqa: B023 - called here
                lines = b"".join(self._waiting)
                report = self._report()
                self._waiting.clear()
                self._writing = True
            try:
                self._put(lines + report)
                is_open = True
            except OSError:
                is_open = False
                with self._changed:
                    self._drop(lines)
            with self._changed:
                self._writing = False
                self._size -= len(lines)
                self._changed.notify_all()

    def _put(self, lines: bytes) -> None:
        for piece in _whole_lines(lines) if stat.S_ISFIFO(os.fstat(self._fd).st_mode) else [lines]:
            rest = memoryview(piece)
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # the descriptor is non-blocking: the starter of the server set that
                    select.select([], [self._fd], [])


def _whole_lines(lines: bytes) -> Iterator[bytes]:
    """The lines in pieces that a pipe takes as a whole, so that no other process writes in between.

    A line that is longer than such a piece is a piece of its own.
    """
    at = 0
    while at < len(lines):
        end = lines.rfind(b"\n", at, at + select.PIPE_BUF) + 1 or lines.find(b"\n", at) + 1 or len(lines)
        yield lines[at:end]
        at = end


STDERR: Final = LogWriter(2)
"""Stderr of this process, for the log."""
