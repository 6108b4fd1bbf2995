"""Rows of the trash: what is deleted is hidden at once, and kept with its contents until it is purged.

A manifest in the trash keeps its row, its commits and its references. Its digest and subject get a mark, so that no
request finds it. Repositories and organisations get the mark in their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Column, and_, bindparam, delete, func, insert, literal, select, tuple_, update

from polly_dockers.db import audit, paging, repositories, schema, sparse
from polly_dockers.db.commits import add_to_totals
from polly_dockers.db.journal import records, state
from polly_dockers.db.schema import (
    HIDDEN,
    MARK,
    commits,
    manifest_children,
    organisations,
    repository_blobs,
    tags,
    trash,
    trash_tags,
    users,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.errors import NotInTrash

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Select

    from polly_dockers.model import RepositoryName

TAG: Final = "tag"
COMMIT: Final = "commit"
REPOSITORY: Final = "repository"
ORGANISATION: Final = "organisation"
TAGS_ROOM: Final = 256 << 10
"""Bytes of tags on a page of the trash, at most, unless its only item has more."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the trash: its name, what was deleted with it, by whom and when."""

    id: int
    organisation_id: int
    repository_id: int | None
    repository: str | None
    """The name of its repository, or of itself if it is one."""
    kind: str
    name: str
    tags: tuple[str, ...]
    commits: int
    size: int
    deleted_by: str | None
    """The email of the user; None for the operator of the server and for a policy."""
    by_policy: bool
    deleted_at: int
    purging: bool
    """Whether the garbage collector has claimed it, so that it can no longer be restored."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What moves to the trash with something."""

    tags: tuple[str, ...] = ()
    commits: int = 0
    size: int = 0


_ITEMS: Final = select(
    trash.c.id,
    trash.c.organisation_id,
    trash.c.repository_id,
    schema.repositories.c.name.label("repository"),
    trash.c.kind,
    trash.c.name,
    trash.c.tags,
    trash.c.commits,
    trash.c.size,
    users.c.email,
    trash.c.by_policy,
    trash.c.deleted_at,
    trash.c.purging_at,
).select_from(
    trash.outerjoin(schema.repositories, schema.repositories.c.id == trash.c.repository_id).outerjoin(
        users, users.c.id == trash.c.deleted_by
    )
)


def _item(row: Row[*tuple[Any, ...]]) -> Item:
    return Item(
        id=row.id,
        organisation_id=row.organisation_id,
        repository_id=row.repository_id,
        repository=row.repository.partition(MARK)[0] if row.repository is not None else None,
        kind=row.kind,
        name=row.name,
        tags=tuple(row.tags.split()),
        commits=row.commits,
        size=row.size,
        deleted_by=row.email,
        by_policy=bool(row.by_policy),
        deleted_at=row.deleted_at,
        purging=row.purging_at is not None,
    )


Newest: TypeAlias = tuple[Statement, Statement]
"""The queries of the newest item that can be restored, and of the newest item."""


def newest(query: Select[*tuple[Any, ...]], same: Column[Any]) -> Newest:
    """The queries of the newest items of a ``kind`` and ``name`` whose column ``same`` is ``place``.

    An index has the items of each name in the order of ids. A single query would have to sort all of them.
    """
    named = (trash.c.kind == bindparam("kind"), trash.c.name == bindparam("name"), same == bindparam("place"))
    last = query.where(*named).order_by(trash.c.id.desc()).limit(1)
    return Statement(last.where(trash.c.purging_at.is_(None))), Statement(last)


def first(connection: Connection, queries: Newest, kind: str, name: str, place: int) -> Any:  # noqa: ANN401 - a named tuple
    """The newest item of a kind and name in a place; one that is being purged only if there is no other."""
    named = {"kind": kind, "name": name, "place": place}
    for query in queries:
        if (row := query.first(connection, named)) is not None:
            return row
    return None


_IN_REPOSITORY: Final = newest(_ITEMS, trash.c.repository_id)
_IN_ORGANISATION: Final = newest(_ITEMS, trash.c.organisation_id)


def find(connection: Connection, kind: str, name: str, *, repository_id: int) -> Item | None:
    """The item of a kind and name in the repository; see ``first``."""
    row = first(connection, _IN_REPOSITORY, kind, name, repository_id)
    return _item(row) if row is not None else None


def find_in_organisation(connection: Connection, organisation_id: int, kind: str, name: str) -> Item | None:
    """The item of a kind and name in the organisation; see ``first``."""
    row = first(connection, _IN_ORGANISATION, kind, name, organisation_id)
    return _item(row) if row is not None else None


def organisations_in(connection: Connection) -> list[Item]:
    """The organisations in the trash in the order of their slugs, the newest first for each slug."""
    query = _ITEMS.where(trash.c.kind == ORGANISATION).order_by(trash.c.name, trash.c.id.desc())
    return [_item(row) for row in connection.execute(query)]


def page(
    connection: Connection, organisation_id: int, *, limit: int, after: int | None
) -> tuple[list[Item], int | None, int]:
    """A keyset page of an organisation's trash, newest first, the cursor of the next page, and the total.

    Items that are being purged are left out.
    """
    mine = and_(trash.c.organisation_id == organisation_id, trash.c.purging_at.is_(None))
    query = _ITEMS.where(mine)
    if after is not None:
        query = query.where(trash.c.id < after)
    rows, more = paging.fetch(
        connection, query.order_by(trash.c.id.desc()), limit, lambda row: len(row.tags), TAGS_ROOM
    )
    total = connection.execute(select(func.count()).select_from(trash).where(mine)).scalar_one()
    found = [_item(row) for row in rows]
    return found, found[-1].id if more else None, total


def older(connection: Connection, before: int, *, after: tuple[int, int], limit: int) -> list[Item]:
    """Items that were deleted before a time, oldest first, after the one with (deleted_at, id)."""
    place = tuple_(trash.c.deleted_at, trash.c.id)
    query = _ITEMS.where(trash.c.deleted_at < before, place > tuple_(*after)).order_by(trash.c.deleted_at, trash.c.id)
    return [_item(row) for row in connection.execute(query.limit(limit))]


def claimed(connection: Connection) -> list[Item]:
    """Items whose purge began and did not end, because the collector was stopped.

    They are in the order of their own index; in the order of ids, all of the trash would be read.
    """
    query = _ITEMS.where(trash.c.purging_at.is_not(None)).order_by(trash.c.purging_at, trash.c.id)
    return [_item(row) for row in connection.execute(query)]


_CLAIM: Final = Statement(
    update(trash)
    .where(trash.c.id == bindparam("item_id"), trash.c.purging_at.is_(None))
    .values(purging_at=bindparam("at"))
)


def claim(connection: Connection, item: Item) -> bool:
    """Claim an item before it is purged step by step; False if it is no longer in the trash.

    From then on it can't be restored, and neither can the repositories of an organisation. A claim never ends. It is
    also in the journal, so that after a rebuild a partly purged item is not taken for a complete one.
    """
    if _CLAIM.run(connection, {"item_id": item.id, "at": now()}):
        records.add(connection, records.Claimed(item.id))
        if item.kind == ORGANISATION:
            mine = schema.repositories.c.organisation_id == item.organisation_id
            marked = update(schema.repositories).where(mine, schema.repositories.c.deleted_at.is_(None))
            connection.execute(marked.values(deleted_at=now()))
        return True
    return is_there(connection, item)


def _add(
    connection: Connection,
    kind: str,
    name: str,
    *,
    organisation_id: int,
    repository_id: int | None,
    user_id: int | None,
    contents: Contents,
    by_policy: bool = False,
) -> Item:
    at = now()
    made = insert(trash).values(
        organisation_id=organisation_id,
        repository_id=repository_id,
        kind=kind,
        name=name,
        tags=" ".join(contents.tags),
        commits=contents.commits,
        size=contents.size,
        deleted_by=user_id,
        by_policy=int(by_policy),
        deleted_at=at,
    )
    number = int(connection.execute(made.returning(trash.c.id)).scalar_one())
    moved = (number, organisation_id, repository_id, kind, name, " ".join(contents.tags), user_id, at, by_policy)
    records.add(connection, records.MovedToTrash(*moved))
    return _item(connection.execute(_ITEMS.where(trash.c.id == number)).one())


def preview(
    connection: Connection,
    kind: str,
    name: str,
    repository: RepositoryName,
    ids: tuple[int, int, int],
    contents: Contents,
) -> Item:
    """The item that moving something to the trash now would add. ``ids`` are of organisation, repository and user."""
    organisation_id, repository_id, user_id = ids
    email = connection.execute(select(users.c.email).where(users.c.id == user_id)).scalar_one_or_none()
    return Item(
        id=0,
        organisation_id=organisation_id,
        repository_id=repository_id,
        repository=repository.name,
        kind=kind,
        name=name,
        tags=contents.tags,
        commits=contents.commits,
        size=contents.size,
        deleted_by=email,
        by_policy=False,
        deleted_at=now(),
        purging=False,
    )


def get(connection: Connection, item_id: int) -> Item | None:
    """The item of an id; None if it is not in the trash."""
    row = connection.execute(_ITEMS.where(trash.c.id == item_id)).first()
    return _item(row) if row is not None else None


_DELETE: Final = Statement(delete(trash).where(trash.c.id == bindparam("item_id")))
_THERE: Final = Statement(select(trash.c.id).where(trash.c.id == bindparam("item_id")))
_SLUG: Final = Statement(select(organisations.c.slug).where(organisations.c.id == bindparam("organisation_id")))


def delete_item(connection: Connection, item_id: int) -> None:
    """Delete an item whose content was purged."""
    _DELETE.run(connection, {"item_id": item_id})
    state.add_stale(connection, 1)
    records.add(connection, records.Purged(item_id))


def being_purged(item: Item) -> NotInTrash:
    """The error for restoring an item that the collector has claimed."""
    return NotInTrash(
        f"The {item.kind} {item.name} is being purged: its time in the trash is over, and it can no longer be "
        "restored. Only a backup can still have it."
    )


def delete_restored(connection: Connection, item: Item, name: str, tags: list[str] | None = None) -> None:
    """Delete an item that was restored under a name, and record that in the journal.

    ``tags`` are those that are set with a commit that is restored without all that belongs to it. Raises NotInTrash if
    it was purged or is being purged.
    """
    whole = and_(trash.c.id == item.id, trash.c.purging_at.is_(None))
    if connection.execute(delete(trash).where(whole)).rowcount == 0:
        raise being_purged(item)
    records.add(connection, records.Restored(item.id, name, tags))


def is_there(connection: Connection, item: Item) -> bool:
    """Whether the item is still in the trash."""
    return _THERE.first(connection, {"item_id": item.id}) is not None


def record_purge(connection: Connection, item: Item) -> bool:
    """If the item is purged, append that to the audit log; returns whether it is purged."""
    if is_there(connection, item):
        return False
    audit.append(connection, audit.Event.purge, path(connection, item), organisation_id=item.organisation_id, by=None)
    return True


def path(connection: Connection, item: Item) -> str:
    """The image path of an item without the host, or the slug of an organisation."""
    if item.kind == ORGANISATION:
        return item.name
    slug = _SLUG.first(connection, {"organisation_id": item.organisation_id}).slug
    repository = f"{slug.partition(MARK)[0]}/{item.repository}"
    return repository + {TAG: f":{item.name}", COMMIT: f"@{item.name}"}.get(item.kind, "")


# --- tags ------------------------------------------------------------------------------------------------------


def move_tag(connection: Connection, organisation_id: int, repository_id: int, tag: str, user_id: int) -> Item | None:
    """Move a tag to the trash; its commits stay, inactive. Returns None if there is no such tag."""
    query = delete(tags).where(tags.c.repository_id == repository_id, tags.c.name == tag)
    if connection.execute(query).rowcount == 0:
        return None
    repositories.add_delta(connection, repository_id, tags=-1)
    own: dict[str, Any] = {"organisation_id": organisation_id, "repository_id": repository_id, "user_id": user_id}
    return _add(connection, TAG, tag, contents=Contents((tag,)), **own)


# --- manifests and their commits -------------------------------------------------------------------------------


def indexes_of(connection: Connection, manifest_id: int, limit: int) -> list[str]:
    """Digests of indexes outside the trash that hold the manifest."""
    query = (
        select(schema.manifests.c.digest)
        .join(manifest_children, manifest_children.c.manifest_id == schema.manifests.c.id)
        .where(manifest_children.c.child_id == manifest_id, schema.manifests.c.trash_id.is_(None))
    )
    return list(connection.execute(query.limit(limit)).scalars())


def detach_from_indexes(connection: Connection, repository_id: int, manifest_id: int, digest: str) -> None:
    """Remove the manifest from the indexes that hold it. They become sparse, and hold it again if it comes back."""
    alive = select(schema.manifests.c.id).where(schema.manifests.c.trash_id.is_(None))
    held = and_(manifest_children.c.child_id == manifest_id, manifest_children.c.manifest_id.in_(alive))
    parents = connection.execute(delete(manifest_children).where(held).returning(manifest_children.c.manifest_id))
    for parent in parents.scalars().all():
        sparse.record(connection, repository_id, parent, [digest])


def count_commits(connection: Connection, manifest_id: int) -> int:
    """The number of commits of a manifest."""
    query = select(func.count()).select_from(commits).where(commits.c.manifest_id == manifest_id)
    return connection.execute(query).scalar_one()


def contents_of_manifest(connection: Connection, manifest_id: int) -> Contents:
    """The tags and commits of a manifest, and its total size."""
    names = connection.execute(select(tags.c.name).where(tags.c.manifest_id == manifest_id)).scalars().all()
    total = select(schema.manifests.c.total_size).where(schema.manifests.c.id == manifest_id)
    size = connection.execute(total).scalar_one()
    return Contents(tuple(sorted(names)), count_commits(connection, manifest_id), size)


def move_manifest(
    connection: Connection,
    organisation_id: int,
    repository_id: int,
    manifest_id: int,
    digest: str,
    user_id: int | None,
    *,
    by_policy: bool = False,
) -> Item:
    """Move a manifest to the trash, with its tags and commits. What it names is kept while it is in the trash."""
    contents = contents_of_manifest(connection, manifest_id)
    add_to_totals(connection, repository_id, manifest_id, -1)
    own = select(schema.manifests.c.size).where(schema.manifests.c.id == manifest_id)
    size = connection.execute(own).scalar_one()
    item = _add(
        connection,
        COMMIT,
        digest,
        organisation_id=organisation_id,
        repository_id=repository_id,
        user_id=user_id,
        contents=contents,
        by_policy=by_policy,
    )
    names = select(tags.c.repository_id, tags.c.name, literal(item.id)).where(tags.c.manifest_id == manifest_id)
    connection.execute(insert(trash_tags).from_select(["repository_id", "tag", "trash_id"], names))
    connection.execute(delete(tags).where(tags.c.manifest_id == manifest_id))
    mark = f"{MARK}{manifest_id}"
    connection.execute(update(commits).where(commits.c.manifest_id == manifest_id).values(in_trash=1))
    connection.execute(
        update(schema.manifests)
        .where(schema.manifests.c.id == manifest_id)
        .values(trash_id=item.id, digest=schema.manifests.c.digest + mark, subject=schema.manifests.c.subject + mark)
    )
    repositories.add_delta(connection, repository_id, tags=-len(contents.tags), commits=-contents.commits, size=-size)
    return item


def hide_blob(connection: Connection, repository_id: int, blob_id: int, digest: str, size: int) -> None:
    """Hide a blob. The collector deletes its link, unless a manifest in the trash names the blob."""
    connection.execute(
        update(repository_blobs)
        .where(repository_blobs.c.repository_id == repository_id, repository_blobs.c.blob_id == blob_id)
        .values(leased_until=HIDDEN)
    )
    records.add(connection, records.BlobHidden(repository_id, digest))
    repositories.add_delta(connection, repository_id, size=-size)


# --- repositories and organisations ----------------------------------------------------------------------------


def contents_of_repository(connection: Connection, repository_id: int) -> Contents:
    """The commits of a repository, and its size."""
    totals = select(schema.repositories.c.commits, schema.repositories.c.size)
    row = connection.execute(totals.where(schema.repositories.c.id == repository_id)).one()
    return Contents(commits=row.commits, size=row.size)


def move_repository(
    connection: Connection, organisation_id: int, repository_id: int, name: str, user_id: int | None
) -> Item:
    """Move a repository to the trash with all its contents. Its name can be used again."""
    item = _add(
        connection,
        REPOSITORY,
        name,
        organisation_id=organisation_id,
        repository_id=repository_id,
        user_id=user_id,
        contents=contents_of_repository(connection, repository_id),
    )
    connection.execute(
        update(schema.repositories)
        .where(schema.repositories.c.id == repository_id)
        .values(name=f"{name}{MARK}{repository_id}", deleted_at=now())
    )
    repositories.add_to_number(connection, organisation_id, -1)
    return item


def move_organisation(connection: Connection, organisation_id: int, slug: str) -> Item:
    """Move an organisation to the trash with all its contents. Its slug can be used again."""
    totals = connection.execute(
        select(
            func.coalesce(func.sum(schema.repositories.c.commits), 0),
            func.coalesce(func.sum(schema.repositories.c.size), 0),
        ).where(schema.repositories.c.organisation_id == organisation_id)
    ).one()
    item = _add(
        connection,
        ORGANISATION,
        slug,
        organisation_id=organisation_id,
        repository_id=None,
        user_id=None,
        contents=Contents(commits=totals[0], size=totals[1]),
    )
    connection.execute(
        update(organisations)
        .where(organisations.c.id == organisation_id)
        .values(slug=f"{slug}{MARK}{organisation_id}", deleted_at=now())
    )
    return item
