"""Rows that come back from the trash, with all that has to come with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, insert, select, update

from polly_dockers.db import last_pulls, manifests, repositories, schema, sparse, trash
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

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.db.trash import Item


def restore_tag(connection: Connection, item: Item) -> bool:
    """Set a tag again that was taken away; False where there is one, or no commit of it. Raises NotInTrash."""
    if not activate(connection, item.repository_id or 0, item.name):
        return False
    trash.delete_restored(connection, item, item.name)
    return True


def restore_tag_with_commit(connection: Connection, item: Item) -> None:
    """As ``restore_tag``, behind its commit, which may have set it already: then its item leaves the trash alone."""
    if not restore_tag(connection, item):
        trash.delete_restored(connection, item, item.name)


def activate(connection: Connection, repository_id: int, tag: str) -> bool:
    """Set a tag that is not there to its newest commit; False where there is the tag, or no commit of it."""
    taken = select(tags.c.name).where(tags.c.repository_id == repository_id, tags.c.name == tag)
    if connection.execute(taken).first() is not None:
        return False
    newest = (
        select(commits.c.id, commits.c.manifest_id)
        .join(schema.manifests, schema.manifests.c.id == commits.c.manifest_id)
        .where(commits.c.repository_id == repository_id, commits.c.tag == tag, schema.manifests.c.trash_id.is_(None))
        .order_by(commits.c.id.desc())
        .limit(1)
    )
    found = connection.execute(newest).first()
    if found is None:
        return False
    place = {"repository_id": repository_id, "name": tag, "manifest_id": found.manifest_id, "commit_id": found.id}
    connection.execute(insert(tags), place)
    repositories.add_delta(connection, repository_id, tags=1)
    return True


def restore_manifest(connection: Connection, item: Item) -> list[str]:
    """Bring a manifest back with its commits, all that it holds, what a policy took because of it, and its tags.

    Returns the digests that are back. A tag that is free goes to its newest commit, once all of them are back. Where a
    manifest was pushed again meanwhile, its commits go to what is there. Raises NotInTrash for one being purged.
    """
    left, back, names = [item.id], list[str](), set[str]()
    while left:
        again = trash.get(connection, left.pop())
        if again is None:  # it came back with another
            continue
        trash.delete_restored(connection, again, again.name)  # first: a replay of it brings all the others back
        left += _revive(connection, again)
        back.append(again.name)
        names.update(again.tags)
    for tag in sorted(names):
        activate(connection, item.repository_id or 0, tag)
    return back


def _revive(connection: Connection, item: Item) -> list[int]:
    """Take the mark off a manifest; the items of what has to come back with it."""
    repository_id = item.repository_id or 0
    row = connection.execute(
        select(schema.manifests.c.id, schema.manifests.c.size, schema.manifests.c.subject).where(
            schema.manifests.c.trash_id == item.id
        )
    ).one()
    by_tag = trash.commits_by_tag(connection, row.id)
    live = manifests.find_id(connection, repository_id, item.name)
    with_it: list[int] = []
    if live is not None:
        connection.execute(update(commits).where(commits.c.manifest_id == row.id).values(manifest_id=live))
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
        for parent in sparse.pop(connection, repository_id, item.name):
            manifests.refer(connection, repository_id=repository_id, manifest_id=parent, child_ids=[row.id])
        inside = (
            select(schema.manifests.c.trash_id)
            .join(manifest_children, manifest_children.c.child_id == schema.manifests.c.id)
            .where(manifest_children.c.manifest_id == row.id, schema.manifests.c.trash_id.is_not(None))
        )
        with_it = [*connection.execute(inside).scalars(), *_taken_referrers(connection, repository_id, item.name)]
    last_pulls.record_restored(connection, row.id if live is None else live)
    for tag, count in by_tag.items():
        manifests.add_to_total(connection, repository_id, tag, count)
    repositories.add_delta(connection, repository_id, commits=sum(by_tag.values()), size=size)
    return with_it


def _taken_referrers(connection: Connection, repository_id: int, digest: str) -> list[int]:
    """Items of what refers to the digest, and went because that did: a policy took it, and it is not being purged."""
    marked = and_(schema.manifests.c.subject > digest + MARK, schema.manifests.c.subject < digest + chr(ord(MARK) + 1))
    query = select(schema.trash.c.id).join(schema.manifests, schema.manifests.c.trash_id == schema.trash.c.id)
    whole = (schema.trash.c.by_policy == 1) & schema.trash.c.purging_at.is_(None)
    mine = query.where(schema.manifests.c.repository_id == repository_id, marked, whole)
    return list(connection.execute(mine).scalars())


def _hold_instead(connection: Connection, manifest_id: int, other: int) -> None:
    """Let the indexes that hold a manifest hold another."""
    holders = manifest_children.c.child_id == manifest_id
    have = select(manifest_children.c.manifest_id).where(manifest_children.c.child_id == other)
    move = update(manifest_children).where(holders, manifest_children.c.manifest_id.not_in(have.scalar_subquery()))
    connection.execute(move.values(child_id=other))
    connection.execute(delete(manifest_children).where(holders))


def _show_blobs(connection: Connection, repository_id: int, manifest_id: int) -> int:
    """Put the blobs of a manifest back on the wire; the bytes that came back with them."""
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
    sizes = select(func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.id.in_(found))
    return int(connection.execute(sizes).scalar_one())


def restore_repository(connection: Connection, item: Item, name: str) -> bool:
    """Bring a repository back under a name; False where that is taken. Raises NotInTrash for one being purged."""
    if item.purging:
        raise trash.being_purged(item)
    taken = select(schema.repositories.c.id).where(
        schema.repositories.c.organisation_id == item.organisation_id, schema.repositories.c.name == name
    )
    if connection.execute(taken).first() is not None:
        return False
    back = update(schema.repositories).where(schema.repositories.c.id == item.repository_id)
    connection.execute(back.values(name=name, deleted_at=None, restored_at=now()))
    trash.delete_restored(connection, item, name)
    return True


def restore_organisation(connection: Connection, item: Item, slug: str) -> bool:
    """Bring an organisation back under a slug; False where that is taken. Raises NotInTrash for one being purged."""
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
