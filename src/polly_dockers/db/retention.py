"""Policies of organisations and repositories, and the judgement what nothing keeps under them.

A manifest goes only where no rule keeps it, and neither does anything else: a tag, an index that stays and holds it,
its subject where that stays, something that refers to it and stays, or that it was pushed or pulled within a day. What
stays is found from what keeps itself: starting from one manifest, all that could keep it is looked at, until something
is found that stays by itself. Where there is no such thing, all that was looked at goes together.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import bindparam, func, select

from polly_dockers.db import audit, clock, schema, trash
from polly_dockers.db.schema import (
    commits,
    manifest_children,
    manifest_pulls,
    manifests,
    organisations,
    repositories,
    tags,
)
from polly_dockers.db.statement import Statement
from polly_dockers.system.durations import HOUR, SECOND, SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

BATCH: Final = 20
"""Manifests that one transaction throws, at most."""
SCAN: Final = 20
"""Manifests that are judged in one turn of the loop, at most; fewer where LOOKS are over before."""
LOOKS: Final = 300
"""Manifests that are looked at in one turn of the loop, but for the rest of the last group: some 20 milliseconds."""
GROUP: Final = 300
"""Manifests that are looked at to judge one, at most; what hangs together with more is kept."""
WALK: Final = 10_000
"""Commits of a tag that are looked at to find its newest ones, at most; where more lie in the trash, all are kept."""
SLACK: Final = 2 * HOUR
"""How much later than written a manifest may have been pulled: the hour of last_pulls.py, and what a crash forgets."""


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is kept. A manifest that any rule keeps is kept; a policy without rules keeps everything."""

    younger: int | None = None
    """Seconds: what was pushed since."""
    newest: int | None = None
    """How many of the newest commits of each tag."""
    pulled: int | None = None
    """Seconds: what was pulled since."""

    @property
    def everything(self) -> bool:
        """Whether nothing ever goes."""
        return self.younger is None and self.newest is None and self.pulled is None

    def __str__(self) -> str:
        """For the audit log."""
        rules = [
            f"younger than {_time(self.younger)}" if self.younger is not None else "",
            f"newest {self.newest}" if self.newest is not None else "",
            f"pulled within {_time(self.pulled)}" if self.pulled is not None else "",
        ]
        return ", ".join(filter(None, rules)) or "everything"

    @property
    def text(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()


def _time(seconds: int) -> str:
    return f"{seconds // SECONDS_PER_DAY}d" if seconds % SECONDS_PER_DAY == 0 else f"{seconds}s"


def parse(text: str | None) -> Policy | None:
    """A policy as it is stored; None: there is none."""
    return msgspec.json.decode(text, type=Policy) if text is not None else None


def of_organisation(connection: Connection, organisation_id: int) -> Policy:
    """The policy of an organisation; without one everything is kept."""
    query = select(organisations.c.policy).where(organisations.c.id == organisation_id)
    return parse(connection.execute(query).scalar_one()) or Policy()


def own_policies(
    connection: Connection, organisation_id: int, *, after: str, limit: int
) -> tuple[list[tuple[str, Policy]], str | None]:
    """Repositories with a policy of their own by their names, after one of them; the key of the next page."""
    query = (
        select(repositories.c.name, repositories.c.policy)
        .where(
            repositories.c.organisation_id == organisation_id,
            repositories.c.policy.is_not(None),
            repositories.c.deleted_at.is_(None),
            repositories.c.name > after,
        )
        .order_by(repositories.c.name)
        .limit(limit + 1)
    )
    rows = connection.execute(query).all()
    found = [(row.name, parse(row.policy) or Policy()) for row in rows[:limit]]
    return found, found[-1][0] if len(rows) > limit else None


def inheriting(
    connection: Connection, organisation_id: int, *, after: str, limit: int
) -> tuple[list[tuple[int, str]], str | None]:
    """Repositories (id, name) that have the organisation's policy, after a name; the name that was looked at last."""
    query = (
        select(repositories.c.id, repositories.c.name, repositories.c.policy, repositories.c.deleted_at)
        .where(repositories.c.organisation_id == organisation_id, repositories.c.name > after)
        .order_by(repositories.c.name)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    found = [(row.id, row.name) for row in rows if row.policy is None and row.deleted_at is None]
    return found, rows[-1].name if len(rows) == limit else None


_POLICY: Final = func.coalesce(repositories.c.policy, organisations.c.policy).label("policy")


def of_all(
    connection: Connection, organisation_id: int, *, after: str, limit: int
) -> tuple[list[tuple[int, str, Policy]], str | None]:
    """Repositories (id, name, policy that holds) of an organisation after a name; the name that was looked at last."""
    query = (
        select(repositories.c.id, repositories.c.name, _POLICY, repositories.c.deleted_at)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(repositories.c.organisation_id == organisation_id, repositories.c.name > after)
        .order_by(repositories.c.name)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    found = [(row.id, row.name, parse(row.policy) or Policy()) for row in rows if row.deleted_at is None]
    return found, rows[-1].name if len(rows) == limit else None


def ruled(connection: Connection, *, after: int, limit: int) -> tuple[list[tuple[int, Policy]], int | None]:
    """Repositories of all organisations of which a policy may take something, by their ids; the id looked at last."""
    query = (
        select(repositories.c.id, _POLICY, repositories.c.deleted_at, organisations.c.deleted_at.label("gone_at"))
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(repositories.c.id > after)
        .order_by(repositories.c.id)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    alive = [(row.id, parse(row.policy)) for row in rows if row.deleted_at is None and row.gone_at is None]
    found = [(number, policy) for number, policy in alive if policy is not None and not policy.everything]
    return found, rows[-1].id if len(rows) == limit else None


def effective(connection: Connection, repository_id: int) -> tuple[int, Policy]:
    """The organisation of a repository, and the policy that holds in it."""
    query = (
        select(organisations.c.id, _POLICY)
        .join(repositories, repositories.c.organisation_id == organisations.c.id)
        .where(
            repositories.c.id == repository_id,
            repositories.c.deleted_at.is_(None),
            organisations.c.deleted_at.is_(None),
        )
    )
    row = connection.execute(query).first()
    return (row.id, parse(row.policy) or Policy()) if row is not None else (0, Policy())


# --- the judgement -----------------------------------------------------------------------------------------------

_COLUMNS: Final = (manifests.c.id, manifests.c.digest, manifests.c.subject, manifests.c.pushed_at)
_ALIVE: Final = Statement(
    select(*_COLUMNS).where(manifests.c.id == bindparam("id"), manifests.c.trash_id.is_(None)),
)
_HOLDERS: Final = Statement(
    select(*_COLUMNS)
    .join(manifest_children, manifest_children.c.manifest_id == manifests.c.id)
    .where(manifest_children.c.child_id == bindparam("id"), manifests.c.trash_id.is_(None))
    .limit(GROUP + 1)
)
_BY_DIGEST: Final = Statement(
    select(*_COLUMNS).where(
        manifests.c.repository_id == bindparam("repository_id"), manifests.c.digest == bindparam("digest")
    )
)
_REFERRERS: Final = Statement(
    select(*_COLUMNS)
    .where(manifests.c.repository_id == bindparam("repository_id"), manifests.c.subject == bindparam("digest"))
    .limit(GROUP + 1)
)
_TAGGED: Final = Statement(select(tags.c.name).where(tags.c.manifest_id == bindparam("id")).limit(1))
_PULLED: Final = Statement(
    select(manifest_pulls.c.manifest_id).where(
        manifest_pulls.c.manifest_id == bindparam("id"), manifest_pulls.c.pulled_at >= bindparam("since")
    )
)
_PUSHED: Final = Statement(
    select(commits.c.id)
    .where(commits.c.manifest_id == bindparam("id"), commits.c.pushed_at >= bindparam("since"))
    .limit(1)
)
_BY_TAG: Final = Statement(
    select(
        commits.c.tag,
        func.count().label("number"),
        func.max(commits.c.pushed_at).label("pushed_at"),
        func.max(commits.c.id).label("last"),
    )
    .where(commits.c.manifest_id == bindparam("id"))
    .group_by(commits.c.tag)
)
_TAG_IN_TRASH: Final = Statement(
    select(schema.trash.c.id)
    .where(
        schema.trash.c.repository_id == bindparam("repository_id"),
        schema.trash.c.kind == trash.TAG,
        schema.trash.c.name == bindparam("tag"),
    )
    .limit(1)
)
_NEWEST: Final = Statement(
    select(commits.c.id, manifests.c.trash_id)
    .join(manifests, manifests.c.id == commits.c.manifest_id)
    .where(
        commits.c.repository_id == bindparam("repository_id"),
        commits.c.tag == bindparam("tag"),
        commits.c.id < bindparam("before"),
    )
    .order_by(commits.c.id.desc())
    .limit(bindparam("count"))
)
_LAST: Final = 1 << 62
"""After every commit."""


class Judge:
    """Tells what a policy lets go in a repository, as of one moment.

    Where it serves many turns of the loop, what it remembers may be from before a push; so what it finds is only a
    reason to look again, in the transaction that throws.
    """

    def __init__(
        self, repository_id: int, policy: Policy, *, at: int, lease: int, jumps: Sequence[tuple[int, int]] = ()
    ) -> None:
        """``at`` is the moment, ``lease`` the seconds for which a push may be under way, ``jumps`` as in ``clock``."""
        day = max(SECONDS_PER_DAY, lease)
        self.repository_id = repository_id
        self._policy = policy
        self._pushed_since = clock.walk_back(at, jumps, max(day, policy.younger or 0) * SECOND)
        self._pulled_since = clock.walk_back(at, jumps, max(day, policy.pulled or 0) * SECOND) - SLACK
        self._stay: set[int] = set()
        self._go: set[int] = set()
        self._newest: dict[str, int] = {}
        self._restored_at: int | None = None
        self.looked = 0
        """Manifests that were looked at so far."""

    def goes(self, connection: Connection, manifest_id: int) -> bool:
        """Whether nothing keeps the manifest."""
        return manifest_id in self._go or bool(self.group(connection, manifest_id))

    def group(self, connection: Connection, manifest_id: int) -> dict[int, Any]:
        """The manifest with all that would have to stay for it to stay, by ids, where nothing keeps any of them.

        Empty where something does, and for what is in the trash already.
        """
        first = _ALIVE.first(connection, {"id": manifest_id})
        if first is None or self._repository_restored(connection) >= self._pulled_since:
            return {}
        seen, came, left = {manifest_id: first}, {manifest_id: 0}, deque([first])
        while left:
            row = left.popleft()
            self.looked += 1
            if row.id in self._stay or self._stays_by_itself(connection, row):
                at = row.id
                while at:
                    self._stay.add(at)
                    at = came[at]
                return {}
            for each in self._keepers(connection, row):
                if each.id not in seen:
                    seen[each.id], came[each.id] = each, row.id
                    left.append(each)
            if len(seen) > GROUP:  # so does whatever hangs together with that many
                self._stay |= seen.keys()
                return {}
        self._go |= seen.keys()
        return seen

    def _repository_restored(self, connection: Connection) -> int:
        """When all of the repository came back from the trash, which counts as a pull of it; 0: it never did."""
        if self._restored_at is None:
            query = select(repositories.c.restored_at).where(repositories.c.id == self.repository_id)
            self._restored_at = connection.execute(query).scalar_one() or 0
        return self._restored_at

    def trim_cache(self) -> None:
        """Make room: what is remembered only saves looking again."""
        if len(self._stay) + len(self._go) + len(self._newest) > SCAN * 1000:
            self._stay.clear()
            self._go.clear()
            self._newest.clear()

    def _keepers(self, connection: Connection, row: Any) -> Iterable[Any]:  # noqa: ANN401 - a named tuple
        """What keeps the manifest for as long as it stays itself: indexes, the subject, what refers to it."""
        yield from _HOLDERS.all(connection, {"id": row.id})
        here = {"repository_id": self.repository_id}
        if row.subject is not None:
            yield from _BY_DIGEST.all(connection, here | {"digest": row.subject})
        yield from _REFERRERS.all(connection, here | {"digest": row.digest})

    def _stays_by_itself(self, connection: Connection, row: Any) -> bool:  # noqa: ANN401 - a named tuple
        own = {"id": row.id}
        return (
            row.pushed_at >= self._pushed_since
            or _TAGGED.first(connection, own) is not None
            or _PULLED.first(connection, own | {"since": self._pulled_since}) is not None
            or _PUSHED.first(connection, own | {"since": self._pushed_since}) is not None
            or self._among_newest(connection, row.id)
        )

    def _among_newest(self, connection: Connection, manifest_id: int) -> bool:
        """Whether a commit of it is one of the newest of its tag.

        A tag in the trash would come back with its newest commit, so that one is kept whatever the rules.
        """
        for row in _BY_TAG.all(connection, {"id": manifest_id}):
            own = {"repository_id": self.repository_id, "tag": row.tag}
            depth = self._policy.newest or int(_TAG_IN_TRASH.first(connection, own) is not None)
            if depth and row.last >= self._newest_since(connection, row.tag, depth):
                return True
        return False

    def _newest_since(self, connection: Connection, tag: str, depth: int) -> int:
        """The id of the last of so many newest commits of a tag, without those in the trash; 0: it has no more."""
        if tag not in self._newest:
            self._newest[tag] = self._walk(connection, tag, depth)
        return self._newest[tag]

    def _walk(self, connection: Connection, tag: str, depth: int) -> int:
        key, count = _LAST, max(depth, SCAN)
        for _ in range(0, WALK, count):
            bound = {"repository_id": self.repository_id, "tag": tag, "before": key}
            rows = _NEWEST.all(connection, bound | {"count": count})
            for row in rows:
                depth -= row.trash_id is None
                if depth == 0:
                    return int(row.id)
            if len(rows) < count:
                return 0
            key = rows[-1].id
        return 0


_SCAN: Final = Statement(
    select(*_COLUMNS, manifests.c.trash_id, manifests.c.size, manifests.c.total_size)
    .where(manifests.c.repository_id == bindparam("repository_id"), manifests.c.digest > bindparam("after"))
    .order_by(manifests.c.digest)
    .limit(SCAN)
)


def scan(connection: Connection, judge: Judge, after: str) -> tuple[list[tuple[Any, bool]], str | None]:
    """Judge the next manifests by their digests: rows, and whether each goes; the digest that was looked at last."""
    judge.trim_cache()
    rows = _SCAN.all(connection, {"repository_id": judge.repository_id, "after": after})
    found, before = [], judge.looked
    for row in rows:
        if row.trash_id is None:
            found.append((row, judge.goes(connection, row.id)))
        if judge.looked - before > LOOKS:
            return found, row.digest
    return found, rows[-1].digest if len(rows) == SCAN else None


def commits_of(connection: Connection, manifest_id: int) -> list[Any]:
    """Rows (tag, number, pushed_at): how many commits of each tag the manifest has, and when it had the last."""
    return _BY_TAG.all(connection, {"id": manifest_id})


# --- and what follows from it ------------------------------------------------------------------------------------


def move_to_trash(
    connection: Connection, repository_id: int, manifest_ids: Sequence[int], *, at: int, lease: int
) -> tuple[int, Sequence[int]]:
    """Put into the trash what still goes, by the policy of now; how many, and which are left for the next call.

    Ids were judged before, and judged again here: something may have been pushed, pulled or tagged since. What a
    manifest hangs together with goes with it.
    """
    organisation_id, policy = effective(connection, repository_id)
    if policy.everything:
        return 0, []
    judge = Judge(repository_id, policy, at=at, lease=lease, jumps=clock.jumps(connection, at))
    moved = 0
    for place, manifest_id in enumerate(manifest_ids):
        group = judge.group(connection, manifest_id)
        if moved and moved + len(group) > BATCH:
            return moved, manifest_ids[place:]
        for row in _in_order(connection, group)[:BATCH]:
            item = trash.move_manifest(
                connection, organisation_id, repository_id, row.id, row.digest, None, by_policy=True
            )
            audit.append_as(
                connection,
                audit.Event.expire,
                trash.path(connection, item),
                organisation_id=organisation_id,
                by=audit.POLICY,
                address="",
                detail=f"{item.commits} commit{'' if item.commits == 1 else 's'}",
            )
            moved += 1
        if len(group) > BATCH:
            return moved, manifest_ids[place:]
    return moved, []


def _in_order(connection: Connection, group: dict[int, Any]) -> list[Any]:
    """A group so that an index comes before what it holds and, where both can be, a subject before its referrers.

    Whatever is cut off behind any of them leaves no index without its images.
    """
    holders = {number: {row.id for row in _HOLDERS.all(connection, {"id": number})} & group.keys() for number in group}
    digests = {row.digest for row in group.values()}
    found: list[Any] = []
    while holders:
        free = [group[number] for number, above in holders.items() if not above]
        found += sorted(free, key=lambda row: row.subject in digests)
        for row in free:
            del holders[row.id]
        for above in holders.values():
            above.difference_update(row.id for row in free)
    return found
