"""What a function costs SQLite: counted in instructions and rows, so that the speed of the machine does not matter."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select

from polly_dockers import db
from polly_dockers.db import migrate, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

PART: Final = 100
"""Instructions of SQLite's machine that are counted as one."""


@contextlib.contextmanager
def new_database(folder: Path) -> Iterator[Connection]:
    """A connection in a transaction, to a database with one organisation."""
    migrate.upgrade(folder)
    opened = db.sqlite.open_engine(folder / db.sqlite.FILE)
    with opened.connect() as made:
        made.exec_driver_sql("BEGIN")
        db.accounts.add_organisation(made, "acme")
        yield made
        made.exec_driver_sql("ROLLBACK")
    opened.dispose()


def cost(connection: Connection, ask: Callable[[], object]) -> int:
    """How many instructions SQLite executes for a function, in units."""
    parts = 0

    def count() -> int:
        nonlocal parts
        parts += 1
        return 0

    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(count, PART)
    ask()
    driver.set_progress_handler(None, 0)
    return parts


def changes(connection: Connection, change: Callable[[], object]) -> int:
    """How many rows a function changes, those of cascades included."""
    driver: Any = connection.connection.driver_connection
    before: int = driver.total_changes
    change()
    after: int = driver.total_changes
    return after - before


def add_repository(connection: Connection) -> tuple[int, int, int]:
    """Add a user and a repository; the ids of the organisation, the repository and the user."""
    organisation_id = connection.execute(select(schema.organisations.c.id)).scalar_one()
    user_id = db.accounts.add_user(connection, "ann@acme.example", "!")
    repository = {"organisation_id": organisation_id, "name": "hello", "description": "", "access": "private"}
    by = {"created_by": user_id, "created_at": 1, "active_at": 1}
    made = connection.execute(insert(schema.repositories).values(repository | by).returning(schema.repositories.c.id))
    return organisation_id, int(made.scalar_one()), user_id


def digest(number: int) -> str:
    """A digest for each number."""
    return f"sha256:{number:064}"


def add_manifest(connection: Connection, ids: tuple[int, int, int], number: int) -> int:
    """Add a manifest with the digest of the number; its id. ``ids`` are those of ``add_repository``."""
    row = {"repository_id": ids[1], "digest": digest(number), "media_type": "", "body": b"", "platforms": ""}
    row |= {"size": 1, "total_size": 1, "pushed_by": ids[2], "pushed_at": 1}
    made = connection.execute(insert(schema.manifests).values(row).returning(schema.manifests.c.id))
    return int(made.scalar_one())


def add_commits(connection: Connection, ids: tuple[int, int, int], manifest_id: int, tags: list[str]) -> None:
    """Set tags to a manifest, each with a commit."""
    for tag in tags:
        db.tags.put(connection, repository_id=ids[1], tag=tag, manifest_id=manifest_id, user_id=ids[2])


def move_to_trash(connection: Connection, ids: tuple[int, int, int], manifest_id: int, number: int) -> db.trash.Item:
    """Move the manifest of ``add_manifest`` to the trash."""
    organisation_id, repository_id, user_id = ids
    return db.trash.move_manifest(connection, organisation_id, repository_id, manifest_id, digest(number), user_id)
