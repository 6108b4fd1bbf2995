"""Many clients in one process and one thread: what each says next depends on what it was answered."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from benchmarks.client import Answer, Unexpected, parse

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    Script = Generator[Sequence[bytes], Answer, None]
    """What one client says, piece by piece, and is told."""


class _Client:
    """A connection and what is under way on it."""

    def __init__(self, port: int, scripts: Iterator[Script]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._scripts = scripts
        self._script: Script | None = None
        self._head: Answer | None = None
        self._data = bytearray()
        self._came = 0

    def begin(self) -> bool:
        """Begin with the next script; False where there is none."""
        for script in self._scripts:
            self._script = script
            self._say(next(script))
            return True
        return False

    def _say(self, pieces: Sequence[bytes]) -> None:
        rest = [memoryview(piece) for piece in pieces]
        while rest:
            sent = self.socket.sendmsg(rest)
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if rest:
                rest[0] = rest[0][sent:]

    def listen(self) -> bool:
        """Take what has come, and go on where it is a whole answer; False once all scripts are at their end."""
        if self._head is None:
            data = self.socket.recv(1 << 18)
            head, found, body = data.partition(b"\r\n\r\n")
            if not found:
                msg = f"no answer but {data[:300]!r}"
                raise Unexpected(msg)
            self._head = parse(head)
            length = int(self._head.headers.get("content-length", 0))
            self._data, self._came = bytearray(length), len(body)
            self._data[: len(body)] = body
        else:
            came = self.socket.recv_into(memoryview(self._data)[self._came :])
            if not came:
                raise ConnectionResetError
            self._came += came
        if self._came < len(self._data):
            return True
        answer = Answer(self._head.status, self._head.headers, bytes(self._data))
        self._head = None
        assert self._script is not None  # noqa: S101 - it was begun
        try:
            self._say(self._script.send(answer))
        except StopIteration:
            return self.begin()
        return True


def run(port: int, clients: int, scripts: Iterator[Script]) -> None:
    """Let so many clients play the scripts, each the next one as soon as it is at the end of one."""
    poll = select.epoll()
    living = {}
    for _ in range(clients):
        client = _Client(port, scripts)
        living[client.socket.fileno()] = client
        poll.register(client.socket, select.EPOLLIN)
    living = {fd: client for fd, client in living.items() if client.begin()}
    while living:
        for fd, _ in poll.poll():
            if not living[fd].listen():
                living.pop(fd).socket.close()
