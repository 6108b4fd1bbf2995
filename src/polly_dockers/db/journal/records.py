"""What a transaction tells the journal: records of changes, which the database can be rebuilt from.

A function that changes rows of a repository adds a record of it to the transaction that is under way (``add``). The
writer appends the records of a batch to the journal before the transaction ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PENDING: Final = "journal"


class Record(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """One change. Ids are those of the rows; times are microseconds since 1970."""


class OrganisationSet(Record, frozen=True, tag="organisation"):
    """An organisation was made, or its settings were changed."""

    id: int
    slug: str
    create_on_push: bool
    created_at: int
    policy: str | None = None


class UserMade(Record, frozen=True, tag="user"):
    """An account was made. No password, and no role, is ever here."""

    id: int
    email: str
    created_at: int


class RepositoryMade(Record, frozen=True, tag="repository"):
    """A repository was made."""

    id: int
    organisation_id: int
    name: str
    description: str
    access: str
    sparse_indexes: str
    created_by: int
    created_at: int
    policy: str | None = None


class RepositoryChanged(Record, frozen=True, tag="repository-changed"):
    """Columns of a repository were set."""

    id: int
    values: dict[str, str | None]


class ManifestPushed(Record, frozen=True, tag="manifest"):
    """A manifest was pushed.

    It was linked with everything that it names, except what was missing. A rebuild must link nothing else: that a
    manifest names a digest does not prove that its repository had the content.
    """

    id: int
    repository_id: int
    digest: str
    media_type: str
    platforms: str
    pushed_by: int
    pushed_at: int
    body: bytes
    missing: list[str] | None = None
    """Digests that it names and its repository lacked; None if an older version wrote the record."""
    children: list[int] = msgspec.field(default_factory=list)
    """Ids of the manifests that an index holds. In a snapshot their records may come later."""


class Arrived(Record, frozen=True, tag="arrived"):
    """A repository got a blob or manifest that manifests in it lacked; they are linked with it."""

    repository_id: int
    digest: str


class Committed(Record, frozen=True, tag="commit"):
    """A tag was set to a manifest."""

    id: int
    repository_id: int
    tag: str
    manifest_id: int
    pushed_by: int
    pushed_at: int
    active: bool = True


class MovedToTrash(Record, frozen=True, tag="thrown"):
    """A tag, commit, repository or organisation was moved to the trash."""

    id: int
    organisation_id: int
    repository_id: int | None
    kind: str
    name: str
    tags: str
    deleted_by: int | None
    deleted_at: int
    by_policy: bool = False


class Restored(Record, frozen=True, tag="restored"):
    """An item of the trash was restored, a repository or an organisation under this name.

    A commit was restored with all that belongs to it, unless the record has ``tags``.
    """

    id: int
    name: str
    tags: list[str] | None = None
    """The tags that were set, if the commit was restored for itself as a part of a large restore."""


class BlobHidden(Record, frozen=True, tag="blob-hidden"):
    """A blob that only manifests in the trash name was hidden in a repository, or is visible there again."""

    repository_id: int
    digest: str
    hidden: bool = True


class Claimed(Record, frozen=True, tag="claimed"):
    """The collector began to purge an item of the trash, which can no longer be restored."""

    id: int


class Purged(Record, frozen=True, tag="purged"):
    """An item of the trash was purged."""

    id: int


class Audited(Record, frozen=True, tag="audited"):
    """An entry of the audit log."""

    id: int
    at: int
    organisation_id: int | None
    """None if no organisation is concerned."""
    event: str
    by: str
    """The email of a user, or one of ``audit.OPERATOR`` and ``audit.POLICY``."""
    address: str
    subject: str
    """An image path without the host, an email, the id of a token."""
    detail: str


class Sealed(Record, frozen=True, tag="sealed"):
    """The hash of an entry of the audit log, at its position in the chain. All entries up to it are sealed."""

    position: int
    hash: bytes

    def __str__(self) -> str:
        """``POSITION:HASH``, to be stored elsewhere and compared later."""
        return f"{self.position}:{self.hash.hex()}"


class AuditStart(Record, frozen=True, tag="audit-start"):
    """Entries of the audit log up to this id were dropped; the chain now begins after this position."""

    id: int
    position: int
    hash: bytes


class LastId(Record, frozen=True, tag="last-id"):
    """A table has given out ids up to this one: they are never used again, even after a purge."""

    table: str
    id: int


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What one transaction changed."""

    id: int
    """The time of the batch in microseconds, or the last id plus one: ids only grow."""
    previous: int
    """The id of the batch before it in the database; 0 if this one holds all rows of that time."""
    records: list[
        OrganisationSet
        | UserMade
        | RepositoryMade
        | RepositoryChanged
        | ManifestPushed
        | Arrived
        | Committed
        | MovedToTrash
        | Restored
        | BlobHidden
        | Claimed
        | Purged
        | Audited
        | Sealed
        | AuditStart
        | LastId
    ]


def add(connection: Connection, record: Record) -> None:
    """Have a change written to the journal with the transaction that is under way."""
    pending(connection).append(record)


def pending(connection: Connection) -> list[Record]:
    """The records of the transaction that is under way. Shorten the list to drop the last ones; clear it at the end."""
    found: list[Record] = connection.info.setdefault(_PENDING, [])
    return found
