"""The two ways to the database on SQLite: ``read`` runs inline, ``write`` goes through one thread for all callers.

A read takes 20 to 70 µs. So it runs on the event loop, on a connection that stays open and inside one snapshot.

All writes of a process go to one thread. It takes everything that waits and runs it in one ``BEGIN IMMEDIATE``, with a
savepoint for each caller. After TRANSACTION_SECONDS of work, the rest goes into the next transaction. It appends their
records to the journal (``journal.frames``) and answers after the transaction: two syncs for many pushes. Processes that
share the file queue on an ``flock`` before they begin. The kernel then wakes the next one at once, where SQLite's busy
handler polls.

A writer that cannot go on has a broken connection and can open no other, or cannot release its lock. It answers all
who wait, refuses all who come later, and calls ``Database.broken`` once: the process must end then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar, cast
from urllib.parse import quote

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import URL, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from polly_dockers.db import disk_errors
from polly_dockers.db.journal import records
from polly_dockers.db.journal.frames import Journal
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.system import locks, ownership, regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from polly_dockers.db.journal.records import Record

P = ParamSpec("P")
T = TypeVar("T")

FILE: Final = "polly.db"
WRITER_LOCK: Final = "writer.lock"
"""The lock file of a data folder that the writers of all processes queue on."""
SERVER_LOCK: Final = "server.lock"
"""The lock file of a data folder that each server shares, and that an upgrade of the tables locks exclusively."""

ERRORS: Final = (OSError, DBAPIError, sqlite.Error, UnicodeDecodeError)
"""What opening and using the file may raise if the file or its disk has a problem."""

SAFE_SQLITE: Final = (3, 51, 3)
"""Older versions can corrupt a WAL database with several connections ("WAL-reset bug", sqlite.org/wal.html)."""

BATCH: Final = 256
"""The most callers of one transaction."""

TRANSACTION_SECONDS: Final = 0.2
"""After this many seconds of work a transaction takes no more callers. So those who were first have their answers, and
the other processes their turn."""

WRITE_SECONDS: Final = 30.0
"""Seconds that a caller waits for its write. After that the change may still be made."""
WAITING: Final = 10_000
"""The most calls that wait for the writer of a process. If the disk hangs, further calls are refused at once."""
CLOSE_SECONDS: Final = 10.0
"""Seconds that the end of a process waits for a writer whose disk hangs."""


def now() -> int:
    """The time of the database's clock in microseconds since 1970; for SQLite that is this machine's clock."""
    return time.time_ns() // 1000


def check_library() -> None:
    """Raise Unavailable if the SQLite library is one that can lose rows."""
    if sqlite.sqlite_version_info < SAFE_SQLITE:
        wanted = ".".join(map(str, SAFE_SQLITE))
        msg = (
            f"SQLite {sqlite.sqlite_version} can corrupt a database under several processes; {wanted} or newer is "
            "needed. Run:" + to_paste("pip install --upgrade 'pysqlite3>=0.6.1'")
        )
        raise Unavailable(msg)


def open_engine(path: Path) -> Engine:
    """An engine for the file, with durable WAL on each connection. Callers begin and end transactions themselves."""
    check_library()
    ownership.create(path)  # SQLite gives its WAL the mode of this file
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),  # in a URL the path would be decoded
        module=sqlite,
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "timeout": 30, "cached_statements": 512},
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver is untyped
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-16384",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def is_made(folder: Path) -> bool:
    """Whether a folder has a database. An empty file is none: a process has just made it, or ended there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return (folder / FILE).stat().st_size > 0
    return False


def is_backup(folder: Path) -> bool:
    """Whether the folder is a backup: its database needs no WAL, and it has no lock file of a data folder.

    A backup that an older version of polly-server looked at does not count as one until the next backup to it.
    """
    try:
        with os.fdopen(regular.open_file(folder / FILE), "rb") as file:
            head = file.read(20)
    except (FileNotFoundError, NotADirectoryError, regular.NotRegular):
        return False
    is_without_wal = head[18:] == b"\x01\x01"  # sqlite.org/fileformat.html, 1.3.3
    return is_without_wal and not any((folder / lock).exists() for lock in (WRITER_LOCK, SERVER_LOCK))


def open_unchanged(path: Path) -> Engine:
    """An engine that only reads a file that nobody writes to. It makes no file beside it, also on a read-only disk."""
    check_library()
    name = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro&immutable=1"
    return create_engine(
        "sqlite+pysqlite://",
        creator=lambda: sqlite.connect(name, uri=True, check_same_thread=False, cached_statements=512),
        module=sqlite,
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
    )


@contextlib.contextmanager
def connect(path: Path) -> Iterator[Connection]:
    """A connection to the file, for the block. The last one that is closed writes the WAL to the file."""
    engine = (open_unchanged if path.name == FILE and is_backup(path.parent) else open_engine)(path)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


class _WriterBrokenError(Exception):
    """The writer of this process cannot go on."""


def _stopped() -> Unavailable:
    msg = (
        "This process of the server can no longer write to its database, and ends. Look whether the change was made, "
        "then try again."
    )
    return Unavailable(msg)


class _Work:
    """One caller's function, and the future of its result."""

    __slots__ = ("error", "future", "late", "run", "value")

    def __init__(self, run: Callable[[Connection], object], future: asyncio.Future[Any]) -> None:
        self.run = run
        self.future = future
        self.value: object = None
        self.error: BaseException | None = None
        self.late = False
        """Its caller no longer waits, so the function is not run if it has not begun."""


class Database:
    """The database of a data folder. Each process opens its own after the fork, and closes it at its end."""

    only_read: bool = False
    """Whether ``write`` always raises."""

    def __init__(
        self, folder: Path, *, write_seconds: float = WRITE_SECONDS, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        """``write_seconds`` is how long a write may take, from the call to its result. ``timer`` measures work."""
        self.on_transaction: Callable[[float], None] = lambda _seconds: None
        """Called by the writer thread with the seconds that each transaction took, its sync included."""
        self.on_damage: Callable[[str], object] = lambda _reason: None
        """Called for each call that finds the file damaged, with what SQLite says; by the writer thread for a write."""
        self.broken: Callable[[str], object] = lambda _reason: None
        """Called once by the writer thread with the reason if it cannot go on. Later writes raise Unavailable."""
        self._write_seconds = write_seconds
        self._timer = timer
        self._stopped = threading.Event()
        self._engine = open_engine(folder / FILE)
        self._reader = self._engine.connect()
        self._driver: Any = self._reader.connection.driver_connection
        self._in_snapshot = False
        self._journal = Journal(folder)
        self._lock_file = folder / WRITER_LOCK
        self._lock = locks.open_file(self._lock_file)
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._writer = self._engine.connect()
        self._thread = threading.Thread(target=self._write_all, name="polly-writer", daemon=True)
        self._thread.start()

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(connection, …)``, which must not write, on the snapshot of this turn of the event loop.

        Raises what ``fn`` raises, and Unavailable or StorageFull for errors of the disk.
        """
        try:
            if not self._in_snapshot:
                self._begin()
            return fn(self._reader, *args, **kwargs)
        except ERRORS as error:
            raise self._reported(error) from error

    def _reported(self, error: BaseException) -> BaseException:
        """The error that callers get. If the database is damaged, ``on_damage`` is called."""
        told = disk_errors.reported(error)
        if isinstance(told, disk_errors.DamagedError):
            self.on_damage(told.reason)
        return told

    def _begin(self) -> None:
        """Begin the snapshot that all reads of this turn of the event loop share; it costs two locks of the file.

        Only tasks read. All requests that have tasks in a turn arrived before it began, so none is answered from rows
        that are older than it. What reads in ``data_received`` would break that: uvloop calls it between two turns.
        """
        self._driver.execute("BEGIN")
        self._in_snapshot = True
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        if self._in_snapshot:
            self._in_snapshot = False
            self._driver.rollback()  # nothing was written

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(connection, …)`` in a transaction; returns its result once the changes are on the disk.

        Raises what ``fn`` raises, and Unavailable or StorageFull for errors of the disk; then nothing was changed. Also
        raises Unavailable if it takes longer than ``write_seconds``, or if the disk fails while the change is stored;
        then the change may still be made, and the message says so. If WAITING calls wait already, it raises Unavailable
        at once.

        If the caller is cancelled while it waits, the change may or may not be made. Such a call counts as waiting
        until the writer reaches it.
        """
        if self._queue.qsize() >= WAITING:
            msg = "The database is busy; try again."
            raise Unavailable(msg)
        work = _Work(lambda connection: fn(connection, *args, **kwargs), asyncio.get_running_loop().create_future())
        self._queue.put(work)
        if self._stopped.is_set():  # the queue is no longer read
            work.future.cancel()
            raise _stopped()
        try:
            async with asyncio.timeout(self._write_seconds):
                return cast("T", await work.future)
        except TimeoutError:
            if not work.future.cancelled():  # it raised that itself, or its result came together with the deadline
                return cast("T", work.future.result())
            work.late = True
            msg = (
                f"The database did not answer within {self._write_seconds:g} seconds. The change may still be made: "
                "look whether it was, then try again."
            )
            raise Unavailable(msg) from None

    def close(self) -> bool:
        """Finish all waiting writes, then close the file. If the disk hangs, return False after CLOSE_SECONDS."""
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            return False
        self._end()
        self._reader.close()
        self._engine.dispose()
        self._journal.close()
        os.close(self._lock)
        return True

    def _write_all(self) -> None:
        """Run the writer thread until ``close``, or until it cannot go on."""
        batch: list[_Work] = []
        try:
            self._write_batches(batch)
        except BaseException as error:  # noqa: BLE001 - whatever it was, nobody writes from now on, and all have to know
            self._stopped.set()
            while not self._queue.empty():
                if (work := self._queue.get()) is not None:
                    batch.append(work)
            self._translate(batch)
            for work in batch:
                work.error = work.error or _stopped()
            if batch:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    batch[0].future.get_loop().call_soon_threadsafe(_send_results, batch)
            self.broken(f"{type(error).__name__}: {error}")

    def _write_batches(self, batch: list[_Work]) -> None:
        """Write batches of waiting calls until ``close``. ``batch`` holds the calls without a result."""
        connection = self._writer
        while self._fill(batch):
            if not batch:
                continue
            driver: Any = connection.connection.driver_connection
            done = self._transact(connection, driver, batch)
            self._translate(batch[:done])
            if driver.in_transaction:  # its rollback failed too: the disk is broken
                connection.invalidate()
                connection.close()
                connection = self._engine.connect()
            batch[0].future.get_loop().call_soon_threadsafe(_send_results, batch[:done])
            del batch[:done]
        connection.close()

    def _translate(self, batch: list[_Work]) -> None:
        """Give each call that failed the error that its caller gets."""
        for work in batch:
            if work.error is not None:
                work.error = self._reported(work.error)

    def _fill(self, batch: list[_Work]) -> bool:
        """Add waiting calls to the rest of a batch, after waiting for one if there is none. False after ``close``."""
        if not batch:
            if (first := self._queue.get()) is None:
                return False
            batch.append(first)
        while len(batch) < BATCH and not self._queue.empty():
            if (more := self._queue.get()) is None:
                self._queue.put(None)
                break
            batch.append(more)
        batch[:] = [work for work in batch if not work.late]
        return True

    def _transact(self, connection: Connection, driver: Any, batch: list[_Work]) -> int:  # noqa: ANN401 - untyped
        """Run calls in one transaction, for about TRANSACTION_SECONDS; returns how many have their results.

        If the transaction fails, all calls of the batch have.
        """
        started = self._timer()
        end, done, ending = None, 0, False
        pending = records.pending(connection)
        pending.clear()
        try:
            with self._alone():
                began = self._timer()
                try:
                    with _transaction(driver):
                        if len(batch) == 1:
                            batch[0].value = batch[0].run(connection)
                            done = 1
                        while done < len(batch) and (not done or self._timer() - began < TRANSACTION_SECONDS):
                            _run(connection, driver, batch[done], pending)
                            done += 1
                        if pending:
                            end = self._record(driver, pending)
                        ending = True
                except BaseException as error:
                    if end is not None:
                        self._journal.truncate(end)
                    if ending and disk_errors.is_unknown_outcome(error):
                        raise disk_errors.UnknownOutcomeError from error
                    raise
                _read_again(driver)
        except _WriterBrokenError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was, each caller is told
            for work in batch:
                work.error = error
            done = len(batch)
        self.on_transaction(self._timer() - started)
        return done

    def _record(self, driver: Any, pending: list[Record]) -> int:  # noqa: ANN401 - untyped
        """Append the records to the journal and sync it, before the transaction ends; see ``Journal.append``."""
        row = driver.execute("SELECT batch, since FROM journal").fetchone()
        previous, since = row if row is not None else (0, 0)
        number = max(previous + 1, now())
        if row is None:
            driver.execute("INSERT INTO journal (batch) VALUES (?)", (number,))
        else:
            driver.execute("UPDATE journal SET batch = ?", (number,))
        return self._journal.append(number, previous, pending, since)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock that the writers of all processes queue on."""
        locks.acquire(self._lock)
        try:
            yield
        finally:
            self._release_lock()

    def _release_lock(self) -> None:
        """Release the lock, or else close its file, which releases it too.

        Raises _WriterBrokenError if neither works: all processes would wait for this one, so it must end.
        """
        try:
            locks.release(self._lock)
        except OSError:
            try:
                again = locks.open_file(self._lock_file)
                os.dup2(again, self._lock, inheritable=False)
                os.close(again)
            except OSError as error:
                msg = f"the lock {self._lock_file} can't be released: {error.strerror}"
                raise _WriterBrokenError(msg) from error


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[Connection]:
    """A connection in a transaction, while no other process writes to the database of a data folder.

    The transaction ends with the block, unless the block has ended it. Nothing of it goes to the journal.
    """
    with locks.held(folder / WRITER_LOCK), connect(folder / FILE) as connection:
        driver = connection.connection.driver_connection
        with _transaction(driver):
            yield connection
        _read_again(driver)


@contextlib.contextmanager
def _transaction(driver: Any) -> Iterator[None]:  # noqa: ANN401 - untyped
    driver.execute("BEGIN IMMEDIATE")
    try:
        yield
        if driver.in_transaction:
            driver.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite.Error):  # on a full disk SQLite has rolled back already
            driver.execute("ROLLBACK")
        raise


def _read_again(driver: Any) -> None:  # noqa: ANN401 - untyped
    """Read after a commit: the first one who does writes to the file that readers share (sqlite.org/walformat.html).

    On an event loop, of this process or another, that would wait for a disk that hangs. An error is not reported: the
    change is stored.
    """
    with contextlib.suppress(Exception):
        driver.execute("SELECT batch FROM journal").fetchone()


def _run(connection: Connection, driver: Any, work: _Work, pending: list[Record]) -> None:  # noqa: ANN401 - untyped
    driver.execute("SAVEPOINT caller")
    before = len(pending)
    try:
        work.value = work.run(connection)
    except BaseException as error:  # noqa: BLE001 - it is the caller's, and is raised there
        work.error = error
        del pending[before:]
        try:
            driver.execute("ROLLBACK TO caller")
        except sqlite.Error:  # on a full disk SQLite has rolled back the whole batch
            raise error from None
    driver.execute("RELEASE caller")


def _send_results(batch: list[_Work]) -> None:
    for work in batch:
        if work.future.done():
            continue
        if work.error is None:
            work.future.set_result(work.value)
        else:
            work.future.set_exception(work.error)
