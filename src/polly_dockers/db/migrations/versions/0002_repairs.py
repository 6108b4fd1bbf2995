"""What the tables of 0.1 had not yet when the first folders were made."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_index(op.f("ix_tags_repository_id_commit_id"), "tags", ["repository_id", "commit_id"], unique=False)
