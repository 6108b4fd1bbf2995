"""Rows: the database (read, write), the schema, and queries as plain functions over a Connection, a file for each noun.

``migrate`` is not among the names here: it imports Alembic, which takes longer than most commands run.
"""

from polly_dockers.db import (
    accounts,
    audit,
    blobs,
    checks,
    clock,
    deleted,
    garbage,
    invitations,
    keys,
    manifests,
    pulls,
    readiness,
    repositories,
    restore,
    retention,
    schema,
    sparse,
    tags,
    throttles,
    trash,
    usage,
    version,
)

__all__ = [
    "accounts",
    "audit",
    "blobs",
    "checks",
    "clock",
    "deleted",
    "garbage",
    "invitations",
    "keys",
    "manifests",
    "pulls",
    "readiness",
    "repositories",
    "restore",
    "retention",
    "schema",
    "sparse",
    "tags",
    "throttles",
    "trash",
    "usage",
    "version",
]
