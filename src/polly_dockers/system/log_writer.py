"""Lines of the log on their way to stderr, which nobody may be reading: a full pipe holds up no request.

A worker puts its lines into a queue that is bounded in bytes, and a thread writes them. What finds no room is dropped
and counted; the log says how many lines that were once it can, and /metrics at any time. A process that has no such
thread, as the one that forks the workers, writes a line where the pipe has room for it, and drops it where it has none.
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
"""Bytes of lines that wait, at most."""
PATIENCE: Final = 2.0
"""Seconds that the end of a process waits for lines to be written."""


class LogWriter:
    """Writes bytes to a descriptor; as a file, it is what loggers are given."""

    def __init__(self, fd: int, room: int = ROOM) -> None:
        """``room``: bytes that wait at most."""
        self._fd = fd
        self._room = room
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._writing = False
        self._untold = 0
        """Lines that were dropped since the log last told of any."""
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self.dropped = 0
        """Lines that were dropped since the process began."""

    def start(self) -> None:
        """Write on a thread from now on, until the process ends. Threads are not inherited: call it after a fork."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.drain)

    def write(self, data: bytes | str) -> None:
        """Take whole lines; never waits."""
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
        """Loggers ask for it after each line; ``drain`` waits."""

    def drain(self, seconds: float = PATIENCE) -> bool:
        """Wait until everything is written, for so long at most; whether it is."""
        if self._thread is None:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._writing, seconds)

    def _drop(self, lines: bytes) -> None:
        count = max(lines.count(b"\n"), 1)
        self.dropped += count
        self._untold += count

    def _write_now(self, lines: bytes) -> None:
        try:
            _, writable, _ = select.select([], [self._fd], [], 0)
            if not writable:
                self._drop(lines)
                return
            self._put(self._told() + lines)
        except (OSError, ValueError):  # stderr is closed, and nobody is left to be told
            self._drop(lines)

    def _told(self) -> bytes:
        """The line that says how many were dropped, where some were."""
        count, self._untold = self._untold, 0
        if not count:
            return b""
        at = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        event = "lines of the log were dropped, for nobody read it"
        return json.dumps({"lines": count, "event": event, "level": "warning", "timestamp": at}).encode() + b"\n"

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                lines = b"".join(self._waiting)
                told = self._told()
                self._waiting.clear()
                self._writing = True
            try:
                self._put(lines + told)
            except OSError:
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
                except BlockingIOError:  # whoever started the server made it so
                    select.select([], [self._fd], [])


def _whole_lines(lines: bytes) -> Iterator[bytes]:
    """Lines in pieces that a pipe takes as a whole, so that no other process writes into the middle of one.

    A line that is longer than that is a piece alone.
    """
    at = 0
    while at < len(lines):
        end = lines.rfind(b"\n", at, at + select.PIPE_BUF) + 1 or lines.find(b"\n", at) + 1 or len(lines)
        yield lines[at:end]
        at = end


STDERR: Final = LogWriter(2)
"""The log of this process."""
