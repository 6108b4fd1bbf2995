"""Send requests to one worker process of a server; a plain connection may reach any of them."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.wire_client import TIMEOUT, Answer, Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server


@dataclass(frozen=True)
class Worker:
    """A connection that one worker process has taken; it answers all that comes on it."""

    connection: http.client.HTTPConnection
    pid: int

    def send(self, client: Client, method: str, path: str, body: bytes | None = None, kind: str = "") -> Answer:
        """The worker's answer to what the client would send; ``kind`` is the media type of the body."""
        headers = {"Authorization": client.authorization} if client.authorization is not None else {}
        self.connection.request(method, path, body, headers | ({"Content-Type": kind} if kind else {}))
        with self.connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read())

    def get(self, client: Client, path: str) -> Answer:
        """The worker's answer to GET."""
        return self.send(client, "GET", path)

    @property
    def process(self) -> str:
        """What the ids of the worker's answers begin with."""
        return self.get(Client(self.connection.port), "/healthz").header("X-Request-Id")[:8]


@contextlib.contextmanager
def each_worker(server: Server, count: int = 2) -> Iterator[list[Worker]]:
    """A connection to each of so many workers: all others stand still while it is made."""
    assert server.process is not None
    listed = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    while len(children := listed.read_text().split()) < count:
        pass  # they are forked once the server says that it listens
    found = []
    for child in children:
        others = [int(other) for other in children if other != child]
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            while any(not _stands_still(other) for other in others):
                pass
            found.append(Worker(connection, int(child)))
            assert found[-1].process
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
    assert len({worker.process for worker in found}) == count
    try:
        yield found
    finally:
        for worker in found:
            worker.connection.close()


def _stands_still(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
