"""What a question about the trash costs, however much lies in it: refused pulls ask, on the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, insert, select, update

from polly_dockers import db
from polly_dockers.config import Config
from polly_dockers.db import migrate
from polly_dockers.db.schema import trash
from polly_dockers.model import Digest, RepositoryName, Tag
from polly_dockers.registry import deletion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

ITEMS = 2000
NAME = RepositoryName.parse("acme/hello")
PART = 100
"""Instructions of SQLite's machine that are counted as one."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """An organisation whose trash holds a lot."""
    migrate.upgrade(tmp_path)
    opened = db.sqlite.open_engine(tmp_path / db.sqlite.FILE)
    with opened.connect() as made:
        made.exec_driver_sql("BEGIN")
        number = db.accounts.add_organisation(made, "acme")
        item = {
            "organisation_id": number,
            "kind": db.trash.COMMIT,
            "tags": "",
            "commits": 1,
            "size": 1,
            "deleted_at": 1,
        }
        made.execute(insert(trash), [item | {"name": f"sha256:{each:064}"} for each in range(ITEMS)])
        yield made
        made.exec_driver_sql("ROLLBACK")
    opened.dispose()


def cost(connection: Connection, ask: Callable[[], object]) -> int:
    """How many instructions it takes SQLite, in parts."""
    parts = 0

    def count() -> int:
        nonlocal parts
        parts += 1
        return 0

    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(count, PART)
    ask()
    driver.set_progress_handler(None, 0)
    return parts


@pytest.mark.parametrize("place", [None, 1])
@pytest.mark.parametrize("reference", [Tag("latest"), Digest(f"sha256:{1 << 200:064}")])
def test_a_refused_pull_reads_few_rows(connection: Connection, place: int | None, reference: Tag | Digest) -> None:
    """42: whether what was asked for lies in the trash takes the same work, however much lies there."""
    number = connection.execute(select(trash.c.organisation_id).limit(1)).scalar_one()

    def ask() -> None:
        assert deletion.explain_missing(connection, Config(), NAME, (number, place), reference) is None

    ask()
    assert cost(connection, ask) < ITEMS // PART


def test_what_is_being_purged_is_found_at_once(connection: Connection) -> None:
    """Each run of the collector asks for it, on the event loop: only these rows are read."""
    claimed = list(connection.execute(select(trash.c.id).order_by(trash.c.id.desc()).limit(3)).scalars())
    connection.execute(update(trash).where(trash.c.id.in_(claimed)).values(purging_at=1))
    assert {item.id for item in db.trash.claimed(connection)} == set(claimed)
    assert cost(connection, lambda: db.trash.claimed(connection)) < ITEMS // PART


@pytest.mark.parametrize("place", [None, 1])
@pytest.mark.parametrize("reference", [Tag("latest"), Digest(f"sha256:{1 << 200:064}")])
def test_a_refused_pull_builds_no_query(connection: Connection, place: int | None, reference: Tag | Digest) -> None:
    """Every push asks first for what is not there yet: the queries for that are compiled once."""
    built: list[str] = []
    event.listen(connection, "before_execute", lambda *arguments: built.append(str(arguments[1])))
    assert deletion.explain_missing(connection, Config(), NAME, (1, place), reference) is None
    assert built == []
