"""The database: reads and writes (``sqlite``), the tables (``schema``), and a module of queries for each noun.

Queries are plain functions over a ``Connection``: ``from polly_dockers import db``, then ``db.audit.append(…)``.

``migrate`` is not among the names here: it imports Alembic, which takes longer than most commands run.
"""

from polly_dockers.db import (  # noqa: F401 - what callers reach through ``db``
    accounts,
    audit,
    blobs,
    checks,
    clock,
    commits,
    copies,
    deleted,
    garbage,
    invitations,
    keys,
    last_pulls,
    manifests,
    permissions,
    pull,
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
