"""Retention policies: setting them, previewing what they delete, and moving that to the trash."""

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
"""The highest number of newest commits that a rule may keep of each tag."""
NAMED: Final = 1000
"""Manifests that a preview lists, at most."""
PREVIEW_SECONDS: Final = 20.0
"""How long a preview may take. If that is too short, it is marked as incomplete."""
PAGE: Final = 200
"""Repositories or blobs of one query."""


# --- what people write ------------------------------------------------------------------------------------------------


def parse(keep: str, younger: int | None, newest: int | None, pulled: int | None) -> Policy | None:
    """The policy that a request describes; None stands for the organisation's policy. Raises BadRequest."""
    given = [each for each in (younger, newest, pulled) if each is not None]
    if keep != "rules":
        if given:
            msg = f"younger, newest and pulled are allowed only with keep rules, not with keep {keep}."
            raise BadRequest(msg)
        return Policy() if keep == "everything" else None
    if not given:
        msg = (
            "A policy without rules would keep only tagged images. Give younger, newest or pulled, or keep everything."
        )
        raise BadRequest(msg)
    for name, seconds in (("younger", younger), ("pulled", pulled)):
        if seconds is not None and not SECONDS_PER_DAY <= seconds <= LONGEST:
            msg = f"{name} is {seconds}: it must be {SECONDS_PER_DAY} (a day) to {LONGEST} (100 years), in seconds."
            raise BadRequest(msg)
    if newest is not None and not 1 <= newest <= MOST:
        msg = f"newest is {newest}: it must be from 1 to {MOST}, the commits kept of each tag."
        raise BadRequest(msg)
    return Policy(younger, newest, pulled)


async def read(
    context: Context, actor: Actor, organisation: str, *, limit: int, after: str
) -> tuple[Policy, list[tuple[str, Policy]], str | None]:
    """The organisation's policy, a page of repositories with their own policy, and the next cursor. For members."""

    def query(connection: Connection) -> tuple[Policy, list[tuple[str, Policy]], str | None]:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.reader)
        own, following = db.retention.own_policies(connection, organisation_id, after=after, limit=limit)
        return db.retention.of_organisation(connection, organisation_id), own, following

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
    """Set the policy of an organisation or of one repository. Returns the policy and what it deletes now. For admins.

    ``policy`` None lets a repository inherit its organisation's policy. With ``preview``, nothing is set, and what is
    deleted may be that of a later moment, ``as_of`` (microseconds).

    Raises BadRequest, Denied, OrganisationUnknown and NameUnknown. Raises TooManyRequests if other previews take too
    long; then nothing is set.
    """
    if policy is None and name is None:
        msg = "Only a docker repository can inherit a policy. Give its name."
        raise BadRequest(msg)
    if as_of is not None and not preview:
        msg = "as_of is allowed only with preview: a policy applies from now on."
        raise BadRequest(msg)
    at = _moment(as_of)
    full = RepositoryName.of(organisation, name) if name is not None else None

    def find(connection: Connection) -> tuple[int, int, Policy]:
        organisation_id, repository_id = _require_admin(connection, actor, organisation, full)
        holds = policy if policy is not None else db.retention.of_organisation(connection, organisation_id)
        return organisation_id, repository_id, holds

    def change(connection: Connection) -> tuple[int, int, Policy]:
        organisation_id, repository_id, holds = find(connection)
        _set(connection, actor, organisation_id, repository_id, full or organisation, policy)
        return organisation_id, repository_id, holds

    organisation_id, repository_id, holds = await context.database.read(find)
    async with _place(context, organisation_id, nothing_goes=holds.everything):  # without a preview, nothing is changed
        if not preview:
            organisation_id, repository_id, holds = await context.database.write(change)
        over = _one(repository_id, full.name, holds) if full else _all(context, organisation_id, inherited=holds)
        return holds, await _preview(context, over, at)


def _require_admin(
    connection: Connection, actor: Actor, organisation: str, full: RepositoryName | None
) -> tuple[int, int]:
    """The ids of an organisation and of a repository in it (0 without one), for admins."""
    organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
    if full is None:
        return organisation_id, 0
    return organisation_id, permissions.require_permission(connection, actor, full, Action.delete).repository_id


def _set(
    connection: Connection, actor: Actor, organisation_id: int, repository_id: int, path: str, policy: Policy | None
) -> None:
    """Set the policy of a repository, or without one (0) of the organisation. If it is set already, nothing changes."""
    if repository_id:
        before = db.retention.of_repository(connection, repository_id)
    else:
        before = db.retention.of_organisation(connection, organisation_id)
    if policy == before:
        return
    text = policy.text if policy is not None else None
    if repository_id:
        db.repositories.change(connection, repository_id, policy=text)
    else:
        db.accounts.set_policy(connection, organisation_id, text)
    detail = f"keep {policy}" if policy is not None else "inherit"
    db.audit.append(connection, Event.policy_update, path, organisation_id=organisation_id, by=actor, detail=detail)


async def preview(
    context: Context, actor: Actor, organisation: str, name: str | None, *, as_of: int | None
) -> tuple[Policy, Preview]:
    """The policy of an organisation or of one repository, and what it deletes now, or at the moment ``as_of``.

    For an organisation, this includes what repositories delete by policies of their own. For admins. Raises BadRequest,
    Denied, OrganisationUnknown, NameUnknown and TooManyRequests.
    """
    at = _moment(as_of)
    full = RepositoryName.of(organisation, name) if name is not None else None

    def query(connection: Connection) -> tuple[int, int, Policy]:
        organisation_id, repository_id = _require_admin(connection, actor, organisation, full)
        if full is None:
            return organisation_id, 0, db.retention.of_organisation(connection, organisation_id)
        return organisation_id, repository_id, db.retention.effective(connection, repository_id)[1]

    organisation_id, repository_id, holds = await context.database.read(query)
    over = _one(repository_id, full.name, holds) if full is not None else _all(context, organisation_id)
    async with _place(context, organisation_id, nothing_goes=full is not None and holds.everything):
        return holds, await _preview(context, over, at)


def _moment(as_of: int | None) -> int:
    """The moment of a preview: now, or later. Raises BadRequest."""
    at = now()
    if as_of is not None and not at - SECONDS_PER_DAY * SECOND <= as_of <= at + LONGEST * SECOND:
        msg = "as_of must be between now and 100 years from now."
        raise BadRequest(msg)
    return max(at, as_of or 0)


# --- previews ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Going:
    """A manifest that a policy deletes."""

    pushed_at: int
    """Time of its last commit, or of the manifest itself if it never had one."""
    repository: str
    digest: str
    tags: tuple[str, ...]
    """Tags of its commits; it is no longer the active commit of any."""
    size: int


@dataclass(slots=True)
class Preview:
    """What a policy would delete."""

    at: int
    """The moment of the preview, in microseconds."""
    manifests: int = 0
    commits: int = 0
    size: int = 0
    """Bytes that nothing else in their repositories needs. In an incomplete preview, of manifests only
    for the last repository."""
    complete: bool = True
    """Whether all repositories were searched in the time allowed."""
    items: list[Going] = field(default_factory=list)
    """The newest manifests, newest first, at most NAMED."""


class _Totals:
    """Adds up what a policy deletes, repository by repository."""

    def __init__(self, at: int) -> None:
        self.seen = Preview(at)
        self._newest: list[Going] = []
        self._needed: set[int] = set()
        self._freed: set[int] = set()

    def scan(self, connection: Connection, judge: db.retention.Judge, repository: str, after: str) -> str | None:
        """Judge the next manifests of a repository; returns the cursor of those after them."""
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
        """The blobs that the finished repository no longer needs, in parts for ``add_blobs``."""
        gone = sorted(self._freed - self._needed)
        self._freed.clear()
        self._needed.clear()
        return [gone[at : at + PAGE] for at in range(0, len(gone), PAGE)]

    def add_blobs(self, connection: Connection, blob_ids: list[int]) -> None:
        """Add the bytes of blobs that are deleted."""
        self.seen.size += db.blobs.total_size(connection, blob_ids)

    def done(self) -> Preview:
        self.seen.items = sorted(self._newest, reverse=True)
        return self.seen


_Over = AsyncIterator[tuple[int, str, Policy]]
"""Repositories to search: ids, names and policies."""


def _place(context: Context, organisation_id: int, *, nothing_goes: bool) -> AbstractAsyncContextManager[None]:
    """A place for one preview in this process; none is needed if the policy deletes nothing."""
    return contextlib.nullcontext() if nothing_goes else context.previews.place(organisation_id)


async def _preview(context: Context, over: _Over, at: int) -> Preview:
    """Search for at most PREVIEW_SECONDS. The caller holds the place for a preview."""
    totals = _Totals(at)
    await _scan(context, over, totals, asyncio.get_running_loop().time() + PREVIEW_SECONDS)
    return totals.done()


async def _scan(context: Context, over: _Over, totals: _Totals, until: float) -> None:
    """Search all repositories, until ``until`` at most. Half of the time is left to other requests."""
    timer = asyncio.get_running_loop().time
    jumps = await context.database.read(db.clock.jumps, now())
    async for repository_id, name, policy in over:
        lease = context.config.lease_seconds
        judge = db.retention.Judge(repository_id, policy, at=totals.seen.at, lease=lease, jumps=jumps)
        after: str | None = None if policy.everything else ""
        while after is not None and timer() < until:
            began = timer()
            after = await context.database.read(totals.scan, judge, name, after)
            await asyncio.sleep(timer() - began)
        for blob_ids in totals.freed() if after is None else ():
            began = timer()
            await context.database.read(totals.add_blobs, blob_ids)
            await asyncio.sleep(timer() - began)
        if after is not None or timer() >= until:
            totals.seen.complete = False
            break


async def _one(repository_id: int, name: str, policy: Policy) -> _Over:
    yield repository_id, name, policy


async def _all(context: Context, organisation_id: int, inherited: Policy | None = None) -> _Over:
    """All repositories of an organisation, with the policy of each.

    With ``inherited``, only those without a policy of their own, with this one; none if it keeps everything.
    """
    after: str | None = None if inherited is not None and inherited.everything else ""
    while after is not None:
        found, after = await context.database.read(db.retention.of_all, organisation_id, after=after, limit=PAGE)
        for repository_id, name, own, policy in found:
            if inherited is None or not own:
                yield repository_id, name, inherited or policy
        await asyncio.sleep(0)


# --- deleting ---------------------------------------------------------------------------------------------------------


async def _found(context: Context, at: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Search all repositories with rules: their ids, and ids of manifests that nothing seems to keep."""
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
    """Move to the trash what no policy keeps. Yields the number of manifests after each small step."""
    await record_pulls(context)
    at = now()
    async for repository_id, manifest_ids in _found(context, at):
        left: Sequence[int] = manifest_ids
        yield 0
        while left:
            moved, left = await context.database.write(
                db.retention.move_to_trash, repository_id, left, at=at, lease=context.config.lease_seconds
            )
            yield moved


async def count(context: Context) -> int:
    """How many manifests ``apply`` would delete now."""
    number = 0
    async for _, manifest_ids in _found(context, now()):
        number += len(manifest_ids)
    return number


async def record_pulls(context: Context) -> None:
    """Record the manifests that this process has served since the last time, where an hour has passed."""
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
