"""Commits say whether they are in the trash, and a table finds the item of a deleted tag."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    _commits()
    _tags()


def _commits() -> None:
    """Mark the commits of manifests in the trash, and order commits with that mark."""
    op.add_column("commits", sa.Column("in_trash", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE commits SET in_trash = 1 WHERE manifest_id IN (SELECT id FROM manifests WHERE trash_id IS NOT NULL)"
    )
    for first in (["repository_id"], ["repository_id", "tag"]):
        op.drop_index(op.f(f"ix_commits_{'_'.join(first)}_id"), "commits")
        columns = [*first, "in_trash", "id"]
        op.create_index(op.f(f"ix_commits_{'_'.join(columns)}"), "commits", columns)


def _tags() -> None:
    """Add the table of the tags that were deleted with commits."""
    op.create_table(
        "trash_tags",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("tag", sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql"), nullable=False),
        sa.Column("trash_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["trash_id"], ["trash.id"], name=op.f("fk_trash_tags_trash_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("repository_id", "tag", "trash_id", name=op.f("pk_trash_tags")),
    )
    op.create_index(op.f("ix_trash_tags_trash_id"), "trash_tags", ["trash_id"])
    connection = op.get_bind()
    add = sa.text("INSERT INTO trash_tags (repository_id, tag, trash_id) VALUES (:repository_id, :tag, :trash_id)")
    items = sa.text("SELECT id, repository_id, tags FROM trash WHERE kind = 'commit' AND tags != ''")
    for item in connection.execute(items).all():
        rows = [{"repository_id": item.repository_id, "tag": tag, "trash_id": item.id} for tag in item.tags.split()]
        connection.execute(add, rows)
