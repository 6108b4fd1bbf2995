"""What the database guarantees: shared transactions, snapshots, several processes, and upgrades of the tables."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import pysqlite3.dbapi2 as sqlite
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from polly_dockers import db
from polly_dockers.db import migrate
from polly_dockers.db.schema import metadata, throttles
from polly_dockers.db.sqlite import FILE, Database, open_engine
from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.system import locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

SECONDS = 60.0
"""After which what should have happened has failed its test."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tables of this version, made once."""
    folder = tmp_path_factory.mktemp("template")
    assert migrate.upgrade(folder) is None
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A data folder."""
    return shutil.copytree(template, tmp_path / "data")


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    """A database, open."""
    opened = Database(folder)
    yield opened
    opened.close()


def add(connection: Connection, key: str) -> str:
    """Insert a row; returns its key."""
    connection.execute(insert(throttles), {"key": key, "failures": 1, "since": 1})
    return key


def keys(connection: Connection) -> list[str]:
    """Return the keys of all rows."""
    return list(connection.execute(select(throttles.c.key).order_by(throttles.c.key)).scalars())


def add_and_fail(connection: Connection, key: str) -> None:
    """Insert a row, and fail."""
    add(connection, key)
    raise ZeroDivisionError


async def test_a_write_is_read(database: Database) -> None:
    """What a write returns comes back, and the next read sees it."""
    assert await database.write(add, "a") == "a"
    assert await database.read(keys) == ["a"]


async def test_one_failing_caller(database: Database) -> None:
    """If one of many calls fails, it changes nothing and its caller gets the error; the others succeed."""
    calls = [database.write(add_and_fail if number == 7 else add, f"{number:02}") for number in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[7], ZeroDivisionError)
    good = [f"{number:02}" for number in range(20) if number != 7]
    assert [answer for number, answer in enumerate(answers) if number != 7] == good
    assert await database.read(keys) == good


async def test_a_constraint_fails_one_caller(database: Database) -> None:
    """If a call breaks a constraint, its caller gets IntegrityError, and the other calls go on."""
    answers = await asyncio.gather(*(database.write(add, key) for key in ("a", "b", "a", "c")), return_exceptions=True)
    assert isinstance(answers[2], IntegrityError)
    assert await database.read(keys) == ["a", "b", "c"]


async def test_an_error_tells_no_values(database: Database) -> None:
    """The error does not contain the values of the row, because it is written to the log (security 17)."""
    await database.write(add, "a secret")
    with pytest.raises(IntegrityError) as caught:
        await database.write(add, "a secret")
    assert "a secret" not in str(caught.value)


async def test_many_callers_share_a_commit(database: Database) -> None:
    """Calls that wait at the same time share a transaction."""
    statements: list[str] = []

    def watch(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(statements.append)

    await database.write(watch)
    await asyncio.gather(*(database.write(add, f"{number:03}") for number in range(100)))
    assert len(await database.read(keys)) == 100
    begun = statements.count("BEGIN IMMEDIATE")
    assert 0 < begun <= statements.count("COMMIT") < 50


async def test_a_transaction_ends_after_some_work(folder: Path) -> None:
    """Long calls do not share one transaction, so each caller gets its result as soon as its changes are committed."""
    seconds, spent, statements = [0.0], db.sqlite.TRANSACTION_SECONDS * 0.4, list[str]()
    database = Database(folder, timer=lambda: seconds[0])
    begun, held = threading.Event(), threading.Event()

    def begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(statements.append)
        begun.set()
        held.wait(SECONDS)

    def work(connection: Connection, key: str) -> str:
        seconds[0] += spent
        if key == "3":
            raise ZeroDivisionError
        return add(connection, key)

    first = asyncio.create_task(database.write(begin))
    assert await asyncio.to_thread(begun.wait, SECONDS)
    calls = [asyncio.create_task(database.write(work, str(number))) for number in range(8)]
    await asyncio.sleep(0)
    held.set()
    results = await asyncio.gather(first, *calls, return_exceptions=True)
    assert [each for each in results if not isinstance(each, ZeroDivisionError)] == [None, *"0124567"]
    assert await database.read(keys) == list("0124567")
    assert [statements.count(each) for each in ("BEGIN IMMEDIATE", "COMMIT")] == [3, 4], "three, three, and two calls"
    database.close()


async def test_a_transaction_runs_at_least_one_call(folder: Path) -> None:
    """A long call has a transaction of its own, and all calls get their turn."""
    database = Database(folder, timer=itertools.count(step=db.sqlite.TRANSACTION_SECONDS).__next__)
    calls = (database.write(add, f"{number}") for number in range(5))
    assert await asyncio.gather(*calls) == list("01234")
    database.close()


async def test_a_read_is_a_snapshot(folder: Path, database: Database) -> None:
    """A read does not see what another connection commits meanwhile, and the next read does."""

    def look_twice(connection: Connection) -> tuple[list[str], list[str]]:
        before = keys(connection)
        with open_engine(folder / FILE).connect() as other:
            add(other, "meanwhile")
        return before, keys(connection)

    await database.write(add, "a")
    assert await database.read(look_twice) == (["a"], ["a"])
    assert await database.read(keys) == ["a"], "all reads of one turn of the loop see the same"
    await asyncio.sleep(0)
    assert await database.read(keys) == ["a", "meanwhile"]


async def test_a_read_that_fails_ends_its_snapshot(database: Database) -> None:
    """After an error in a read the next one sees what was written since."""

    def fail(connection: Connection) -> None:
        keys(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.read(fail)
    await database.write(add, "a")
    assert await database.read(keys) == ["a"]


async def test_foreign_keys_and_durability(database: Database) -> None:
    """Every connection is set up: WAL, synchronous FULL, foreign keys."""

    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in names]

    assert await database.read(pragmas) == ["wal", 2, 1]
    assert await database.write(pragmas) == ["wal", 2, 1]


async def test_a_disk_that_is_full(database: Database) -> None:
    """Writers get StorageFull, and nothing changes. Reads still work, and writes do once there is room."""

    def limit(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def fill(connection: Connection) -> None:
        for number in range(20):
            add(connection, f"{number}" + "x" * 100_000)

    await database.write(limit, 1)
    with pytest.raises(StorageFull):
        await database.write(fill)
    assert await database.read(keys) == []
    await database.write(limit, 1 << 30)
    await database.write(fill)
    assert len(await database.read(keys)) == 20


async def test_closing_finishes_what_waits(folder: Path) -> None:
    """A write that was submitted before close is carried out."""
    database = Database(folder)
    waiting = [asyncio.ensure_future(database.write(add, f"{number}")) for number in range(5)]
    await asyncio.sleep(0)
    database.close()
    assert await asyncio.gather(*waiting) == ["0", "1", "2", "3", "4"]


def failures(connection: Connection) -> dict[str, int]:
    """Every row with its number."""
    return {row.key: row.failures for row in connection.execute(select(throttles))}


WRITER = """
import asyncio, sys
from pathlib import Path
from polly_dockers.db.sqlite import Database
from sqlalchemy import text

async def write(folder, name):
    database = Database(Path(folder))
    def add(connection, key):
        connection.execute(text("INSERT INTO throttles VALUES (:key, 1, 1)"), {"key": key})
        connection.execute(text("UPDATE throttles SET failures = failures + 1 WHERE key = 'shared'"))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(100):
        await asyncio.gather(*(database.write(add, f"{name}-{number}-{at}") for at in range(3)))
    database.close()

asyncio.run(write(*sys.argv[1:]))
"""


async def test_several_processes_write_at_once(folder: Path, database: Database) -> None:
    """Three processes write 300 rows each: no process finds the database locked, and no write is lost."""
    await database.write(add, "shared")
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(
                subprocess.Popen(  # noqa: ASYNC220 - nothing else runs
                    [sys.executable, "-c", WRITER, str(folder), name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for name in "abc"
        ]
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("go\n")
            other.stdin.flush()
        for other in others:
            _, err = await asyncio.to_thread(other.communicate)
            assert (other.returncode, err) == (0, "")
    found = await database.read(failures)
    assert len(found) == 901
    assert found["shared"] == 901


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 51, 2)])
def test_an_old_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...]) -> None:
    """An SQLite version that could lose rows is refused, with the version that is needed; no file is created."""
    monkeypatch.setattr(sqlite, "sqlite_version_info", version)
    monkeypatch.setattr(sqlite, "sqlite_version", ".".join(map(str, version)))
    with pytest.raises(Unavailable, match=r"(?s)3\.51\.3 or newer.*pip install"):
        open_engine(tmp_path / FILE)
    assert list(tmp_path.iterdir()) == []


def test_the_safe_library_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first SQLite version that is safe is accepted."""
    monkeypatch.setattr(sqlite, "sqlite_version_info", (3, 51, 3))
    db.sqlite.check_library()


def test_who_was_invited_by_a_password_waits_for_a_code(tmp_path: Path) -> None:
    """35: after an upgrade they are listed as invited and are not members; members stay."""
    opened = open_engine(tmp_path / FILE)
    with opened.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(migrate._config(connection), "0001")
        for statement in (
            "INSERT INTO organisations (id, slug, created_at) VALUES (1, 'acme', 1)",
            "INSERT INTO users (id, email, password_hash, created_at) VALUES (1, 'a@x.example', '!', 1)",
            "INSERT INTO users (id, email, password_hash, created_at) VALUES (2, 'b@x.example', '!', 1)",
            "INSERT INTO members VALUES (1, 1, 3, 5, NULL), (1, 2, 2, 7, 'a hash')",
        ):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("COMMIT")
    assert migrate.upgrade(tmp_path) == "0001"
    with opened.connect() as connection:
        assert connection.execute(text("SELECT * FROM members")).all() == [(1, 1, 3, 5)]
        columns = "organisation_id, email, role, created_at, length(code_hash)"
        assert connection.execute(text(f"SELECT {columns} FROM invitations")).all() == [(1, "b@x.example", 2, 7, 32)]  # noqa: S608
    opened.dispose()


def test_the_migrations_make_the_tables(folder: Path) -> None:
    """The migrations make the same tables as db.schema, with every column, index and constraint."""
    opened = open_engine(folder / FILE)
    with opened.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        made = {name: " ".join(sql.split()) for name, sql in connection.execute(text(TABLES))}
    opened.dispose()
    assert set(made) == {table.name for table in metadata.tables.values()} | {"alembic_version"}
    autoincrement = {name for name, sql in made.items() if "AUTOINCREMENT" in sql}
    assert autoincrement == {
        table.name for table in metadata.tables.values() if table.dialect_options["sqlite"]["autoincrement"]
    }


TABLES = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


def test_an_upgrade_of_what_is_current(folder: Path) -> None:
    """A second upgrade changes nothing and returns the revision."""
    before = dump(folder)
    first = migrate.upgrade(folder)
    assert first is not None
    assert migrate.upgrade(folder) == first
    assert dump(folder) == before


def dump(folder: Path) -> dict[str, list[object]]:
    """The whole database: its schema, and the rows of every table."""
    connection = sqlite.connect(folder / FILE)
    try:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        tables = [name for kind, name, _ in schema if kind == "table"]
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608
        return {"the schema": schema, **rows}
    finally:
        connection.close()


def test_a_newer_version_is_refused(folder: Path) -> None:
    """The message says that the data folder is of a newer version and what to do, and nothing is changed."""
    connection = sqlite.connect(folder / FILE)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    before = dump(folder)
    with pytest.raises(
        Unavailable, match=r"newer version of polly-server \(revision 9999\)\. Install the newer version"
    ):
        migrate.upgrade(folder)
    assert dump(folder) == before


def test_upgrades_at_once(tmp_path: Path) -> None:
    """If four processes start on an empty folder, the tables are created once."""
    code = (
        "import sys; from pathlib import Path; from polly_dockers.db import migrate; migrate.upgrade(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) for _ in range(4)]
        for other in others:
            _, err = other.communicate()
            assert (other.returncode, err) == (0, "")
    assert migrate.upgrade(tmp_path) is not None


async def test_a_write_has_a_deadline(folder: Path) -> None:
    """37: while another process locks the database, a write fails in time, and says that it may still take place."""
    database = Database(folder, write_seconds=0.2)
    with (folder / "writer.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with asyncio.timeout(SECONDS):
            begun = asyncio.create_task(database.write(add, "begun"))
            with pytest.raises(Unavailable, match="may still be made"):
                await begun
            with pytest.raises(Unavailable, match="may still be made"):
                await database.write(add, "not begun")
    assert await database.write(add, "after") == "after"
    assert await database.read(keys) == ["after", "begun"]  # a write that did not begin in time never takes place
    database.close()


async def test_what_waits_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """42: while the database hangs, a limited number of calls wait, whether their callers are gone or not."""
    monkeypatch.setattr(db.sqlite, "WAITING", 3)
    database, begun, held = Database(folder), threading.Event(), threading.Event()

    def hang(_connection: Connection) -> bool:
        begun.set()
        return held.wait(SECONDS)

    hanging = asyncio.create_task(database.write(hang))
    assert await asyncio.to_thread(begun.wait, SECONDS)
    waiting = [asyncio.create_task(database.write(add, str(number))) for number in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(Unavailable, match="busy"):
        await database.write(add, "more")
    held.set()
    await asyncio.gather(hanging, *waiting, return_exceptions=True)
    assert await database.write(add, "later") == "later"
    assert "more" not in await database.read(keys)
    database.close()


async def told(reasons: asyncio.Queue[str]) -> str:
    """The reason why the writer cannot go on; fails if it was not reported."""
    async with asyncio.timeout(SECONDS):
        return await reasons.get()


async def test_a_writer_that_cannot_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """37: if the database cannot be opened again, the writer reports it, and no write waits for ever."""
    database, loop = Database(folder), asyncio.get_running_loop()
    reasons: asyncio.Queue[str] = asyncio.Queue()
    database.broken = lambda reason: loop.call_soon_threadsafe(reasons.put_nowait, reason)
    opened = database._engine

    def fail_for_good(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute("ROLLBACK")
        driver.execute("BEGIN")  # as after a rollback that failed: the transaction is still there at the end
        monkeypatch.setattr(opened, "connect", no_disk)
        monkeypatch.setattr(db.sqlite, "_transaction", lambda _driver: contextlib.nullcontext())
        raise ZeroDivisionError

    def no_disk() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(db.sqlite, "_transaction", lambda _driver: contextlib.nullcontext(_driver.execute("BEGIN")))
    calls = [database.write(fail_for_good), *(database.write(add, str(number)) for number in range(300))]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, (Unavailable, StorageFull, ZeroDivisionError)) for answer in answers[257:])
    assert not any("did not answer" in str(answer) for answer in answers)
    assert "Input/output error" in await told(reasons)
    with pytest.raises(Unavailable, match="ends"):
        await database.write(add, "later")
    database.close()


async def test_a_lock_that_cannot_be_released(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """37: if a process cannot release the lock that others wait for, it stops writing and reports it."""
    database, loop = Database(folder), asyncio.get_running_loop()
    reasons: asyncio.Queue[str] = asyncio.Queue()
    database.broken = lambda reason: loop.call_soon_threadsafe(reasons.put_nowait, reason)

    def flock(fd: int, what: int) -> None:
        if what == fcntl.LOCK_UN:
            raise OSError(errno.EIO, "Input/output error")
        fcntl.flock(fd, what)

    monkeypatch.setattr(locks, "fcntl", types.SimpleNamespace(**vars(fcntl) | {"flock": flock}))
    monkeypatch.setattr(database, "_lock_file", folder / "gone" / "writer.lock")
    with pytest.raises(Unavailable, match="Look whether"):
        await database.write(add, "a")
    assert "can't be released" in await told(reasons)
    assert await database.read(keys) == ["a"]
    database.close()


@pytest.mark.parametrize("name", ["p%20q", "q?mode=memory", "a#b", "späte", "a b", "100%", "file:x", "a;b'c"])
async def test_any_name_of_a_data_folder(template: Path, tmp_path: Path, name: str) -> None:
    """The database in that folder is opened, even if the folder's name has a special meaning in a URL."""
    shutil.copytree(template, tmp_path / name)
    database = Database(tmp_path / name)
    await database.write(add, name)
    database.close()
    with contextlib.closing(sqlite.connect(tmp_path / name / FILE)) as found:
        assert found.execute("SELECT key FROM throttles").fetchall() == [(name,)]
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - no disk is waited for here
