"""Pages of tags, each with its active commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from polly_dockers.db.schema import commits, manifests, tags, users
from polly_dockers.model import Commit, Digest

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


COLUMNS: Final = (
    commits.c.id,
    commits.c.tag,
    manifests.c.digest,
    tags.c.commit_id.label("active"),
    manifests.c.total_size,
    manifests.c.platforms,
    manifests.c.media_type,
    commits.c.pushed_at,
    users.c.email,
)
"""What ``commit`` takes of a row."""


def commit(row: Row[*tuple[Any, ...]]) -> Commit:
    """The commit of a row of COLUMNS."""
    return Commit(
        id=row.id,
        tag=row.tag,
        digest=Digest(row.digest),
        active=row.active is not None,
        size=row.total_size,
        platforms=tuple(row.platforms.split()),
        media_type=row.media_type,
        pushed_at=row.pushed_at,
        pushed_by=row.email,
    )


def page(
    connection: Connection, repository_id: int, *, newest_first: bool, limit: int, after: int | None
) -> tuple[list[Commit], int | None]:
    """A keyset page of the active commits of a repository, one for each tag, and the cursor of the next page.

    In the order in which the tags were set. ``after`` is the id of a commit, or None for the first page.
    """
    query = (
        select(*COLUMNS)
        .select_from(tags)
        .join(commits, commits.c.id == tags.c.commit_id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .join(users, users.c.id == commits.c.pushed_by)
        .where(tags.c.repository_id == repository_id)
    )
    if after is not None:
        query = query.where(tags.c.commit_id < after if newest_first else tags.c.commit_id > after)
    order = tags.c.commit_id.desc() if newest_first else tags.c.commit_id
    rows = connection.execute(query.order_by(order).limit(limit + 1)).all()
    found = [commit(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None
