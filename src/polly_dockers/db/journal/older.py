"""Rebuilding a database that is older than the journal's snapshot, and comparing databases with journals.

The batches between the two no longer exist, so they can't be applied. Instead, all rows that the journal covers are
deleted, and made again from the snapshot with the same ids. Passwords, members, tokens and signing keys stay. Before
that, a comparison proves that both are of one registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import String, cast, delete, func, select, update

from polly_dockers.db.journal import records, state
from polly_dockers.db.schema import (
    HIDDEN,
    MARK,
    audit,
    audit_start,
    blobs,
    commits,
    manifest_blobs,
    manifest_children,
    manifest_missing,
    manifest_pulls,
    manifests,
    organisations,
    repositories,
    repository_blobs,
    repository_deltas,
    tag_totals,
    tags,
    trash,
    users,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Table


_CLEARED: Final = (
    *(tags, commits, manifest_children, manifest_blobs, manifest_missing, manifest_pulls, manifests),
    *(repository_blobs, repository_deltas, tag_totals, trash, repositories, blobs, audit, audit_start),
)
"""Tables that are made again from the journal and the blobs; each is before those that it refers to."""
_COUNTED: Final[dict[type, tuple[str, Table]]] = {
    records.UserMade: ("user", users),
    records.OrganisationSet: ("organisation", organisations),
    records.RepositoryMade: ("docker repository", repositories),
    records.Committed: ("commit", commits),
}
_KNOWN: Final[dict[type, Table]] = {
    **{kind: rows for kind, (_, rows) in _COUNTED.items()},
    records.ManifestPushed: manifests,
    records.MovedToTrash: trash,
    records.Audited: audit,
}
_SAME: Final[dict[type, tuple[str, ...]]] = {
    records.UserMade: ("email", "created_at"),
    records.OrganisationSet: ("created_at",),
    records.RepositoryMade: ("created_at",),
    records.ManifestPushed: ("repository_id", "digest"),
    records.Committed: ("repository_id", "tag", "pushed_at"),
    records.MovedToTrash: ("kind", "deleted_at"),
    records.Audited: ("at", "event"),
}
"""Columns in which a row and a record with the same id must agree, if they are the same thing."""
_HIDDEN: Final = cast(organisations.c.id, String).concat(MARK)


def is_ancestor(connection: Connection, snapshot: Iterable[records.Batch]) -> bool:
    """Whether the database is an earlier state of the registry in a snapshot.

    Users are never deleted, so the snapshot must have all of them. And rows with the same id must be the same thing.
    """
    people: set[int] = set()
    for batch in snapshot:
        for record in batch.records:
            if isinstance(record, records.UserMade):
                people.add(record.id)
            if type(record) in _KNOWN and _is_same(connection, record) is False:
                return False
    return set(connection.execute(select(users.c.id)).scalars()) <= people


def is_descendant(connection: Connection, found: Iterable[records.Batch]) -> bool:
    """Whether the database is a later state of the registry in a journal, and once had all that its batches made.

    Rows with the same id must be the same thing. Where there is no row, the id must have been given out: ids are never
    used twice, so the thing was purged since. Users are never deleted, and the audit log loses entries only at its
    begin.
    """
    given = dict(state.last_ids(connection))
    first = connection.execute(select(func.min(audit.c.id))).scalar_one()
    for batch in found:
        for record in batch.records:
            known = _KNOWN.get(type(record))
            if known is None:
                continue
            is_same = _is_same(connection, record)
            if is_same:
                continue
            if is_same is not None:
                return False
            number: int = record.id  # type: ignore[union-attr]
            is_kept = known is users or (known is audit and first is not None and number > first)
            if is_kept or number > given.get(known.name, 0):
                return False
    return True


@dataclass(slots=True)
class Compared:
    """What only a database, or only a journal, has."""

    ours: dict[str, int]
    """How many of each kind only the database has."""
    theirs: dict[str, int]
    """How many of each kind only the journal has."""
    is_contained: bool
    """Whether the database has everything that the journal has."""


def compare(connection: Connection, found: Iterable[records.Batch]) -> Compared:
    """Compare each record with the database. Purged things count as things that only the journal has."""
    shared: dict[str, set[int]] = {name: set() for name, _ in _COUNTED.values()}
    theirs: dict[str, set[int]] = {name: set() for name, _ in _COUNTED.values()}
    contained = True
    for batch in found:
        for record in batch.records:
            there = _is_there(connection, record)
            contained = contained and there
            if type(record) in _COUNTED:
                (shared if there else theirs)[_COUNTED[type(record)][0]].add(record.id)  # type: ignore[union-attr]
    rows = {
        name: connection.execute(select(func.count()).select_from(of)).scalar_one() for name, of in _COUNTED.values()
    }
    ours = {name: count - len(shared[name]) for name, count in rows.items()}
    return Compared(ours, {name: len(ids) for name, ids in theirs.items()}, contained)


def _is_there(connection: Connection, record: object) -> bool:
    """Whether the database has the thing of a snapshot's record; False for records that only changes have."""
    if isinstance(record, records.Claimed | records.LastId | records.Sealed | records.AuditStart):
        return True  # parts of others, or of the log
    known = _KNOWN.get(type(record))
    if known is None:
        return isinstance(record, records.BlobHidden) and _is_hidden(connection, record) == record.hidden
    if not _is_same(connection, record):
        return False
    if isinstance(record, records.OrganisationSet):
        row = connection.execute(select(known).where(known.c.id == record.id)).one()
        settings = (record.slug, int(record.create_on_push), record.policy)
        return (row.slug.partition(MARK)[0], row.create_on_push, row.policy) == settings
    if isinstance(record, records.RepositoryMade):
        row = connection.execute(select(known).where(known.c.id == record.id)).one()
        wanted = [record.name, record.organisation_id, record.description, record.access, record.sparse_indexes]
        found = [row.name.partition(MARK)[0], row.organisation_id, row.description, row.access, row.sparse_indexes]
        return [*found, row.policy] == [*wanted, record.policy]
    return True


def _is_hidden(connection: Connection, record: records.BlobHidden) -> bool:
    """Whether the repository has the blob and hides it."""
    links = select(blobs.c.id).join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
    here = (repository_blobs.c.repository_id == record.repository_id) & (repository_blobs.c.leased_until == HIDDEN)
    return connection.execute(links.where(here, blobs.c.digest == record.digest)).first() is not None


def _is_same(connection: Connection, record: object) -> bool | None:
    """Whether the row with the id of a record in _KNOWN is the same thing; None if there is no such row."""
    names, table = _SAME[type(record)], _KNOWN[type(record)]
    query = select(*(table.c[name] for name in names)).where(table.c.id == record.id)  # type: ignore[attr-defined]
    row = connection.execute(query).first()
    return None if row is None else all(_plain(row[at]) == getattr(record, name) for at, name in enumerate(names))


def _plain(value: object) -> object:
    return value.partition(MARK)[0] if isinstance(value, str) and ":" in value else value


def clear(connection: Connection) -> None:
    """Delete all rows that the journal covers. Organisations keep their rows and members, under temporary slugs."""
    for table in _CLEARED:
        connection.execute(delete(table))
    connection.execute(update(organisations).values(slug=_HIDDEN, deleted_at=None))


def finish(connection: Connection) -> None:
    """Delete organisations that are still under temporary slugs: they were purged since."""
    connection.execute(delete(organisations).where(organisations.c.slug == _HIDDEN))
