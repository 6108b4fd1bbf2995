"""The tables, for SQLite and PostgreSQL. The scripts in migrations/ make them, and a test proves that both agree.

Times are microseconds since 1970 UTC. Ids are never used twice (AUTOINCREMENT on SQLite), so a token or a cursor whose
row was deleted never matches another row.

::

    organisations ─< members >─ users ─< access_tokens
          ├─< invitations                          of emails, which need have no user
          │
    repositories ─< repository_blobs >─ blobs          a digest grants nothing: a blob is reached by its link
          │              │
          ├─< manifests ─┴< manifest_blobs             what keeps a link
          │       ├─< manifest_children                an index and its manifests
          │       └── manifest_pulls                   its last pull
          ├─< commits                                  appended; only in_trash changes
          ├─< tags                                     the active commit of each tag
          ├─< repository_deltas                        changes of totals that are not applied yet
          └─< trash ─< trash_tags                      what was deleted, until it is purged; the tags of commits there

    tombstones                                         storage keys of blobs without a row
    audit                                              what was done by whom; appended, never changed
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION: Final = "0006"
"""The newest migration; a test compares the tables that all migrations make with those of this file."""

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = BigInteger().with_variant(Integer(), "sqlite")
_AUTO: dict[str, Any] = {"sqlite_autoincrement": True}


def _only(name: str, *columns: str, where: str) -> Index:
    """An index of the rows that match a condition."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def _bytewise(length: int | None = None) -> String:
    """Text that sorts by its bytes: BINARY on SQLite, COLLATE "C" on PostgreSQL."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


organisations: Final = Table(
    "organisations",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("slug", _bytewise(96), nullable=False, unique=True),
    Column("create_on_push", Integer, nullable=False, server_default="0"),
    Column("policy", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("repositories", BigInteger, nullable=False, server_default="0"),
    **_AUTO,
)
"""``repositories`` is how many it has outside the trash."""

users: Final = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("email", _bytewise(254), nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("password_version", Integer, nullable=False, server_default="1"),
    Column("created_at", BigInteger, nullable=False),
    **_AUTO,
)

members: Final = Table(
    "members",
    metadata,
    Column("organisation_id", ForeignKey("organisations.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("role", Integer, nullable=False),
    Column("joined_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("organisation_id", "user_id"),
    Index(None, "user_id"),
)

invitations: Final = Table(
    "invitations",
    metadata,
    Column("organisation_id", ForeignKey("organisations.id", ondelete="CASCADE"), nullable=False),
    Column("email", _bytewise(254), nullable=False),
    Column("role", Integer, nullable=False),
    Column("code_hash", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("invited_by", ForeignKey("users.id", ondelete="CASCADE")),
    PrimaryKeyConstraint("organisation_id", "email"),
)
"""People who were invited and have not joined yet. The email may have an account or not."""

access_tokens: Final = Table(
    "access_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", ForeignKey("access_tokens.id", ondelete="CASCADE")),
    Column("scope", String(16), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("label", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger),
    Index(None, "user_id", "created_at"),
    Index(None, "parent_id"),
    Index(None, "expires_at"),
)

throttles: Final = Table(
    "throttles",
    metadata,
    Column("key", _bytewise(300), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("since", BigInteger, nullable=False),
    Index(None, "since"),
)

signing_keys: Final = Table(
    "signing_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("private_key", LargeBinary(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

repositories: Final = Table(
    "repositories",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id", ondelete="RESTRICT"), nullable=False),
    Column("name", _bytewise(288), nullable=False),
    Column("description", Text, nullable=False),
    Column("access", String(16), nullable=False),
    Column("sparse_indexes", String(16), nullable=False, server_default="deny"),
    Column("policy", Text),
    Column("created_by", ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("pushed_at", BigInteger),
    Column("active_at", BigInteger, nullable=False),
    Column("tags", BigInteger, nullable=False, server_default="0"),
    Column("commits", BigInteger, nullable=False, server_default="0"),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("deleted_at", BigInteger),
    Column("restored_at", BigInteger),
    UniqueConstraint("organisation_id", "name"),
    _only("ix_repositories_by_id", "organisation_id", "id", where="deleted_at IS NULL"),
    _only("ix_repositories_by_activity", "organisation_id", "active_at", "id", where="deleted_at IS NULL"),
    _only("ix_repositories_by_name", "organisation_id", "name", where="deleted_at IS NULL"),
    _only(
        "ix_repositories_policy",
        *("organisation_id", "name"),
        where="policy IS NOT NULL AND deleted_at IS NULL",
    ),
    **_AUTO,
)

repository_deltas: Final = Table(
    "repository_deltas",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("tags", BigInteger, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("pushed_at", BigInteger),
    Index(None, "repository_id"),
    **_AUTO,
)

blobs: Final = Table(
    "blobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("digest", _bytewise(135), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("storage_key", String(255), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("lost_at", BigInteger),
    **_AUTO,
)

repository_blobs: Final = Table(
    "repository_blobs",
    metadata,
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("blob_id", ForeignKey("blobs.id", ondelete="RESTRICT"), nullable=False),
    Column("leased_until", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "blob_id"),
    Index(None, "blob_id"),
    Index(None, "leased_until"),
)
"""``leased_until`` is HELD if the collector found a manifest that names the blob, HIDDEN if only trash names it."""

HELD: Final = 0
HIDDEN: Final = -1

manifests: Final = Table(
    "manifests",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("digest", _bytewise(160), nullable=False),
    Column("media_type", String(255), nullable=False),
    Column("artifact_type", String(255)),
    Column("subject", _bytewise(160)),
    Column("annotations", Text),
    Column("platforms", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("total_size", BigInteger, nullable=False),
    Column("pushed_by", ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    Column("pushed_at", BigInteger, nullable=False),
    Column("trash_id", BigInteger),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("repository_id", "digest"),
    Index(None, "repository_id", "subject", "id"),
    Index(None, "trash_id", sqlite_where=text("trash_id IS NOT NULL"), postgresql_where=text("trash_id IS NOT NULL")),
    **_AUTO,
)

manifest_blobs: Final = Table(
    "manifest_blobs",
    metadata,
    Column("manifest_id", ForeignKey("manifests.id", ondelete="CASCADE"), nullable=False),
    Column("repository_id", BigInteger, nullable=False),
    Column("blob_id", BigInteger, nullable=False),
    PrimaryKeyConstraint("manifest_id", "blob_id"),
    ForeignKeyConstraint(
        ["repository_id", "blob_id"],
        ["repository_blobs.repository_id", "repository_blobs.blob_id"],
        ondelete="RESTRICT",
    ),
    Index(None, "repository_id", "blob_id"),
)

manifest_missing: Final = Table(
    "manifest_missing",
    metadata,
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("digest", _bytewise(135), nullable=False),
    Column("manifest_id", ForeignKey("manifests.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("repository_id", "digest", "manifest_id"),
    Index(None, "manifest_id"),
)

manifest_children: Final = Table(
    "manifest_children",
    metadata,
    Column("manifest_id", ForeignKey("manifests.id", ondelete="CASCADE"), nullable=False),
    Column("child_id", ForeignKey("manifests.id", ondelete="RESTRICT"), nullable=False),
    PrimaryKeyConstraint("manifest_id", "child_id"),
    Index(None, "child_id"),
)

manifest_pulls: Final = Table(
    "manifest_pulls",
    metadata,
    Column("manifest_id", ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("pulled_at", BigInteger, nullable=False),
)
"""The last pull of a manifest, to the hour, or what counts as a pull (``last_pulls``)."""

commits: Final = Table(
    "commits",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("tag", _bytewise(128), nullable=False),
    Column("manifest_id", ForeignKey("manifests.id", ondelete="RESTRICT"), nullable=False),
    Column("pushed_by", ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    Column("pushed_at", BigInteger, nullable=False),
    Column("in_trash", Integer, nullable=False, server_default="0"),
    Index(None, "repository_id", "in_trash", "id"),
    Index(None, "repository_id", "tag", "in_trash", "id"),
    Index(None, "manifest_id"),
    **_AUTO,
)
"""``in_trash`` is 1 if the manifest is in the trash. So a page of commits is found without stepping over those."""

tags: Final = Table(
    "tags",
    metadata,
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("name", _bytewise(128), nullable=False),
    Column("manifest_id", ForeignKey("manifests.id", ondelete="RESTRICT"), nullable=False),
    Column("commit_id", ForeignKey("commits.id", ondelete="RESTRICT"), nullable=False),
    PrimaryKeyConstraint("repository_id", "name"),
    Index(None, "manifest_id"),
    Index(None, "commit_id"),
    Index(None, "repository_id", "commit_id"),
)

tag_totals: Final = Table(
    "tag_totals",
    metadata,
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("tag", _bytewise(128), nullable=False),
    Column("commits", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "tag"),
)
"""The number of commits of each tag, also of deleted tags, because a page of commits is too short to count them."""

trash: Final = Table(
    "trash",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id", ondelete="CASCADE"), nullable=False),
    Column("repository_id", ForeignKey("repositories.id", ondelete="CASCADE")),
    Column("kind", String(16), nullable=False),
    Column("name", _bytewise(255), nullable=False),
    Column("tags", Text, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("deleted_by", ForeignKey("users.id", ondelete="RESTRICT")),
    Column("by_policy", Integer, nullable=False, server_default="0"),
    Column("deleted_at", BigInteger, nullable=False),
    Column("purging_at", BigInteger),
    Index(None, "organisation_id", "purging_at", "id"),
    Index(None, "organisation_id", "kind", "name"),
    Index(None, "repository_id", "kind", "name"),
    Index(None, "deleted_at"),
    Index(
        *(None, "purging_at"),
        sqlite_where=text("purging_at IS NOT NULL"),
        postgresql_where=text("purging_at IS NOT NULL"),
    ),
    **_AUTO,
)
"""What people or policies deleted, until it is purged.

``name`` is the tag, the digest, the name of the repository, or the slug. The rows of a deleted thing stay under a name
that no request can have: its own name, MARK, and its id. ``purging_at`` is when the collector claimed the item. From
then on it is deleted step by step, and can't be restored.
"""

trash_tags: Final = Table(
    "trash_tags",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("tag", _bytewise(128), nullable=False),
    Column("trash_id", ForeignKey("trash.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("repository_id", "tag", "trash_id"),
    Index(None, "trash_id"),
)
"""The tags that were deleted with a commit. So the item of a tag is found without reading others."""

MARK: Final = "~"
"""A character that no name and no digest contains."""

tombstones: Final = Table(
    "tombstones",
    metadata,
    Column("storage_key", String(255), primary_key=True),
    Column("not_before", BigInteger, nullable=False),
    Index(None, "not_before"),
)
"""Storage keys that no row names, and when they may be deleted: when earlier pulls of the blob have ended."""

audit: Final = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("organisation_id", BigInteger),
    Column("event", String(32), nullable=False),
    Column("by", _bytewise(254), nullable=False),
    Column("address", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("position", BigInteger, unique=True),
    Column("hash", LargeBinary(32)),
    Index(None, "organisation_id", "id"),
    Index(None, "organisation_id", "event", "id"),
    Index(None, "at"),
    Index("ix_audit_unsealed", "id", sqlite_where=text("position IS NULL"), postgresql_where=text("position IS NULL")),
    **_AUTO,
)
"""``position`` and ``hash`` are set when the entry is sealed. Its organisation may have been purged since."""

audit_start: Final = Table(
    "audit_start",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)
"""At most one row: the last entry of the audit log that was dropped. The chain now begins after it."""

journal: Final = Table(
    "journal",
    metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("since", BigInteger, nullable=False, server_default="0"),
    Column("stale", BigInteger, nullable=False, server_default="0"),
)
"""One row: the last batch of the journal that is in the database.

Batches from ``since`` on go to new files. ``stale`` is how many purged things the journal still holds (``compaction``).
"""

readiness: Final = Table(
    "readiness",
    metadata,
    Column("checked_at", BigInteger, primary_key=True, autoincrement=False),
)
"""One row: when /readyz last found that rows and files can be written."""

clock: Final = Table(
    "clock",
    metadata,
    Column("boot", LargeBinary(16), primary_key=True),
    Column("running", BigInteger, nullable=False),
    Column("wall", BigInteger, nullable=False),
)
"""One row: the clocks at their last observation (``db.clock``)."""

clock_jumps: Final = Table(
    "clock_jumps",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("before", BigInteger, nullable=False),
    Column("after", BigInteger, nullable=False),
    **_AUTO,
)
"""Jumps of the wall clock ahead: from which time to which."""
