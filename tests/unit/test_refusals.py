"""Refused sign-ins in the audit log: what a flood of them may cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from polly_dockers import accounts as use_cases
from polly_dockers import audit, datafolder, invitations, refusals, throttles
from polly_dockers.config import Config
from polly_dockers.db import accounts
from polly_dockers.errors import Busy
from polly_dockers.gate import Gate
from polly_dockers.model import Actor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.registry import Registry

ANN = "ann@acme.example"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with one account."""
    datafolder.prepare(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
async def registry(folder: Path) -> AsyncIterator[Registry]:
    """A registry on the folder."""
    opened = await datafolder.open_registry(Config(data=folder))
    await opened.database.write(accounts.add_user, ANN, "!")
    yield opened
    opened.close()


def entries(connection: Connection) -> dict[str, str]:
    """Emails and details of what was refused."""
    found = connection.execute(text('SELECT "by", detail FROM audit')).all()
    return {row.by: row.detail for row in found}


async def test_a_flood_of_made_up_emails(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many an hour are written, in small transactions; those beyond cost none. Accounts that exist always are."""
    monkeypatch.setattr(audit, "UNKNOWN", 250)
    written: list[int] = []
    write = registry.database.write

    async def counted(fn: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any function
        if fn is refusals._refused:
            written.append(sum(map(len, arguments)))
        return await write(fn, *arguments)

    object.__setattr__(
        registry, "database", SimpleNamespace(read=registry.database.read, write=counted, close=registry.database.close)
    )
    for number in range(1000):
        refusals.remember(registry, f"{number}@made.up", "203.0.113.1")
    for _ in range(7):
        refusals.remember(registry, ANN, "203.0.113.1")
    await audit.settle(registry)
    found = await registry.database.read(entries)
    assert len(found) == 251
    assert found[ANN] == "7 times"
    assert max(written) <= refusals.CHUNK
    assert len(written) == 4
    refusals.remember(registry, "another@made.up", "203.0.113.1")
    await audit.settle(registry)
    assert len(written) == 4
    assert not registry.refused
    assert len(registry.refused_at) == 251, "what is not written is not remembered"


async def test_whoever_goes_on_guessing_fills_no_disk(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first refusal is written at once, those of the next minute in one entry, and the rest at the end."""
    clock = 1000.0
    monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda: clock))

    async def guess(number: int, *, everything: bool = False) -> list[str]:
        for _ in range(number):
            refusals.remember(registry, ANN, "203.0.113.1")
        await audit.settle(registry, everything=everything)
        rows = await registry.database.read(lambda found: found.execute(text("SELECT detail FROM audit")).all())
        return [row.detail for row in rows]

    assert await guess(1) == [""]
    clock += 2
    assert await guess(3) == [""]
    clock += 2
    assert await guess(4) == [""]
    clock += refusals.EVERY
    assert await guess(0) == ["", "7 times"]
    clock += 2
    assert await guess(2) == ["", "7 times"]
    assert await guess(0, everything=True) == ["", "7 times", "2 times"]


async def test_what_was_not_looked_at_was_not_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many wait for a place, nothing is checked, and the log tells of no refused sign-in."""
    gate = Gate(1, throttles.BUSY, waiting_each=0, waiting_all=0)
    monkeypatch.setattr(registry.throttles, "_gate", gate)
    actor = Actor(user_id=1, password_version=1, grants=None, address="203.0.113.1")
    caller = use_cases.SignedIn(actor, ANN, None)
    async with gate.place("somebody"):
        for refused in (
            use_cases.sign_in(registry, ANN, "wrong", "203.0.113.1"),
            invitations.accept(registry, caller, "wrong", "203.0.113.1"),
            invitations.accept_with_password(registry, "wrong", ANN, "wrong", "203.0.113.1"),
        ):
            with pytest.raises(Busy):
                await refused
    await audit.settle(registry, everything=True)
    assert await registry.database.read(entries) == {}
