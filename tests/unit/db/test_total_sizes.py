"""Measuring manifests whose content is more than one transaction may read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select, update

from polly_dockers.db import schema, total_sizes
from support.costs import add_manifest, add_repository, new_database
from support.wire_client import OCI_INDEX

if TYPE_CHECKING:
    from pathlib import Path

PARTS = 9


@pytest.mark.parametrize(
    ("may_read", "before", "after"),
    [
        (PARTS, 1000, PARTS + 1),  # a wrong size becomes right
        (PARTS - 1, PARTS + 1, PARTS + 1),  # what was known already is not lost
        (PARTS - 1, 1, PARTS + 1),  # one more than may be read shows that there is more
        (PARTS - 2, PARTS + 1, PARTS + 1),
        (PARTS - 2, 1, PARTS),
    ],
)
def test_a_size_that_is_a_lower_bound_only_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_read: int, before: int, after: int
) -> None:
    """If not all of the content of an index may be read, its size is never less than it was; else it is exact."""

    def small(budget: Any) -> None:  # noqa: ANN401 - the class is private
        budget.nested, budget.manifests, budget.blobs = 1, may_read, 1

    monkeypatch.setattr(total_sizes._Budget, "__init__", small)
    with new_database(tmp_path) as connection:
        ids = add_repository(connection)
        top, *inside = [add_manifest(connection, ids, number) for number in range(PARTS + 1)]
        links = [{"manifest_id": top, "child_id": each} for each in inside]
        connection.execute(insert(schema.manifest_children), links)
        this = schema.manifests.c.id == top
        connection.execute(update(schema.manifests).where(this).values(media_type=OCI_INDEX, total_size=before))
        total_sizes.measure(connection, [top])
        size = connection.execute(select(schema.manifests.c.total_size).where(this)).scalar_one()
    assert size == after
