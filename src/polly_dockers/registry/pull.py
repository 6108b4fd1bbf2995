"""Pulling manifests and blobs, by one query each for rights, repository and content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, literal_column, not_, or_, select

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.db.schema import (
    HELD,
    HIDDEN,
    blobs,
    commits,
    manifests,
    members,
    repositories,
    repository_blobs,
    tags,
    trash,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.db.trash import COMMIT, TAG
from polly_dockers.errors import BlobUnknown, ManifestUnknown, NameUnknown
from polly_dockers.model import Action, Digest
from polly_dockers.registry import removal

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Exists, Row

    from polly_dockers.blobs.store import Blob
    from polly_dockers.context import Context
    from polly_dockers.db.blobs import LinkedBlob
    from polly_dockers.errors import PollyError
    from polly_dockers.model import Actor, RepositoryName, Tag


PULLED: Final = 100_000
"""Manifests whose pull a process remembers until it is written, at most: on a full disk that may take a day."""


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed, byte for byte."""

    digest: Digest
    media_type: str
    size: int
    body: bytes | None
    """None for one that is larger than was asked for."""


_CONTENT: Final = (
    manifests.c.id.label("manifest_id"),
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.size,
    case((manifests.c.size <= bindparam("largest"), manifests.c.body)).label("body"),
)


def _traced(*there: Exists) -> ColumnElement[int]:
    """Whether the trash may tell a member of what is not there: an index answers that with the row itself.

    A push asks for each tag that it is about to make; most were never there, and the trash need not be gone through.
    """
    nothing = or_(manifests.c.id.is_not(None), members.c.role.is_(None))
    known = and_(repositories.c.id.is_not(None), not_(or_(*there)))
    return case((or_(nothing, known), literal_column("0")), else_=literal_column("1")).label("traced")


def _thrown(kind: str) -> Exists:
    mine = and_(trash.c.repository_id == repositories.c.id, trash.c.kind == literal_column(f"'{kind}'"))
    return select(trash.c.id).where(mine, trash.c.name == bindparam("reference")).correlate(repositories).exists()


_PUSHED: Final = (
    select(commits.c.id)
    .where(commits.c.repository_id == repositories.c.id, commits.c.tag == bindparam("reference"))
    .correlate(repositories)
    .exists()
)
_BY_DIGEST: Final = Statement(
    select(*permissions.COLUMNS, *_CONTENT, _traced(_thrown(COMMIT)))
    .select_from(
        permissions.FROM.outerjoin(
            manifests,
            and_(manifests.c.repository_id == repositories.c.id, manifests.c.digest == bindparam("reference")),
        )
    )
    .where(permissions.WHERE)
)
_BY_TAG: Final = Statement(
    select(*permissions.COLUMNS, *_CONTENT, _traced(_thrown(TAG), _PUSHED))
    .select_from(
        permissions.FROM.outerjoin(
            tags, and_(tags.c.repository_id == repositories.c.id, tags.c.name == bindparam("reference"))
        ).outerjoin(manifests, manifests.c.id == tags.c.manifest_id)
    )
    .where(permissions.WHERE)
)
_BLOB: Final = Statement(
    select(
        *permissions.COLUMNS,
        blobs.c.id.label("blob_id"),
        blobs.c.digest,
        blobs.c.size,
        blobs.c.storage_key,
        blobs.c.lost_at,
        repository_blobs.c.leased_until,
    )
    .select_from(
        permissions.FROM.outerjoin(blobs, blobs.c.digest == bindparam("reference")).outerjoin(
            repository_blobs,
            and_(repository_blobs.c.repository_id == repositories.c.id, repository_blobs.c.blob_id == blobs.c.id),
        )
    )
    .where(permissions.WHERE)
)


async def manifest(
    context: Context, actor: Actor, name: RepositoryName, reference: Tag | Digest, *, largest: int
) -> StoredManifest:
    """The manifest of a tag or of a digest: of a commit that is active, or of any that is not.

    Its bytes where there are ``largest`` at most. Raises ManifestUnknown.
    """
    bound = permissions.parameters(actor, name, reference=reference, largest=largest)
    row = await context.database.read((_BY_DIGEST if isinstance(reference, Digest) else _BY_TAG).first, bound)
    reached = permissions.look(row, actor, name, Action.pull, public=context.public)
    if row is None or row.digest is None:
        raise await _missing(context, row, name, reference, whole=isinstance(reached, permissions.Absent))
    if len(context.pulled) < PULLED:
        context.pulled.add(row.manifest_id)
    return StoredManifest(Digest(row.digest), row.media_type, row.size, row.body)


async def _missing(
    context: Context,
    row: Row[*tuple[Any, ...]] | None,
    name: RepositoryName,
    reference: Tag | Digest,
    *,
    whole: bool,
) -> PollyError:
    """The error for a manifest that is not there, or the ``whole`` repository; a member is told of the trash."""
    said = None
    if row is not None and row.traced:
        place = (row.organisation_id, row.repository_id)
        said = await context.database.read(removal.trace, context.config, name, place, reference)
    if whole:
        return NameUnknown(said, detail={"name": name}) if said else permissions.missing(name, Action.pull)
    what = "commit or manifest" if isinstance(reference, Digest) else "tag"
    msg = f"{name} has no {what} {reference}. polly dockers commit-list --name {name.name} shows what it has."
    return ManifestUnknown(said or msg, detail={"name": name, "reference": reference})


async def blob(context: Context, actor: Actor, name: RepositoryName, digest: Digest) -> LinkedBlob:
    """A blob that the repository has, its lease renewed where it runs low; raises BlobUnknown.

    Whoever asks may be about to name it in a manifest: a HEAD is a promise that the blob will be there.
    """
    row = await context.database.read(_BLOB.first, permissions.parameters(actor, name, reference=digest))
    reached = permissions.found(row, actor, name, Action.pull, public=context.public)
    if row is None or row.leased_until in {None, HIDDEN} or row.lost_at is not None:
        msg = f"{name} has no blob {digest}."
        raise BlobUnknown(msg, detail={"name": name, "digest": digest})
    found = db.blobs.LinkedBlob(row.blob_id, row.digest, row.size, row.storage_key, row.leased_until)
    lease = context.config.lease_seconds
    if reached.user_id and found.leased_until != HELD and found.leased_until < now() + lease * 500_000:
        await context.write_aside(
            "the lease of a blob",
            db.blobs.link,
            repository_id=reached.repository_id,
            blob_id=found.id,
            digest=digest,
            size=found.size,
            lease=lease,
        )
    return found


async def open_blob(context: Context, found: LinkedBlob) -> Blob:
    """The blob's bytes; the caller closes it. Raises BlobMissing where they are not as many as the row says."""
    blob = await context.blobs.open(found.storage_key)
    if blob.size != found.size:
        blob.close()
        raise BlobMissing(found.storage_key)
    return blob
