"""Tables and indexes that were missing when the first data folders of version 0.1 were made."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_index(op.f("ix_tags_repository_id_commit_id"), "tags", ["repository_id", "commit_id"], unique=False)
    op.create_index(op.f("ix_audit_at"), "audit", ["at"], unique=False)
    _trash()
    _readiness()
    _invitations()
    _orders()
    _clock()
    _journal()


def _journal() -> None:
    """Add what compacting the journal and dropping old entries of the audit log need."""
    op.add_column("journal", sa.Column("since", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("journal", sa.Column("stale", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "audit_start",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_start")),
    )


def _trash() -> None:
    """Add claims of items that are being purged, also for organisations that an older version began to purge."""
    op.add_column("trash", sa.Column("purging_at", sa.BigInteger()))
    op.create_index(
        *("ix_trash_purging_at", "trash", ["purging_at"]),
        sqlite_where=sa.text("purging_at IS NOT NULL"),
        postgresql_where=sa.text("purging_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_trash_organisation_id_kind_name"), "trash", ["organisation_id", "kind", "name"])
    op.execute(  # such a purge marked the repositories; those that were restored since were marked before
        "UPDATE trash SET purging_at = deleted_at WHERE kind = 'organisation' AND EXISTS (SELECT 1 FROM repositories "
        "AS r WHERE r.organisation_id = trash.organisation_id AND r.deleted_at >= trash.deleted_at "
        "AND r.name NOT LIKE '%~%')"
    )


def _readiness() -> None:
    """Add the row that /readyz writes."""
    op.create_table(
        "readiness",
        sa.Column("checked_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("checked_at", name=op.f("pk_readiness")),
    )


def _invitations() -> None:
    """Add the table of invitations. People who were invited with a password have no code, and must be invited again."""
    op.create_table(
        "invitations",
        sa.Column("organisation_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("email", sa.String(254).with_variant(sa.String(254, collation="C"), "postgresql"), nullable=False),
        sa.Column("role", sa.Integer(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("invited_by", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(
            ["organisation_id"],
            ["organisations.id"],
            name=op.f("fk_invitations_organisation_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["invited_by"], ["users.id"], name=op.f("fk_invitations_invited_by"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("organisation_id", "email", name=op.f("pk_invitations")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_invitations_code_hash")),
    )
    connection = op.get_bind()
    waiting = connection.execute(
        sa.text(
            "SELECT m.organisation_id AS organisation_id, u.email AS email, m.role AS role, m.joined_at AS created_at, "
            "m.joined_at + 7 * 86400 * 1000000 AS expires_at FROM members AS m JOIN users AS u ON u.id = m.user_id "
            "WHERE m.invitation_hash IS NOT NULL"
        )
    ).mappings()
    add = sa.text(
        "INSERT INTO invitations (organisation_id, email, role, code_hash, created_at, expires_at) "
        "VALUES (:organisation_id, :email, :role, :code_hash, :created_at, :expires_at)"
    )
    for row in list(waiting):
        connection.execute(add, dict(row) | {"code_hash": secrets.token_bytes(32)})
    op.execute("DELETE FROM members WHERE invitation_hash IS NOT NULL")
    op.drop_column("members", "invitation_hash")


def _orders() -> None:
    """Order lists by ids, which are in the order of events, instead of times."""
    for table, old, new in (
        ("commits", ["repository_id", "pushed_at", "id"], ["repository_id", "id"]),
        ("commits", ["repository_id", "tag", "pushed_at", "id"], ["repository_id", "tag", "id"]),
        ("repositories", ["organisation_id", "created_at", "id"], ["organisation_id", "id"]),
        ("trash", ["organisation_id", "deleted_at", "id"], ["organisation_id", "id"]),
    ):
        op.drop_index(op.f(f"ix_{table}_{'_'.join(old)}"), table)
        op.create_index(op.f(f"ix_{table}_{'_'.join(new)}"), table, new)


def _clock() -> None:
    """Add the jumps of the wall clock, so that nothing counts as older than it is."""
    op.create_table(
        "clock",
        sa.Column("boot", sa.LargeBinary(16), nullable=False),
        sa.Column("running", sa.BigInteger(), nullable=False),
        sa.Column("wall", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("boot", name=op.f("pk_clock")),
    )
    op.create_table(
        "clock_jumps",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("before", sa.BigInteger(), nullable=False),
        sa.Column("after", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock_jumps")),
        sqlite_autoincrement=True,
    )
