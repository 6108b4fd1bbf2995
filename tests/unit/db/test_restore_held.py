"""Restoring a manifest that was pushed again meanwhile: the indexes that held it hold the new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select

from polly_dockers import db
from polly_dockers.db import schema
from support.costs import add_manifest, add_repository, move_to_trash, new_database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("holds_both", [False, True])
def test_an_index_holds_the_manifest_that_was_pushed_again(tmp_path: Path, *, holds_both: bool) -> None:
    """It holds the new manifest once, also if it held both."""
    with new_database(tmp_path) as connection:
        ids = add_repository(connection)
        index, old = (add_manifest(connection, ids, number) for number in (1, 2))
        item = move_to_trash(connection, ids, old, 2)
        new = add_manifest(connection, ids, 2)
        held = [old, new] if holds_both else [old]
        connection.execute(
            insert(schema.manifest_children), [{"manifest_id": index, "child_id": each} for each in held]
        )
        db.restore.restore_manifest(connection, item)
        links = [tuple(row) for row in connection.execute(select(schema.manifest_children))]
        assert links == [(index, new)]
