"""Refused sign-ins in the audit log, and how much a flood of them may cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from polly_dockers.auth import invitations, refusals, sign_in, throttles
from polly_dockers.errors import Busy
from polly_dockers.model import Actor
from polly_dockers.registry import audit
from polly_dockers.system.durations import SECOND
from polly_dockers.system.gate import Gate
from support.use_cases import ADMIN, email

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context

ANN = email(ADMIN)
REFUSED = "SELECT \"by\", detail FROM audit WHERE event = 'sign-in-refused'"


def entries(connection: Connection) -> dict[str, str]:
    """Emails and details of what was refused."""
    found = connection.execute(text("SELECT \"by\", detail FROM audit WHERE event = 'sign-in-refused'")).all()
    return {row.by: row.detail for row in found}


async def test_a_flood_of_made_up_emails(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few entries an hour are written for made-up emails, and the rest cost nothing. Accounts always get theirs."""
    monkeypatch.setattr(refusals, "UNKNOWN", 250)
    written: list[int] = []
    write = context.database.write

    async def counted(fn: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any function
        if fn is refusals._refused:
            written.append(sum(map(len, arguments)))
        return await write(fn, *arguments)

    object.__setattr__(
        context,
        "database",
        SimpleNamespace(only_read=False, read=context.database.read, write=counted, close=context.database.close),
    )
    for number in range(1000):
        refusals.remember(context, f"{number}@made.up", "203.0.113.1")
    for _ in range(7):
        refusals.remember(context, ANN, "203.0.113.1")
    await audit.settle(context)
    found = await context.database.read(entries)
    assert len(found) == 251
    assert found[ANN].startswith("7 times ")
    assert max(written) <= refusals.CHUNK
    assert len(written) == 4
    refusals.remember(context, "another@made.up", "203.0.113.1")
    await audit.settle(context)
    assert len(written) == 4
    assert not context.refused
    assert len(context.refused_at) == 251, "what is not written is not remembered"


async def test_whoever_goes_on_guessing_fills_no_disk(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first refusal is written at once, those of the next minute in one entry, and the rest at the end."""
    clock = 1000.0
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(refusals, "now", lambda: int(clock * SECOND))

    async def guess(number: int, *, everything: bool = False) -> list[str]:
        for _ in range(number):
            refusals.remember(context, ANN, "203.0.113.1")
        await audit.settle(context, everything=everything)
        rows = await context.database.read(lambda found: found.execute(text(REFUSED)).all())
        return [row.detail for row in rows]

    found = ["1 time at 00:16:40 UTC"]
    assert await guess(1) == found
    clock += 2
    assert await guess(3) == found
    clock += 2
    assert await guess(4) == found
    clock += refusals.EVERY
    found.append("7 times from 00:16:42 to 00:16:44 UTC")
    assert await guess(0) == found
    clock += 2
    assert await guess(2) == found
    found.append("2 times at 00:17:46 UTC")
    assert await guess(0, everything=True) == found


async def test_what_was_not_looked_at_was_not_refused(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If too many sign-ins wait, no password is checked, and the audit log has no refused sign-in."""
    gate = Gate(1, throttles.BUSY, waiting_each=0, waiting_all=0)
    monkeypatch.setattr(context.throttles, "_gate", gate)
    actor = Actor(user_id=1, password_version=1, grants=None, address="203.0.113.1")
    caller = sign_in.SignedIn(actor, ANN, None)
    async with gate.place("somebody"):
        for refused in (
            sign_in.sign_in(context, ANN, "wrong", "203.0.113.1"),
            invitations.accept(context, caller, "wrong", "203.0.113.1"),
            invitations.accept_with_password(context, "wrong", ANN, "wrong", "203.0.113.1"),
        ):
            with pytest.raises(Busy):
                await refused
    await audit.settle(context, everything=True)
    assert await context.database.read(entries) == {}
