"""Deleting over the registry protocol: into the trash, off the wire at once."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.db.audit import Event
from polly_dockers.errors import BlobUnknown, Denied, ManifestUnknown, Unsupported
from polly_dockers.model import Action, Digest
from polly_dockers.system.durations import DAY, SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.auth.permissions import Permitted
    from polly_dockers.config import Config
    from polly_dockers.context import Context
    from polly_dockers.db.trash import Item
    from polly_dockers.model import Actor, RepositoryName, Tag


async def manifest(context: Context, actor: Actor, name: RepositoryName, reference: Tag | Digest) -> None:
    """Delete a tag (its commits stay, inactive) or a manifest (its tags and commits go too).

    Raises Unsupported where the server's setting forbids it, ManifestUnknown where it is not there, Denied for a
    manifest that an index of the repository holds.
    """
    if context.config.manifest_delete == "deny":
        msg = "This server keeps every tag and manifest: its setting manifest_delete is deny."
        raise Unsupported(msg)
    await context.database.write(_manifest, context, actor, name, reference)


def _manifest(
    connection: Connection, context: Context, actor: Actor, name: RepositoryName, reference: Tag | Digest
) -> None:
    reached = permissions.require_permission(connection, actor, name, Action.delete, public=context.public)
    throw(connection, actor, reached, reference)


def throw(connection: Connection, actor: Actor, reached: Permitted, reference: Tag | Digest) -> Item:
    """Put a tag or a manifest into the trash. Raises ManifestUnknown, Denied."""
    item = _throw(connection, reached, reference)
    path = f"{reached.name}{'@' if isinstance(reference, Digest) else ':'}{reference}"
    detail = f"with the tags {' '.join(item.tags)}" if isinstance(reference, Digest) and item.tags else ""
    db.audit.append(connection, Event.delete, path, organisation_id=reached.organisation_id, by=actor, detail=detail)
    return item


def _throw(connection: Connection, reached: Permitted, reference: Tag | Digest) -> Item:
    name, repository_id = reached.name, reached.repository_id
    if not isinstance(reference, Digest):
        item = db.trash.move_tag(connection, reached.organisation_id, repository_id, reference, reached.user_id)
        if item is None:
            msg = f"{name} has no tag {reference}."
            raise ManifestUnknown(msg, detail={"name": name, "reference": reference})
        return item
    manifest_id = db.manifests.find_id(connection, repository_id, reference)
    if manifest_id is None:
        msg = f"{name} has no manifest {reference}."
        raise ManifestUnknown(msg, detail={"name": name, "reference": reference})
    indexes = db.trash.indexes_of(connection, manifest_id)
    if indexes and not reached.sparse_indexes:
        msg = f"{reference} is part of the index {indexes[0]}, which could not be pulled without it. Delete that first."
        raise Denied(msg, detail={"indexes": indexes[:20]})
    if indexes:
        db.trash.detach_from_indexes(connection, repository_id, manifest_id, reference)
    return db.trash.move_manifest(
        connection, reached.organisation_id, repository_id, manifest_id, reference, reached.user_id
    )


def trace(
    connection: Connection, config: Config, name: RepositoryName, place: tuple[int, int | None], reference: Tag | Digest
) -> str | None:
    """What became of a tag, of a manifest or of its whole repository that is in the trash; None: it is not there.

    For members only: nobody else learns what was deleted. ``place`` are the ids of the organisation and of the
    repository, None for a repository that is not there.
    """
    organisation_id, repository_id = place
    if repository_id is None:
        item = db.trash.find_in_organisation(connection, organisation_id, db.trash.REPOSITORY, name.name)
        what, options = f"The docker repository {name}", ""
    elif isinstance(reference, Digest):
        item = db.trash.find(connection, db.trash.COMMIT, reference, repository_id=repository_id)
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


async def blob(context: Context, actor: Actor, name: RepositoryName, digest: Digest) -> None:
    """Take a blob out of the repository.

    Raises Unsupported where the server's setting forbids it, BlobUnknown where it is not there, Denied while a
    manifest names it.
    """
    if context.config.blob_delete == "deny":
        msg = "This server deletes no blobs by request: its setting blob_delete is deny."
        raise Unsupported(msg)
    await context.database.write(_blob, context, actor, name, digest)


def _blob(connection: Connection, context: Context, actor: Actor, name: RepositoryName, digest: Digest) -> None:
    reached = permissions.require_permission(connection, actor, name, Action.delete, public=context.public)
    found = db.blobs.find(connection, reached.repository_id, digest)
    if found is None:
        msg = f"{name} has no blob {digest}."
        raise BlobUnknown(msg, detail={"name": name, "digest": digest})
    if db.manifests.blob_is_named(connection, reached.repository_id, found.id):
        msg = f"A manifest of {name} names {digest}. Delete that manifest first; its commits go with it."
        raise Denied(msg)
    db.trash.hide_blob(connection, reached.repository_id, found.id, found.size)
    path = f"{name}@{digest}"
    db.audit.append(connection, Event.delete, path, organisation_id=reached.organisation_id, by=actor, detail="a blob")
