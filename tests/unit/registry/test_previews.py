"""How much of a process's time previews of policies may take."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from polly_dockers.auth import members
from polly_dockers.context import PREVIEWING
from polly_dockers.db.retention import Policy
from polly_dockers.errors import TooManyRequests
from polly_dockers.model import Role
from polly_dockers.registry import retention
from polly_dockers.system.gate import Gate
from support.use_cases import ADMIN, email

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context

ORGANISATIONS = ("one", "two", "three")
RULES = Policy(newest=1)


@pytest.fixture(autouse=True)
async def organisations(context: Context) -> None:
    """Three organisations of one admin."""

    def add(connection: Connection) -> None:
        for slug in ORGANISATIONS:
            made = members.create_organisation(connection, slug)
            members.add(connection, made, slug, email(ADMIN), Role.admin, "!", members.Existing.keep_password)

    await context.database.write(add)


class Slow:
    """A search that ends when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.until: list[float] = []
        self.now = self.most = 0
        self.begun, self.go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)
        monkeypatch.setattr(retention, "_scan", self)

    async def __call__(self, _registry: object, _over: object, _looking: object, until: float) -> None:
        """Wait for the test."""
        self.until.append(until)
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.release()
        await self.go_on.acquire()
        self.now -= 1


async def test_previews_take_turns(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """One preview runs at a time in a process, for all organisations; each one's time counts from its own start."""
    slow = Slow(monkeypatch)
    asked = [
        asyncio.create_task(retention.write(context, ADMIN, org, None, RULES, preview=True)) for org in ORGANISATIONS
    ]
    clock = asyncio.get_running_loop().time
    await slow.begun.acquire()
    for _ in ORGANISATIONS[1:]:
        free = clock()
        slow.go_on.release()
        await slow.begun.acquire()
        assert slow.until[-1] >= free + retention.PREVIEW_SECONDS
    slow.go_on.release()
    await asyncio.gather(*asked)
    assert slow.most == 1


async def test_who_can_not_wait_changes_nothing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """TooManyRequests with a waiting time, and the policy does not change. Keeping everything never waits."""
    slow = Slow(monkeypatch)
    object.__setattr__(context, "previews", Gate(1, PREVIEWING, waiting_each=0, waiting_all=0))
    first = asyncio.create_task(retention.write(context, ADMIN, "one", None, RULES, preview=False))
    await slow.begun.acquire()
    with pytest.raises(TooManyRequests) as caught:
        await retention.write(context, ADMIN, "two", None, RULES, preview=False)
    assert caught.value.retry_after > 0
    with pytest.raises(TooManyRequests):
        await retention.preview(context, ADMIN, "one", None, as_of=None)
    slow.go_on.release()
    slow.go_on.release()
    await retention.write(context, ADMIN, "three", None, Policy(), preview=False)
    await first
    for org, holds in (("one", RULES), ("two", Policy()), ("three", Policy())):
        assert (await retention.read(context, ADMIN, org, limit=1, after=""))[0] == holds
