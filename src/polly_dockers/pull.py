"""Pulling manifests and blobs, by one query each for rights, repository and content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, literal_column, not_, or_, select

from polly_dockers import access, removal
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.db import blobs as blob_rows
from polly_dockers.db.engine import now
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
from polly_dockers.db.statement import Statement
from polly_dockers.db.trash import COMMIT, TAG
from polly_dockers.errors import BlobUnknown, ManifestUnknown, NameUnknown
from polly_dockers.model import Action, Digest

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Exists, Row

    from polly_dockers.blobs.store import Blob
    from polly_dockers.db.blobs import LinkedBlob
    from polly_dockers.errors import PollyError
    from polly_dockers.model import Actor, RepositoryName, Tag
    from polly_dockers.registry import Registry


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
    select(*access.COLUMNS, *_CONTENT, _traced(_thrown(COMMIT)))
    .select_from(
        access.FROM.outerjoin(
            manifests,
            and_(manifests.c.repository_id == repositories.c.id, manifests.c.digest == bindparam("reference")),
        )
    )
    .where(access.WHERE)
)
_BY_TAG: Final = Statement(
    select(*access.COLUMNS, *_CONTENT, _traced(_thrown(TAG), _PUSHED))
    .select_from(
        access.FROM.outerjoin(
            tags, and_(tags.c.repository_id == repositories.c.id, tags.c.name == bindparam("reference"))
        ).outerjoin(manifests, manifests.c.id == tags.c.manifest_id)
    )
    .where(access.WHERE)
)
_BLOB: Final = Statement(
    select(
        *access.COLUMNS,
        blobs.c.id.label("blob_id"),
        blobs.c.digest,
        blobs.c.size,
        blobs.c.storage_key,
        blobs.c.lost_at,
        repository_blobs.c.leased_until,
    )
    .select_from(
        access.FROM.outerjoin(blobs, blobs.c.digest == bindparam("reference")).outerjoin(
            repository_blobs,
            and_(repository_blobs.c.repository_id == repositories.c.id, repository_blobs.c.blob_id == blobs.c.id),
        )
    )
    .where(access.WHERE)
)


async def manifest(
    registry: Registry, actor: Actor, name: RepositoryName, reference: Tag | Digest, *, largest: int
) -> StoredManifest:
    """The manifest of a tag or of a digest: of a commit that is active, or of any that is not.

    Its bytes where there are ``largest`` at most. Raises ManifestUnknown.
    """
    bound = access.parameters(actor, name, reference=reference, largest=largest)
    row = await registry.database.read((_BY_DIGEST if isinstance(reference, Digest) else _BY_TAG).first, bound)
    reached = access.look(row, actor, name, Action.pull, public=registry.public)
    if row is None or row.digest is None:
        raise await _missing(registry, row, name, reference, whole=isinstance(reached, access.Absent))
    if len(registry.pulled) < PULLED:
        registry.pulled.add(row.manifest_id)
    return StoredManifest(Digest(row.digest), row.media_type, row.size, row.body)


async def _missing(
    registry: Registry,
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
        said = await registry.database.read(removal.trace, registry.config, name, place, reference)
    if whole:
        return NameUnknown(said, detail={"name": name}) if said else access.missing(name, Action.pull)
    what = "commit or manifest" if isinstance(reference, Digest) else "tag"
    msg = f"{name} has no {what} {reference}. polly dockers commit-list --name {name.name} shows what it has."
    return ManifestUnknown(said or msg, detail={"name": name, "reference": reference})


async def blob(registry: Registry, actor: Actor, name: RepositoryName, digest: Digest) -> LinkedBlob:
    """A blob that the repository has, its lease renewed where it runs low; raises BlobUnknown.

    Whoever asks may be about to name it in a manifest: a HEAD is a promise that the blob will be there.
    """
    row = await registry.database.read(_BLOB.first, access.parameters(actor, name, reference=digest))
    reached = access.found(row, actor, name, Action.pull, public=registry.public)
    if row is None or row.leased_until in {None, HIDDEN} or row.lost_at is not None:
        msg = f"{name} has no blob {digest}."
        raise BlobUnknown(msg, detail={"name": name, "digest": digest})
    found = blob_rows.LinkedBlob(row.blob_id, row.digest, row.size, row.storage_key, row.leased_until)
    lease = registry.config.lease_seconds
    if reached.user_id and found.leased_until != HELD and found.leased_until < now() + lease * 500_000:
        await registry.write_aside(
            "the lease of a blob",
            blob_rows.link,
            repository_id=reached.repository_id,
            blob_id=found.id,
            digest=digest,
            size=found.size,
            lease=lease,
        )
    return found


async def open_blob(registry: Registry, found: LinkedBlob) -> Blob:
    """The blob's bytes; the caller closes it. Raises BlobMissing where they are not as many as the row says."""
    blob = await registry.blobs.open(found.storage_key)
    if blob.size != found.size:
        blob.close()
        raise BlobMissing(found.storage_key)
    return blob
