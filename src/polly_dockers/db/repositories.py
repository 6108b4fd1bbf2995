"""Rows of repositories and their totals.

A push appends its changes of the totals to ``repository_deltas``, and locks no row of the repository. The deltas are
added to the totals before a list is read, and regularly by the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, exists, func, insert, literal, or_, select, tuple_, update

from polly_dockers.db import schema
from polly_dockers.db.journal import records
from polly_dockers.db.schema import members, organisations, repositories, repository_deltas, users
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.model import Repository, RepositoryName

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, Select

AT_ONCE: Final = 2000
"""The most deltas that one transaction applies."""
SCANNED: Final = 500
"""The most repositories that a search reads for one page: some milliseconds, because descriptions may be long."""


def add(
    connection: Connection, *, organisation_id: int, name: str, description: str, access: str, user_id: int
) -> int | None:
    """Insert a repository; returns its id, or None if the name is taken."""
    taken = select(repositories.c.id).where(
        repositories.c.organisation_id == organisation_id, repositories.c.name == name
    )
    if connection.execute(taken).first() is not None:
        return None
    at = now()
    row = insert(repositories).values(
        organisation_id=organisation_id,
        name=name,
        description=description,
        access=access,
        created_by=user_id,
        created_at=at,
        active_at=_after_all(connection, organisation_id, at),
    )
    number = int(connection.execute(row.returning(repositories.c.id)).scalar_one())
    records.add(
        connection,
        records.RepositoryMade(number, organisation_id, name, description, access, "deny", user_id, at),
    )
    add_to_number(connection, organisation_id, 1)
    return number


def add_to_number(connection: Connection, organisation_id: int, more: int) -> None:
    """Add to the number of repositories that an organisation has outside the trash; ``more`` may be negative."""
    number = organisations.c.repositories + more
    connection.execute(update(organisations).where(organisations.c.id == organisation_id).values(repositories=number))


def _after_all(connection: Connection, organisation_id: int, at: int) -> int:
    """A time that sorts the repository after all others that are listed, even if the clock was set back."""
    newest = select(repositories.c.active_at).where(*_of(organisation_id)).order_by(repositories.c.active_at.desc())
    return max(at, (connection.execute(newest.limit(1)).scalar_one_or_none() or 0) + 1)


def _of(organisation_id: int) -> tuple[ColumnElement[bool], ...]:
    """The repositories of an organisation outside the trash; indexes hold only these."""
    return repositories.c.organisation_id == organisation_id, repositories.c.deleted_at.is_(None)


def change(connection: Connection, repository_id: int, **values: str | None) -> None:
    """Set columns of a repository."""
    connection.execute(update(repositories).where(repositories.c.id == repository_id).values(**values))
    records.add(connection, records.RepositoryChanged(repository_id, values))


_ADD_DELTA: Final = Statement(insert(repository_deltas), "repository_id", "tags", "commits", "size", "pushed_at")


def add_delta(
    connection: Connection,
    repository_id: int,
    *,
    tags: int = 0,
    commits: int = 0,
    size: int = 0,
    pushed_at: int | None = None,
) -> None:
    """Record what a push or a deletion changed."""
    _ADD_DELTA.run(
        connection,
        {
            "repository_id": repository_id,
            "tags": tags,
            "commits": commits,
            "size": size,
            "pushed_at": pushed_at,
        },
    )


_PENDING: Final = select(exists(select(literal(1)).select_from(repository_deltas)))


def deltas_wait(connection: Connection) -> bool:
    """Whether there are deltas to apply."""
    return bool(connection.execute(_PENDING).scalar_one())


def apply_deltas(connection: Connection) -> int:
    """Add up to AT_ONCE deltas to the totals of their repositories; returns how many."""
    oldest = select(repository_deltas.c.id).order_by(repository_deltas.c.id).limit(AT_ONCE).scalar_subquery()
    taken = connection.execute(
        delete(repository_deltas)
        .where(repository_deltas.c.id.in_(oldest))
        .returning(
            repository_deltas.c.id,
            repository_deltas.c.repository_id,
            repository_deltas.c.tags,
            repository_deltas.c.commits,
            repository_deltas.c.size,
            repository_deltas.c.pushed_at,
        )
    ).all()
    sums: dict[int, list[int]] = {}
    for row in sorted(taken, key=lambda row: row.id):
        total = sums.setdefault(row.repository_id, [0, 0, 0, 0])
        for index, more in enumerate((row.tags, row.commits, row.size)):
            total[index] += more
        if row.pushed_at:  # the last one, which is not the greatest if the clock was set back
            total[3] = row.pushed_at
            sums[row.repository_id] = sums.pop(row.repository_id)  # keeps the order of their last pushes
    for repository_id, (tags, commits, size, pushed_at) in sums.items():
        values: dict[str, Any] = {
            "tags": repositories.c.tags + tags,
            "commits": repositories.c.commits + commits,
            "size": repositories.c.size + size,
        }
        if pushed_at:
            mine = select(repositories.c.organisation_id).where(repositories.c.id == repository_id)
            last = _after_all(connection, connection.execute(mine).scalar_one(), pushed_at)
            values |= {"pushed_at": pushed_at, "active_at": last}
        connection.execute(update(repositories).where(repositories.c.id == repository_id).values(values))
    return len(taken)


_LISTED: Final[Select[Any]] = select(
    repositories.c.id,
    organisations.c.slug,
    repositories.c.name,
    repositories.c.description,
    repositories.c.access,
    repositories.c.sparse_indexes,
    repositories.c.tags,
    repositories.c.commits,
    repositories.c.size,
    users.c.email,
    repositories.c.created_at,
    repositories.c.pushed_at,
).select_from(
    repositories.join(organisations, organisations.c.id == repositories.c.organisation_id).join(
        users, users.c.id == repositories.c.created_by
    )
)


def _repository(row: Row[*tuple[Any, ...]]) -> Repository:
    return Repository(
        id=row.id,
        name=RepositoryName(f"{row.slug}/{row.name}"),
        description=row.description,
        access=row.access,
        sparse_indexes=row.sparse_indexes,
        tags=row.tags,
        commits=row.commits,
        size=row.size,
        created_by=row.email,
        created_at=row.created_at,
        pushed_at=row.pushed_at,
    )


def one(connection: Connection, repository_id: int) -> Repository:
    """The repository with an id, which must exist."""
    return _repository(connection.execute(_LISTED.where(repositories.c.id == repository_id)).one())


def page(
    connection: Connection,
    organisation_id: int,
    *,
    by_push: bool,
    newest_first: bool,
    limit: int,
    after: tuple[int, int] | None,
    search: str,
) -> tuple[list[Repository], tuple[int, int] | None, int | None]:
    """A keyset page of an organisation's repositories, the cursor of the next page, and how many match in all.

    In the order of creation, or of the last push with ``by_push``. A clock that was set back does not change the order.
    A search reads at most SCANNED repositories. So its page may have fewer than ``limit``, or none, although more
    follow; and in an organisation with more than SCANNED it is not known how many match (None).
    """
    key = (repositories.c.active_at if by_push else repositories.c.id, repositories.c.id)
    query = select(*(column.label(name) for column, name in zip(key, ("sort", "id"), strict=True)))
    query = query.where(*_of(organisation_id)).order_by(*(each.desc() if newest_first else each for each in key))
    if after is not None:
        query = query.where(tuple_(*key) < tuple_(*after) if newest_first else tuple_(*key) > tuple_(*after))
    number = select(organisations.c.repositories).where(organisations.c.id == organisation_id)
    total: int | None = connection.execute(number).scalar_one()
    if search:
        rows, last = _found(connection, query.add_columns(_matches(search).label("matches")), limit)
        total = _count(connection, organisation_id, search) if (total or 0) <= SCANNED else None
    else:
        rows = list(connection.execute(query.limit(limit + 1)).all())
        last = rows[limit - 1] if len(rows) > limit else None
    return _in_order(connection, [row.id for row in rows[:limit]]), (last.sort, last.id) if last else None, total


def _found(
    connection: Connection, query: Select[Any], limit: int
) -> tuple[list[Row[*tuple[Any, ...]]], Row[*tuple[Any, ...]] | None]:
    """Up to ``limit`` rows that match among the first SCANNED, and the row after which the next page begins."""
    found: list[Row[*tuple[Any, ...]]] = []
    last = None
    with connection.execute(query.limit(SCANNED + 1)) as rows:
        for number, row in enumerate(rows):
            if number == SCANNED or len(found) == limit:
                return found, last
            if row.matches:
                found.append(row)
            last = row
    return found, None


def _count(connection: Connection, organisation_id: int, search: str) -> int:
    looked = select(_matches(search).label("matches")).where(*_of(organisation_id)).limit(SCANNED).subquery()
    return connection.execute(select(func.count()).where(looked.c.matches)).scalar_one()


def _in_order(connection: Connection, ids: list[int]) -> list[Repository]:
    rows = connection.execute(_LISTED.where(repositories.c.id.in_(ids))).all() if ids else []
    found = {row.id: _repository(row) for row in rows}
    return [found[each] for each in ids]


def _matches(search: str) -> ColumnElement[bool]:
    return or_(
        repositories.c.name.icontains(search, autoescape=True),
        repositories.c.description.icontains(search, autoescape=True),
    )


_MINE: Final = (
    select(organisations.c.id, organisations.c.slug)
    .join(members, members.c.organisation_id == organisations.c.id)
    .where(
        members.c.user_id == bindparam("user"),
        organisations.c.deleted_at.is_(None),
        organisations.c.slug >= bindparam("slug"),
    )
    .order_by(organisations.c.slug)
)


def names_after(connection: Connection, user_id: int, last: tuple[str, str], limit: int) -> list[str]:
    """The next full names after ``last`` of repositories that the user may pull as a member, in order.

    One organisation after the other, because a single query would read the names of all of them.
    """
    found: list[str] = []
    for organisation_id, slug in connection.execute(_MINE, {"user": user_id, "slug": last[0]}).all():
        query = select(repositories.c.name).where(*_of(organisation_id)).order_by(repositories.c.name)
        if slug == last[0]:
            query = query.where(repositories.c.name > last[1])
        found += [f"{slug}/{name}" for name in connection.execute(query.limit(limit - len(found))).scalars()]
        if len(found) == limit:
            break
    return found


def count_all(connection: Connection) -> tuple[int, int]:
    """How many repositories and commits the server has, with those in the trash."""
    counts = [connection.execute(select(func.count()).select_from(table)) for table in (repositories, schema.commits)]
    return counts[0].scalar_one(), counts[1].scalar_one()
