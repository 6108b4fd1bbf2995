"""Data folders of earlier versions: what an upgrade makes of what was under way there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import command
from sqlalchemy import text

from polly_dockers.db import migrate
from polly_dockers.db.engine import FILE, open_engine

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


def test_a_purge_that_an_older_version_began(tmp_path: Path) -> None:
    """36: it is claimed. An organisation that was restored meanwhile, and deleted again since, keeps its time."""
    opened = open_engine(tmp_path / FILE)
    with opened.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(migrate._config(connection), "0001")
        for statement in PURGED.format(deleted=DELETED).split(";"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("COMMIT")
    assert migrate.upgrade(tmp_path) == "0001"
    with opened.connect() as connection:
        found = connection.execute(text("SELECT name, purging_at FROM trash ORDER BY name")).all()
    opened.dispose()
    assert found == [("acme", DELETED), ("demo", None)]
