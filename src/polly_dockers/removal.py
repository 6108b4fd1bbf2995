"""Deleting over the registry protocol: into the trash, off the wire at once."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from polly_dockers import access
from polly_dockers.db import audit, deleted
from polly_dockers.db import blobs as blob_rows
from polly_dockers.db import manifests as rows
from polly_dockers.db import trash as trash_rows
from polly_dockers.db.audit import Event
from polly_dockers.errors import BlobUnknown, Denied, ManifestUnknown, Unsupported
from polly_dockers.model import Action, Digest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.access import Reached
    from polly_dockers.config import Config
    from polly_dockers.db.trash import Item
    from polly_dockers.model import Actor, RepositoryName, Tag
    from polly_dockers.registry import Registry


async def manifest(registry: Registry, actor: Actor, name: RepositoryName, reference: Tag | Digest) -> None:
    """Delete a tag (its commits stay, inactive) or a manifest (its tags and commits go too).

    Raises Unsupported where the server's setting forbids it, ManifestUnknown where it is not there, Denied for a
    manifest that an index of the repository holds.
    """
    if registry.config.manifest_delete == "deny":
        msg = "This server keeps every tag and manifest: its setting manifest_delete is deny."
        raise Unsupported(msg)
    await registry.database.write(_manifest, registry, actor, name, reference)


def _manifest(
    connection: Connection, registry: Registry, actor: Actor, name: RepositoryName, reference: Tag | Digest
) -> None:
    reached = access.reach(connection, actor, name, Action.delete, public=registry.public)
    throw(connection, actor, reached, reference)


def throw(connection: Connection, actor: Actor, reached: Reached, reference: Tag | Digest) -> Item:
    """Put a tag or a manifest into the trash. Raises ManifestUnknown, Denied."""
    item = _throw(connection, reached, reference)
    path = f"{reached.name}{'@' if isinstance(reference, Digest) else ':'}{reference}"
    detail = f"with the tags {' '.join(item.tags)}" if isinstance(reference, Digest) and item.tags else ""
    audit.note(connection, Event.delete, path, organisation_id=reached.organisation_id, by=actor, detail=detail)
    return item


def _throw(connection: Connection, reached: Reached, reference: Tag | Digest) -> Item:
    name, repository_id = reached.name, reached.repository_id
    if not isinstance(reference, Digest):
        item = trash_rows.throw_tag(connection, reached.organisation_id, repository_id, reference, reached.user_id)
        if item is None:
            msg = f"{name} has no tag {reference}."
            raise ManifestUnknown(msg, detail={"name": name, "reference": reference})
        return item
    manifest_id = rows.find_id(connection, repository_id, reference)
    if manifest_id is None:
        msg = f"{name} has no manifest {reference}."
        raise ManifestUnknown(msg, detail={"name": name, "reference": reference})
    indexes = trash_rows.indexes_of(connection, manifest_id)
    if indexes and not reached.sparse_indexes:
        msg = f"{reference} is part of the index {indexes[0]}, which could not be pulled without it. Delete that first."
        raise Denied(msg, detail={"indexes": indexes[:20]})
    if indexes:
        trash_rows.forget_children(connection, repository_id, manifest_id, reference)
    return trash_rows.throw_manifest(
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
        item = trash_rows.find_in_organisation(connection, organisation_id, trash_rows.REPOSITORY, name.name)
        what, options = f"The docker repository {name}", ""
    elif isinstance(reference, Digest):
        item = trash_rows.find(connection, trash_rows.COMMIT, reference, repository_id=repository_id)
        what, options = f"{name}@{reference}", f" --commit {reference}"
    else:
        item = deleted.find_tag(connection, repository_id, reference)
        what, options = f"{name}:{reference}", f" --tag {reference}"
    if item is None or item.purging:
        return None
    who = f" by {item.deleted_by}" if item.deleted_by else " by a policy" if item.by_policy else ""
    until = item.deleted_at + config.trash_days * 86_400_000_000
    return (
        f"{what} was deleted{who} on {_minute(item.deleted_at)}. It is in the trash until {_minute(until)}. An admin "
        f"can restore it: polly dockers restore --name {name.name}{options}"
    )


def _minute(microseconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(microseconds / 1_000_000, dt.UTC):%Y-%m-%d %H:%M} UTC"


async def blob(registry: Registry, actor: Actor, name: RepositoryName, digest: Digest) -> None:
    """Take a blob out of the repository.

    Raises Unsupported where the server's setting forbids it, BlobUnknown where it is not there, Denied while a
    manifest names it.
    """
    if registry.config.blob_delete == "deny":
        msg = "This server deletes no blobs by request: its setting blob_delete is deny."
        raise Unsupported(msg)
    await registry.database.write(_blob, registry, actor, name, digest)


def _blob(connection: Connection, registry: Registry, actor: Actor, name: RepositoryName, digest: Digest) -> None:
    reached = access.reach(connection, actor, name, Action.delete, public=registry.public)
    found = blob_rows.find(connection, reached.repository_id, digest)
    if found is None:
        msg = f"{name} has no blob {digest}."
        raise BlobUnknown(msg, detail={"name": name, "digest": digest})
    if rows.blob_is_named(connection, reached.repository_id, found.id):
        msg = f"A manifest of {name} names {digest}. Delete that manifest first; its commits go with it."
        raise Denied(msg)
    trash_rows.hide_blob(connection, reached.repository_id, found.id, found.size)
    path = f"{name}@{digest}"
    audit.note(connection, Event.delete, path, organisation_id=reached.organisation_id, by=actor, detail="a blob")
