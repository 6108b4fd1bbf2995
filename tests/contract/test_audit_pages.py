"""Pages of the audit log: they have every entry that the filters match, and no page reads too many entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from polly_dockers import db
from polly_dockers.db import migrate, schema
from polly_dockers.db.audit import SCANNED, Wanted
from polly_dockers.db.sqlite import FILE, open_engine
from polly_dockers.system.durations import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

HOUR = DAY // 24
COUNT = 2 * SCANNED + 100
ANN = "ann@acme.example"


def entry(number: int) -> dict[str, object]:
    """An entry of a long log with one entry an hour, nearly all of them uses of access tokens."""
    common = {"organisation_id": 1, "at": number * HOUR, "address": "", "detail": ""}
    subjects = {3: "acme/one:v1", 4: "acme/one@sha256:0", 5: "acme/one", 6: "acme/one-more:v1", 7: "acme/one/more:v1"}
    if number % 1000 in subjects:
        return common | {"event": "push", "by": ANN, "subject": subjects[number % 1000]}
    return common | {"event": "token-use", "by": "ci@acme.example", "subject": f"token {number}"}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A database with that log."""
    folder = tmp_path_factory.mktemp("audit")
    migrate.upgrade(folder)
    engine = open_engine(folder / FILE)
    with engine.connect() as opened:
        opened.exec_driver_sql("BEGIN")
        opened.execute(insert(schema.audit), [entry(number) for number in range(COUNT)])
        opened.exec_driver_sql("COMMIT")
        yield opened
    engine.dispose()


def numbers(connection: Connection, wanted: Wanted, *, newest_first: bool = True, limit: int = 10) -> list[int]:
    """The numbers of all matching entries, page by page; fails if a page is longer than its limit."""
    found: list[int] = []
    after: int | None = None
    for _ in range(COUNT):
        page, after = db.audit.page(connection, 1, wanted=wanted, newest_first=newest_first, after=after, limit=limit)
        assert len(page) <= limit
        found += [each.at // HOUR for each in page]
        if after is None:
            return found
    pytest.fail("the pages do not end")


PUSHES = [number for number in range(COUNT) if 3 <= number % 1000 <= 7]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(token_events=False), PUSHES),
        (Wanted(by=ANN), PUSHES),
        (Wanted(event="push"), PUSHES),
        (Wanted(path="acme/one"), [number for number in PUSHES if number % 1000 <= 5]),
        (Wanted(path="acme/one/more"), [number for number in PUSHES if number % 1000 == 7]),
        (Wanted(path="acme/absent"), []),
        (Wanted(by=ANN, since=1003 * HOUR), [number for number in PUSHES if number >= 1003]),
        (Wanted(by=ANN, until=1005 * HOUR), [number for number in PUSHES if number < 1005]),
        (Wanted(since=(COUNT - 3) * HOUR), [COUNT - 3, COUNT - 2, COUNT - 1]),
        (Wanted(since=10 * HOUR, until=12 * HOUR), [10, 11]),
        (Wanted(until=2 * HOUR), [0, 1]),
        (Wanted(since=COUNT * HOUR), []),
    ],
)
def test_what_fits_is_on_a_page(connection: Connection, wanted: Wanted, expected: list[int]) -> None:
    """All matching entries are listed once, from either end, though most of the log does not match."""
    assert numbers(connection, wanted) == expected[::-1]
    assert numbers(connection, wanted, newest_first=False) == expected


def test_everything_is_on_a_page(connection: Connection) -> None:
    """Without a filter, pages of the greatest length list every entry."""
    assert numbers(connection, Wanted(), limit=1000) == list(range(COUNT))[::-1]


def test_a_page_ends_where_too_much_was_looked_at(connection: Connection) -> None:
    """A page may be empty, and has a cursor for the next one."""
    page, after = db.audit.page(connection, 1, wanted=Wanted(by="nobody@acme.example"), limit=10)
    assert (page, after) == ([], COUNT - SCANNED + 1)


def test_a_short_time_is_found_by_an_index(connection: Connection) -> None:
    """Entries from before that time are not read: one page is enough, however long the log is."""
    wanted = Wanted(by="nobody@acme.example", since=100 * HOUR, until=200 * HOUR)
    assert db.audit.page(connection, 1, wanted=wanted, limit=10) == ([], None)
