"""Deleting and restoring. What is deleted is in the trash for ``trash_days``, so that mistakes can be undone.

Clients of the registry protocol, the commands and the server's operator all delete by the functions of this module.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.auth import members, permissions
from polly_dockers.db.audit import Event
from polly_dockers.errors import (
    BadRequest,
    BlobUnknown,
    Denied,
    DigestAmbiguous,
    ManifestUnknown,
    NameExists,
    NotInTrash,
    OrganisationExists,
    TagExists,
    Unsupported,
)
from polly_dockers.model import ROLE_FOR, Action, Digest, DigestPrefix, RepositoryName, Role, Tag, check_length
from polly_dockers.registry.history import update_totals
from polly_dockers.registry.uploads import link_rest
from polly_dockers.system.durations import DAY, SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.auth.permissions import Permitted
    from polly_dockers.config import Config
    from polly_dockers.context import Context
    from polly_dockers.db.trash import Item
    from polly_dockers.errors import PollyError
    from polly_dockers.model import Actor

MAX_INDEXES: Final = 100
"""Indexes that may hold a manifest that is deleted: one transaction removes it from all of them."""

MAX_CANDIDATES: Final = 10
"""Digests that an error lists if they all begin with the digits that were given."""

NAMED: Final = 20
"""Tags of a deleted commit that its entry in the audit log names, at most: pages of the log must stay small."""


# --- deleting over the registry protocol -----------------------------------------------------------------------------


async def delete_manifest(context: Context, actor: Actor, name: RepositoryName, reference: Tag | Digest) -> None:
    """Delete a tag (its commits stay, inactive) or a manifest (its tags and commits go too). For admins.

    Raises Unsupported if ``manifest_delete`` is ``deny``, ManifestUnknown, and Denied for a part of an index.
    """
    if context.config.manifest_delete == "deny":
        msg = (
            "This server refuses to delete tags and manifests over the registry protocol (manifest_delete is deny). "
            "Admins can use: polly dockers delete"
        )
        raise Unsupported(msg)

    def change(connection: Connection) -> None:
        permitted = permissions.require_permission(connection, actor, name, Action.delete)
        move_to_trash(connection, actor, permitted, reference)

    await context.database.write(change)


async def delete_blob(context: Context, actor: Actor, name: RepositoryName, digest: Digest) -> None:
    """Delete a blob of a repository. For admins.

    Raises Unsupported if ``blob_delete`` is ``deny``, BlobUnknown, and Denied while a manifest names the blob.
    """
    if context.config.blob_delete == "deny":
        msg = "This server refuses to delete blobs over the registry protocol (blob_delete is deny)."
        raise Unsupported(msg)

    def change(connection: Connection) -> None:
        permitted = permissions.require_permission(connection, actor, name, Action.delete)
        blob = db.blobs.find(connection, permitted.repository_id, digest)
        if blob is None:
            msg = f"{name} has no blob {digest}."
            raise BlobUnknown(msg, detail={"name": name, "digest": digest})
        if db.manifests.blob_is_named(connection, permitted.repository_id, blob.id):
            msg = f"A manifest of {name} uses {digest}. Delete that manifest first; its commits are deleted with it."
            raise Denied(msg)
        db.trash.hide_blob(connection, permitted.repository_id, blob.id, digest, blob.size)
        organisation_id = permitted.organisation_id
        path = f"{name}@{digest}"
        db.audit.append(connection, Event.delete, path, organisation_id=organisation_id, by=actor, detail="a blob")

    await context.database.write(change)


# --- deleting by the commands ----------------------------------------------------------------------------------------


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
    """Move a tag, a commit or a whole repository to the trash; returns the item there. For admins.

    ``commit`` is a digest or its beginning. With ``preview``, nothing is deleted. Raises BadRequest, NameUnknown,
    ManifestUnknown, DigestAmbiguous, and Denied for a part of an index.
    """
    full = RepositoryName.of(organisation, name)
    reference = _reference(tag, commit)

    def find(connection: Connection) -> tuple[Permitted, Tag | Digest | None]:
        permissions.require_role(connection, actor, organisation, ROLE_FOR[Action.delete])
        permitted = permissions.require_permission(connection, actor, full, Action.delete)
        if isinstance(reference, DigestPrefix):
            return permitted, _find_digest(connection, permitted, reference)
        return permitted, reference

    def look(connection: Connection) -> Item:
        permitted, whole = find(connection)
        return _preview(connection, permitted, full, whole)

    def change(connection: Connection) -> Item:
        permitted, whole = find(connection)
        if whole is not None:
            return move_to_trash(connection, actor, permitted, whole)
        ids = permitted.organisation_id, permitted.repository_id
        item = db.trash.move_repository(connection, *ids, full.name, permitted.user_id)
        db.audit.append(connection, Event.delete, full, organisation_id=permitted.organisation_id, by=actor)
        return item

    await update_totals(context)
    return await (context.database.read(look) if preview else context.database.write(change))


def _preview(
    connection: Connection, permitted: Permitted, full: RepositoryName, reference: Tag | Digest | None
) -> Item:
    """The item that a deletion would return; changes nothing. Raises ManifestUnknown and Denied as it does."""
    ids = (permitted.organisation_id, permitted.repository_id, permitted.user_id)
    if reference is None:
        contents = db.trash.contents_of_repository(connection, permitted.repository_id)
        return db.trash.preview(connection, db.trash.REPOSITORY, full.name, full, ids, contents)
    if isinstance(reference, Digest):
        contents = db.trash.contents_of_manifest(connection, _find_deletable(connection, permitted, reference)[0])
        return db.trash.preview(connection, db.trash.COMMIT, reference, full, ids, contents)
    if not db.tags.exists(connection, permitted.repository_id, reference):
        raise _no_tag(permitted, reference)
    return db.trash.preview(connection, db.trash.TAG, reference, full, ids, db.trash.Contents((reference,)))


def _reference(tag: str | None, commit: str | None) -> Tag | Digest | DigestPrefix | None:
    """The tag or commit that was given, or None. Raises BadRequest if both were, TagInvalid and DigestInvalid."""
    if tag is not None and commit is not None:
        msg = "Give either tag or commit. Deleting a commit deletes all its tags; deleting a tag leaves its commits."
        raise BadRequest(msg)
    if commit is not None:
        return DigestPrefix.parse(commit)
    return Tag.parse(tag) if tag is not None else None


def _find_digest(connection: Connection, permitted: Permitted, prefix: DigestPrefix) -> Digest:
    """The one manifest whose digest begins with the prefix. Raises ManifestUnknown and DigestAmbiguous."""
    name = permitted.name
    missing = ManifestUnknown(f"{name} has no commit whose digest begins with {prefix}.")
    found = db.deleted.manifests_from(connection, permitted.repository_id, prefix, MAX_CANDIDATES + 1)
    return _only(name, prefix, found, missing)


def _only(full: RepositoryName, prefix: DigestPrefix, found: list[str], missing: PollyError) -> Digest:
    """The only digest found. Raises ``missing`` if there is none, and DigestAmbiguous if there are several."""
    if not found:
        raise missing
    if len(found) > 1:
        more = f", more than {MAX_CANDIDATES}" if len(found) > MAX_CANDIDATES else ""
        named = found[:MAX_CANDIDATES]
        msg = (
            f"Several commits of {full} have digests that begin with {prefix}{more}: {', '.join(named)}. "
            "Give more digits."
        )
        raise DigestAmbiguous(msg, detail={"candidates": named})
    return Digest(found[0])


def move_to_trash(connection: Connection, actor: Actor, permitted: Permitted, reference: Tag | Digest) -> Item:
    """Move a tag or a manifest to the trash; returns the item there. Raises ManifestUnknown and Denied."""
    if isinstance(reference, Digest):
        item = _move_manifest(connection, permitted, reference)
        path = f"{permitted.name}@{reference}"
        rest = f" and {len(item.tags) - NAMED} more" if len(item.tags) > NAMED else ""
        detail = f"with the tags {' '.join(item.tags[:NAMED])}{rest}" if item.tags else ""
    else:
        item = _move_tag(connection, permitted, reference)
        path, detail = f"{permitted.name}:{reference}", ""
    db.audit.append(connection, Event.delete, path, organisation_id=permitted.organisation_id, by=actor, detail=detail)
    return item


def _move_tag(connection: Connection, permitted: Permitted, tag: Tag) -> Item:
    item = db.trash.move_tag(connection, permitted.organisation_id, permitted.repository_id, tag, permitted.user_id)
    if item is None:
        raise _no_tag(permitted, tag)
    return item


def _no_tag(permitted: Permitted, tag: Tag) -> ManifestUnknown:
    msg = f"{permitted.name} has no tag {tag}. polly dockers tags --name {permitted.name.name} lists its tags, polly "
    msg += "dockers trash those that were deleted."
    return ManifestUnknown(msg, detail={"name": permitted.name, "reference": tag})


def _move_manifest(connection: Connection, permitted: Permitted, digest: Digest) -> Item:
    repository_id = permitted.repository_id
    manifest_id, held = _find_deletable(connection, permitted, digest)
    if held:
        db.trash.detach_from_indexes(connection, repository_id, manifest_id, digest)
    return db.trash.move_manifest(
        connection, permitted.organisation_id, repository_id, manifest_id, digest, permitted.user_id
    )


def _find_deletable(connection: Connection, permitted: Permitted, digest: Digest) -> tuple[int, bool]:
    """The id of a manifest, and whether indexes hold it. Raises ManifestUnknown, and Denied if they must keep it."""
    manifest_id = db.manifests.find_id(connection, permitted.repository_id, digest)
    if manifest_id is None:
        msg = f"{permitted.name} has no manifest {digest}."
        raise ManifestUnknown(msg, detail={"name": permitted.name, "reference": digest})
    indexes = db.trash.indexes_of(connection, manifest_id, MAX_INDEXES + 1)
    if indexes and not permitted.sparse_indexes:
        msg = (
            f"{digest} is part of the index {indexes[0]}, which could not be pulled without it. Delete the index first."
        )
        raise Denied(msg, detail={"indexes": indexes[:20]})
    if len(indexes) > MAX_INDEXES:
        msg = f"{digest} is part of more than {MAX_INDEXES} indexes. Delete some of them first."
        raise Denied(msg, detail={"indexes": indexes[:20]})
    return manifest_id, bool(indexes)


# --- what the trash holds --------------------------------------------------------------------------------------------


async def page(
    context: Context, actor: Actor, organisation: str, *, limit: int, after: int | None
) -> tuple[list[Item], int | None, int]:
    """A page of an organisation's trash, newest first; the cursor of the next page, and the total. For members."""

    def query(connection: Connection) -> tuple[list[Item], int | None, int]:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.reader)
        return db.trash.page(connection, organisation_id, limit=limit, after=after)

    return await context.database.read(query)


def explain_missing(
    connection: Connection, config: Config, name: RepositoryName, ids: tuple[int, int | None], reference: Tag | Digest
) -> str | None:
    """The message that a tag, a manifest or its whole repository was deleted; None if it is not in the trash.

    For members only: nobody else may learn what was deleted. ``ids`` are those of the organisation and the repository,
    the latter None if there is no such repository.
    """
    organisation_id, repository_id = ids
    if repository_id is None:
        item = db.deleted.find_repository(connection, organisation_id, name.name)
        what, options = f"The docker repository {name}", ""
    elif isinstance(reference, Digest):
        item = db.deleted.find_commit(connection, repository_id, reference)
        what, options = f"{name}@{reference}", f" --commit {reference}"
    else:
        item = db.deleted.find_tag(connection, repository_id, reference)
        what, options = f"{name}:{reference}", f" --tag {reference}"
    if item is None or item.purging:
        return None
    who = f" by {item.deleted_by}" if item.deleted_by else " by a policy" if item.by_policy else ""
    until = item.deleted_at + config.trash_days * DAY
    return (
        f"{what} was deleted{who} on {_minute(item.deleted_at)}. It is in the trash until {_minute(until)}. An admin "
        f"can restore it: polly dockers restore --name {name.name}{options}"
    )


def _minute(microseconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(microseconds / SECOND, dt.UTC):%Y-%m-%d %H:%M} UTC"


# --- restoring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Restored:
    """What a transaction restored of an item: parts of it only, if it has very many, or else all."""

    item: Item
    parts: list[Item]
    manifests: list[str]
    """Digests of the manifests that it restored. Indexes may still wait for them."""


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
    """Restore a tag, a commit or a whole repository, the one deleted last; returns the item. For admins.

    A repository comes back as ``new_name``, if that is given. Raises NotInTrash, NameExists, TagExists,
    DigestAmbiguous.
    """
    full = RepositoryName.of(organisation, name)
    reference = _reference(tag, commit)
    target = RepositoryName.of(organisation, new_name if new_name is not None else name)
    check_length(context.config.registry, target)

    def change(connection: Connection) -> tuple[_Restored, list[tuple[int, str]]]:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, ROLE_FOR[Action.delete])
        path, detail = str(full), f"as {target.name}" if target != full else ""
        if reference is None:
            back = _Restored(_restore_repository(connection, organisation_id, full, target), [], [])
        else:
            repository_id = permissions.require_permission(connection, actor, full, Action.delete).repository_id
            if isinstance(reference, Tag):
                path = f"{full}:{reference}"
                back = _restore_tag(connection, full, repository_id, reference)
            else:
                back = _restore_commit(connection, full, repository_id, reference)
                path = f"{full}@{back.item.name}"
        done = [(f"{full}@{each.name}", f"with {path}") for each in back.parts] or [(path, detail)]
        for each, how in done:
            db.audit.append(connection, Event.restore, each, organisation_id=organisation_id, by=actor, detail=how)
        places = [(back.item.repository_id or 0, digest) for digest in back.manifests]
        return back, [place for place in places if db.sparse.is_awaited(connection, *place)]

    while True:  # other writes go between the portions of a large restore
        back, awaited = await context.database.write(change)
        for repository_id, digest in awaited:
            await link_rest(context, repository_id, digest)
        if not back.parts:
            return back.item


def _restore_manifest(connection: Connection, item: Item, tag: str | None = None) -> _Restored:
    """Restore a manifest, or some parts of it if it has very many."""
    parts = db.restore.restore_parts(connection, item, tag)
    manifests = [each.name for each in parts] or db.restore.restore_manifest(connection, item)
    return _Restored(item, parts, manifests)


def _restore_repository(
    connection: Connection, organisation_id: int, full: RepositoryName, target: RepositoryName
) -> Item:
    item = db.trash.find_in_organisation(connection, organisation_id, db.trash.REPOSITORY, full.name)
    if item is None:
        raise _not_in_trash(full)
    if not db.restore.restore_repository(connection, item, target.name):
        command = f"polly dockers restore --name {full.name} --as NEW_NAME"
        msg = f"There is already a docker repository {target}. Restore the deleted one under another name: {command}"
        raise NameExists(msg)
    return item


def _restore_commit(
    connection: Connection, full: RepositoryName, repository_id: int, commit: Digest | DigestPrefix
) -> _Restored:
    """Restore a commit, or some parts of it, as ``_restore_manifest``."""
    if isinstance(commit, DigestPrefix):
        found = db.deleted.commits_from(connection, repository_id, commit, MAX_CANDIDATES + 1)
        commit = _only(full, commit, found, _not_in_trash(full, commit))
    item = db.trash.find(connection, db.trash.COMMIT, commit, repository_id=repository_id)
    if item is None:
        raise _not_in_trash(full, commit)
    return _restore_manifest(connection, item)


def _restore_tag(connection: Connection, full: RepositoryName, repository_id: int, tag: Tag) -> _Restored:
    """Restore a tag, and its newest commit, or some parts of that, if that is in the trash too."""
    found = db.deleted.find_tag(connection, repository_id, tag)
    item = db.trash.get(connection, found.id) if found is not None else None
    if item is None:
        raise _not_in_trash(full, tag)
    if db.tags.exists(connection, repository_id, tag):
        raise _tag_exists(full, tag, item)
    if item.kind == db.trash.COMMIT:
        return _restore_manifest(connection, item, tag)
    if db.restore.restore_tag(connection, item):
        return _Restored(item, [], [])
    newest = db.deleted.newest_commit(connection, repository_id, tag)
    commit = db.trash.get(connection, newest.id) if newest is not None else None
    if commit is None:
        msg = f"All commits of {full}:{tag} were purged, so the tag cannot be restored."
        raise NotInTrash(msg)
    back = _restore_manifest(connection, commit, tag)
    if not back.parts:
        db.restore.restore_tag_with_commit(connection, item)
    return replace(back, item=item)


def _tag_exists(full: RepositoryName, tag: Tag, item: Item) -> TagExists:
    msg = f"{full} already has a tag {tag}. Its earlier commits were not deleted: polly dockers commit-list shows them."
    if item.kind == db.trash.COMMIT:
        msg = (
            f"{full} already has a tag {tag}. Restore its deleted commit by the digest: "
            f"polly dockers restore --name {full.name} --commit {item.name}"
        )
    return TagExists(msg)


def _not_in_trash(full: RepositoryName, reference: Tag | Digest | DigestPrefix | None = None) -> NotInTrash:
    kind = "tag" if isinstance(reference, Tag) else "commit"
    what = f"{kind} {reference} of {full}" if reference is not None else f"docker repository {full}"
    return NotInTrash(
        f"The trash holds no {what}; it may have been purged. polly dockers trash shows what can be restored."
    )


# --- organisations, for the server's operator -----------------------------------------------------------------------


def delete_organisation(connection: Connection, slug: str) -> Item:
    """Move an organisation with all its repositories to the trash; returns the item. Raises OrganisationUnknown."""
    organisation_id = members.require_organisation(connection, slug)
    db.audit.append(connection, Event.delete, slug, organisation_id=organisation_id, by=None)
    return db.trash.move_organisation(connection, organisation_id, slug)


def require_deleted_organisations(connection: Connection, slug: str, number: int | None) -> list[Item]:
    """The deleted organisations of that slug, or the one with that number in the trash. Raises NotInTrash.

    Those being purged are among them only if there are no others.
    """
    named = [each for each in db.trash.organisations_in(connection) if each.name == slug]
    found = [each for each in named if number is None or each.id == number]
    if not found:
        which = f" with the number {number}" if number is not None else ""
        msg = (
            f"The trash holds no organisation {slug}{which}; it may have been purged. "
            "polly-server org list --deleted shows what can be restored."
        )
        raise NotInTrash(msg)
    return [each for each in found if not each.purging] or found[:1]


def restore_organisation(connection: Connection, item: Item, new_slug: str, command: str) -> None:
    """Restore an organisation as ``new_slug``. Raises NotInTrash and OrganisationExists.

    ``command`` restores it under another name, for the message.
    """
    if not db.restore.restore_organisation(connection, item, new_slug):
        msg = f"There is already an organisation {new_slug}. Restore the deleted one under another name: {command}"
        raise OrganisationExists(msg)
    detail = f"as {new_slug}" if new_slug != item.name else ""
    db.audit.append(connection, Event.restore, item.name, organisation_id=item.organisation_id, by=None, detail=detail)
