"""Deleting rows that nothing needs any more, in small batches.

A blob is deleted in three steps. A link whose lease has ended and that no manifest names is deleted. A blob without
links loses its row, and its storage key gets a tombstone. Later the file is deleted, and then the tombstone. A link
that a manifest names becomes HELD, and is checked again only when that manifest is purged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, func, insert, literal, select, tuple_, update

from polly_dockers.db import disk_errors, repositories, schema, trash
from polly_dockers.db.schema import (
    HELD,
    HIDDEN,
    blobs,
    commits,
    manifest_blobs,
    manifest_children,
    manifest_missing,
    manifests,
    organisations,
    repository_blobs,
    repository_deltas,
    tag_totals,
    tags,
    tombstones,
    trash_tags,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table

    from polly_dockers.db.trash import Item

AT_ONCE: Final = 200
"""The most rows of one transaction: some milliseconds of the writer's time."""

_NAMED: Final = exists(
    select(literal(1)).where(
        manifest_blobs.c.repository_id == repository_blobs.c.repository_id,
        manifest_blobs.c.blob_id == repository_blobs.c.blob_id,
    )
)


@dataclass(frozen=True, slots=True)
class Collected:
    """What one transaction deleted."""

    seen: int
    """Rows that were examined; if fewer than AT_ONCE, there are no more."""
    links: int = 0
    blobs: int = 0
    size: int = 0
    """The size of the blobs in bytes."""


def _ended() -> ColumnElement[bool]:
    return and_(repository_blobs.c.leased_until > HELD, repository_blobs.c.leased_until < now())


def collect_expired(connection: Connection, grace: int) -> Collected:
    """Delete links whose lease has ended, or hold them if a manifest names them. ``grace`` is as in ``_collect``."""
    query = (
        select(repository_blobs.c.repository_id, repository_blobs.c.blob_id, blobs.c.size, _NAMED)
        .join(blobs, blobs.c.id == repository_blobs.c.blob_id)
        .where(_ended())
        .order_by(repository_blobs.c.leased_until)
        .limit(AT_ONCE)
    )
    rows = connection.execute(query).all()
    held = [(repository_id, blob_id) for repository_id, blob_id, _, named in rows if named]
    if held:
        connection.execute(update(repository_blobs).where(_key().in_(held)).values(leased_until=HELD))
    free = [(repository_id, blob_id, size) for repository_id, blob_id, size, named in rows if not named]
    for repository_id in {repository_id for repository_id, _, _ in free}:
        size = sum(each for of, _, each in free if of == repository_id)
        repositories.add_delta(connection, repository_id, size=-size)
    return _collect(connection, len(rows), [(of, blob_id) for of, blob_id, _ in free], grace)


def collect_hidden(connection: Connection, grace: int) -> Collected:
    """Delete links that are HIDDEN and that no manifest in the trash names."""
    query = (
        select(repository_blobs.c.repository_id, repository_blobs.c.blob_id)
        .where(repository_blobs.c.leased_until == HIDDEN, ~_NAMED)
        .limit(AT_ONCE)
    )
    rows = [(row.repository_id, row.blob_id) for row in connection.execute(query)]
    return _collect(connection, len(rows), rows, grace)


def _key() -> ColumnElement[tuple[int, int]]:
    return tuple_(repository_blobs.c.repository_id, repository_blobs.c.blob_id)


def _collect(connection: Connection, seen: int, links: Sequence[tuple[int, int]], grace: int) -> Collected:
    """Delete links, and the rows of blobs that have none left. Their files may be deleted after ``grace`` seconds."""
    if not links:
        return Collected(seen)
    connection.execute(delete(repository_blobs).where(_key().in_(links)))
    linked = exists(select(literal(1)).where(repository_blobs.c.blob_id == blobs.c.id))
    gone = connection.execute(
        delete(blobs)
        .where(blobs.c.id.in_({blob_id for _, blob_id in links}), ~linked)
        .returning(blobs.c.storage_key, blobs.c.size)
    ).all()
    add_tombstones(connection, [row.storage_key for row in gone], grace)
    return Collected(seen, len(links), len(gone), sum(row.size for row in gone))


def add_tombstones(connection: Connection, keys: Sequence[str], grace: int) -> None:
    """Add tombstones for storage keys without rows. Existing tombstones do not change."""
    if not keys:
        return
    known = set(
        connection.execute(select(tombstones.c.storage_key).where(tombstones.c.storage_key.in_(keys))).scalars()
    )
    at = now() + grace * SECOND
    fresh = [{"storage_key": key, "not_before": at} for key in keys if key not in known]
    if fresh:
        connection.execute(insert(tombstones), fresh)


def delete_unlinked(connection: Connection, grace: int) -> int:
    """Delete the rows of all blobs that no repository has; returns how many. ``grace`` is as in ``_collect``."""
    linked = exists(select(literal(1)).where(repository_blobs.c.blob_id == blobs.c.id))
    keys = connection.execute(delete(blobs).where(~linked).returning(blobs.c.storage_key)).scalars().all()
    for at in range(0, len(keys), AT_ONCE):
        add_tombstones(connection, keys[at : at + AT_ONCE], grace)
    return len(keys)


def without_row(connection: Connection, keys: Sequence[str]) -> list[str]:
    """The storage keys among ``keys`` that no row of a blob has."""
    query = select(blobs.c.storage_key).where(blobs.c.storage_key.in_(keys))
    named = set(connection.execute(query).scalars())
    return [key for key in keys if key not in named]


def confirm(connection: Connection, digests: Mapping[str, str]) -> None:
    """Raise an error of a damaged database if a row has one of these storage keys, each given with its digest.

    ``without_row`` asks the index of storage keys, and an index may be damaged. This asks by another one, so no file is
    deleted because of one wrong byte in the index of storage keys. It does not help if the row itself was deleted, as
    an index of ``manifest_blobs`` or ``repository_blobs`` did not show that an image needs the blob.
    """
    query = select(blobs.c.storage_key).where(blobs.c.digest.in_(set(digests.values())))
    for key in connection.execute(query).scalars():
        if key in digests:
            msg = f"the row of {key} is missing from an index of blobs"
            raise disk_errors.malformed(msg)


def orphans(connection: Connection, keys: Sequence[str]) -> list[str]:
    """The storage keys among ``keys`` that have neither a row nor a tombstone."""
    free = without_row(connection, keys)
    query = select(tombstones.c.storage_key).where(tombstones.c.storage_key.in_(free))
    known = set(connection.execute(query).scalars())
    return [key for key in free if key not in known]


def due(connection: Connection, limit: int) -> list[str]:
    """Storage keys whose files may be deleted now."""
    query = select(tombstones.c.storage_key).where(tombstones.c.not_before < now()).order_by(tombstones.c.not_before)
    return list(connection.execute(query.limit(limit)).scalars())


def delete_tombstones(connection: Connection, keys: Sequence[str]) -> None:
    """Delete tombstones: the files are deleted, or a row names them after all."""
    connection.execute(delete(tombstones).where(tombstones.c.storage_key.in_(keys)))


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a collection would delete."""

    links: int
    blobs: int
    size: int
    tombstones: int


def waiting(connection: Connection) -> Waiting:
    """Count what could be deleted now; changes nothing."""
    free = and_(~_NAMED, (repository_blobs.c.leased_until == HIDDEN) | _ended())
    links = connection.execute(select(func.count()).select_from(repository_blobs).where(free)).scalar_one()
    ids = select(repository_blobs.c.blob_id).where(free)
    other = exists(select(literal(1)).where(repository_blobs.c.blob_id == blobs.c.id, ~free))
    lone = select(func.count(), func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.id.in_(ids), ~other)
    count, size = connection.execute(lone).one()
    return Waiting(links, count, size, count_tombstones(connection))


def count_tombstones(connection: Connection) -> int:
    """The number of storage keys whose files will be deleted."""
    return connection.execute(select(func.count()).select_from(tombstones)).scalar_one()


# --- purging the trash ----------------------------------------------------------------------------------


_IN_TRASH: Final = Statement(select(manifests.c.id).where(manifests.c.trash_id == bindparam("trash_id")))
_HELD_BY_INDEX: Final = Statement(
    select(manifest_children.c.child_id).where(manifest_children.c.child_id == bindparam("manifest_id")).limit(1)
)
_SOME_COMMITS: Final = Statement(
    delete(commits).where(
        commits.c.id.in_(
            select(commits.c.id).where(commits.c.manifest_id == bindparam("manifest_id")).limit(bindparam("limit"))
        )
    )
)
_SOME_TAGS: Final = Statement(
    delete(trash_tags).where(
        tuple_(*trash_tags.primary_key.columns).in_(
            select(*trash_tags.primary_key.columns)
            .where(trash_tags.c.trash_id == bindparam("trash_id"))
            .limit(bindparam("limit"))
        )
    )
)
_LEASE_ITS_BLOBS: Final = Statement(
    update(repository_blobs)
    .where(
        repository_blobs.c.repository_id
        == select(manifests.c.repository_id).where(manifests.c.id == bindparam("manifest_id")).scalar_subquery(),
        repository_blobs.c.blob_id.in_(
            select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id == bindparam("manifest_id"))
        ),
        repository_blobs.c.leased_until >= HELD,
        repository_blobs.c.leased_until < bindparam("until"),
    )
    .values(leased_until=bindparam("until"))
)
_DELETE_MANIFEST: Final = Statement(delete(manifests).where(manifests.c.id == bindparam("manifest_id")))


def purge_manifest(connection: Connection, item: Item, lease: int) -> bool:
    """Delete a part of a manifest in the trash, commits and tags first; False if there is more to delete.

    Each of its blobs gets a lease, because a client may have found it and be about to name it. A manifest that an index
    in the trash holds stays until that index is purged. A manifest that takes several transactions is claimed first.
    """
    row = _IN_TRASH.first(connection, {"trash_id": item.id})
    if row is None:
        return True
    own = {"manifest_id": row.id}
    if _HELD_BY_INDEX.first(connection, own) is not None:
        return True
    limit = {"limit": AT_ONCE}
    more = _SOME_COMMITS.run(connection, own | limit) == AT_ONCE
    if more or _SOME_TAGS.run(connection, {"trash_id": item.id} | limit) == AT_ONCE:
        trash.claim(connection, item)
        return False
    _LEASE_ITS_BLOBS.run(connection, own | {"until": now() + lease * SECOND})
    _DELETE_MANIFEST.run(connection, own)
    trash.delete_item(connection, item.id)
    return True


def _may_purge(connection: Connection, item: Item, repository_id: int) -> bool:
    """Whether the item is claimed, and is the repository or its organisation."""
    whole = item.kind == trash.ORGANISATION
    same = schema.trash.c.organisation_id if whole else schema.trash.c.repository_id
    row = schema.repositories.c.organisation_id if whole else schema.repositories.c.id
    query = (
        select(schema.repositories.c.id)
        .join(schema.trash, same == row)
        .where(schema.repositories.c.id == repository_id, schema.repositories.c.deleted_at.is_not(None))
        .where(schema.trash.c.id == item.id, schema.trash.c.kind == item.kind, schema.trash.c.purging_at.is_not(None))
    )
    return connection.execute(query).first() is not None


def purge_repository(connection: Connection, item: Item, repository_id: int, grace: int) -> Collected | None:
    """Delete a part of a repository that is claimed, or whose organisation is; None when all of it is deleted."""
    if not _may_purge(connection, item, repository_id):
        return None
    of_repository = (tags, commits, tag_totals, repository_deltas, manifest_blobs, manifest_missing, trash_tags)
    if any(_some(connection, table, table.c.repository_id == repository_id) for table in of_repository):
        return Collected(AT_ONCE)
    if _some_manifests(connection, repository_id):
        return Collected(AT_ONCE)
    query = select(repository_blobs.c.repository_id, repository_blobs.c.blob_id)
    rows = connection.execute(query.where(repository_blobs.c.repository_id == repository_id).limit(AT_ONCE)).all()
    if rows:
        return _collect(connection, AT_ONCE, [(row.repository_id, row.blob_id) for row in rows], grace)
    in_trash = select(schema.trash.c.id).where(
        schema.trash.c.repository_id == repository_id, schema.trash.c.id != item.id
    )
    inside = connection.execute(in_trash.limit(AT_ONCE)).scalars().all()
    for own in inside:
        trash.delete_item(connection, own)
    if inside:
        return Collected(AT_ONCE)
    if item.repository_id == repository_id:
        trash.delete_item(connection, item.id)
    connection.execute(delete(schema.repositories).where(schema.repositories.c.id == repository_id))
    return None


def _some_manifests(connection: Connection, repository_id: int) -> bool:
    """Delete up to AT_ONCE links between an index and its manifests, or manifests without links; False at the end.

    The links of few manifests are deleted, then these manifests: the links of all would have to be searched for.
    """
    mine = select(manifests.c.id).where(manifests.c.repository_id == repository_id).limit(AT_ONCE)
    some = connection.execute(mine).scalars().all()
    for end in (manifest_children.c.manifest_id, manifest_children.c.child_id):
        if some and _some(connection, manifest_children, end.in_(some)):
            return True
    return bool(some and _some(connection, manifests, manifests.c.id.in_(some)))


def _some(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    """Delete up to AT_ONCE rows of a table; returns how many."""
    key = tuple_(*table.primary_key.columns) if len(table.primary_key) > 1 else next(iter(table.primary_key.columns))
    some = select(*table.primary_key.columns).where(condition).limit(AT_ONCE)
    return connection.execute(delete(table).where(key.in_(some))).rowcount


def repositories_of(connection: Connection, organisation_id: int) -> list[int]:
    """Ids of all repositories of an organisation."""
    mine = schema.repositories.c.organisation_id == organisation_id
    return list(connection.execute(select(schema.repositories.c.id).where(mine)).scalars())


def purge_organisation(connection: Connection, item: Item) -> None:
    """Delete an organisation that is claimed and has no repositories, with its members and its trash."""
    claimed = (schema.trash.c.id == item.id) & schema.trash.c.purging_at.is_not(None)
    if connection.execute(select(schema.trash.c.id).where(claimed)).first() is None:
        return
    in_trash = select(schema.trash.c.id).where(schema.trash.c.organisation_id == item.organisation_id)
    for own in connection.execute(in_trash).scalars().all():
        trash.delete_item(connection, own)
    mine = and_(organisations.c.id == item.organisation_id, organisations.c.deleted_at.is_not(None))
    connection.execute(delete(organisations).where(mine))
