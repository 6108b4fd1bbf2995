"""Disk usage of each repository: for its tags, for older commits only, and for the trash only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import ScalarSelect, Select, and_, func, select

from polly_dockers.db.schema import (
    MARK,
    blobs,
    manifest_blobs,
    manifest_children,
    manifests,
    organisations,
    repositories,
    repository_blobs,
    repository_deltas,
    tags,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of a repository in bytes. What several of its images share counts once."""

    id: int
    organisation: str
    name: str
    deleted: bool
    """Whether the whole repository is in the trash."""
    organisation_deleted_at: int | None
    """When its organisation was moved to the trash; None if it was not."""
    commits: int
    active: int
    """For its tags: their manifests, what these name, and what refers to them."""
    inactive: int
    """Only for older commits and untagged manifests."""
    trash: int
    """Only for commits in the trash."""
    unnamed: int
    """For blobs that no manifest names, until their leases end."""


def page(connection: Connection, after: int) -> list[Usage]:
    """The next repositories after an id, in the order of their ids."""
    query = (
        select(
            repositories.c.id,
            organisations.c.slug,
            repositories.c.name,
            repositories.c.deleted_at,
            organisations.c.deleted_at.label("organisation_deleted_at"),
            (repositories.c.commits + _waiting_commits()).label("commits"),
        )
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(repositories.c.id > after)
        .order_by(repositories.c.id)
        .limit(PAGE)
    )
    found = []
    for row in connection.execute(query).all():
        every = _bytes(connection, row.id, select(manifests.c.id).where(manifests.c.repository_id == row.id))
        alive = select(manifests.c.id).where(manifests.c.repository_id == row.id, manifests.c.trash_id.is_(None))
        living, active = _bytes(connection, row.id, alive), _bytes(connection, row.id, _needed(row.id))
        found.append(
            Usage(
                id=row.id,
                organisation=row.slug.partition(MARK)[0],
                name=row.name.partition(MARK)[0],
                deleted=row.deleted_at is not None or row.organisation_deleted_at is not None,
                organisation_deleted_at=row.organisation_deleted_at,
                commits=row.commits,
                active=active,
                inactive=living - active,
                trash=every - living,
                unnamed=_unnamed(connection, row.id),
            )
        )
    return found


def _waiting_commits() -> ScalarSelect[int]:
    """The commits of a repository that are not in its total yet."""
    deltas = select(func.coalesce(func.sum(repository_deltas.c.commits), 0))
    return deltas.where(repository_deltas.c.repository_id == repositories.c.id).scalar_subquery()


def _needed(repository_id: int) -> Select[tuple[int]]:
    """Ids of the manifests that tags need: tagged ones, their children, and what refers to any of them."""
    needed = select(tags.c.manifest_id.label("id")).where(tags.c.repository_id == repository_id)
    below = needed.cte("needed", recursive=True)
    subject = manifests.alias()
    children = select(manifest_children.c.child_id).join(below, manifest_children.c.manifest_id == below.c.id)
    referring = (
        select(manifests.c.id)
        .join(
            subject,
            and_(subject.c.repository_id == manifests.c.repository_id, subject.c.digest == manifests.c.subject),
        )
        .join(below, below.c.id == subject.c.id)
        .where(manifests.c.repository_id == repository_id)
    )
    below = below.union(children, referring)
    return select(below.c.id)


def _bytes(connection: Connection, repository_id: int, ids: Select[tuple[int]]) -> int:
    """The size of the manifests and of the blobs that they name, each counted once."""
    own = select(func.coalesce(func.sum(manifests.c.size), 0)).where(manifests.c.id.in_(ids))
    named = select(manifest_blobs.c.blob_id).where(
        manifest_blobs.c.repository_id == repository_id, manifest_blobs.c.manifest_id.in_(ids)
    )
    content = select(func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.id.in_(named))
    return int(connection.execute(own).scalar_one()) + int(connection.execute(content).scalar_one())


def _unnamed(connection: Connection, repository_id: int) -> int:
    named = select(manifest_blobs.c.blob_id).where(manifest_blobs.c.repository_id == repository_id)
    query = (
        select(func.coalesce(func.sum(blobs.c.size), 0))
        .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
        .where(repository_blobs.c.repository_id == repository_id, repository_blobs.c.blob_id.not_in(named))
    )
    return int(connection.execute(query).scalar_one())


def stored(connection: Connection) -> tuple[int, int]:
    """The number of blobs of all repositories together, and their size in bytes."""
    row = connection.execute(select(func.count(), func.coalesce(func.sum(blobs.c.size), 0)).select_from(blobs)).one()
    return int(row[0]), int(row[1])
