"""What a step of a purge costs the writer, which all organisations share: it does not grow with what is purged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select

from polly_dockers import db
from polly_dockers.db import schema
from support.costs import (
    add_commits,
    add_manifest,
    add_repository,
    changes,
    cost,
    digest,
    move_to_trash,
    new_database,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

STEP = 5
"""The most rows that a step deletes of one table."""
FEW = 4 * STEP
"""Rows that a step may change, those of the journal and of totals included."""


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A new database, of which a purge deletes a few rows in each step."""
    monkeypatch.setattr(db.garbage, "AT_ONCE", STEP)
    with new_database(tmp_path) as made:
        yield made


def test_a_commit_with_many_tags_is_purged_in_small_steps(connection: Connection) -> None:
    """No step deletes more rows of its tags and commits than AT_ONCE of each."""
    ids = add_repository(connection)
    manifest_id = add_manifest(connection, ids, 1)
    add_commits(connection, ids, manifest_id, [f"t{each}" for each in range(50)])
    item = move_to_trash(connection, ids, manifest_id, 1)
    counts: list[int] = []

    def purge() -> None:
        done.append(db.garbage.purge_manifest(connection, item, 0))

    done: list[bool] = []
    while not any(done):
        counts.append(changes(connection, purge))
    assert connection.execute(select(func.count()).select_from(schema.trash_tags)).scalar_one() == 0
    assert not db.trash.is_there(connection, item)
    assert max(counts) <= FEW


def fill(connection: Connection, ids: tuple[int, int, int], manifests: int) -> None:
    """Add indexes of one nest, whose inner manifest has many tags and is in the trash, and what they lack."""
    made = [add_manifest(connection, ids, number) for number in range(manifests)]
    add_commits(connection, ids, made[0], [f"t{each}" for each in range(50)])
    links = [{"manifest_id": each, "child_id": made[at // 2]} for at, each in enumerate(made) if at]
    connection.execute(insert(schema.manifest_children), links)
    connection.execute(
        insert(schema.manifest_missing),
        [{"repository_id": ids[1], "digest": digest(1000), "manifest_id": each} for each in made],
    )
    blob = {"digest": digest(2000), "size": 1, "storage_key": digest(2000), "created_at": 1}
    blob_id = int(connection.execute(insert(schema.blobs).values(blob).returning(schema.blobs.c.id)).scalar_one())
    here = {"repository_id": ids[1], "blob_id": blob_id}
    connection.execute(insert(schema.repository_blobs).values(here | {"leased_until": 0}))
    connection.execute(insert(schema.manifest_blobs), [here | {"manifest_id": each} for each in made])
    move_to_trash(connection, ids, made[0], 0)


def purge(connection: Connection, ids: tuple[int, int, int]) -> tuple[int, int]:
    """Purge the repository; the most rows that a step changes, and the most instructions that it executes."""
    item = db.trash.move_repository(connection, ids[0], ids[1], "hello", ids[2])
    db.trash.claim(connection, item)
    left: list[object] = []
    rows, parts = [], []

    def step() -> None:
        left.append(db.garbage.purge_repository(connection, item, ids[1], 0))

    while not left or left[-1] is not None:
        parts.append(cost(connection, lambda: rows.append(changes(connection, step))))
    assert connection.execute(select(schema.repositories.c.id)).all() == []
    return max(rows), max(parts)


def test_a_step_of_the_purge_of_a_repository_is_small(connection: Connection) -> None:
    """It costs the same however many manifests and tags the repository has, also those in its trash."""
    connection.exec_driver_sql("SAVEPOINT empty")
    ids = add_repository(connection)
    fill(connection, ids, 40)
    _, small = purge(connection, ids)
    connection.exec_driver_sql("ROLLBACK TO empty")
    ids = add_repository(connection)
    fill(connection, ids, 400)
    rows, large = purge(connection, ids)
    assert rows <= FEW
    assert large < 2 * small
