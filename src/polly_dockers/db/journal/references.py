"""Rows that a rebuild makes without the journal: links from the bytes of manifests, blobs from files, and totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from polly_dockers.db import manifests, schema
from polly_dockers.db.schema import (
    HELD,
    HIDDEN,
    MARK,
    blobs,
    commits,
    manifest_missing,
    repositories,
    repository_blobs,
    repository_deltas,
    tag_totals,
    tags,
    trash,
)
from polly_dockers.db.sqlite import now
from polly_dockers.oci import manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row


def add_blobs(connection: Connection, keys: Iterable[tuple[str, int]]) -> int:
    """Insert rows of blobs for storage keys (with sizes) whose digest has no row; returns how many."""
    count = 0
    for key, size in keys:
        algorithm, _, name = key.split("/")
        digest = f"{algorithm}:{name.partition('.')[0]}"
        if connection.execute(select(blobs.c.id).where(blobs.c.digest == digest)).first() is None:
            row = {"digest": digest, "size": size, "storage_key": key, "created_at": now()}
            connection.execute(insert(blobs).values(row))
            count += 1
    return count


def refer(connection: Connection, manifest_ids: Sequence[int]) -> list[tuple[str, str, str]]:
    """Link manifests with what they name; returns (repository, manifest, digest) of each blob that is lost.

    Blobs of things that are being purged are not lost: they may be deleted already.
    """
    lost: list[tuple[str, str, str]] = []
    purged = _being_purged(connection)
    for manifest_id in manifest_ids:
        connection.execute(delete(manifest_missing).where(manifest_missing.c.manifest_id == manifest_id))
        row = connection.execute(
            select(
                schema.manifests.c.id,
                schema.manifests.c.repository_id,
                schema.manifests.c.digest,
                schema.manifests.c.media_type,
                schema.manifests.c.body,
                schema.manifests.c.trash_id,
                repositories.c.name,
                repositories.c.organisation_id,
            )
            .join(repositories, repositories.c.id == schema.manifests.c.repository_id)
            .where(schema.manifests.c.id == manifest_id)
        ).first()
        if row is None:
            continue
        missing = _refer(connection, row)
        places = (("commit", row.trash_id), ("repository", row.repository_id), ("organisation", row.organisation_id))
        if purged.isdisjoint(places):
            lost += [(row.name, row.digest, digest) for digest in missing]
    for manifest_id in manifest_ids:
        manifests.measure(connection, manifest_id)
    return lost


def _being_purged(connection: Connection) -> set[tuple[str, int]]:
    """(kind, id) of each claimed item: the id of the item for a commit, else of the repository or organisation."""
    query = select(trash.c.kind, trash.c.id, trash.c.repository_id, trash.c.organisation_id)
    rows = connection.execute(query.where(trash.c.purging_at.is_not(None))).all()
    places = {"commit": "id", "repository": "repository_id", "organisation": "organisation_id"}
    return {(row.kind, getattr(row, places[row.kind])) for row in rows if row.kind in places}


def _refer(connection: Connection, row: Row[*tuple[object, ...]]) -> list[str]:
    parsed = manifest.parse(row.body, row.media_type, stored=True)
    named = [item.digest for item in (*((parsed.config,) if parsed.config else ()), *parsed.layers, *parsed.children)]
    found: list[int] = []
    children: list[int] = []
    missing: list[str] = []
    for digest in dict.fromkeys(named):
        child = _child(connection, row, digest) if parsed.index else None
        blob_id = connection.execute(select(blobs.c.id).where(blobs.c.digest == digest)).scalar_one_or_none()
        if child is not None:
            children.append(child)
        elif blob_id is not None:
            _link(connection, row.repository_id, blob_id)
            found.append(blob_id)
        else:
            missing.append(digest)
    manifests.refer(
        connection,
        repository_id=row.repository_id,
        manifest_id=row.id,
        blob_ids=found,
        child_ids=children,
        missing=missing,
    )
    return [digest for digest in missing if digest not in parsed.foreign]


def _child(connection: Connection, row: Row[*tuple[object, ...]], digest: str) -> int | None:
    """The id of a manifest in the same repository; one in the trash only if the index is in the trash too."""
    mine = select(schema.manifests.c.id).where(schema.manifests.c.repository_id == row.repository_id)
    found = connection.execute(mine.where(schema.manifests.c.digest == digest)).scalar_one_or_none()
    if found is not None or row.trash_id is None:
        return found
    marked = schema.manifests.c.digest.startswith(digest + MARK, autoescape=True)
    return connection.execute(mine.where(marked).order_by(schema.manifests.c.id.desc()).limit(1)).scalar_one_or_none()


def _link(connection: Connection, repository_id: int, blob_id: int) -> None:
    key = (repository_blobs.c.repository_id == repository_id) & (repository_blobs.c.blob_id == blob_id)
    if connection.execute(select(repository_blobs.c.blob_id).where(key)).first() is None:
        row = {"repository_id": repository_id, "blob_id": blob_id, "leased_until": HELD}
        connection.execute(insert(repository_blobs).values(row))


def count(connection: Connection) -> None:
    """Compute the totals of all repositories, tags and items of the trash."""
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
    total = select(schema.manifests.c.total_size).where(schema.manifests.c.trash_id == trash.c.id).scalar_subquery()
    connection.execute(update(trash).where(trash.c.kind == "commit").values(size=func.coalesce(total, trash.c.size)))


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
