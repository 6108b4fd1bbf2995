"""A database that has grown: filled by SQL while no server runs, for that is how much the lists have to bear."""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING, Final

import pysqlite3.dbapi2 as sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.scale import Scale

COMMITS: Final = "history"
"""The repository of all the commits."""
TAGS: Final = 1000
"""Tags that every other commit is of, in turn."""
LATEST: Final = "latest"
"""The tag of the rest."""
MANIFESTS: Final = 10_000
START: Final = 1_700_000_000_000_000


def fill(database: Path, scale: Scale) -> None:
    """Many commits in one repository, and many repositories in the organisation that is there."""
    began = time.perf_counter()
    with contextlib.closing(sqlite.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(
            "INSERT INTO repositories (organisation_id, name, description, access, created_by, created_at, active_at, "
            "pushed_at, tags, commits, size) VALUES (1, ?, 'filled', 'private', 1, ?, ?, ?, ?, ?, 0)",
            (COMMITS, START, START, START, TAGS, scale.commits),
        )
        (repository,) = connection.execute("SELECT id FROM repositories WHERE name = ?", (COMMITS,)).fetchone()
        connection.executemany(
            "INSERT INTO manifests (repository_id, digest, media_type, platforms, size, total_size, pushed_by, "
            "pushed_at, body) VALUES (?, ?, 'application/vnd.oci.image.manifest.v1+json', 'linux/amd64', 700, "
            "1000000, 1, ?, ?)",
            (
                (repository, f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}", START, b"{}" * 350)
                for number in range(MANIFESTS)
            ),
        )
        (first,) = connection.execute("SELECT min(id) FROM manifests WHERE repository_id = ?", (repository,)).fetchone()
        connection.executemany(
            "INSERT INTO commits (repository_id, tag, manifest_id, pushed_by, pushed_at) VALUES (?, ?, ?, 1, ?)",
            (
                (repository, _tag(number), first + number % MANIFESTS, START + number * 1000)
                for number in range(scale.commits)
            ),
        )
        connection.execute(
            "INSERT INTO tags (repository_id, name, manifest_id, commit_id) SELECT repository_id, tag, manifest_id, "
            "max(id) FROM commits WHERE repository_id = ? GROUP BY tag",
            (repository,),
        )
        connection.execute(
            "INSERT INTO tag_totals (repository_id, tag, commits) SELECT repository_id, tag, count(*) FROM commits "
            "WHERE repository_id = ? GROUP BY tag",
            (repository,),
        )
        connection.executemany(
            "INSERT INTO repositories (organisation_id, name, description, access, created_by, created_at, active_at, "
            "tags, commits, size) VALUES (1, ?, 'filled', 'private', 1, ?, ?, 5, 50, 5000000)",
            _repositories(scale.repositories),
        )
    print(f"  {scale.commits:,} commits and {scale.repositories:,} repositories, {time.perf_counter() - began:.0f} s")


def _tag(number: int) -> str:
    return f"v{number % TAGS}" if number % 2 else LATEST


def _repositories(count: int) -> Iterator[tuple[str, int, int]]:
    for number in range(count):
        yield f"team{number % 97}/image{number}", START + number, START + number
