"""The queries of a pull: rights, repository and content in one row each, with the columns of ``db.permissions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, literal_column, not_, or_, select

from polly_dockers.db import permissions
from polly_dockers.db.schema import (
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
from polly_dockers.model import Digest

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Exists

    from polly_dockers.model import Actor, RepositoryName, Tag

_CONTENT: Final = (
    manifests.c.id.label("manifest_id"),
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.size,
    case((manifests.c.size <= bindparam("largest"), manifests.c.body)).label("body"),
)


def _maybe_deleted(*there: Exists) -> ColumnElement[int]:
    """Whether what a member asks for is missing and may be in the trash: an index answers that in the same query.

    A push asks for each tag that it is about to make. Most never existed, so the trash need not be searched.
    """
    nothing = or_(manifests.c.id.is_not(None), members.c.role.is_(None))
    known = and_(repositories.c.id.is_not(None), not_(or_(*there)))
    return case((or_(nothing, known), literal_column("0")), else_=literal_column("1")).label("maybe_deleted")


def _in_trash(kind: str) -> Exists:
    mine = and_(trash.c.repository_id == repositories.c.id, trash.c.kind == literal_column(f"'{kind}'"))
    return select(trash.c.id).where(mine, trash.c.name == bindparam("reference")).correlate(repositories).exists()


_PUSHED: Final = (
    select(commits.c.id)
    .where(commits.c.repository_id == repositories.c.id, commits.c.tag == bindparam("reference"))
    .correlate(repositories)
    .exists()
)
_BY_DIGEST: Final = Statement(
    select(*permissions.COLUMNS, *_CONTENT, _maybe_deleted(_in_trash(COMMIT)))
    .select_from(
        permissions.FROM.outerjoin(
            manifests,
            and_(manifests.c.repository_id == repositories.c.id, manifests.c.digest == bindparam("reference")),
        )
    )
    .where(permissions.WHERE)
)
BY_TAG: Final = Statement(
    select(*permissions.COLUMNS, *_CONTENT, _maybe_deleted(_in_trash(TAG), _PUSHED))
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
        repository_blobs.c.leased_until,
    )
    .select_from(
        permissions.FROM.outerjoin(
            blobs, and_(blobs.c.digest == bindparam("reference"), blobs.c.lost_at.is_(None))
        ).outerjoin(
            repository_blobs,
            and_(
                repository_blobs.c.repository_id == repositories.c.id,
                repository_blobs.c.blob_id == blobs.c.id,
                repository_blobs.c.leased_until != HIDDEN,
            ),
        )
    )
    .where(permissions.WHERE)
)


def find_manifest(
    connection: Connection, actor: Actor, name: RepositoryName, reference: Tag | Digest, largest: int
) -> Any:  # noqa: ANN401 - a named tuple
    """A row with rights and the manifest of a tag or digest; its ``digest`` is None if there is none.

    ``body`` is None for a manifest of more than ``largest`` bytes. None if there is no such organisation.
    """
    bound = permissions.parameters(actor, name, reference=reference, largest=largest)
    return (_BY_DIGEST if isinstance(reference, Digest) else BY_TAG).first(connection, bound)


def find_blob(connection: Connection, actor: Actor, name: RepositoryName, digest: Digest) -> Any:  # noqa: ANN401 - a named tuple
    """A row with rights and a blob of the repository; its ``leased_until`` is None if the repository has none.

    None if there is no such organisation.
    """
    return _BLOB.first(connection, permissions.parameters(actor, name, reference=digest))
