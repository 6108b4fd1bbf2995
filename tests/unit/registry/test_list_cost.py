"""What a page of repositories costs, however many the organisation has: it is made on the event loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select, update

from polly_dockers import db
from polly_dockers.db.schema import organisations, repositories
from polly_dockers.model import Role
from support.costs import cost, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.model import Repository

FEW, MANY = 1100, 3000
Page = tuple[list["Repository"], tuple[int, int] | None, int | None]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """A connection to a new database."""
    with new_database(tmp_path) as made:
        yield made


def organisation(connection: Connection, slug: str, count: int) -> int:
    """Make an organisation with a member and as many repositories, and as many in the trash before and after them."""
    organisation_id = db.accounts.add_organisation(connection, slug)
    user_id = db.accounts.add_user(connection, f"{slug}@acme.example", "!")
    db.accounts.add_member(connection, organisation_id, user_id, Role.admin)
    same = {"organisation_id": organisation_id, "access": "private", "created_by": user_id, "created_at": 1}
    rows = [
        {"name": f"{mark}{number:05}", "description": f"number {number:05}", "active_at": number, "deleted_at": deleted}
        for mark, deleted in (("a~", 1), ("r", None), ("z~", 1))
        for number in range(count)
    ]
    connection.execute(insert(repositories), [same | row for row in rows])
    same_organisation = organisations.c.id == organisation_id
    connection.execute(update(organisations).where(same_organisation).values(repositories=count))
    return organisation_id


def page(connection: Connection, organisation_id: int, **wanted: Any) -> Page:  # noqa: ANN401 - arguments of page
    """A page of repositories; by default the oldest one."""
    given: dict[str, Any] = {"by_push": False, "newest_first": False, "limit": 1, "after": None, "search": ""}
    return db.repositories.page(connection, organisation_id, **given | wanted)


@pytest.mark.parametrize("search", ["", "absent", "number"])
@pytest.mark.parametrize("by_push", [False, True])
@pytest.mark.parametrize("newest_first", [False, True])
def test_a_page_reads_few_repositories(
    connection: Connection,
    search: str,
    by_push: bool,  # noqa: FBT001
    newest_first: bool,  # noqa: FBT001
) -> None:
    """42: a page costs as much in an organisation with many repositories as in one with few, and in any order."""
    costs = []
    for slug, number in (("few", FEW), ("many", MANY)):
        made = organisation(connection, slug, number)
        middle = select(repositories.c.active_at, repositories.c.id).where(
            repositories.c.organisation_id == made, repositories.c.name == f"r{number // 2:05}"
        )
        row = connection.execute(middle).one()
        for after in (None, (row.active_at if by_push else row.id, row.id)):
            wanted: dict[str, Any] = {
                "by_push": by_push,
                "newest_first": newest_first,
                "search": search,
                "after": after,
            }
            costs.append(cost(connection, partial(page, connection, made, **wanted)))
    assert max(costs[2:]) < max(costs[:2]) + 10
    if not search:
        assert max(costs) < 10


def test_a_new_repository_reads_few_others(connection: Connection) -> None:
    """42: creating a repository costs as much in an organisation with many as in one with few."""
    costs = []
    for slug, number in (("few", FEW), ("many", MANY)):
        new: dict[str, Any] = {"name": "new", "description": "x", "access": "private", "user_id": 1}
        made = organisation(connection, slug, number)
        costs.append(cost(connection, partial(db.repositories.add, connection, organisation_id=made, **new)))
    assert costs[1] < costs[0] + 5


def test_a_search_goes_on_from_its_cursor(connection: Connection) -> None:
    """The pages of a search hold every match once, in order, though some are empty; their number is not known."""
    made = organisation(connection, "many", MANY)
    for search, number in (("number 0259", 10), ("0000", 10), ("absent", 0), ("R", MANY)):
        for newest_first in (False, True):
            found, after, pages = [], None, 0
            while after is not None or not pages:
                items, after, total = page(
                    connection, made, limit=7, after=after, search=search, newest_first=newest_first
                )
                assert total is None
                assert len(items) <= 7
                found += [each.name.name for each in items]
                pages += 1
            assert (len(found), found) == (number, sorted(set(found), reverse=newest_first))
            assert pages <= MANY // db.repositories.SCANNED + number // 7 + 1


def test_the_number_of_matches_is_known_in_a_small_organisation(connection: Connection) -> None:
    """As long as one page looks at all repositories, every page says how many match."""
    made = organisation(connection, "small", db.repositories.SCANNED)
    items, after, total = page(connection, made, limit=4, search="0000")
    assert (len(items), total) == (4, 10)
    items, after, total = page(connection, made, limit=100, search="0000", after=after)
    assert (len(items), after, total) == (6, None, 10)
    assert page(connection, made)[2] == db.repositories.SCANNED


def test_the_catalogue_reads_its_page(connection: Connection) -> None:
    """42: a page of the catalogue costs as much for a user of large organisations as for one of small ones."""
    costs = []
    for number in (FEW, MANY):
        user_id = db.accounts.add_user(connection, f"{number}@acme.example", "!")
        for slug in (f"b{number}", f"a{number}"):
            made = organisation(connection, slug, number)
            db.accounts.add_member(connection, made, user_id, Role.reader)
        empty = db.accounts.add_organisation(connection, f"a{number}-empty")
        db.accounts.add_member(connection, empty, user_id, Role.reader)

        def ask(last: tuple[str, str], limit: int, user_id: int = user_id) -> list[str]:
            return db.repositories.names_after(connection, user_id, last, limit)

        assert ask(("", ""), 2) == [f"a{number}/r00000", f"a{number}/r00001"]
        end = f"r{number - 1:05}"
        last = (f"a{number}", f"r{number - 2:05}")
        assert ask(last, 3) == [f"a{number}/{end}", f"b{number}/r00000", f"b{number}/r00001"]
        assert ask((f"b{number}", end), 3) == []
        costs.append(cost(connection, partial(ask, ("", ""), 1)) + cost(connection, partial(ask, last, 3)))
    assert costs[1] < costs[0] + 3
