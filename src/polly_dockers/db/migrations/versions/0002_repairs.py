"""What the tables of 0.1 had not yet when the first folders were made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_index(op.f("ix_tags_repository_id_commit_id"), "tags", ["repository_id", "commit_id"], unique=False)
    _trash()
    _readiness()


def _trash() -> None:
    """Items that are being purged are claimed; also organisations whose purge an older version began and did not end."""
    op.add_column("trash", sa.Column("purging_at", sa.BigInteger()))
    op.create_index(
        *("ix_trash_purging_at", "trash", ["purging_at"]),
        sqlite_where=sa.text("purging_at IS NOT NULL"),
        postgresql_where=sa.text("purging_at IS NOT NULL"),
    )
    op.execute(
        "UPDATE trash SET purging_at = deleted_at WHERE kind = 'organisation' AND EXISTS (SELECT 1 FROM repositories "
        "AS r WHERE r.organisation_id = trash.organisation_id AND r.deleted_at IS NOT NULL AND r.name NOT LIKE '%~%')"
    )


def _readiness() -> None:
    """The row that /readyz writes."""
    op.create_table(
        "readiness",
        sa.Column("checked_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("checked_at", name=op.f("pk_readiness")),
    )
