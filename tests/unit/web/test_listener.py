"""Connections that wait at the same time are shared by the processes; here two listeners stand for two processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from polly_dockers.system.balance import SLACK, Balance
from polly_dockers.web import listener
from polly_dockers.web.connection import HttpServer
from polly_dockers.web.listener import Listener
from support.wire import GET, Echo

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from polly_dockers.web.app import App

CLIENTS = 40


class Accepted(asyncio.Protocol):
    """The server's end of a connection: it says which process has it."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write the name."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._name)


class Process:
    """What one worker process has: a listener on the shared socket, and its number of connections."""

    def __init__(self, shared: socket.socket, balance: Balance, name: bytes) -> None:
        self.balance = balance
        self.accepted = 0
        self._name = name
        self._count()
        self.listener = Listener(shared.dup(), None, self._make, balance, self._count)

    def _make(self) -> Accepted:
        self.accepted += 1
        return Accepted(self._name)

    def _count(self) -> None:
        self.balance.write(self.accepted)


@pytest.fixture
def shared() -> Iterator[socket.socket]:
    """The socket that the supervisor opens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def balances(number: int) -> list[Balance]:
    """What each process has of one balance after the fork: the same memory, and a number of its own."""
    first = Balance()
    found = []
    for worker in range(1, number + 1):
        first.add(worker)
        each = Balance.__new__(Balance)
        each.__dict__ |= vars(first)
        found.append(each)
    return found


@contextlib.contextmanager
def clients(shared: socket.socket, number: int = CLIENTS) -> Iterator[list[socket.socket]]:
    """So many clients that have connected before the first connection is accepted."""
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(shared.getsockname())) for _ in range(number)]
        for each in waiting:
            each.settimeout(0)
        yield waiting


def highest_descriptor() -> int:
    """The highest descriptor of this process."""
    return max(int(each.name) for each in Path("/proc/self/fd").iterdir())


async def names(waiting: list[socket.socket]) -> list[bytes]:
    """Which process has accepted each connection."""
    loop = asyncio.get_running_loop()
    return [await loop.sock_recv(each, 10) for each in waiting]


async def test_connections_that_wait_are_shared_evenly(shared: socket.socket) -> None:
    """Neither of two processes has more than its share, and none has to wait for a busy one."""
    with clients(shared) as waiting:
        a, b = (Process(shared, balance, name) for balance, name in zip(balances(2), (b"a", b"b"), strict=True))
        found = await names(waiting)
        assert abs(found.count(b"a") - found.count(b"b")) <= SLACK + 1
        for each in (a, b):
            each.listener.close()


async def test_a_process_that_hangs_keeps_no_connection_from_the_others(shared: socket.socket) -> None:
    """The one that hangs has fewer connections for ever; its share is accepted by the others a little later."""
    own, hangs = balances(2)
    hangs.write(0)
    with clients(shared) as waiting:
        process = Process(shared, own, b"a")
        assert await names(waiting) == [b"a"] * CLIENTS
        process.listener.close()


async def test_a_process_that_has_ended_does_not_count(shared: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its end is recorded, nobody waits for it."""
    monkeypatch.setattr(listener, "PATIENCE", 3600.0)
    own, ended = balances(2)
    ended.write(0)
    own.remove(2)
    with clients(shared) as waiting:
        process = Process(shared, own, b"a")
        assert await names(waiting) == [b"a"] * CLIENTS
        process.listener.close()


async def test_connections_wait_while_there_is_no_descriptor_left(
    shared: socket.socket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are accepted once descriptors are free again, and the log says why they had to wait."""
    monkeypatch.setattr(listener, "PAUSE", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    [balance] = balances(1)
    with clients(shared, 1) as waiting:
        process = Process(shared, balance, b"a")
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest_descriptor(), hard))
        said = ""
        try:
            with contextlib.ExitStack() as taken:
                with contextlib.suppress(OSError):
                    while True:  # gaps below the highest one
                        taken.callback(os.close, os.dup(0))
                while "no room for another connection" not in said:
                    await asyncio.sleep(0)
                    captured = capfd.readouterr()
                    said += captured.out + captured.err
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "Too many open files" in said
        assert await names(waiting) == [b"a"]
        process.listener.close()


async def test_no_connection_is_accepted_after_the_close(shared: socket.socket) -> None:
    """They wait for another process."""
    with clients(shared, 3) as waiting:
        closed, other = balances(2)
        Process(shared, closed, b"a").listener.close()
        closed.leave()
        process = Process(shared, other, b"b")
        assert await names(waiting) == [b"b"] * 3
        process.listener.close()


def test_a_worker_keeps_its_number_however_many_others_come_and_go() -> None:
    """A worker that was started later never writes to the number of one that still runs."""
    balance = Balance()
    balance.add(1)
    balance.write(CLIENTS)
    for worker in range(2, 200):
        balance.add(worker)
        balance.write(0)
        balance.remove(worker)
    balance.add(200)
    balance.write(CLIENTS + SLACK)
    assert not balance.is_ahead()
    balance.write(CLIENTS + SLACK + 1)
    assert balance.is_ahead()


async def test_a_connection_that_is_accepted_as_the_server_stops_gets_its_response(
    shared: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request has arrived, but the connection has no protocol yet."""
    app, loop = Echo(), asyncio.get_running_loop()
    server = HttpServer(cast("App", app), Balance())
    served: asyncio.Future[int] = loop.create_future()
    make_task = loop.create_task

    async def stop() -> None:
        await server.drain(60)
        served.set_result(len(app.seen))

    def begin(accepted: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        monkeypatch.undo()
        app.draining = True
        stopping.append(make_task(stop()))
        return make_task(accepted)

    stopping: list[asyncio.Task[None]] = []
    with clients(shared, 1) as [client]:
        client.sendall(GET)
        monkeypatch.setattr(loop, "create_task", begin)
        server.listen(shared.dup(), None)
        assert await served == 1
        assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200 OK\r\n")
