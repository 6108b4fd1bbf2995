"""Pages of the trash leave out what is being purged, by an index."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.drop_index(op.f("ix_trash_organisation_id_id"), "trash")
    columns = ["organisation_id", "purging_at", "id"]
    op.create_index(op.f(f"ix_trash_{'_'.join(columns)}"), "trash", columns)
