"""18: the disk fails while a transaction is stored: the answer does not promise that nothing was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from failures.client import check, kill
from failures.serving import serving
from failures.tracer import trace
from support.wire_client import Person, image

if TYPE_CHECKING:
    from pathlib import Path


def test_a_commit_whose_sync_fails(tmp_path: Path) -> None:
    """Its rows are in SQLite's log: a server that is killed then finds them when it starts again."""
    with serving(tmp_path, "--workers", "1") as server:
        repo = Person(server.port, server.org, *server.admin).new_repo()
        made = image()
        repo.push(made, "v1")
        with trace(server, "fsync", "error=EIO:when=1"):  # the journal is synced by fdatasync
            refused = repo.put("v2", made.manifest)
        assert refused.status == 503
        assert "Look whether the change was made" in refused.json()["errors"][0]["message"]
        assert repo.manifest("v2").status == 404
        kill(server)
        server.start()
        assert Person(server.port, server.org, *server.admin).at(repo.name).manifest("v2").status == 200
        kill(server)
        check(server)
