"""All rows that the journal covers as records, for a new journal or a compaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import ColumnElement, select

from polly_dockers.db import audit, schema, sparse, trash
from polly_dockers.db import manifests as of_manifests
from polly_dockers.db.journal import records, state
from polly_dockers.db.schema import (
    HIDDEN,
    MARK,
    blobs,
    commits,
    manifests,
    organisations,
    repositories,
    repository_blobs,
    tags,
    users,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

R = TypeVar("R", bound=records.Record)

CHUNK: Final = 500
"""The most records of one batch."""
SIZE: Final = 4 << 20
"""About how many bytes of manifests one batch has."""


def batches(connection: Connection, number: int, last: int | None = None) -> Iterator[records.Batch]:
    """Yield all rows as batches with ids from ``number`` on; the last one has the id ``last``, if given."""
    previous = 0
    chunks = _chunks(connection)
    chunk = next(chunks, [])
    for following in chunks:
        yield records.Batch(number, previous, chunk)  # type: ignore[arg-type]
        previous, number, chunk = number, number + 1, following
    yield records.Batch(number if last is None else last, previous, chunk)  # type: ignore[arg-type]


def _chunks(connection: Connection) -> Iterator[list[records.Record]]:
    """Yield all records in lists that are limited in number and in bytes."""
    chunk: list[records.Record] = []
    size = 0
    for record in _records(connection):
        chunk.append(record)
        size += len(record.body) if isinstance(record, records.ManifestPushed) else 0
        if len(chunk) == CHUNK or size > SIZE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _records(connection: Connection) -> Iterator[records.Record]:
    """Yield all records in an order that can be applied: the trash comes before what has the same names now."""
    for user in connection.execute(select(users.c.id, users.c.email, users.c.created_at).order_by(users.c.id)):
        yield _record(records.UserMade, user)
    order = (organisations.c.deleted_at.is_(None), organisations.c.id)
    for row in connection.execute(select(organisations).order_by(*order)).all():
        yield _record(records.OrganisationSet, row, slug=_plain(row.slug), create_on_push=bool(row.create_on_push))
        yield from _repositories(connection, row.id)
        if row.deleted_at is not None:
            mine = (schema.trash.c.kind == trash.ORGANISATION) & (schema.trash.c.organisation_id == row.id)
            yield from _in_trash(connection, mine)
    yield from _audit(connection)
    for table, last in state.last_ids(connection):
        yield records.LastId(table, last)


def _audit(connection: Connection) -> Iterator[records.Record]:
    start = audit.start(connection)
    if start.position:
        yield records.AuditStart(0, start.position, start.hash)
    after: int | None = 0
    while after is not None:
        found, after = audit.page(connection, None, newest_first=False, after=after, limit=CHUNK)
        yield from found
    head = audit.head(connection)
    if head is not None:
        yield head


def _repositories(connection: Connection, organisation_id: int) -> Iterator[records.Record]:
    mine = repositories.c.organisation_id == organisation_id
    order = (repositories.c.name.not_like(f"%{MARK}%"), repositories.c.id)  # those with a mark are deleted
    for row in connection.execute(select(repositories).where(mine).order_by(*order)).all():
        yield _record(records.RepositoryMade, row, name=_plain(row.name))
        yield from _content(connection, row.id)
        if row.deleted_at is not None:
            item = (schema.trash.c.kind == trash.REPOSITORY) & (schema.trash.c.repository_id == row.id)
            yield from _in_trash(connection, item)


def _content(connection: Connection, repository_id: int) -> Iterator[records.Record]:
    mine = manifests.c.repository_id == repository_id
    for row in connection.execute(select(manifests).where(mine, manifests.c.trash_id.is_not(None))):
        yield _manifest(connection, row)
        yield from _commits(connection, commits.c.manifest_id == row.id)
        yield from _in_trash(connection, schema.trash.c.id == row.trash_id)
    for row in connection.execute(select(manifests).where(mine, manifests.c.trash_id.is_(None))):
        yield _manifest(connection, row)
    gone = (schema.trash.c.repository_id == repository_id) & (schema.trash.c.kind == trash.TAG)
    yield from _in_trash(connection, gone)
    yield from _commits(connection, (commits.c.repository_id == repository_id) & (commits.c.in_trash == 0))
    links = select(blobs.c.digest).join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
    here = (repository_blobs.c.repository_id == repository_id) & (repository_blobs.c.leased_until == HIDDEN)
    for digest in connection.execute(links.where(here).order_by(blobs.c.id)).scalars():
        yield records.BlobHidden(repository_id, digest)


def _manifest(connection: Connection, row: Row[*tuple[Any, ...]]) -> records.ManifestPushed:
    missing, children = sparse.lacked(connection, row.id), of_manifests.children(connection, row.id)
    return _record(records.ManifestPushed, row, digest=_plain(row.digest), missing=missing, children=children)


def _commits(connection: Connection, condition: ColumnElement[bool]) -> Iterator[records.Committed]:
    query = select(commits, tags.c.commit_id).outerjoin(tags, tags.c.commit_id == commits.c.id).where(condition)
    for row in connection.execute(query.order_by(commits.c.id)):
        yield _record(records.Committed, row, active=row.commit_id is not None)


def _in_trash(
    connection: Connection, condition: ColumnElement[bool]
) -> Iterator[records.MovedToTrash | records.Claimed]:
    for row in connection.execute(select(schema.trash).where(condition).order_by(schema.trash.c.id)).all():
        yield _record(records.MovedToTrash, row, by_policy=bool(row.by_policy))
        if row.purging_at is not None:
            yield records.Claimed(row.id)


def _record(kind: type[R], row: Row[*tuple[Any, ...]], **changed: object) -> R:
    """The record of a row: each field has the value of the column of its name, unless ``changed`` has another."""
    return kind(**{name: changed[name] if name in changed else getattr(row, name) for name in kind.__struct_fields__})


def _plain(name: str) -> str:
    """A name without the mark of what is in the trash."""
    return name.partition(MARK)[0]
