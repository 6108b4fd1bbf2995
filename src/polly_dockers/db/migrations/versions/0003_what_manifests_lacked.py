"""Have the next compaction write a new journal: older records do not say what a manifest lacked when it was pushed."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Count the journal as one that holds something that is no longer needed."""
    op.execute("UPDATE journal SET stale = stale + 1")
