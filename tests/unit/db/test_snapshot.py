"""The rows of a journal's snapshot: a running server reads some at a time for its compaction."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select

from polly_dockers import db
from polly_dockers.db import migrate
from polly_dockers.db.journal import snapshot
from polly_dockers.db.schema import manifests, organisations, repositories, users

if TYPE_CHECKING:
    from pathlib import Path

NUMBER = 64
SIZE = 1 << 20


@pytest.mark.parametrize("thrown", [False, True], ids=["there", "in the trash"])
def test_manifests_are_read_one_after_another(tmp_path: Path, *, thrown: bool) -> None:
    """42: only a few batches are in memory at a time, however much a repository and its trash contain."""
    migrate.upgrade(tmp_path)
    opened = db.sqlite.open_engine(tmp_path / db.sqlite.FILE)
    with opened.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        db.accounts.add_organisation(connection, "acme")
        db.accounts.add_user(connection, "ann@acme.example", "!")
        place = {
            "organisation_id": connection.execute(select(organisations.c.id)).scalar_one(),
            "created_by": connection.execute(select(users.c.id)).scalar_one(),
            "name": "hello",
            "description": "",
            "access": "private",
            "created_at": 1,
            "active_at": 1,
        }
        made = insert(repositories).values(place).returning(repositories.c.id)
        mine = {"repository_id": connection.execute(made).scalar_one(), "pushed_by": place["created_by"]}
        row = {"media_type": "m", "platforms": "", "size": SIZE, "total_size": SIZE, "pushed_at": 1, **mine}
        for number in range(NUMBER):
            number_in_trash = number + 1 if thrown else None
            digest = f"sha256:{number:064}"
            body = {"digest": digest, "body": bytes(SIZE), "trash_id": number_in_trash}
            connection.execute(insert(manifests).values(row | body))
        tracemalloc.start()
        try:
            found = sum(len(batch.records) for batch in snapshot.batches(connection, 1))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        connection.exec_driver_sql("ROLLBACK")
    opened.dispose()
    assert found >= NUMBER
    assert most < NUMBER * SIZE // 2
