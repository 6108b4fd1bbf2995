"""A listening socket that several worker processes share: each accepts as many connections as the others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from polly_dockers.system.balance import Balance

log: Final = structlog.get_logger("polly.worker")

BACKLOG: Final = 4096
TLS_CLOSE_SECONDS: Final = 3.0
"""Seconds that a client has to finish its TLS connection when the server closes it."""
SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accept(2) fails with if the process or the machine has no room for another connection."""
PAUSE: Final = 1.0
"""Seconds without new connections after that."""
PATIENCE: Final = 0.001
"""Seconds that a connection waits for a process that has fewer of them. That process may be busy, or hang."""


class Listener:
    """Accepts connections, one in a turn of the loop, and leaves them to processes that have fewer.

    ``loop.create_server`` accepts all that wait at once. If many clients connect at the same time, most of them then
    reach the process that is first, while the others have nothing to do.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        make: Callable[[], asyncio.Protocol],
        balance: Balance,
        count: Callable[[], None],
    ) -> None:
        """``context`` is for TLS. ``make`` makes the protocol of a connection.

        ``balance`` knows whether another process has fewer connections. ``count`` writes to it how many this one has.
        """
        self._socket = listener
        self._context = context
        self._make = make
        self._balance = balance
        self._count = count
        self._loop = asyncio.get_running_loop()
        self.beginning: set[asyncio.Task[None]] = set()
        """Connections that are accepted, and have no protocol yet, as during a TLS handshake."""
        self._resume: asyncio.TimerHandle | None = None
        listener.settimeout(0)
        listener.listen(BACKLOG)
        self._loop.add_reader(listener, self._offer)

    def _offer(self) -> None:
        """A connection waits: accept it, or leave it to another process for a moment."""
        if self._balance.is_ahead():
            self._pause(PATIENCE)
        else:
            self._accept()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket)
        self._resume = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._loop.add_reader(self._socket, self._offer)
        self._accept()

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process has taken it, or the client is gone
        except OSError as error:
            if error.errno not in SHORT:
                raise
            self._pause(PAUSE)
            log.warning("no room for another connection", error=error.strerror, seconds=PAUSE)
            return
        accepted.settimeout(0)
        task = self._loop.create_task(self._begin(accepted))
        self.beginning.add(task)
        task.add_done_callback(self._has_begun)
        self._count()

    def _has_begun(self, task: asyncio.Task[None]) -> None:
        self.beginning.discard(task)
        self._count()

    async def _begin(self, accepted: socket.socket) -> None:
        """Give a connection to its protocol, after the TLS handshake if there is one."""
        seconds = None if self._context is None else TLS_CLOSE_SECONDS
        with contextlib.suppress(OSError):  # the client is gone, or the handshake has failed
            await self._loop.connect_accepted_socket(
                self._make, accepted, ssl=self._context, ssl_shutdown_timeout=seconds
            )

    def close(self) -> None:
        """Accept no more. Connections whose TLS handshake is under way still get their protocol."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
