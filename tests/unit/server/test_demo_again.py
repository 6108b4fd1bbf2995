"""``polly-server run --demo``: the password that it prints is that of the admin, also if the account existed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth.passwords import Passwords
from polly_dockers.config import Config
from polly_dockers.registry import deletion
from polly_dockers.server import data_folder
from polly_dockers.server.cli import run

if TYPE_CHECKING:
    from pathlib import Path


async def _is_right(settings: Config, password: str | None) -> bool:
    context = await data_folder.open_context(settings)
    passwords = Passwords()
    try:
        found = await context.database.read(db.accounts.user, run.DEMO_EMAIL)
        assert found is not None
        assert password is not None
        return await passwords.verify(found.password_hash, password)
    finally:
        passwords.close()
        context.close()


def test_the_demo_is_made_again(tmp_path: Path) -> None:
    """Its organisation was deleted, and its account is still there: the account gets the password that is printed."""
    settings = Config(data=tmp_path)
    first = run.make(settings)
    assert asyncio.run(_is_right(settings, first))
    data_folder.transaction(tmp_path, lambda connection: deletion.delete_organisation(connection, run.DEMO_ORG))
    again = run.make(settings)
    assert again != first
    assert asyncio.run(_is_right(settings, again))
    assert run.make(settings) is None
