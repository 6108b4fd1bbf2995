"""44: the disk hangs right after a change: a read does not wait for it, because it writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.db import migrate
from polly_dockers.db.journal import state
from polly_dockers.db.sqlite import FILE, Database, exclusive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("way", ["write", "exclusive"])
async def test_the_first_read_after_a_change(tmp_path: Path, way: str) -> None:
    """The process that changes the database also marks the new place in the file that readers share."""
    migrate.upgrade(tmp_path)
    server, other = Database(tmp_path), Database(tmp_path)
    await other.write(state.advance, 1)
    with (tmp_path / f"{FILE}-shm").open("rb", buffering=0) as shared:
        if way == "write":
            await other.write(state.add_stale, 1)
        else:
            with exclusive(tmp_path) as connection:
                state.add_stale(connection, 1)
        before = shared.read()
        assert await server.read(state.stale) == 1
        shared.seek(0)
        assert shared.read() == before
    other.close()
    server.close()
