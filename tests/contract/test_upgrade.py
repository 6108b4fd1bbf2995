"""Upgrades of data folders of earlier versions, with operations that were in progress there."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

from alembic import command
from pysqlite3 import dbapi2 as sqlite
from sqlalchemy import text

from polly_dockers.db import migrate
from polly_dockers.db.sqlite import FILE, open_engine
from polly_dockers.maintenance import rebuild
from support.registry_rows import fill, held
from support.server import polly_server, running_server
from support.wire_client import admin, image

if TYPE_CHECKING:
    from pathlib import Path

DELETED = 100
PURGED = """
INSERT INTO users (id, email, password_hash, created_at) VALUES (1, 'ann@acme.example', '!', 1);
INSERT INTO organisations (id, slug, created_at, deleted_at)
    VALUES (1, 'acme~1', 1, {deleted}), (2, 'demo~2', 1, {deleted});
INSERT INTO repositories (organisation_id, name, description, access, created_by, created_at, active_at, deleted_at)
    VALUES (1, 'begun', '', 'private', 1, 1, 1, {deleted} + 5),
           (2, 'back', '', 'private', 1, 1, 1, {deleted} - 5), (2, 'new', '', 'private', 1, 1, 1, NULL);
INSERT INTO trash (organisation_id, kind, name, tags, commits, size, deleted_at)
    VALUES (1, 'organisation', 'acme', '', 0, 0, {deleted}), (2, 'organisation', 'demo', '', 0, 0, {deleted})
"""


def of_revision_1(folder: Path) -> None:
    """Make an empty database as the first version made it."""
    opened = open_engine(folder / FILE)
    with opened.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(migrate._config(connection), "0001")
        connection.exec_driver_sql("COMMIT")
    opened.dispose()


def test_a_purge_that_an_older_version_began(tmp_path: Path) -> None:
    """36: it goes on. An organisation that was restored and deleted again since is kept for its full time."""
    of_revision_1(tmp_path)
    opened = open_engine(tmp_path / FILE)
    with opened.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        for statement in PURGED.format(deleted=DELETED).split(";"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("COMMIT")
    assert migrate.upgrade(tmp_path) == "0001"
    with opened.connect() as connection:
        found = connection.execute(text("SELECT name, purging_at FROM trash ORDER BY name")).all()
    opened.dispose()
    assert found == [("acme", DELETED), ("demo", None)]


def columns(connection: sqlite.Connection, schema: str) -> dict[str, list[str]]:
    """The tables of a database, and the names of their columns."""
    tables = connection.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'").fetchall()  # noqa: S608
    return {
        table: [row[1] for row in connection.execute(f"PRAGMA {schema}.table_info({table})")]
        for (table,) in tables
        if table != "alembic_version"
    }


def go_back(data: Path, folder: Path) -> None:
    """Move all rows of a data folder to a database of the first version, which has fewer tables and columns."""
    folder.mkdir()
    of_revision_1(folder)
    with contextlib.closing(sqlite.connect(folder / FILE, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS new", (str(data / FILE),))
        new = columns(connection, "new")
        for table, names in columns(connection, "main").items():
            both = ", ".join(f'"{name}"' for name in names if name in new[table])
            known = " WHERE name IN (SELECT name FROM main.sqlite_master)" if table == "sqlite_sequence" else ""
            connection.execute(f"DELETE FROM main.{table}")  # noqa: S608
            connection.execute(f"INSERT INTO main.{table} ({both}) SELECT {both} FROM new.{table}{known}")  # noqa: S608
    for file in data.glob(f"{FILE}*"):
        file.unlink()
    shutil.move(folder / FILE, data / FILE)


def shape(folder: Path) -> dict[str, Any]:
    """Return the tables, columns and indexes of a database; fails if an index lacks a row."""
    with contextlib.closing(sqlite.connect(folder / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        found: dict[str, Any] = {
            name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for name in columns(connection, "main")
        }
        indexes = connection.execute("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index'")
        return found | {name: (table, sql) for name, table, sql in indexes.fetchall()}


def test_a_registry_of_the_first_version(tmp_path: Path) -> None:
    """After an upgrade it has the tables of a new one and all its rows; it works, and a rebuild restores all of it."""
    (tmp_path / "new").mkdir()
    assert migrate.upgrade(tmp_path / "new") is None
    with running_server(tmp_path, "--collect-seconds", "0") as server:
        fill(admin(server))
        server.stop()
        before = held(server.data)
        go_back(server.data, tmp_path / "old")
        assert shape(server.data) != shape(tmp_path / "new")
        assert migrate.upgrade(server.data) == "0001"
        assert held(server.data) == before
        assert shape(server.data) == shape(tmp_path / "new")
        with contextlib.closing(sqlite.connect(server.data / FILE)) as connection:
            assert connection.execute("SELECT since, stale FROM journal").fetchall() == [(0, 1)]
            assert connection.execute("SELECT DISTINCT purging_at FROM trash").fetchall() == [(None,)]
            for table in ("audit_start", "clock", "clock_jumps", "invitations", "readiness"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608
        server.start()
        repo = admin(server).new_repo()
        repo.push(made := image(), "v1")
        assert repo.manifest("v1").body == made.manifest
        server.stop()
        assert "Nothing is wrong" in polly_server("check", "--data", str(server.data))
        after = held(server.data)
        shutil.copytree(server.data, tmp_path / "copy", ignore=shutil.ignore_patterns(f"{FILE}*"))
        rebuild.rebuild(tmp_path / "copy")
        assert held(tmp_path / "copy") == after
        assert shape(tmp_path / "copy") == shape(server.data)
