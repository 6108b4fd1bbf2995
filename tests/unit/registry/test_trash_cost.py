"""What a look into the trash costs, however much it holds: refused pulls do it, on the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, insert, select, update

from polly_dockers import db
from polly_dockers.config import Config
from polly_dockers.db import schema
from polly_dockers.db.schema import trash
from polly_dockers.model import Digest, RepositoryName, Tag
from polly_dockers.registry import deletion
from support.costs import PART, add_commits, add_manifest, add_repository, cost, digest, move_to_trash, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

ITEMS = 2000
NAME = RepositoryName.parse("acme/hello")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """An organisation whose trash holds a lot."""
    with new_database(tmp_path) as made:
        number = made.execute(select(schema.organisations.c.id)).scalar_one()
        item = {
            "organisation_id": number,
            "kind": db.trash.COMMIT,
            "tags": "",
            "commits": 1,
            "size": 1,
            "deleted_at": 1,
        }
        made.execute(insert(trash), [item | {"name": digest(each)} for each in range(ITEMS)])
        yield made


def fill(connection: Connection) -> int:
    """Fill a repository: 2000 commits of a tag in the trash, and one that is not there; returns its id."""
    ids = add_repository(connection)
    for number in range(ITEMS + 1):
        manifest_id = add_manifest(connection, ids, number)
        add_commits(connection, ids, manifest_id, ["v1"])
        if number:
            move_to_trash(connection, ids, manifest_id, number)
    return ids[1]


@pytest.mark.parametrize("tag", [None, "v1"])
def test_a_page_of_commits_does_not_read_the_trash(connection: Connection, tag: str | None) -> None:
    """42: a page of commits costs as much as what it shows, however many commits are in the trash."""
    place = fill(connection)

    def ask() -> None:
        found, _ = db.commits.page(connection, place, tag=tag, newest_first=True, limit=1, after=None)
        assert len(found) == 1

    ask()
    assert cost(connection, ask) < ITEMS // PART


def test_what_a_tag_was_deleted_with_is_found_at_once(connection: Connection) -> None:
    """42: the lists of tags of other items, which may be long, are not read."""
    place = fill(connection)
    connection.execute(update(trash).values(tags="other " * 1000))
    last = connection.execute(select(func.max(trash.c.id))).scalar_one()

    def ask() -> None:
        found = db.deleted.find_tag(connection, place, "v1")
        assert found is not None
        assert found.id == last

    ask()
    assert cost(connection, ask) < ITEMS // PART


@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"), [(db.trash.TAG, "v1"), (db.trash.COMMIT, digest(1)), (db.trash.REPOSITORY, "hello")]
)
def test_one_of_many_deletions_is_found_at_once(connection: Connection, kind: str, name: str, *, claimed: bool) -> None:
    """42: the last deletion of a name costs the same, however often it was deleted; what can be restored is first."""
    ids = add_repository(connection)
    connection.execute(update(trash).values(kind=kind, name=name, repository_id=ids[1]))
    *_, other, last = connection.execute(select(trash.c.id).order_by(trash.c.id)).scalars()
    connection.execute(update(trash).where(trash.c.id == last).values(purging_at=1 if claimed else None))
    found: list[int] = []

    def ask() -> None:
        if kind == db.trash.TAG:
            item = db.deleted.find_tag(connection, ids[1], name)
        elif kind == db.trash.COMMIT:
            item = db.deleted.find_commit(connection, ids[1], name)
        else:
            item = db.deleted.find_repository(connection, ids[0], name)
        here = db.trash.find(connection, kind, name, repository_id=ids[1])
        there = db.trash.find_in_organisation(connection, ids[0], kind, name)
        found.extend(each.id for each in (item, here, there) if each is not None)

    assert cost(connection, ask) < ITEMS // PART
    assert found == [other if claimed else last] * 3


@pytest.mark.parametrize("reference", [Tag("v1"), Digest(f"sha256:{ITEMS:064}")])
def test_a_refused_pull_reads_no_list_of_tags(connection: Connection, reference: Tag | Digest) -> None:
    """42: an item may have thousands of tags, and the message names none of them."""
    place = fill(connection)
    read: list[str] = []
    driver: Any = connection.connection.driver_connection
    driver.set_trace_callback(read.append)
    assert deletion.explain_missing(connection, Config(), NAME, (1, place), reference) is not None
    driver.set_trace_callback(None)
    assert read
    assert not [query for query in read if "trash.tags" in query]


@pytest.mark.parametrize("place", [None, 1])
@pytest.mark.parametrize("reference", [Tag("latest"), Digest(f"sha256:{1 << 200:064}")])
def test_a_refused_pull_reads_few_rows(connection: Connection, place: int | None, reference: Tag | Digest) -> None:
    """42: finding out whether something is in the trash costs the same, however much the trash holds."""
    number = connection.execute(select(trash.c.organisation_id).limit(1)).scalar_one()

    def ask() -> None:
        assert deletion.explain_missing(connection, Config(), NAME, (number, place), reference) is None

    ask()
    assert cost(connection, ask) < ITEMS // PART


def test_a_page_of_the_trash_has_few_tags(connection: Connection) -> None:
    """A page ends once its tags have 256 KiB, because they are all read on the event loop; none is left out."""
    connection.execute(update(trash).values(tags="other " * 20_000))
    number = connection.execute(select(trash.c.organisation_id).limit(1)).scalar_one()
    found, after, total = db.trash.page(connection, number, limit=100, after=None)
    assert (len(found), total) == (2, ITEMS)
    assert after == found[-1].id


def test_a_page_of_the_trash_reads_nothing_that_is_being_purged(connection: Connection) -> None:
    """Neither of this organisation nor of others."""
    mine = connection.execute(select(trash.c.organisation_id).limit(1)).scalar_one()
    other = db.accounts.add_organisation(connection, "biolab")
    last = connection.execute(select(func.max(trash.c.id))).scalar_one()
    claimed = update(trash).where(trash.c.id < last)
    connection.execute(claimed.values(purging_at=1))
    connection.execute(claimed.where(trash.c.id % 2 == 0).values(organisation_id=other))

    def ask() -> None:
        found, after, total = db.trash.page(connection, mine, limit=1, after=None)
        assert ([item.id for item in found], after, total) == ([last], None, 1)

    ask()
    assert cost(connection, ask) < ITEMS // PART


def test_what_is_being_purged_is_found_at_once(connection: Connection) -> None:
    """Each run of the collector asks for it, on the event loop, so only these rows are read."""
    claimed = list(connection.execute(select(trash.c.id).order_by(trash.c.id.desc()).limit(3)).scalars())
    connection.execute(update(trash).where(trash.c.id.in_(claimed)).values(purging_at=1))
    assert {item.id for item in db.trash.claimed(connection)} == set(claimed)
    assert cost(connection, lambda: db.trash.claimed(connection)) < ITEMS // PART


@pytest.mark.parametrize("place", [None, 1])
@pytest.mark.parametrize("reference", [Tag("latest"), Digest(f"sha256:{1 << 200:064}")])
def test_a_refused_pull_builds_no_query(connection: Connection, place: int | None, reference: Tag | Digest) -> None:
    """Every push asks for something that does not exist yet, so these queries are compiled once."""
    built: list[str] = []
    event.listen(connection, "before_execute", lambda *arguments: built.append(str(arguments[1])))
    assert deletion.explain_missing(connection, Config(), NAME, (1, place), reference) is None
    assert built == []
