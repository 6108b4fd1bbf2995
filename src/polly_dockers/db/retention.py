"""Retention policies of organisations and repositories, and the decision which manifests they delete.

A manifest is deleted only if no rule keeps it, and nothing else does. It is also kept by a tag, by an index that is
kept and holds it, by its subject or a referrer that is kept, and by a push or pull within the last day. To decide about
a manifest, everything that could keep it is examined, until something is found that is kept for its own sake. If there
is none, everything that was examined is deleted together.
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
from polly_dockers.formatting import counted
from polly_dockers.system.durations import HOUR, SECOND, SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

AT_ONCE: Final = 20
"""The most manifests that one transaction moves to the trash."""
SCAN: Final = 20
"""The most manifests that are judged in one turn of the event loop; fewer if LOOKS are used up before."""
LOOKS: Final = 300
"""How many manifests are examined in one turn of the event loop, until the group is complete: some 20 ms."""
GROUP: Final = 300
"""The most manifests that are examined to judge one. If more are connected with it, it is kept."""
SLACK: Final = 2 * HOUR
"""How much later than recorded a pull may have been: the hour of ``last_pulls``, and what a crash loses."""


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A retention policy. A manifest is kept if any rule keeps it. A policy without rules keeps everything."""

    younger: int | None = None
    """Keep what was pushed within so many seconds."""
    newest: int | None = None
    """Keep so many of the newest commits of each tag."""
    pulled: int | None = None
    """Keep what was pulled within so many seconds."""

    @property
    def everything(self) -> bool:
        """Whether the policy keeps everything."""
        return self.younger is None and self.newest is None and self.pulled is None

    def __str__(self) -> str:
        """The rules as text for the audit log."""
        rules = [
            f"younger than {_time(self.younger)}" if self.younger is not None else "",
            f"newest {self.newest}" if self.newest is not None else "",
            f"pulled within {_time(self.pulled)}" if self.pulled is not None else "",
        ]
        return ", ".join(filter(None, rules)) or "everything"

    @property
    def text(self) -> str:
        """The policy as it is stored: JSON."""
        return msgspec.json.encode(self).decode()


def _time(seconds: int) -> str:
    return f"{seconds // SECONDS_PER_DAY}d" if seconds % SECONDS_PER_DAY == 0 else f"{seconds}s"


def parse(text: str | None) -> Policy | None:
    """A stored policy; None for None."""
    return msgspec.json.decode(text, type=Policy) if text is not None else None


def of_organisation(connection: Connection, organisation_id: int) -> Policy:
    """The policy of an organisation; one without rules if none is set."""
    query = select(organisations.c.policy).where(organisations.c.id == organisation_id)
    return parse(connection.execute(query).scalar_one()) or Policy()


def of_repository(connection: Connection, repository_id: int) -> Policy | None:
    """The policy of a repository's own; None if it has that of its organisation."""
    query = select(repositories.c.policy).where(repositories.c.id == repository_id)
    return parse(connection.execute(query).scalar_one())


def own_policies(
    connection: Connection, organisation_id: int, *, after: str, limit: int
) -> tuple[list[tuple[str, Policy]], str | None]:
    """A keyset page of the repositories with a policy of their own, by name, and the cursor of the next page."""
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


_POLICY: Final = func.coalesce(repositories.c.policy, organisations.c.policy).label("policy")


def of_all(
    connection: Connection, organisation_id: int, *, after: str, limit: int
) -> tuple[list[tuple[int, str, bool, Policy]], str | None]:
    """The next repositories of an organisation, and the last name that was examined.

    Each with its id, its name, whether it has a policy of its own, and the policy that applies to it.
    """
    own = repositories.c.policy.is_not(None).label("own")
    query = (
        select(repositories.c.id, repositories.c.name, own, _POLICY, repositories.c.deleted_at)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(repositories.c.organisation_id == organisation_id, repositories.c.name > after)
        .order_by(repositories.c.name)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    alive = [row for row in rows if row.deleted_at is None]
    found = [(row.id, row.name, bool(row.own), parse(row.policy) or Policy()) for row in alive]
    return found, rows[-1].name if len(rows) == limit else None


def ruled(connection: Connection, *, after: int, limit: int) -> tuple[list[tuple[int, Policy]], int | None]:
    """The next repositories (id, policy) of all organisations whose policy may delete something, and the last id."""
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
    """The id of a repository's organisation and the repository's effective policy; 0 if it is deleted."""
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


# --- the decision -----------------------------------------------------------------------------------------------

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
    select(commits.c.id)
    .where(
        commits.c.repository_id == bindparam("repository_id"),
        commits.c.tag == bindparam("tag"),
        commits.c.in_trash == 0,
    )
    .order_by(commits.c.id.desc())
    .limit(1)
    .offset(bindparam("newer"))
)


class Judge:
    """Decides which manifests of a repository a policy deletes, as of one moment.

    A judge that is used for many turns of the event loop may remember things from before a push. So its decision must
    be repeated in the transaction that moves a manifest to the trash.
    """

    def __init__(
        self, repository_id: int, policy: Policy, *, at: int, lease: int, jumps: Sequence[tuple[int, int]] = ()
    ) -> None:
        """``at`` is the moment in microseconds, ``lease`` the longest push in seconds, ``jumps`` as in ``clock``."""
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
        """How many manifests were examined so far."""

    def goes(self, connection: Connection, manifest_id: int) -> bool:
        """Whether nothing keeps the manifest, so that it is deleted."""
        return manifest_id in self._go or bool(self.group(connection, manifest_id))

    def group(self, connection: Connection, manifest_id: int) -> dict[int, Any]:
        """The manifest and all manifests that could keep it, by id, if none of them is kept.

        Empty if one of them is kept, or if the manifest is in the trash already.
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
            if len(seen) > GROUP:  # too many are connected: all are kept
                self._stay |= seen.keys()
                return {}
        self._go |= seen.keys()
        return seen

    def _repository_restored(self, connection: Connection) -> int:
        """When the whole repository was restored, which counts as a pull of everything; 0 if it never was."""
        if self._restored_at is None:
            query = select(repositories.c.restored_at).where(repositories.c.id == self.repository_id)
            self._restored_at = connection.execute(query).scalar_one() or 0
        return self._restored_at

    def trim_cache(self) -> None:
        """Clear the cache of decisions if it has become large."""
        if len(self._stay) + len(self._go) + len(self._newest) > SCAN * 1000:
            self._stay.clear()
            self._go.clear()
            self._newest.clear()

    def _keepers(self, connection: Connection, row: Any) -> Iterable[Any]:  # noqa: ANN401 - a named tuple
        """The manifests that keep this one if they are kept: indexes, its subject, its referrers."""
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
        """Whether one of its commits is among the newest of its tag.

        The newest commit of a tag in the trash is always kept, because the tag would be restored with it.
        """
        for row in _BY_TAG.all(connection, {"id": manifest_id}):
            own = {"repository_id": self.repository_id, "tag": row.tag}
            depth = self._policy.newest or int(_TAG_IN_TRASH.first(connection, own) is not None)
            if depth and row.last >= self._newest_since(connection, row.tag, depth):
                return True
        return False

    def _newest_since(self, connection: Connection, tag: str, depth: int) -> int:
        """The id of the oldest of the ``depth`` newest commits of a tag outside the trash; 0 if it has fewer."""
        if tag not in self._newest:
            bound = {"repository_id": self.repository_id, "tag": tag, "newer": depth - 1}
            oldest = _NEWEST.first(connection, bound)
            self._newest[tag] = oldest.id if oldest is not None else 0
        return self._newest[tag]


_SCAN: Final = Statement(
    select(*_COLUMNS, manifests.c.trash_id, manifests.c.size, manifests.c.total_size)
    .where(manifests.c.repository_id == bindparam("repository_id"), manifests.c.digest > bindparam("after"))
    .order_by(manifests.c.digest)
    .limit(SCAN)
)


def scan(connection: Connection, judge: Judge, after: str) -> tuple[list[tuple[Any, bool]], str | None]:
    """Judge the next manifests in the order of digests: (row, whether it is deleted) each, and the last digest."""
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
    """Rows (tag, number, pushed_at) of a manifest: how many commits each tag has of it, and the time of the last."""
    return _BY_TAG.all(connection, {"id": manifest_id})


# --- carrying it out ------------------------------------------------------------------------------------


def move_to_trash(
    connection: Connection, repository_id: int, manifest_ids: Sequence[int], *, at: int, lease: int
) -> tuple[int, Sequence[int]]:
    """Move manifests to the trash that the policy of now deletes; returns how many, and which ids are left.

    The ids were judged before and are judged again here, because something may have been pushed, pulled or tagged
    since. A manifest is deleted together with its whole group.
    """
    organisation_id, policy = effective(connection, repository_id)
    if policy.everything:
        return 0, []
    judge = Judge(repository_id, policy, at=at, lease=lease, jumps=clock.jumps(connection, at))
    moved = 0
    for place, manifest_id in enumerate(manifest_ids):
        group = judge.group(connection, manifest_id)
        if moved and moved + len(group) > AT_ONCE:
            return moved, manifest_ids[place:]
        for row in _in_order(connection, group)[:AT_ONCE]:
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
                detail=counted(item.commits, "commit"),
            )
            moved += 1
        if len(group) > AT_ONCE:
            return moved, manifest_ids[place:]
    return moved, []


def _in_order(connection: Connection, group: dict[int, Any]) -> list[Any]:
    """A group in an order with each index before its children and, if possible, each subject before its referrers.

    So wherever the list is cut off, no index is left without its images.
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
