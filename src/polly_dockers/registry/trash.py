"""Deleting and restoring: people make mistakes, and have ``trash_days`` to notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.db.audit import Event
from polly_dockers.errors import BadRequest, DigestAmbiguous, ManifestUnknown, NameExists, NotInTrash, TagExists
from polly_dockers.model import Action, Digest, DigestPrefix, RepositoryName, Role, Tag, check_length
from polly_dockers.registry import removal
from polly_dockers.registry.history import fold

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.auth.permissions import Permitted
    from polly_dockers.context import Context
    from polly_dockers.db.trash import Item
    from polly_dockers.errors import PollyError
    from polly_dockers.model import Actor

CANDIDATES: Final = 10
"""Commits that are named where the beginning of a digest is that of several."""
MOST: Final = CANDIDATES + 1


class _Preview(Exception):
    def __init__(self, item: Item) -> None:
        self.item = item


async def delete(
    context: Context,
    actor: Actor,
    organisation: str,
    name: str,
    *,
    tag: str | None,
    commit: str | None,
    preview: bool,
) -> Item:
    """Put a tag, a commit or a whole repository into the trash, or only tell what that would be.

    Raises ManifestUnknown for what is not there, Denied for a part of an index.
    """
    full = RepositoryName.of(organisation, name)
    reference = _reference(tag, commit)

    def change(connection: Connection) -> Item:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        reached = permissions.require_permission(connection, actor, full, Action.delete)
        if reference is not None:
            target = _there(connection, reached, reference) if isinstance(reference, DigestPrefix) else reference
            item = removal.throw(connection, actor, reached, target)
        else:
            item = db.trash.move_repository(
                connection, organisation_id, reached.repository_id, full.name, actor.user_id or 0
            )
            db.audit.append(connection, Event.delete, full, organisation_id=organisation_id, by=actor)
        if preview:
            raise _Preview(item)
        return item

    await fold(context)
    try:
        return await context.database.write(change)
    except _Preview as seen:
        return seen.item


def _reference(tag: str | None, commit: str | None) -> Tag | Digest | DigestPrefix | None:
    if tag is not None and commit is not None:
        msg = "tag and commit can't be together: a commit is deleted with all its tags, a tag leaves its commits."
        raise BadRequest(msg)
    if commit is not None:
        return DigestPrefix.parse(commit)
    return Tag.parse(tag) if tag is not None else None


def _whole(full: RepositoryName, prefix: DigestPrefix, found: list[str], missing: PollyError) -> Digest:
    """The one digest that begins so. Raises DigestAmbiguous where there are more, ``missing`` where there is none."""
    if not found:
        raise missing
    if len(found) > 1:
        more = f", more than {CANDIDATES}" if len(found) > CANDIDATES else ""
        named = found[:CANDIDATES]
        msg = (
            f"The digests of several commits of {full} begin with {prefix}{more}: {', '.join(named)}. Give more digits."
        )
        raise DigestAmbiguous(msg, detail={"candidates": named})
    return Digest(found[0])


def _there(connection: Connection, reached: Permitted, prefix: DigestPrefix) -> Digest:
    """The manifest that begins so. Raises ManifestUnknown, DigestAmbiguous."""
    name = reached.name
    missing = ManifestUnknown(f"{name} has no commit whose digest begins with {prefix}.")
    return _whole(name, prefix, db.deleted.manifests_from(connection, reached.repository_id, prefix, MOST), missing)


def _thrown(connection: Connection, full: RepositoryName, repository_id: int, prefix: DigestPrefix) -> Digest:
    """The commit in the trash that begins so. Raises NotInTrash, DigestAmbiguous."""
    found = db.deleted.commits_from(connection, repository_id, prefix, MOST)
    return _whole(full, prefix, found, _not_there(full, prefix))


async def restore(
    context: Context,
    actor: Actor,
    organisation: str,
    name: str,
    *,
    tag: str | None,
    commit: str | None,
    new_name: str | None,
) -> Item:
    """Bring back what was deleted last under that name; a repository under ``new_name``, where that is given.

    Raises NotInTrash, NameExists, TagExists.
    """
    full = RepositoryName.of(organisation, name)
    reference = _reference(tag, commit)
    target = RepositoryName.of(organisation, new_name if new_name is not None else name)
    check_length(context.config.registry, target)

    def change(connection: Connection) -> Item:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        path, detail = str(full), f"as {target.name}" if target != full else ""
        if reference is None:
            item = _restore_repository(connection, organisation_id, full, target)
        else:
            repository_id = permissions.require_permission(connection, actor, full, Action.delete).repository_id
            if isinstance(reference, Tag):
                path, item = f"{full}:{reference}", _restore_tag(connection, full, repository_id, reference)
            else:
                item = _restore_commit(connection, full, repository_id, reference)
                path = f"{full}@{item.name}"
        db.audit.append(connection, Event.restore, path, organisation_id=organisation_id, by=actor, detail=detail)
        return item

    return await context.database.write(change)


def _restore_repository(
    connection: Connection, organisation_id: int, full: RepositoryName, target: RepositoryName
) -> Item:
    item = db.trash.find_in_organisation(connection, organisation_id, db.trash.REPOSITORY, full.name)
    if item is None:
        raise _not_there(full)
    if not db.restore.restore_repository(connection, item, target.name):
        there = f"There is a docker repository {target} {'again' if target == full else 'already'}."
        way = f"polly dockers restore --name {full.name} --as NEW_NAME"
        msg = f"{there} Restore the deleted one under another name: {way}"
        raise NameExists(msg)
    return item


def _restore_commit(
    connection: Connection, full: RepositoryName, repository_id: int, commit: Digest | DigestPrefix
) -> Item:
    digest = _thrown(connection, full, repository_id, commit) if isinstance(commit, DigestPrefix) else commit
    item = db.trash.find(connection, db.trash.COMMIT, digest, repository_id=repository_id)
    if item is None:
        raise _not_there(full, digest)
    db.restore.restore_manifest(connection, item)
    return item


def _restore_tag(connection: Connection, full: RepositoryName, repository_id: int, tag: Tag) -> Item:
    """Bring a tag back, and its newest commit where that is in the trash too."""
    item = db.deleted.find_tag(connection, repository_id, tag)
    if item is None:
        raise _not_there(full, tag)
    if db.manifests.body_of_tag(connection, repository_id, tag) is not None:
        msg = f"{full} has a tag {tag} again. Its earlier commits are there all the while: polly dockers commit-list."
        if item.kind == db.trash.COMMIT:
            msg = (
                f"{full} has a tag {tag} again. The commit that it had before comes back by its digest: "
                f"polly dockers restore --name {full.name} --commit {item.name}"
            )
        raise TagExists(msg)
    if item.kind == db.trash.COMMIT:
        db.restore.restore_manifest(connection, item)
        return item
    if db.restore.restore_tag(connection, item):
        return item
    commit = db.deleted.newest_commit(connection, repository_id, tag)
    if commit is None:
        msg = f"All commits of {full}:{tag} are gone for good, so nothing can be pulled by it."
        raise NotInTrash(msg)
    db.restore.restore_manifest(connection, commit)
    db.restore.restore_tag_with_commit(connection, item)
    return item


def _not_there(full: RepositoryName, reference: Tag | Digest | DigestPrefix | None = None) -> NotInTrash:
    kind = "tag" if isinstance(reference, Tag) else "commit"
    what = f"{kind} {reference} of {full}" if reference is not None else f"docker repository {full}"
    return NotInTrash(f"The trash holds no {what}. polly dockers trash shows what it holds; it may have been purged.")


async def page(
    context: Context, actor: Actor, organisation: str, *, limit: int, after: int | None
) -> tuple[list[Item], int | None, int]:
    """A page of an organisation's trash for its members, newest first; the key of the next, and how many there are."""

    def query(connection: Connection) -> tuple[list[Item], int | None, int]:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.reader)
        return db.trash.page(connection, organisation_id, limit=limit, after=after)

    return await context.database.read(query)
