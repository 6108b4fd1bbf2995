"""Policies: what a person lets go by itself, told before it holds, and put into the trash by the collector."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.db.audit import Event
from polly_dockers.db.retention import Policy
from polly_dockers.db.sqlite import now
from polly_dockers.errors import BadRequest
from polly_dockers.model import Action, RepositoryName, Role
from polly_dockers.system.durations import SECOND, SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.model import Actor

LONGEST: Final = 100 * 366 * SECONDS_PER_DAY
MOST: Final = 1000
"""The newest commits of a tag that a rule may keep, at most."""
NAMED: Final = 1000
"""Manifests that a preview names, at most."""
PREVIEW_SECONDS: Final = 20.0
"""How long a preview looks; it says so where that was not enough."""
PAGE: Final = 200
"""Repositories of one query."""


# --- what people write -------------------------------------------------------------------------------------------


def parse(keep: str, younger: int | None, newest: int | None, pulled: int | None) -> Policy | None:
    """The policy that was asked for; None: that of the organisation. Raises BadRequest."""
    given = [each for each in (younger, newest, pulled) if each is not None]
    if keep != "rules":
        if given:
            msg = f"younger, newest and pulled are rules: they go with keep rules, not with keep {keep}."
            raise BadRequest(msg)
        return Policy() if keep == "everything" else None
    if not given:
        msg = "A policy without a rule would keep nothing but tags. Give younger, newest or pulled, or keep everything."
        raise BadRequest(msg)
    for name, seconds in (("younger", younger), ("pulled", pulled)):
        if seconds is not None and not SECONDS_PER_DAY <= seconds <= LONGEST:
            msg = f"{name} is {seconds}: give seconds from {SECONDS_PER_DAY} (a day) to {LONGEST} (100 years)."
            raise BadRequest(msg)
    if newest is not None and not 1 <= newest <= MOST:
        msg = f"newest is {newest}: give how many commits of each tag are kept, from 1 to {MOST}."
        raise BadRequest(msg)
    return Policy(younger, newest, pulled)


async def read(
    context: Context, actor: Actor, organisation: str, *, limit: int, after: str
) -> tuple[Policy, list[tuple[str, Policy]], str | None]:
    """The organisation's policy, those of repositories with their own, and the key of the next page; for members."""

    def query(connection: Connection) -> tuple[Policy, list[tuple[str, Policy]], str | None]:
        found, _ = permissions.require_role(connection, actor, organisation, Role.reader)
        own, following = db.retention.own_policies(connection, found, after=after, limit=limit)
        return db.retention.of_organisation(connection, found), own, following

    return await context.database.read(query)


async def write(
    context: Context,
    actor: Actor,
    organisation: str,
    name: str | None,
    policy: Policy | None,
    *,
    preview: bool,
    as_of: int | None = None,
) -> tuple[Policy, Preview]:
    """Set the policy of an organisation, or of one repository of it; what holds then, and what would go now.

    With ``preview`` nothing is set, and what would go may be of a later moment, ``as_of`` (microseconds).
    ``policy`` None lets a repository have its organisation's. For admins.
    Raises BadRequest, Denied, OrganisationUnknown, NameUnknown; TooManyRequests where other previews take their time:
    then nothing is set.
    """
    if policy is None and name is None:
        msg = "Only a docker repository can inherit a policy, from its organisation: give its name."
        raise BadRequest(msg)
    if as_of is not None and not preview:
        msg = "as_of is for a preview: a policy holds from now on."
        raise BadRequest(msg)
    at = _moment(as_of)
    full = RepositoryName.of(organisation, name) if name is not None else None

    def reach(connection: Connection) -> tuple[int, int | None, Policy]:
        found, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        place = (
            permissions.require_permission(connection, actor, full, Action.delete).repository_id
            if full is not None
            else None
        )
        return found, place, policy if policy is not None else db.retention.of_organisation(connection, found)

    def change(connection: Connection) -> tuple[int, int | None, Policy]:
        found, repository_id, holds = reach(connection)
        text = policy.text if policy is not None else None
        if repository_id is None:
            db.accounts.set_policy(connection, found, text)
        else:
            db.repositories.change(connection, repository_id, policy=text)
        db.audit.append(
            connection,
            Event.policy_update,
            full or organisation,
            organisation_id=found,
            by=actor,
            detail=f"keep {policy}" if policy is not None else "inherit",
        )
        return found, repository_id, holds

    found, repository_id, holds = await context.database.read(reach)
    async with _place(context, found, nothing_goes=holds.everything):  # whoever can't be told changes nothing either
        if not preview:
            found, repository_id, holds = await context.database.write(change)
        over = _one(repository_id or 0, full.name, holds) if full is not None else _inheriting(context, found, holds)
        return holds, await _preview(context, over, at)


async def look(
    context: Context, actor: Actor, organisation: str, name: str | None, *, as_of: int | None
) -> tuple[Policy, Preview]:
    """The policy of an organisation or of one repository of it, and what goes by it now, or at a later moment.

    For an organisation, what goes by the policies that repositories have of their own is included. For admins.
    Raises BadRequest, Denied, OrganisationUnknown, NameUnknown, TooManyRequests.
    """
    at = _moment(as_of)
    full = RepositoryName.of(organisation, name) if name is not None else None

    def query(connection: Connection) -> tuple[int, int, Policy]:
        found, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        if full is None:
            return found, 0, db.retention.of_organisation(connection, found)
        place = permissions.require_permission(connection, actor, full, Action.delete).repository_id
        return found, place, db.retention.effective(connection, place)[1]

    found, place, holds = await context.database.read(query)
    over = _one(place, full.name, holds) if full is not None else _all(context, found)
    async with _place(context, found, nothing_goes=full is not None and holds.everything):
        return holds, await _preview(context, over, at)


def _moment(as_of: int | None) -> int:
    """When it is judged: now, or later. Raises BadRequest."""
    at = now()
    if as_of is not None and not at - SECONDS_PER_DAY * SECOND <= as_of <= at + LONGEST * SECOND:
        msg = "as_of is to be a moment from now on, within 100 years."
        raise BadRequest(msg)
    return max(at, as_of or 0)


# --- what would go -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Going:
    """A manifest that a policy lets go."""

    pushed_at: int
    """Its last commit, or itself where it never had one."""
    repository: str
    digest: str
    tags: tuple[str, ...]
    """Of its commits; no tag has it now."""
    size: int


@dataclass(slots=True)
class Preview:
    """What a policy would let go."""

    at: int
    """As of when."""
    manifests: int = 0
    commits: int = 0
    size: int = 0
    """Bytes that nothing else in their repositories needs; of one that was not looked at to its end, of manifests."""
    complete: bool = True
    """Whether everything was looked at in the time that there is."""
    items: list[Going] = field(default_factory=list)
    """The newest of them, newest first."""


class _Looking:
    """Adds up what would go, repository by repository."""

    def __init__(self, at: int) -> None:
        self.seen = Preview(at)
        self._newest: list[Going] = []
        self._needed: set[int] = set()
        self._freed: set[int] = set()

    def scan(self, connection: Connection, judge: db.retention.Judge, repository: str, after: str) -> str | None:
        """Look at the next manifests of a repository; where to go on."""
        found, following = db.retention.scan(connection, judge, after)
        for row, goes in found:
            blob_ids = db.blobs.ids_of_manifest(connection, row.id)
            if not goes:
                self._needed |= blob_ids
                continue
            self._freed |= blob_ids
            self._add(row, db.retention.commits_of(connection, row.id), repository)
        return following

    def _add(self, row: Any, commits: Sequence[Any], repository: str) -> None:  # noqa: ANN401 - named tuples
        self.seen.manifests += 1
        self.seen.commits += sum(each.number for each in commits)
        self.seen.size += row.size
        pushed_at = max((each.pushed_at for each in commits), default=row.pushed_at)
        tags = tuple(sorted(each.tag for each in commits))
        item = Going(pushed_at, repository, row.digest, tags, row.total_size)
        (heapq.heappush if len(self._newest) < NAMED else heapq.heappushpop)(self._newest, item)

    def freed(self) -> list[list[int]]:
        """A repository is over: the blobs that go with it, in parts for ``add_blobs``."""
        gone = sorted(self._freed - self._needed)
        self._freed.clear()
        self._needed.clear()
        return [gone[at : at + PAGE] for at in range(0, len(gone), PAGE)]

    def add_blobs(self, connection: Connection, blob_ids: list[int]) -> None:
        """Count the bytes of blobs that go."""
        self.seen.size += db.blobs.total_size(connection, blob_ids)

    def done(self) -> Preview:
        self.seen.items = sorted(self._newest, reverse=True)
        return self.seen


_Over = AsyncIterator[tuple[int, str, Policy]]
"""Repositories that are looked at: their ids, names, and what is kept in them."""


def _place(context: Context, organisation_id: int, *, nothing_goes: bool) -> AbstractAsyncContextManager[None]:
    """The place where a process looks for what goes; none is taken where there is nothing to look for."""
    return contextlib.nullcontext() if nothing_goes else context.previews.place(organisation_id)


async def _preview(context: Context, over: _Over, at: int) -> Preview:
    """Look for PREVIEW_SECONDS at most, counted from now; the caller holds the place where that is done."""
    looking = _Looking(at)
    await _look(context, over, looking, asyncio.get_running_loop().time() + PREVIEW_SECONDS)
    return looking.done()


async def _look(context: Context, over: _Over, looking: _Looking, until: float) -> None:
    """Look until there is nothing more, or no time; half of the time is for other requests."""
    timer = asyncio.get_running_loop().time
    jumps = await context.database.read(db.clock.jumps, now())
    async for repository_id, name, policy in over:
        lease = context.config.lease_seconds
        judge = db.retention.Judge(repository_id, policy, at=looking.seen.at, lease=lease, jumps=jumps)
        after: str | None = None if policy.everything else ""
        while after is not None and timer() < until:
            began = timer()
            after = await context.database.read(looking.scan, judge, name, after)
            await asyncio.sleep(timer() - began)
        for blob_ids in looking.freed() if after is None else ():
            began = timer()
            await context.database.read(looking.add_blobs, blob_ids)
            await asyncio.sleep(timer() - began)
        if after is not None or timer() >= until:
            looking.seen.complete = False
            break


async def _one(repository_id: int, name: str, policy: Policy) -> _Over:
    yield repository_id, name, policy


async def _inheriting(context: Context, organisation_id: int, policy: Policy) -> _Over:
    """Repositories without a policy of their own, with the one that they would have."""
    after: str | None = None if policy.everything else ""
    while after is not None:
        found, after = await context.database.read(db.retention.inheriting, organisation_id, after=after, limit=PAGE)
        for repository_id, name in found:
            yield repository_id, name, policy
        await asyncio.sleep(0)


async def _all(context: Context, organisation_id: int) -> _Over:
    """All repositories of an organisation, with what is kept in them."""
    after: str | None = ""
    while after is not None:
        found, after = await context.database.read(db.retention.of_all, organisation_id, after=after, limit=PAGE)
        for each in found:
            yield each
        await asyncio.sleep(0)


# --- what goes ---------------------------------------------------------------------------------------------------


async def _found(context: Context, at: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Go over all repositories that have rules: their ids, with ids of manifests that nothing seems to keep."""
    page: int | None = 0
    jumps = await context.database.read(db.clock.jumps, at)
    while page is not None:
        found, page = await context.database.read(db.retention.ruled, after=page, limit=PAGE)
        await asyncio.sleep(0)
        for repository_id, policy in found:
            lease = context.config.lease_seconds
            judge = db.retention.Judge(repository_id, policy, at=at, lease=lease, jumps=jumps)
            after: str | None = ""
            while after is not None:
                judged, after = await context.database.read(db.retention.scan, judge, after)
                yield repository_id, [row.id for row, goes in judged if goes]


async def apply(context: Context) -> AsyncIterator[int]:
    """Put into the trash what no policy keeps; how many manifests, after each small step."""
    await record_pulls(context)
    at = now()
    async for repository_id, manifest_ids in _found(context, at):
        left: Sequence[int] = manifest_ids
        yield 0
        while left:
            thrown, left = await context.database.write(
                db.retention.move_to_trash, repository_id, left, at=at, lease=context.config.lease_seconds
            )
            yield thrown


async def count(context: Context) -> int:
    """How many manifests would go now."""
    number = 0
    async for _, manifest_ids in _found(context, now()):
        number += len(manifest_ids)
    return number


async def record_pulls(context: Context) -> None:
    """Write which manifests this process has answered since the last time, where that is worth it."""
    while context.pulled:
        some = [context.pulled.pop() for _ in range(min(len(context.pulled), db.last_pulls.CHUNK))]
        try:
            wanted = await context.database.read(db.last_pulls.stale, some)
            if wanted:
                await context.database.write(db.last_pulls.record, wanted)
        except BaseException:
            context.pulled.update(some)
            raise
        await asyncio.sleep(0)
