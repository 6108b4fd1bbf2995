"""Restoring items of the trash, with everything that belongs to them."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, delete, exists, insert, literal, select, update

from polly_dockers.db import last_pulls, manifests, repositories, schema, sparse, trash
from polly_dockers.db.commits import add_to_totals
from polly_dockers.db.journal import records
from polly_dockers.db.schema import (
    HELD,
    HIDDEN,
    MARK,
    blobs,
    commits,
    manifest_blobs,
    manifest_children,
    organisations,
    repository_blobs,
    tags,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

    from polly_dockers.db.trash import Item


PORTION: Final = 50
"""The most items of the trash that one transaction restores, some milliseconds of the writer's time each."""


def restore_tag(connection: Connection, item: Item) -> bool:
    """Restore a deleted tag; False if there is a tag of that name, or no commit of it. Raises NotInTrash."""
    if not activate(connection, item.repository_id or 0, item.name):
        return False
    trash.delete_restored(connection, item, item.name)
    return True


def restore_tag_with_commit(connection: Connection, item: Item) -> None:
    """Restore a tag after its commit. If that has set the tag already, only the item is deleted from the trash."""
    if not restore_tag(connection, item):
        trash.delete_restored(connection, item, item.name)


def activate(connection: Connection, repository_id: int, tag: str) -> bool:
    """Set a missing tag to its newest commit; False if the tag exists, or has no commit."""
    return _activate_all(connection, repository_id, [tag]) == 1


def _activation() -> Statement:
    """The statement that sets a missing tag to its newest commit."""
    here = (commits.c.repository_id == bindparam("repository_id")) & (commits.c.tag == bindparam("tag"))
    taken = exists(
        select(literal(1)).where(tags.c.repository_id == bindparam("repository_id"), tags.c.name == bindparam("tag"))
    )
    newest = (
        select(commits.c.repository_id, commits.c.tag, commits.c.manifest_id, commits.c.id)
        .where(here, commits.c.in_trash == 0, ~taken)
        .order_by(commits.c.id.desc())
        .limit(1)
    )
    return Statement(insert(tags).from_select(["repository_id", "name", "manifest_id", "commit_id"], newest))


_ACTIVATE: Final = _activation()


def _activate_all(connection: Connection, repository_id: int, names: Iterable[str]) -> int:
    """Set missing tags to their newest commits; returns how many were set."""
    count = sum(_ACTIVATE.run(connection, {"repository_id": repository_id, "tag": tag}) for tag in names)
    if count:
        repositories.add_delta(connection, repository_id, tags=count)
    return count


def restore_manifest(connection: Connection, item: Item) -> list[str]:
    """Restore a manifest with its commits, tags and children, and with referrers that a policy deleted with it.

    Returns the digests that were restored. Each tag that is free is then set to its newest commit. If a manifest was
    pushed again meanwhile, its commits move to that one. Raises NotInTrash if it is being purged.
    """
    left, back, names = [item.id], list[str](), set[str]()
    while left:
        again = trash.get(connection, left.pop())
        if again is None:  # it was restored with another
            continue
        trash.delete_restored(connection, again, again.name)  # first: its replay restores all the others
        left += _revive(connection, again)
        back.append(again.name)
        names.update(again.tags)
    _activate_all(connection, item.repository_id or 0, sorted(names))
    return back


def restore_parts(connection: Connection, item: Item, tag: str | None) -> list[Item]:
    """Restore some of what belongs to a manifest that has more than PORTION parts; returns these items.

    It is called in one transaction after another, until it returns none. Then ``restore_manifest`` restores the rest.
    A part is restored after its own parts, with its tags, as if it was restored for itself. So if the server is
    stopped, what is left can be restored later. The tags of the manifest, and ``tag``, are left to it.
    """
    if not _is_large(connection, item):
        return []
    back: list[Item] = []
    path, seen = [(item, deque(_parts_of(connection, item)))], {item.id}
    while len(back) < PORTION:
        part, inside = path[-1]
        if inside:
            found = trash.get(connection, inside.popleft())
            if found is not None and found.id not in seen:
                seen.add(found.id)
                path.append((found, deque(_parts_of(connection, found))))
            continue
        path.pop()
        if not path:  # only the manifest itself is left
            break
        left = set(part.tags).difference(item.tags, [tag])
        restore_part(connection, part, sorted(left - _taken(connection, item.repository_id or 0, left)))
        back.append(part)
    return back


def restore_part(connection: Connection, item: Item, names: list[str]) -> None:
    """Restore a manifest without its children and referrers, and set these tags to their newest commits.

    Raises NotInTrash if it is being purged.
    """
    trash.delete_restored(connection, item, item.name, names)
    _revive(connection, item)
    _activate_all(connection, item.repository_id or 0, names)


def _taken(connection: Connection, repository_id: int, names: Collection[str]) -> set[str]:
    """The names that are tags already."""
    query = select(tags.c.name).where(tags.c.repository_id == repository_id, tags.c.name.in_(names))
    return set(connection.execute(query).scalars())


def _is_large(connection: Connection, item: Item) -> bool:
    """Whether more than PORTION items belong to a manifest."""
    seen, left = {item.id}, [item]
    while left and len(seen) <= PORTION:
        found = [each for each in _parts_of(connection, left.pop()) if each not in seen]
        seen.update(found)
        left += [each for each in map(partial(trash.get, connection), found) if each is not None]
    return len(seen) > PORTION


def _parts_of(connection: Connection, item: Item) -> list[int]:
    """Some of the items that are restored with one in the trash: all, or more than PORTION."""
    if manifests.find_id(connection, item.repository_id or 0, item.name) is not None:
        return []  # it was pushed again
    row = connection.execute(select(schema.manifests.c.id).where(schema.manifests.c.trash_id == item.id)).first()
    return _parts(connection, item, row.id, 2 * PORTION) if row is not None else []


def _revive(connection: Connection, item: Item) -> list[int]:
    """Remove the mark of a manifest; returns the ids of the items to restore with it."""
    repository_id = item.repository_id or 0
    row = connection.execute(
        select(schema.manifests.c.id, schema.manifests.c.size, schema.manifests.c.subject).where(
            schema.manifests.c.trash_id == item.id
        )
    ).one()
    count = trash.count_commits(connection, row.id)
    add_to_totals(connection, repository_id, row.id, 1)
    live = manifests.find_id(connection, repository_id, item.name)
    with_it: list[int] = []
    back = {"in_trash": 0, "manifest_id": row.id if live is None else live}
    connection.execute(update(commits).where(commits.c.manifest_id == row.id).values(back))
    if live is not None:
        _hold_instead(connection, row.id, live)
        connection.execute(delete(schema.manifests).where(schema.manifests.c.id == row.id))
        size = 0
    else:
        size = row.size + _show_blobs(connection, repository_id, row.id)
        subject = row.subject.partition(MARK)[0] if row.subject is not None else None
        connection.execute(
            update(schema.manifests)
            .where(schema.manifests.c.id == row.id)
            .values(trash_id=None, digest=item.name, subject=subject)
        )
        manifests.link_waiting(connection, repository_id, item.name, row.id, sparse.AT_ONCE // PORTION or 1)
        with_it = _parts(connection, item, row.id, sparse.ALL)
    last_pulls.record_restored(connection, row.id if live is None else live)
    repositories.add_delta(connection, repository_id, commits=count, size=size)
    return with_it


def _parts(connection: Connection, item: Item, manifest_id: int, limit: int) -> list[int]:
    """Items that are restored with a manifest: its children and taken referrers, at most ``limit`` of each."""
    inside = (
        select(schema.manifests.c.trash_id)
        .join(manifest_children, manifest_children.c.child_id == schema.manifests.c.id)
        .where(manifest_children.c.manifest_id == manifest_id, schema.manifests.c.trash_id.is_not(None))
    )
    children = connection.execute(inside.limit(limit)).scalars()
    return [*children, *_taken_referrers(connection, item.repository_id or 0, item.name, limit)]


def _taken_referrers(connection: Connection, repository_id: int, digest: str, limit: int) -> list[int]:
    """Items of referrers of the digest that a policy deleted with it and that are not being purged."""
    marked = and_(schema.manifests.c.subject > digest + MARK, schema.manifests.c.subject < digest + chr(ord(MARK) + 1))
    query = select(schema.trash.c.id).join(schema.manifests, schema.manifests.c.trash_id == schema.trash.c.id)
    whole = (schema.trash.c.by_policy == 1) & schema.trash.c.purging_at.is_(None)
    mine = query.where(schema.manifests.c.repository_id == repository_id, marked, whole)
    return list(connection.execute(mine.limit(limit)).scalars())


def _hold_instead(connection: Connection, manifest_id: int, other: int) -> None:
    """Replace a manifest by another in all indexes that hold it."""
    holders = manifest_children.c.child_id == manifest_id
    have = select(manifest_children.c.manifest_id).where(manifest_children.c.child_id == other)
    move = update(manifest_children).where(holders, manifest_children.c.manifest_id.not_in(have.scalar_subquery()))
    connection.execute(move.values(child_id=other))
    connection.execute(delete(manifest_children).where(holders))


def _show_blobs(connection: Connection, repository_id: int, manifest_id: int) -> int:
    """Make the hidden blobs of a manifest visible again; returns their size in bytes."""
    named = select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id == manifest_id)
    shown = connection.execute(
        update(repository_blobs)
        .where(
            repository_blobs.c.repository_id == repository_id,
            repository_blobs.c.blob_id.in_(named),
            repository_blobs.c.leased_until == HIDDEN,
        )
        .values(leased_until=HELD)
        .returning(repository_blobs.c.blob_id)
    )
    found = list(shown.scalars())
    rows = connection.execute(select(blobs.c.digest, blobs.c.size).where(blobs.c.id.in_(found))).all() if found else []
    for row in rows:
        records.add(connection, records.BlobHidden(repository_id, row.digest, hidden=False))
    return sum(row.size for row in rows)


def restore_repository(connection: Connection, item: Item, name: str) -> bool:
    """Restore a repository under a name; False if the name is taken. Raises NotInTrash if it is being purged."""
    if item.purging:
        raise trash.being_purged(item)
    taken = select(schema.repositories.c.id).where(
        schema.repositories.c.organisation_id == item.organisation_id, schema.repositories.c.name == name
    )
    if connection.execute(taken).first() is not None:
        return False
    back = update(schema.repositories).where(schema.repositories.c.id == item.repository_id)
    connection.execute(back.values(name=name, deleted_at=None, restored_at=now()))
    repositories.add_to_number(connection, item.organisation_id, 1)
    trash.delete_restored(connection, item, name)
    return True


def restore_organisation(connection: Connection, item: Item, slug: str) -> bool:
    """Restore an organisation under a slug; False if the slug is taken. Raises NotInTrash if it is being purged."""
    if item.purging:
        raise trash.being_purged(item)
    if connection.execute(select(organisations.c.id).where(organisations.c.slug == slug)).first() is not None:
        return False
    connection.execute(
        update(schema.repositories)
        .where(schema.repositories.c.organisation_id == item.organisation_id)
        .values(restored_at=now())
    )
    back = update(organisations).where(organisations.c.id == item.organisation_id)
    connection.execute(back.values(slug=slug, deleted_at=None))
    trash.delete_restored(connection, item, slug)
    return True
