"""Queries that find a manifest by the beginning of its digest, and what the trash holds of a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, or_, select

from polly_dockers.db import schema, trash
from polly_dockers.db.schema import commits, manifests, trash_tags, users
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, FromClause, Select

    from polly_dockers.model import DigestPrefix


def _within(column: ColumnElement[str], prefix: DigestPrefix) -> ColumnElement[bool]:
    return or_(*(and_(column >= first, column < behind) for first, behind in prefix.ranges))


def manifests_from(connection: Connection, repository_id: int, prefix: DigestPrefix, limit: int) -> list[str]:
    """Digests with the prefix of manifests in the repository, without the trash."""
    mine = and_(manifests.c.repository_id == repository_id, manifests.c.trash_id.is_(None))
    query = select(manifests.c.digest).where(mine, _within(manifests.c.digest, prefix))
    return list(connection.execute(query.order_by(manifests.c.digest).limit(limit)).scalars())


def commits_from(connection: Connection, repository_id: int, prefix: DigestPrefix, limit: int) -> list[str]:
    """Digests with the prefix of manifests in the trash of the repository that can be restored."""
    mine = and_(
        schema.trash.c.repository_id == repository_id,
        schema.trash.c.kind == trash.COMMIT,
        schema.trash.c.purging_at.is_(None),
    )
    query = select(schema.trash.c.name).distinct().where(mine, _within(schema.trash.c.name, prefix))
    return list(connection.execute(query.order_by(schema.trash.c.name).limit(limit)).scalars())


@dataclass(frozen=True, slots=True)
class Deletion:
    """An item of the trash without its tags, which may be many: a refused pull reads it on the event loop."""

    id: int
    name: str
    deleted_by: str | None
    by_policy: bool
    deleted_at: int
    purging: bool


_COLUMNS: Final = (
    schema.trash.c.id,
    schema.trash.c.name,
    users.c.email,
    schema.trash.c.by_policy,
    schema.trash.c.deleted_at,
    schema.trash.c.purging_at,
)


def _from(source: FromClause) -> Select[*tuple[Any, ...]]:
    return select(*_COLUMNS).select_from(source.outerjoin(users, users.c.id == schema.trash.c.deleted_by)).limit(1)


_IN_REPOSITORY: Final = trash.newest(_from(schema.trash), schema.trash.c.repository_id)
_IN_ORGANISATION: Final = trash.newest(_from(schema.trash), schema.trash.c.organisation_id)
_WITH_COMMIT: Final = Statement(
    _from(trash_tags.join(schema.trash, schema.trash.c.id == trash_tags.c.trash_id))
    .where(
        trash_tags.c.repository_id == bindparam("repository_id"),
        trash_tags.c.tag == bindparam("tag"),
        schema.trash.c.purging_at.is_(None),
    )
    .order_by(trash_tags.c.trash_id.desc())
)
_NEWEST_COMMIT: Final = Statement(
    _from(
        commits.join(manifests, manifests.c.id == commits.c.manifest_id).join(
            schema.trash, schema.trash.c.id == manifests.c.trash_id
        )
    )
    .where(
        commits.c.repository_id == bindparam("repository_id"),
        commits.c.tag == bindparam("tag"),
        commits.c.in_trash == 1,
        schema.trash.c.purging_at.is_(None),
    )
    .order_by(commits.c.id.desc())
)


def _deletion(row: Any) -> Deletion | None:  # noqa: ANN401 - a named tuple
    if row is None:
        return None
    return Deletion(row.id, row.name, row.email, bool(row.by_policy), row.deleted_at, row.purging_at is not None)


def find_repository(connection: Connection, organisation_id: int, name: str) -> Deletion | None:
    """The newest item of a repository; one that is being purged only if there is no other."""
    return _deletion(trash.first(connection, _IN_ORGANISATION, trash.REPOSITORY, name, organisation_id))


def find_commit(connection: Connection, repository_id: int, digest: str) -> Deletion | None:
    """The newest item of a commit; one that is being purged only if there is no other."""
    return _deletion(trash.first(connection, _IN_REPOSITORY, trash.COMMIT, digest, repository_id))


def find_tag(connection: Connection, repository_id: int, tag: str) -> Deletion | None:
    """The item of the last deletion of the tag: the tag itself, or the commit that was deleted with it.

    An item that is being purged is returned only if there is no other.
    """
    own = _deletion(trash.first(connection, _IN_REPOSITORY, trash.TAG, tag, repository_id))
    last = _deletion(_WITH_COMMIT.first(connection, {"repository_id": repository_id, "tag": tag}))
    if own is not None and (last is None or (own.id > last.id and not own.purging)):
        return own
    return last


def newest_commit(connection: Connection, repository_id: int, tag: str) -> Deletion | None:
    """The item that holds the newest commit of a tag in the trash; None if there is none."""
    return _deletion(_NEWEST_COMMIT.first(connection, {"repository_id": repository_id, "tag": tag}))
