"""A worker process: it serves requests on the sockets that it inherits, and does the regular background work."""

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
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import structlog
import uvloop
from gunicorn.workers import base
from gunicorn.workers.base import Worker
from gunicorn.workers.workertmp import WorkerTmp

from polly_dockers.db.disk_errors import DamagedError
from polly_dockers.db.sqlite import ERRORS
from polly_dockers.errors import PollyError, StorageFull, Unavailable
from polly_dockers.maintenance.garbage import Collector
from polly_dockers.registry import audit, retention
from polly_dockers.registry.history import update_totals
from polly_dockers.server.data_folder import delete_outlived_keys, open_context
from polly_dockers.system import process
from polly_dockers.system.balance import Balance
from polly_dockers.system.log_writer import STDERR
from polly_dockers.web.app import App, MetricsApp
from polly_dockers.web.connection import HttpServer
from polly_dockers.web.metrics import CollectorTotals, Counts, Times

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from polly_dockers.config import Config
    from polly_dockers.context import Context
    from polly_dockers.maintenance.garbage import Report

log: Final = structlog.get_logger("polly.worker")

COUNT_EVERY: Final = 1.0
"""Seconds between two writes of this process's counts for /metrics."""
LAG_EVERY: Final = 0.1
"""Seconds between two measurements of how late the event loop runs."""
SETTLE_EVERY: Final = 2.0
"""Seconds between two writes of audit entries and of last pulls that wait in memory."""
FAULT_SECONDS: Final = 10
"""Seconds that requests may take to finish in a process that can't write any more: its replacement waits for it."""
LAST_SECONDS: Final = 10.0
"""Seconds for the last of these writes at the end of a process; the disk may hang."""
RETIRE_EVERY: Final = 600.0
"""Seconds between two deletions of signing keys that nothing needs any more."""
TOTALS_EVERY: Final = 5.0
"""Seconds between two additions of recent pushes to the totals."""

_PDEATHSIG: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGQUIT)
"""Signals that stop a process of the server."""


def die_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when its parent exits: otherwise it would keep the port."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)


def block_stop_signals() -> None:
    """From now on, a forked process receives STOP_SIGNALS only once it runs as a worker.

    Until then it has its parent's signal handlers, which would lose the signal: the worker would run until killed.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # in case this process was forked that way itself
    held: list[set[signal.Signals]] = []
    os.register_at_fork(
        before=lambda: held.append(cast("set[signal.Signals]", signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS))),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, held.pop()),
    )


class _Heartbeat(WorkerTmp):  # type: ignore[misc]
    """The file by which a worker shows gunicorn that it is alive. It is in memory: there may be no temporary folder."""

    def __init__(self, _cfg: object) -> None:
        self._tmp = os.fdopen(os.memfd_create("polly-heartbeat"), "w+b", 0)


base.WorkerTmp = _Heartbeat


class PollyWorker(Worker):  # type: ignore[misc]
    """Serves until it is told to stop, then finishes the requests in flight."""

    def run(self) -> None:
        """Serve, and exit the process. Gunicorn calls it after the fork."""
        self.booted = False
        self.fault = ""
        self.hurry = asyncio.Event()
        die_with_parent()
        STDERR.start()
        try:
            uvloop.run(self._run())
        except Exception as error:
            if self.booted or not self.app.restarts.replaces(self.age):
                raise  # if the first workers can't start, gunicorn shuts the server down
            log.exception("worker process failed to start")
            raise SystemExit(1) from error
        self._exit()

    def _exit(self) -> NoReturn:
        """Exit at once, whatever threads are left."""
        if self.fault:
            process.exit_now(1)
        self.app.restarts.exited_as_asked(os.getpid())
        process.exit_now(0)

    def init_signals(self) -> None:
        """Reset the signal handlers of the parent. The event loop sets its own when it runs."""
        for name in ("QUIT", "TERM", "USR1", "USR2", "WINCH", "ABRT", "CHLD"):
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
        for name in ("INT", "HUP", "USR2", "TTIN", "TTOU"):  # the supervisor acts on those of a terminal
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGQUIT, self._stop_now, stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_certificate)
        loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)
        config: Config = self.app.settings
        if not await self._wait(self.app.restarts.delay, stop):
            return
        context = await open_context(config)
        context.database.broken = lambda reason: loop.call_soon_threadsafe(self._fail, stop, reason)
        context.database.on_damage = context.log_damage
        counts = Counts(self.app.metrics_folder, config.data)
        context.database.on_transaction = counts.transactions.record
        apps = App(context, counts), MetricsApp(context, counts)
        servers = self._listen(apps)
        self.booted = True
        regular: list[tuple[float, str, Callable[[], Awaitable[None] | None]]] = [
            (TOTALS_EVERY, "totals", functools.partial(update_totals, context)),
            (COUNT_EVERY, "counts for /metrics", counts.write),
            (SETTLE_EVERY, "the audit log", functools.partial(audit.settle, context)),
            (RETIRE_EVERY, "signing keys", functools.partial(delete_outlived_keys, context)),
            (SETTLE_EVERY, "last pulls", functools.partial(retention.record_pulls, context)),
        ]
        background = [
            *(asyncio.create_task(_repeat(every, context, what, work)) for every, what, work in regular),
            asyncio.create_task(_measure_lag(counts.lag)),
            *([asyncio.create_task(_collect(context, counts))] if config.collect_seconds else []),
        ]
        loop.call_soon(self._heartbeat, loop, stop)
        try:
            await stop.wait()
        finally:
            for task in background:
                task.cancel()
            for app in apps:
                app.draining = True
            await self._drain(servers)
            for app in apps:
                app.flush()
            await _write_rest(context)
            with contextlib.suppress(OSError):
                counts.write()
            with contextlib.suppress(*(ERRORS if self.fault else ())):
                if not context.close():
                    log.warning(
                        "threads are still busy, as while a disk hangs; worker process exits without waiting for them"
                    )
                    self._exit()  # the loop would wait for requests that wait for these threads

    def _listen(self, apps: Sequence[App]) -> list[HttpServer]:
        """Serve the first app on the main socket and the second on the metrics socket, if there is one."""
        servers = [HttpServer(app, balance) for app, balance in zip(apps, (self.app.balance, Balance()), strict=True)]
        for listener in self.sockets:
            metrics = listener.sock.getsockname() == self.app.metrics_name
            certificates = self.app.certificates if not metrics else None
            servers[metrics].listen(listener.sock, certificates.context() if certificates is not None else None)
        return servers

    async def _drain(self, servers: Sequence[HttpServer]) -> None:
        """Stop listening, and wait for the requests in flight, for ``graceful_seconds`` at most."""
        seconds = self.app.settings.graceful_seconds
        seconds = min(FAULT_SECONDS, seconds) if self.fault else seconds
        drained = asyncio.gather(*(server.drain(seconds) for server in servers))
        waiting: list[asyncio.Future[Any]] = [drained, asyncio.create_task(self.hurry.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        for server in servers:
            await server.stop()

    async def _wait(self, seconds: float, stop: asyncio.Event) -> bool:
        """Wait before serving, after earlier workers crashed. False if the server shuts down meanwhile."""
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

    def _stop_now(self, stop: asyncio.Event) -> None:
        """Stop without waiting for the requests in flight."""
        self.hurry.set()
        stop.set()

    def _reload_certificate(self) -> None:
        """Use the certificate that the supervisor loaded last for new connections."""
        if self.app.certificates is not None:
            self.app.certificates.refresh()

    def _fail(self, stop: asyncio.Event, reason: str) -> None:
        """Stop this process, which can't write to its database any more. Gunicorn starts another."""
        self.fault = reason
        log.critical("worker process can't write to the database any more and exits", reason=reason)
        stop.set()

    def _heartbeat(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        """Show gunicorn that this process is alive, and stop if gunicorn is gone."""
        self.notify()
        if self.ppid != os.getppid():
            stop.set()
        elif not loop.is_closed():
            loop.call_later(1.0, self._heartbeat, loop, stop)


async def _write_rest(context: Context) -> None:
    """Write the audit entries and last pulls that wait in memory, for LAST_SECONDS at most. Log what is lost."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            with contextlib.suppress(PollyError):
                await audit.settle(context, everything=True)
            with contextlib.suppress(PollyError):
                await retention.record_pulls(context)
    if context.refused:
        log.warning("refused sign-ins may be missing from the audit log", entries=len(context.refused))


async def _measure_lag(lag: Times) -> None:
    """Record how much later than asked the event loop continues."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LAG_EVERY
        await asyncio.sleep(LAG_EVERY)
        lag.record(max(0.0, clock() - due))


async def _collect(context: Context, counts: Counts) -> None:
    """Collect garbage regularly, at most a fifth of the time. One process at a time does it."""
    every = context.config.collect_seconds
    while True:
        await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311 - so that processes take turns
        try:
            report = await Collector(context, pace=4.0, thorough=False).run()
        except DamagedError:  # Context.log_damage has logged it
            continue
        except Exception:
            log.exception("garbage collection failed; it is tried again later")
            continue
        if report is not None:
            counts.collected = _sum(counts.collected, report)
            if report.files or report.uploads or report.purged or report.expired:
                log.info("garbage collected", **dataclasses.asdict(report))


def _sum(before: CollectorTotals, report: Report) -> CollectorTotals:
    return CollectorTotals(
        runs=before.runs + 1,
        blobs=before.blobs + report.files,
        bytes=before.bytes + report.freed,
        uploads=before.uploads + report.uploads,
        purged=before.purged + report.purged,
        expired=before.expired + report.expired,
        at=time.time(),
        waiting=report.waiting,
    )


async def _repeat(seconds: float, context: Context, what: str, work: Callable[[], Awaitable[None] | None]) -> None:
    """Call ``work`` every so many seconds. A failure is logged, and the next call tries again."""
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
