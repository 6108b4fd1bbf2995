"""Totals of organisations, repositories, tags, manifests and items of the trash, which a rebuild computes from rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from polly_dockers.db import schema, total_sizes
from polly_dockers.db.schema import (
    HIDDEN,
    blobs,
    commits,
    organisations,
    repositories,
    repository_blobs,
    repository_deltas,
    tag_totals,
    tags,
    trash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection


def measure(connection: Connection, manifest_ids: Iterable[int]) -> None:
    """Update the total sizes of manifests, each once and with its own bound on what is read."""
    for manifest_id in dict.fromkeys(manifest_ids):
        total_sizes.measure(connection, [manifest_id])


def count(connection: Connection) -> None:
    """Compute the totals of all organisations, repositories, tags and items of the trash."""
    connection.execute(delete(repository_deltas))
    connection.execute(delete(tag_totals))
    alive = select(commits.c.repository_id, commits.c.tag, func.count())
    alive = alive.join(schema.manifests, schema.manifests.c.id == commits.c.manifest_id).where(
        schema.manifests.c.trash_id.is_(None)
    )
    alive = alive.group_by(commits.c.repository_id, commits.c.tag)
    connection.execute(insert(tag_totals).from_select(["repository_id", "tag", "commits"], alive))
    mine = repositories.c.id
    number_of_tags = select(func.count()).where(tags.c.repository_id == mine).scalar_subquery()
    number_of_commits = (
        select(func.coalesce(func.sum(tag_totals.c.commits), 0)).where(tag_totals.c.repository_id == mine)
    ).scalar_subquery()
    own = select(func.coalesce(func.sum(schema.manifests.c.size), 0)).where(
        schema.manifests.c.repository_id == mine, schema.manifests.c.trash_id.is_(None)
    )
    content = (
        select(func.coalesce(func.sum(blobs.c.size), 0))
        .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
        .where(repository_blobs.c.repository_id == mine, repository_blobs.c.leased_until > HIDDEN)
    )
    last = select(commits.c.pushed_at).where(commits.c.repository_id == mine).order_by(commits.c.id.desc()).limit(1)
    pushed = last.scalar_subquery()
    connection.execute(
        update(repositories).values(
            tags=number_of_tags,
            commits=number_of_commits,
            size=own.scalar_subquery() + content.scalar_subquery(),
            pushed_at=pushed,
            active_at=func.coalesce(pushed, repositories.c.created_at),
        )
    )
    _order(connection)
    listed = (
        select(func.count())
        .select_from(repositories)
        .where(repositories.c.organisation_id == organisations.c.id, repositories.c.deleted_at.is_(None))
    )
    connection.execute(update(organisations).values(repositories=listed.scalar_subquery()))
    total = select(schema.manifests.c.total_size).where(schema.manifests.c.trash_id == trash.c.id).scalar_subquery()
    connection.execute(update(trash).where(trash.c.kind == "commit").values(size=func.coalesce(total, trash.c.size)))
    for kind, inside in (
        ("repository", repositories.c.id == trash.c.repository_id),
        ("organisation", repositories.c.organisation_id == trash.c.organisation_id),
    ):
        sums = {
            name: select(func.coalesce(func.sum(repositories.c[name]), 0)).where(inside).scalar_subquery()
            for name in ("commits", "size")
        }
        connection.execute(update(trash).where(trash.c.kind == kind).values(sums))


def _order(connection: Connection) -> None:
    """Order the repositories by their last commits, even if a clock was set back."""
    last = select(commits.c.repository_id, func.max(commits.c.id).label("commit_id")).group_by(commits.c.repository_id)
    pushed = last.subquery()
    query = select(repositories.c.id, repositories.c.organisation_id, repositories.c.active_at)
    newest: dict[int, int] = {}
    ordered = query.join(pushed, pushed.c.repository_id == repositories.c.id).order_by(pushed.c.commit_id)
    for row in connection.execute(ordered).all():
        before = newest.get(row.organisation_id, 0)
        newest[row.organisation_id] = max(row.active_at, before + 1)
        if row.active_at <= before:
            later = update(repositories).where(repositories.c.id == row.id).values(active_at=before + 1)
            connection.execute(later)
