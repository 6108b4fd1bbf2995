"""How the log is written to a pipe that perhaps nobody reads."""

from __future__ import annotations

import json
import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from polly_dockers.system.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINE = b'{"event":"' + b"x" * 988 + b'"}\n'
ROOM = 100 * len(LINE)
SECONDS = 30.0
"""After which what should not wait has failed its test."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: where to read and where to write."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def on_a_thread(work: Callable[[], object]) -> threading.Thread:
    """Start the writer on a daemon thread, which does not keep the tests from ending."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def does_not_wait(work: Callable[[], object]) -> None:
    """Call the function; fails if it waits for the pipe."""
    thread = on_a_thread(work)
    thread.join(SECONDS)
    assert not thread.is_alive(), "it waits for somebody to read the pipe"


def write(log: LogWriter, lines: int) -> None:
    """Write that many lines."""
    for _ in range(lines):
        log.write(LINE)


def read(reader: int, size: int) -> bytes:
    """What comes through the pipe; fails if nothing does."""
    assert select.select([reader], [], [], SECONDS)[0], "nothing comes through the pipe"
    return os.read(reader, size)


def read_until(reader: int, last: bytes) -> list[bytes]:
    """Read whole lines until one contains this text."""
    found = b""
    while last not in found or not found.endswith(b"\n"):
        found += read(reader, 1 << 16)
    return found.splitlines(keepends=True)


def test_nobody_reads(pipe: tuple[int, int]) -> None:
    """Nothing waits for the pipe; lines that do not fit are dropped and counted, and the log says so later."""
    log = LogWriter(pipe[1], ROOM)
    log.start()
    does_not_wait(lambda: write(log, 1000))
    assert not log.drain(0)
    assert 1000 - 170 - 100 <= log.dropped <= 1000 - 100
    dropped = log.dropped
    told: list[int] = []
    lines: list[bytes] = []
    while sum(told) < dropped:  # the writer may have begun before all were dropped
        *whole, last = read_until(pipe[0], b"dropped")
        line = json.loads(last)
        assert line["level"] == "warning"
        told.append(line["lines"])
        lines += whole
    assert sum(told) == dropped
    assert lines == [LINE] * (1000 - dropped)
    assert log.drain()
    log.write("ünd ein Text\n")
    assert read_until(pipe[0], b"Text") == ["ünd ein Text\n".encode()]
    assert log.dropped == dropped


def test_what_was_dropped_is_told_without_another_line(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as the line before it is written."""
    log = LogWriter(pipe[1], len(LINE))
    writing, go, put = threading.Event(), threading.Event(), log._put

    def slow(lines: bytes) -> None:
        writing.set()
        go.wait()
        put(lines)

    monkeypatch.setattr(log, "_put", slow)
    log.start()
    log.write(LINE)
    writing.wait()
    log.write(LINE)
    go.set()
    assert json.loads(read_until(pipe[0], b"dropped")[-1])["lines"] == 1


@pytest.mark.parametrize("blocking", [True, False])
def test_the_end_waits_for_the_rest(pipe: tuple[int, int], *, blocking: bool) -> None:
    """At the end of the process, lines that wait are written if somebody reads the pipe, even a nonblocking one."""
    os.set_blocking(pipe[1], blocking)
    log = LogWriter(pipe[1])
    log.start()
    does_not_wait(lambda: write(log, 300))
    found: list[bytes] = []
    thread = on_a_thread(lambda: found.extend(read_until(pipe[0], b"the end")))
    log.write(b"the end\n")
    assert log.drain(60)
    thread.join(SECONDS)
    assert found == [LINE] * 300 + [b"the end\n"]


def test_without_a_thread(pipe: tuple[int, int]) -> None:
    """The supervisor has no such thread and does not wait either: it drops lines and says so later."""
    log = LogWriter(pipe[1])
    does_not_wait(lambda: write(log, 200))
    assert 0 < log.dropped < 200
    kept = 200 - log.dropped
    assert read_until(pipe[0], LINE)[:kept] == [LINE] * kept
    log.write(LINE)
    told, line = read_until(pipe[0], LINE)
    assert (json.loads(told)["lines"], line) == (200 - kept, LINE)


def test_nobody_is_there(pipe: tuple[int, int]) -> None:
    """A log whose reader has closed the pipe raises no error in the code that logs."""
    reader, writer = os.pipe()
    os.close(reader)
    threaded, plain = LogWriter(writer), LogWriter(writer)
    threaded.start()
    for log in (threaded, plain):
        log.write(LINE)
        assert log.drain()
        assert log.dropped == 1
    os.close(writer)
    assert pipe


def test_two_processes_on_one_pipe(pipe: tuple[int, int]) -> None:
    """A line of one process is never inside a line of the other, even while the pipe is full."""
    log, other = LogWriter(pipe[1], ROOM), LogWriter(pipe[1])
    log.start()
    found = b""
    for _ in range(6):
        log.write(LINE * 90)
        while not log.drain(0.01):
            found += read(pipe[0], 4096)
            writing = on_a_thread(lambda: other.write(b'{"other":1}\n'))
            while writing.is_alive():  # the first one may have filled the room that it saw
                if select.select([pipe[0]], [], [], 0.01)[0]:
                    found += os.read(pipe[0], 4096)
    log.write(b"last\n")
    lines = found + b"".join(read_until(pipe[0], b"last"))
    assert set(lines.splitlines(keepends=True)) - {LINE, b'{"other":1}\n', b"last\n"} <= dropped_of(lines)


def dropped_of(lines: bytes) -> set[bytes]:
    """The lines that say how many were dropped."""
    return {line for line in lines.splitlines(keepends=True) if b"dropped" in line and json.loads(line)}
