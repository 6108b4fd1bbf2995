"""Organisations know how many repositories they have, and lists of repositories find those that are not in the trash."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.add_column("organisations", sa.Column("repositories", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE organisations SET repositories = (SELECT count(*) FROM repositories AS mine"
        " WHERE mine.organisation_id = organisations.id AND mine.deleted_at IS NULL)"
    )
    for name in ("organisation_id_id", "organisation_id_active_at_id", "policy"):
        op.drop_index(op.f(f"ix_repositories_{name}"), "repositories")
    for name, columns, where in (
        ("by_id", ["organisation_id", "id"], "deleted_at IS NULL"),
        ("by_activity", ["organisation_id", "active_at", "id"], "deleted_at IS NULL"),
        ("by_name", ["organisation_id", "name"], "deleted_at IS NULL"),
        ("policy", ["organisation_id", "name"], "policy IS NOT NULL AND deleted_at IS NULL"),
    ):
        op.create_index(
            op.f(f"ix_repositories_{name}"),
            "repositories",
            columns,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
