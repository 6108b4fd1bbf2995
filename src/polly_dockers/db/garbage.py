"""Rows that nothing needs any more, a small batch in each transaction.

A blob goes in three steps. A link whose lease has ended and that no manifest names is taken away; a blob without
a link loses its row and leaves a tombstone for its key; later the bytes go, and then the tombstone. A link that a
manifest does name is HELD from then on, and looked at again only when that manifest is purged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, func, insert, literal, select, tuple_, update

from polly_dockers.db import repositories, schema, trash
from polly_dockers.db.schema import (
    HELD,
    HIDDEN,
    blobs,
    commits,
    manifest_blobs,
    manifest_children,
    manifests,
    organisations,
    repository_blobs,
    repository_deltas,
    tag_totals,
    tags,
    tombstones,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table

    from polly_dockers.db.trash import Item

BATCH: Final = 200
"""Rows of one transaction, at most: some milliseconds of the writer's time."""

_NAMED: Final = exists(
    select(literal(1)).where(
        manifest_blobs.c.repository_id == repository_blobs.c.repository_id,
        manifest_blobs.c.blob_id == repository_blobs.c.blob_id,
    )
)


@dataclass(frozen=True, slots=True)
class Collected:
    """What one transaction did."""

    seen: int
    """Rows that were looked at; fewer than BATCH: there are no more."""
    links: int = 0
    blobs: int = 0
    size: int = 0
    """Bytes of the blobs."""


def _ended() -> ColumnElement[bool]:
    return and_(repository_blobs.c.leased_until > HELD, repository_blobs.c.leased_until < now())


def collect_expired(connection: Connection, grace: int) -> Collected:
    """Take links whose lease has ended and that no manifest names; the others are held. ``grace``: see _collect."""
    query = (
        select(repository_blobs.c.repository_id, repository_blobs.c.blob_id, blobs.c.size, _NAMED)
        .join(blobs, blobs.c.id == repository_blobs.c.blob_id)
        .where(_ended())
        .order_by(repository_blobs.c.leased_until)
        .limit(BATCH)
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
    """Take links that were deleted and that no manifest of the trash names."""
    query = (
        select(repository_blobs.c.repository_id, repository_blobs.c.blob_id)
        .where(repository_blobs.c.leased_until == HIDDEN, ~_NAMED)
        .limit(BATCH)
    )
    rows = [(row.repository_id, row.blob_id) for row in connection.execute(query)]
    return _collect(connection, len(rows), rows, grace)


def _key() -> ColumnElement[tuple[int, int]]:
    return tuple_(repository_blobs.c.repository_id, repository_blobs.c.blob_id)


def _collect(connection: Connection, seen: int, links: Sequence[tuple[int, int]], grace: int) -> Collected:
    """Delete links, and the rows of blobs that have none left; their keys may go in ``grace`` seconds."""
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
    """Leave tombstones for keys that no row names; one that is there already stays as it is."""
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
    """Take the rows of all blobs that no repository has, and tell how many; their keys may go in ``grace`` seconds."""
    linked = exists(select(literal(1)).where(repository_blobs.c.blob_id == blobs.c.id))
    keys = connection.execute(delete(blobs).where(~linked).returning(blobs.c.storage_key)).scalars().all()
    for at in range(0, len(keys), BATCH):
        add_tombstones(connection, keys[at : at + BATCH], grace)
    return len(keys)


def unnamed(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no row of a blob names."""
    query = select(blobs.c.storage_key).where(blobs.c.storage_key.in_(keys))
    named = set(connection.execute(query).scalars())
    return [key for key in keys if key not in named]


def orphans(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that have neither a row nor a tombstone."""
    free = unnamed(connection, keys)
    query = select(tombstones.c.storage_key).where(tombstones.c.storage_key.in_(free))
    known = set(connection.execute(query).scalars())
    return [key for key in free if key not in known]


def due(connection: Connection, limit: int) -> list[str]:
    """Keys whose time has come."""
    query = select(tombstones.c.storage_key).where(tombstones.c.not_before < now()).order_by(tombstones.c.not_before)
    return list(connection.execute(query.limit(limit)).scalars())


def delete_tombstones(connection: Connection, keys: Sequence[str]) -> None:
    """Take the tombstones away; the bytes are gone, or a row names them after all."""
    connection.execute(delete(tombstones).where(tombstones.c.storage_key.in_(keys)))


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a collection would find."""

    links: int
    blobs: int
    size: int
    tombstones: int


def waiting(connection: Connection) -> Waiting:
    """Count what could be taken now, and change nothing."""
    free = and_(~_NAMED, (repository_blobs.c.leased_until == HIDDEN) | _ended())
    links = connection.execute(select(func.count()).select_from(repository_blobs).where(free)).scalar_one()
    ids = select(repository_blobs.c.blob_id).where(free)
    other = exists(select(literal(1)).where(repository_blobs.c.blob_id == blobs.c.id, ~free))
    lone = select(func.count(), func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.id.in_(ids), ~other)
    count, size = connection.execute(lone).one()
    return Waiting(links, count, size, count_tombstones(connection))


def count_tombstones(connection: Connection) -> int:
    """How many keys wait for their time."""
    return connection.execute(select(func.count()).select_from(tombstones)).scalar_one()


# --- what the trash gives back ----------------------------------------------------------------------------------


_IN_TRASH: Final = Statement(select(manifests.c.id).where(manifests.c.trash_id == bindparam("trash_id")))
_HELD_BY_INDEX: Final = Statement(
    select(manifest_children.c.child_id).where(manifest_children.c.child_id == bindparam("manifest_id")).limit(1)
)
_SOME_COMMITS: Final = Statement(
    delete(commits).where(
        commits.c.id.in_(select(commits.c.id).where(commits.c.manifest_id == bindparam("manifest_id")).limit(BATCH))
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
    """Delete a part of a manifest that is in the trash, commits first; False where there is more of it.

    Who has just found a blob of it may be about to name that: each gets a lease. A manifest that an index of the
    trash holds waits for that index. One that takes more than one transaction is claimed first.
    """
    row = _IN_TRASH.first(connection, {"trash_id": item.id})
    if row is None:
        return True
    own = {"manifest_id": row.id}
    if _HELD_BY_INDEX.first(connection, own) is not None:
        return True
    if _SOME_COMMITS.run(connection, own) == BATCH:
        trash.claim(connection, item)
        return False
    _LEASE_ITS_BLOBS.run(connection, own | {"until": now() + lease * SECOND})
    _DELETE_MANIFEST.run(connection, own)
    trash.delete_item(connection, item.id)
    return True


def _may_purge(connection: Connection, item: Item, repository_id: int) -> bool:
    """Whether the item is claimed, and stands for the repository or for its organisation."""
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
    """Delete a part of a repository whose item, or whose organisation's, is claimed; None once all of it is gone."""
    if not _may_purge(connection, item, repository_id):
        return None
    for table in (tags, commits, tag_totals, repository_deltas):
        if _some(connection, table, table.c.repository_id == repository_id):
            return Collected(BATCH)
    mine = select(manifests.c.id).where(manifests.c.repository_id == repository_id)
    if _some(connection, manifest_children, manifest_children.c.manifest_id.in_(mine)):
        return Collected(BATCH)
    if _some(connection, manifests, manifests.c.repository_id == repository_id):
        return Collected(BATCH)
    query = select(repository_blobs.c.repository_id, repository_blobs.c.blob_id)
    rows = connection.execute(query.where(repository_blobs.c.repository_id == repository_id).limit(BATCH)).all()
    if rows:
        return _collect(connection, BATCH, [(row.repository_id, row.blob_id) for row in rows], grace)
    in_trash = select(schema.trash.c.id).where(schema.trash.c.repository_id == repository_id)
    for own in connection.execute(in_trash).scalars().all():
        trash.delete_item(connection, own)
    connection.execute(delete(schema.repositories).where(schema.repositories.c.id == repository_id))
    return None


def _some(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    """Delete up to BATCH rows of a table; how many there were."""
    key = tuple_(*table.primary_key.columns) if len(table.primary_key) > 1 else next(iter(table.primary_key.columns))
    some = select(*table.primary_key.columns).where(condition).limit(BATCH)
    return connection.execute(delete(table).where(key.in_(some))).rowcount


def repositories_of(connection: Connection, organisation_id: int) -> list[int]:
    """Ids of all repositories of an organisation."""
    mine = schema.repositories.c.organisation_id == organisation_id
    return list(connection.execute(select(schema.repositories.c.id).where(mine)).scalars())


def purge_organisation(connection: Connection, item: Item) -> None:
    """Delete an organisation whose item is claimed and that has no repositories; members and trash go with it."""
    claimed = (schema.trash.c.id == item.id) & schema.trash.c.purging_at.is_not(None)
    if connection.execute(select(schema.trash.c.id).where(claimed)).first() is None:
        return
    in_trash = select(schema.trash.c.id).where(schema.trash.c.organisation_id == item.organisation_id)
    for own in connection.execute(in_trash).scalars().all():
        trash.delete_item(connection, own)
    mine = and_(organisations.c.id == item.organisation_id, organisations.c.deleted_at.is_not(None))
    connection.execute(delete(organisations).where(mine))
