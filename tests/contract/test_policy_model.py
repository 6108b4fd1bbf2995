"""What a policy moves to the trash, compared with a simple model, for any repository and policy.

Numbers are small, so that tags, indexes, subjects and ages coincide. The model starts with what stays on its own and
adds what that needs, until nothing is added. The code under test starts from one manifest and looks for something
that keeps it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select

from polly_dockers import db
from polly_dockers.db.journal import records
from polly_dockers.db.retention import Policy
from polly_dockers.db.schema import commits, manifest_children, manifest_pulls, manifests, metadata, tags, trash
from polly_dockers.db.sqlite import open_engine
from polly_dockers.system.durations import SECOND, SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

NOW = 1_800_000_000 * SECOND
AGES = st.integers(0, 6)
"""In days and a half, so that nothing lies on a limit."""
NODES = 6


@dataclass(frozen=True)
class Node:
    """A manifest: its age, what it holds and refers to, its commits as (tag, age), when it was pulled."""

    age: int
    children: frozenset[int]
    subject: int | None
    commits: tuple[tuple[str, int], ...]
    pulled: int | None
    thrown: bool


def nodes() -> st.SearchStrategy[list[Node]]:
    """Draw manifests that contain only older ones, as digests require."""

    def node(number: int) -> st.SearchStrategy[Node]:
        others = st.integers(0, max(0, number - 1))
        return st.builds(
            Node,
            age=AGES,
            children=st.frozensets(others, max_size=2) if number else st.just(frozenset()),
            subject=st.one_of(st.none(), st.integers(0, NODES - 1)),
            commits=st.lists(st.tuples(st.sampled_from("ab"), AGES), max_size=2).map(tuple),
            pulled=st.one_of(st.none(), AGES),
            thrown=st.booleans() if number == NODES - 1 else st.just(value=False),
        )

    return st.tuples(*(node(number) for number in range(NODES))).map(list)


POLICIES = st.builds(
    Policy,
    younger=st.one_of(st.none(), st.integers(1, 5).map(lambda days: days * SECONDS_PER_DAY)),
    newest=st.one_of(st.none(), st.integers(1, 3)),
    pulled=st.one_of(st.none(), st.integers(1, 5).map(lambda days: days * SECONDS_PER_DAY)),
).filter(lambda policy: not policy.everything)


def time_of(age: int, more: int = 0) -> int:
    """The moment that many and a half days ago."""
    return NOW - age * SECONDS_PER_DAY * SECOND - SECONDS_PER_DAY * SECOND // 2 + more


def digest_of(number: int) -> str:
    """The digest of a node."""
    return f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}"


def pushes(found: list[Node]) -> list[tuple[int, str, int]]:
    """All commits as (node, tag, time), in the order of the pushes, which may differ from the order of their times."""
    order = itertools.count()
    return [(number, tag, time_of(age, next(order))) for number, node in enumerate(found) for tag, age in node.commits]


def active(found: list[Node], untagged: dict[str, bool]) -> dict[str, int]:
    """The node of the newest commit of each tag that was not deleted."""
    return {tag: number for number, tag, _ in pushes(found) if tag not in untagged and not found[number].thrown}


def by_themselves(found: list[Node], policy: Policy, untagged: dict[str, bool]) -> set[int]:
    """The nodes that stay even if nothing else needs them."""
    young = NOW - max(policy.younger or 0, SECONDS_PER_DAY) * SECOND
    pulled = NOW - max(policy.pulled or 0, SECONDS_PER_DAY) * SECOND
    stay = set(active(found, untagged).values())
    stay |= {number for number, node in enumerate(found) if time_of(node.age) >= young}
    stay |= {number for number, _, at in pushes(found) if at >= young}
    stay |= {number for number, node in enumerate(found) if node.pulled is not None and time_of(node.pulled) >= pulled}
    for wanted in "ab":
        newest = [number for number, tag, _ in pushes(found) if tag == wanted and not found[number].thrown]
        depth = policy.newest or int(untagged.get(wanted, False))  # a tag comes back with its newest commit
        stay |= set(newest[-depth:]) if depth else set()
    return stay & alive(found)


def alive(found: list[Node]) -> set[int]:
    """The nodes that are not in the trash."""
    return {number for number, node in enumerate(found) if not node.thrown}


def staying(found: list[Node], policy: Policy, untagged: dict[str, bool]) -> set[int]:
    """The nodes that stay: on their own, or as a child, subject or referrer of a node that stays."""
    stay, more = set[int](), by_themselves(found, policy, untagged)
    while not more <= stay:
        stay |= more
        more = {child for number in stay for child in found[number].children}
        more |= {subject for number in stay if (subject := found[number].subject) is not None}
        more |= {number for number, node in enumerate(found) if node.subject in stay}
        more &= alive(found)
    return stay


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A database with an organisation."""
    folder: Path = tmp_path_factory.mktemp("policy")
    engine = open_engine(folder / "polly.db")
    with engine.connect() as connection:
        metadata.create_all(connection)
        db.accounts.add_organisation(connection, "acme")
        db.accounts.add_user(connection, "a@acme.example", "!")
        connection.commit()
        yield connection
    engine.dispose()


@contextlib.contextmanager
def undone(connection: Connection) -> Iterator[None]:
    """Undo all changes to the database after the block."""
    connection.exec_driver_sql("BEGIN")
    try:
        yield
    finally:
        connection.exec_driver_sql("ROLLBACK")
        records.pending(connection).clear()


def fill(connection: Connection, found: list[Node], untagged: dict[str, bool]) -> int:
    """Add the nodes to a new repository; returns its id. The id of a manifest is the number of its node plus one."""
    at = db.repositories.add(connection, organisation_id=1, user_id=1, name="one", description="x", access="private")
    assert at is not None
    for number, node in enumerate(found):
        values: dict[str, Any] = {
            "id": number + 1,
            "repository_id": at,
            "digest": digest_of(number),
            "media_type": "a/b",
            "size": 1,
        }
        values |= {"platforms": "[]", "total_size": 1, "pushed_by": 1, "pushed_at": time_of(node.age), "body": b"x"}
        values |= {"subject": digest_of(node.subject) if node.subject is not None else None}
        if node.thrown:
            values |= {"trash_id": 1, "digest": f"{digest_of(number)}~1"}
            values |= {"subject": f"{values['subject']}~1" if values["subject"] else None}
        connection.execute(insert(manifests).values(values))
        if node.pulled is not None:
            connection.execute(insert(manifest_pulls).values(manifest_id=number + 1, pulled_at=time_of(node.pulled)))
    for number, node in enumerate(found):
        for child in node.children:
            connection.execute(insert(manifest_children).values(manifest_id=number + 1, child_id=child + 1))
    places = {}
    for number, tag, pushed_at in pushes(found):
        row = {"repository_id": at, "tag": tag, "manifest_id": number + 1, "pushed_by": 1, "pushed_at": pushed_at}
        made = insert(commits).values(row | {"in_trash": int(found[number].thrown)})
        place = connection.execute(made.returning(commits.c.id)).scalar_one()
        places[tag, number] = place
    for tag in (tag for tag, in_trash in untagged.items() if in_trash):
        item = {"organisation_id": 1, "repository_id": at, "kind": "tag", "name": tag, "tags": tag}
        connection.execute(insert(trash).values(commits=0, size=0, deleted_at=NOW, **item))
    for tag, number in active(found, untagged).items():
        on = {"name": tag, "manifest_id": number + 1, "commit_id": places[tag, number]}
        connection.execute(insert(tags).values(repository_id=at, **on))
    return at


UNTAGGED = st.dictionaries(st.sampled_from("ab"), st.booleans())
"""Tags that were deleted: whether they are in the trash still."""


@settings(max_examples=400, deadline=None)
@given(found=nodes(), policy=POLICIES, untagged=UNTAGGED)
def test_what_goes_is_what_nothing_keeps(
    connection: Connection, found: list[Node], policy: Policy, untagged: dict[str, bool]
) -> None:
    """Exactly what nothing keeps goes to the trash, and each item is marked as deleted by a policy."""
    with undone(connection):
        at = fill(connection, found, untagged)
        judge = db.retention.Judge(at, policy, at=NOW, lease=3600)
        judged, following = db.retention.scan(connection, judge, "")
        goes = {row.id - 1 for row, gone in judged if gone}
        assert goes == alive(found) - staying(found, policy, untagged)
        assert following is None
        db.repositories.change(connection, at, policy=policy.text)
        left: Sequence[int] = sorted(each + 1 for each in goes)
        thrown, left = db.retention.move_to_trash(connection, at, left, at=NOW, lease=3600)
        assert (thrown, list(left)) == (len(goes), [])
        in_trash = select(trash.c.name).where(trash.c.by_policy == 1)
        assert set(connection.execute(in_trash).scalars()) == {digest_of(each) for each in goes}
        kept = set(connection.execute(select(manifests.c.id).where(manifests.c.trash_id.is_(None))).scalars())
        assert kept == {each + 1 for each in staying(found, policy, untagged)}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=nodes(), policy=POLICIES, untagged=UNTAGGED)
def test_small_steps(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    found: list[Node],
    policy: Policy,
    untagged: dict[str, bool],
) -> None:
    """With small transactions the same manifests go, and after each one no index that stays lacks an image."""
    monkeypatch.setattr(db.retention, "AT_ONCE", 2)
    with undone(connection):
        at = fill(connection, found, untagged)
        db.repositories.change(connection, at, policy=policy.text)
        judged, _ = db.retention.scan(connection, db.retention.Judge(at, policy, at=NOW, lease=3600), "")
        left: Sequence[int] = [row.id for row, gone in judged if gone]
        while left:
            thrown, left = db.retention.move_to_trash(connection, at, left, at=NOW, lease=3600)
            assert thrown <= 2
            living = select(manifests.c.id).where(manifests.c.trash_id.is_(None))
            torn = select(manifest_children).where(
                manifest_children.c.manifest_id.in_(living), manifest_children.c.child_id.not_in(living)
            )
            assert not [row for row in connection.execute(torn) if not found[row.child_id - 1].thrown]
        kept = set(connection.execute(select(manifests.c.id).where(manifests.c.trash_id.is_(None))).scalars())
        assert kept == {each + 1 for each in staying(found, policy, untagged)}


def chain(number: int) -> list[Node]:
    """Old manifests, each of which has the next one as its subject."""
    return [
        Node(30, frozenset(), each + 1 if each + 1 < number else None, (), None, thrown=False) for each in range(number)
    ]


def test_what_hangs_together_with_very_many_is_kept(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A very long chain is kept, and not searched again for each manifest: that would keep the server busy."""
    monkeypatch.setattr(db.retention, "GROUP", 10)
    monkeypatch.setattr(db.retention, "SCAN", 100)
    with undone(connection):
        at = fill(connection, chain(15), {})
        judge = db.retention.Judge(at, Policy(younger=SECONDS_PER_DAY), at=NOW, lease=3600)
        judged, _ = db.retention.scan(connection, judge, "")
        assert not any(gone for _, gone in judged)
        assert judge.looked < 4 * len(judged)


def test_a_turn_is_over_after_so_many_looks(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next turn continues where the last one ended, and each manifest is judged once."""
    monkeypatch.setattr(db.retention, "LOOKS", 3)
    with undone(connection):
        at = fill(connection, chain(15), {})
        judge, after, seen = db.retention.Judge(at, Policy(younger=SECONDS_PER_DAY), at=NOW, lease=3600), "", []
        following: str | None = after
        while following is not None:
            judged, following = db.retention.scan(connection, judge, following)
            seen += [row.id for row, gone in judged if gone]
        assert sorted(seen) == list(range(1, 16))


@pytest.mark.parametrize(("hours", "kept"), [(25, True), (27, False)])
def test_when_it_was_pulled_is_known_to_two_hours(connection: Connection, hours: int, *, kept: bool) -> None:
    """Pulls are recorded once an hour, and a crash may lose some, so a manifest is kept two hours longer."""
    with undone(connection):
        at = fill(connection, chain(1), {})
        connection.execute(insert(manifest_pulls).values(manifest_id=1, pulled_at=NOW - hours * 3600 * SECOND))
        judge = db.retention.Judge(at, Policy(pulled=SECONDS_PER_DAY), at=NOW, lease=3600)
        assert judge.goes(connection, 1) is not kept


@pytest.mark.parametrize(("lease", "kept"), [(3600, False), (10 * SECONDS_PER_DAY, True)])
def test_a_push_that_may_be_under_way_is_waited_for(connection: Connection, lease: int, *, kept: bool) -> None:
    """It is kept as long as the lease of its blobs, if that is longer than a day."""
    with undone(connection):
        at = fill(connection, [replace(chain(1)[0], age=5)], {})
        judge = db.retention.Judge(at, Policy(younger=SECONDS_PER_DAY), at=NOW, lease=lease)
        assert judge.goes(connection, 1) is not kept


@settings(max_examples=100, deadline=None)
@given(found=nodes(), policy=POLICIES, untagged=UNTAGGED, pulled=st.integers(0, NODES - 1))
def test_what_was_pulled_since_it_was_judged_stays(
    connection: Connection, found: list[Node], policy: Policy, untagged: dict[str, bool], pulled: int
) -> None:
    """Each transaction judges again, so what was pulled meanwhile stays, with everything that it keeps."""
    with undone(connection):
        at = fill(connection, found, untagged)
        judged, _ = db.retention.scan(connection, db.retention.Judge(at, policy, at=NOW, lease=3600), "")
        db.repositories.change(connection, at, policy=policy.text)
        connection.execute(delete(manifest_pulls).where(manifest_pulls.c.manifest_id == pulled + 1))
        connection.execute(insert(manifest_pulls).values(manifest_id=pulled + 1, pulled_at=NOW))
        found[pulled] = replace(found[pulled], pulled=0)
        db.retention.move_to_trash(connection, at, [row.id for row, gone in judged if gone], at=NOW, lease=3600)
        kept = set(connection.execute(select(manifests.c.id).where(manifests.c.trash_id.is_(None))).scalars())
        assert kept == {each + 1 for each in staying(found, policy, untagged)}
