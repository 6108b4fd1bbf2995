"""Pulling manifests and blobs. One query finds the rights, the repository and the content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.db.sqlite import now
from polly_dockers.errors import BlobUnknown, ManifestUnknown, NameUnknown
from polly_dockers.model import Action, Digest
from polly_dockers.registry import deletion
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from polly_dockers.blobs.store import Blob
    from polly_dockers.context import Context
    from polly_dockers.db.blobs import LinkedBlob
    from polly_dockers.errors import PollyError
    from polly_dockers.model import Actor, RepositoryName, Tag


PULLED: Final = 100_000
"""Pulled manifests that a process remembers until they are recorded, at most. With a full disk that may be a day."""


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest, byte for byte as it was pushed."""

    digest: Digest
    media_type: str
    size: int
    body: bytes | None
    """None if it is larger than the caller wanted."""


async def manifest(
    context: Context, actor: Actor, name: RepositoryName, reference: Tag | Digest, *, largest: int
) -> StoredManifest:
    """The manifest of a tag, or of a digest, whether its commit is active or not.

    The body is included if it has at most ``largest`` bytes. Raises ManifestUnknown, Unauthorized and NameUnknown.
    """
    row = await context.database.read(db.pull.find_manifest, actor, name, reference, largest)
    permitted = permissions.require_or_absent_in_row(row, actor, name, Action.pull, allow_public=context.allow_public)
    if row is None or row.digest is None:
        raise await _missing(context, row, name, reference, whole=isinstance(permitted, permissions.Absent))
    if len(context.pulled) < PULLED:
        context.pulled.add(row.manifest_id)
    return StoredManifest(Digest(row.digest), row.media_type, row.size, row.body)


async def _missing(
    context: Context,
    row: Any,  # noqa: ANN401 - a named tuple
    name: RepositoryName,
    reference: Tag | Digest,
    *,
    whole: bool,
) -> PollyError:
    """The error for a missing manifest, or a missing ``whole`` repository. It tells members what is in the trash."""
    deleted = None
    if row is not None and row.maybe_deleted:
        place = (row.organisation_id, row.repository_id)
        deleted = await context.database.read(deletion.explain_missing, context.config, name, place, reference)
    if whole:
        return (
            NameUnknown(deleted, detail={"name": name})
            if deleted
            else permissions.repository_missing(name, Action.pull)
        )
    what = "commit or manifest" if isinstance(reference, Digest) else "tag"
    msg = f"{name} has no {what} {reference}. polly dockers commit-list --name {name.name} shows its tags and commits."
    return ManifestUnknown(deleted or msg, detail={"name": name, "reference": reference})


async def blob(context: Context, actor: Actor, name: RepositoryName, digest: Digest) -> LinkedBlob:
    """A blob of the repository. Its lease is renewed if half of it has passed. Raises BlobUnknown.

    A client that sends HEAD may be about to push a manifest that names the blob, so the blob must stay until then.
    """
    row = await context.database.read(db.pull.find_blob, actor, name, digest)
    permitted = permissions.require_in_row(row, actor, name, Action.pull, allow_public=context.allow_public)
    if row is None or row.leased_until is None:
        msg = f"{name} has no blob {digest}."
        raise BlobUnknown(msg, detail={"name": name, "digest": digest})
    found = db.blobs.LinkedBlob(row.blob_id, row.digest, row.size, row.storage_key, row.leased_until)
    lease = context.config.lease_seconds
    if permitted.user_id and not found.held and found.leased_until < now() + lease * SECOND // 2:
        await context.write_aside(
            "the lease of a blob",
            db.blobs.link,
            repository_id=permitted.repository_id,
            blob_id=found.id,
            digest=digest,
            size=found.size,
            lease=lease,
        )
    return found


async def open_blob(context: Context, found: LinkedBlob) -> Blob:
    """Open the blob's bytes; the caller closes them. Raises BlobMissing if their number differs from the row's."""
    blob = await context.blobs.open(found.storage_key)
    if blob.size != found.size:
        blob.close()
        raise BlobMissing(found.storage_key)
    return blob
