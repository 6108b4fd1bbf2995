"""A worker process: its own event loop, connections and threads, on the sockets that gunicorn hands it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import functools
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
import uvloop
from aiohttp import web
from gunicorn.workers import base
from gunicorn.workers.base import Worker
from gunicorn.workers.workertmp import WorkerTmp

from polly_dockers.db.sqlite import ERRORS
from polly_dockers.errors import PollyError, StorageFull, Unavailable
from polly_dockers.maintenance.garbage import Collector
from polly_dockers.registry import audit, retention
from polly_dockers.registry.history import fold
from polly_dockers.server.data_folder import open_registry, retire_keys
from polly_dockers.server.supervisor import leave
from polly_dockers.system.log_writer import STDERR
from polly_dockers.web.app import App, MetricsApp
from polly_dockers.web.connection import HttpServer, bound_unread
from polly_dockers.web.metrics import Collected, Counts, Times

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from polly_dockers.config import Config
    from polly_dockers.context import Context
    from polly_dockers.maintenance.garbage import Report

log: Final = structlog.get_logger("polly.worker")

COUNT_EVERY: Final = 1.0
"""Seconds between two writings of what this process has counted."""
LAG_EVERY: Final = 0.1
"""Seconds between two looks at how late the loop is."""
SETTLE_EVERY: Final = 2.0
"""Seconds between two writings of what the audit log still lacks, and of what was pulled."""
FAULT_SECONDS: Final = 10
"""How long requests in flight may take to end where the process can't write any more: the next one waits for it."""
RETIRE_EVERY: Final = 600.0
"""Seconds between two looks for signing keys that nothing needs any more."""
FOLD_EVERY: Final = 5.0
"""Seconds between two foldings of what pushes added to totals."""


_PDEATHSIG: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
ENDINGS: Final = (signal.SIGTERM, signal.SIGQUIT)
"""Signals that end a process of the server."""


def die_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that forked it ends: nobody else would free the port."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)


def hold_endings() -> None:
    """From now on, ENDINGS wait in a forked process until it is a worker.

    Up to there it has the handlers of the process that forked it: one that came was noted where nobody looked, and the
    worker went on until it was killed.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)  # where this process was forked so itself
    held: list[set[signal.Signals]] = []
    os.register_at_fork(
        before=lambda: held.append(cast("set[signal.Signals]", signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS))),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, held.pop()),
    )


class _Heartbeat(WorkerTmp):  # type: ignore[misc]
    """How a worker tells gunicorn that it lives: a file in memory, as there may be no folder for temporary files."""

    def __init__(self, _cfg: object) -> None:
        self._tmp = os.fdopen(os.memfd_create("polly-heartbeat"), "w+b", 0)


base.WorkerTmp = _Heartbeat


class PollyWorker(Worker):  # type: ignore[misc]
    """Serves until gunicorn says to stop, then lets the requests in flight end."""

    def run(self) -> None:
        """Called by gunicorn after the fork."""
        self.booted = False
        self.fault = ""
        self.hurry = asyncio.Event()
        die_with_parent()
        STDERR.start()
        try:
            uvloop.run(self._run())
        except Exception as error:
            if self.booted or not self.app.restarts.replaces(self.age):
                raise  # the first workers: gunicorn ends the server where these can't start
            log.exception("a worker process can't start")
            raise SystemExit(1) from error
        if self.fault:
            leave(1)
        self.app.restarts.ended_well(os.getpid())
        leave(0)

    def init_signals(self) -> None:
        """Nothing yet: the loop takes the signals when it runs."""
        for name in ("QUIT", "TERM", "USR1", "USR2", "WINCH", "ABRT", "CHLD"):
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
        for name in ("INT", "HUP", "USR2", "TTIN", "TTOU"):  # a terminal's are for the supervisor to act on
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGQUIT, self._end_now, stop)
        loop.add_signal_handler(signal.SIGHUP, self._renew)
        loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)
        config: Config = self.app.settings
        if not await self._wait(self.app.restarts.delay, stop):
            return
        context = await open_registry(config)
        context.database.broken = lambda reason: loop.call_soon_threadsafe(self._broken, stop, reason)
        counts = Counts(self.app.metrics_folder, config.data)
        context.database.on_transaction = counts.transactions.record
        apps = App(context, counts), MetricsApp(context, counts)
        servers, runners = await self._listen(apps)
        self.booted = True
        regular: list[tuple[float, str, Callable[[], Awaitable[None] | None]]] = [
            (FOLD_EVERY, "totals", functools.partial(fold, context)),
            (COUNT_EVERY, "counts for /metrics", counts.write),
            (SETTLE_EVERY, "the audit log", functools.partial(audit.settle, context)),
            (RETIRE_EVERY, "signing keys", functools.partial(retire_keys, context)),
            (SETTLE_EVERY, "last pulls", functools.partial(retention.record_pulls, context)),
        ]
        background = [
            *(asyncio.create_task(_now_and_then(every, context, what, work)) for every, what, work in regular),
            asyncio.create_task(_feel_lag(counts.lag)),
            *([asyncio.create_task(_collect(context, counts))] if config.collect_seconds else []),
        ]
        loop.call_soon(self._beat, loop, stop)
        try:
            await stop.wait()
        finally:
            for task in background:
                task.cancel()
            for app in apps:
                app.draining = True
            await self._drain(servers, runners)
            for app in apps:
                app.flush()
            with contextlib.suppress(PollyError):
                await audit.settle(context, everything=True)
            with contextlib.suppress(PollyError):
                await retention.record_pulls(context)
            with contextlib.suppress(OSError):
                counts.write()
            with contextlib.suppress(*(ERRORS if self.fault else ())):
                context.close()

    async def _listen(self, apps: Sequence[App]) -> tuple[list[HttpServer], list[web.ServerRunner]]:
        """Serve the first app on the main socket and the second on the metrics socket, if there is one."""
        servers = [HttpServer(app) for app in apps]
        runners = [web.ServerRunner(server, shutdown_timeout=1.0) for server in servers]
        for runner in runners:
            await runner.setup()
        for listener in self.sockets:
            metrics = listener.sock.getsockname() == self.app.metrics_name
            certificates = self.app.certificates if not metrics else None
            context = certificates.context() if certificates is not None else None
            bound_unread(listener.sock, self.app.settings.stalled_seconds)
            await web.SockSite(runners[metrics], listener.sock, ssl_context=context, backlog=4096).start()
        return servers, runners

    async def _drain(self, servers: Sequence[HttpServer], runners: Sequence[web.ServerRunner]) -> None:
        """Stop listening, and let the requests in flight end."""
        for runner in runners:
            for listening in list(runner.sites):
                await listening.stop()
        seconds = self.app.settings.graceful_seconds
        seconds = min(FAULT_SECONDS, seconds) if self.fault else seconds
        drained = asyncio.gather(*(server.drain(seconds) for server in servers))
        waiting: list[asyncio.Future[Any]] = [drained, asyncio.create_task(self.hurry.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        for runner in runners:
            await runner.cleanup()

    async def _wait(self, seconds: float, stop: asyncio.Event) -> bool:
        """Wait before serving, where the workers before this one ended soon; False where the server ends meanwhile."""
        clock = asyncio.get_running_loop().time
        due = clock() + seconds
        while (left := due - clock()) > 0:
            self.notify()
            if self.ppid != os.getppid():
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(left, 1.0))
            if stop.is_set():
                return False
        return True

    def _end_now(self, stop: asyncio.Event) -> None:
        """End without waiting for requests in flight."""
        self.hurry.set()
        stop.set()

    def _renew(self) -> None:
        """Show the certificate that the supervisor read last to whoever connects from now on."""
        if self.app.certificates is not None:
            self.app.certificates.refresh()

    def _broken(self, stop: asyncio.Event, reason: str) -> None:
        """End this process, which can't write to its database any more; gunicorn starts another."""
        self.fault = reason
        log.critical("this process can't write to the database any more, and ends", reason=reason)
        stop.set()

    def _beat(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        """Tell gunicorn that this process lives; stop where gunicorn does not."""
        self.notify()
        if self.ppid != os.getppid():
            stop.set()
        elif not loop.is_closed():
            loop.call_later(1.0, self._beat, loop, stop)


async def _feel_lag(lag: Times) -> None:
    """Note how much later than asked for the loop comes back."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LAG_EVERY
        await asyncio.sleep(LAG_EVERY)
        lag.record(max(0.0, clock() - due))


async def _collect(context: Context, counts: Counts) -> None:
    """Collect garbage now and then, a fifth of the time at most; one process of all does it."""
    every = context.config.collect_seconds
    while True:
        await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311 - so that processes take turns
        try:
            report = await Collector(context, pace=4.0, thorough=False).run()
        except Exception:
            log.exception("the collection of garbage failed; the next goes on")
            continue
        if report is not None:
            counts.collected = _sum(counts.collected, report)
            if report.files or report.uploads or report.purged or report.expired:
                log.info("collected garbage", **dataclasses.asdict(report))


def _sum(before: Collected, report: Report) -> Collected:
    return Collected(
        runs=before.runs + 1,
        blobs=before.blobs + report.files,
        bytes=before.bytes + report.freed,
        uploads=before.uploads + report.uploads,
        purged=before.purged + report.purged,
        expired=before.expired + report.expired,
        at=time.time(),
        waiting=report.waiting,
    )


async def _now_and_then(
    seconds: float, context: Context, what: str, work: Callable[[], Awaitable[None] | None]
) -> None:
    """Do some work again and again; a failure is for the log, and for the next time."""
    while True:
        await asyncio.sleep(seconds)
        try:
            done = work()
            if done is not None:
                await done
        except (StorageFull, Unavailable) as error:
            context.warn(what, error)
        except OSError as error:
            context.warn(what, Unavailable(error.strerror or str(error)))
        except Exception:
            log.exception("background work failed")
