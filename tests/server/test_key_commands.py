"""polly-server key: which keys there are, and when each is deleted."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from polly_dockers import db
from polly_dockers.auth.registry_tokens import Signer, new_key
from polly_dockers.config import MAX_TOKEN_SECONDS, Config
from polly_dockers.db.schema import signing_keys
from polly_dockers.errors import Unauthorized
from polly_dockers.model import Actor
from polly_dockers.server import data_folder
from polly_dockers.server.cli import keys
from polly_dockers.system.durations import SECOND
from polly_dockers.web import authentication
from support.server import polly_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from polly_dockers.context import Context


ACTOR = Actor(user_id=1, password_version=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data folder of a server with its first key."""
    data_folder.prepare(tmp_path)
    return tmp_path


def kids(folder: Path) -> list[str]:
    """The ids of the keys in the rows, the newest last."""
    return [key.kid for key in data_folder.transaction(folder, db.keys.every)]


def add(folder: Path) -> str:
    """Create a key as a rotation does, and keep all others; its id."""
    return data_folder.transaction(folder, lambda connection: db.keys.add(connection, *new_key())).kid


def age(folder: Path, seconds: int) -> None:
    """Make all keys older."""
    older = update(signing_keys).values(created_at=signing_keys.c.created_at - seconds * SECOND)
    data_folder.transaction(folder, lambda connection: connection.execute(older))


def command(folder: Path, *arguments: str) -> str:
    """Run ``polly-server key``."""
    return polly_server("key", *arguments, "--data", str(folder))


def test_a_rotation_keeps_older_keys_and_says_so(folder: Path) -> None:
    """The new key is the newest; list says that it signs soon, which one signs now, and how long each verifies."""
    (first,) = kids(folder)
    age(folder, 600)
    second = add(folder)
    age(folder, 600)
    said = command(folder, "rotate")
    third = kids(folder)[-1]
    assert third in said
    assert kids(folder) == [first, second, third]
    uses = dict(re.findall(r"^(\w{16})  .+?  (signs from|signs|verifies until)", command(folder, "list"), re.MULTILINE))
    waits = {third: "signs from", second: "signs", first: "verifies until"}
    assert uses in (waits, waits | {third: "signs", second: "verifies until"}), "the second on a machine that is slow"


def test_a_rotation_is_in_the_audit_log(folder: Path) -> None:
    """The entry has the id of the new key and the operator as author, and says whether older keys were revoked."""
    made = [command(folder, "rotate", *more) and kids(folder)[-1] for more in ((), ("--revoke",))]
    _, *said = polly_server("audit", "--data", str(folder), "--event", "key-rotate").splitlines()
    assert [re.split(" {2,}", line.rstrip())[1:] for line in said] == [
        ["key-rotate", "polly-server", "-", made[1], "older keys revoked"],
        ["key-rotate", "polly-server", "-", made[0]],
    ]


def test_revoking_leaves_the_new_key_alone(folder: Path) -> None:
    """All older keys are deleted at once."""
    add(folder)
    before = kids(folder)
    data_folder.transaction(folder, lambda connection: keys._rotate(connection, revoke=True))
    (after,) = kids(folder)
    assert after not in before


@pytest.mark.parametrize("by", ["a start", "a rotation"])
@pytest.mark.parametrize(("spare", "left"), [(60, True), (-60, False)])
def test_a_key_goes_once_all_that_it_signed_has_expired(folder: Path, by: str, spare: int, left: bool) -> None:  # noqa: FBT001 - what is expected
    """The time counts from when the next key was created; the newest key stays, however old it is."""
    (old,), new = kids(folder), add(folder)
    age(folder, db.keys.KEPT - spare)
    if by == "a start":
        data_folder.prepare(folder)
    else:
        data_folder.transaction(folder, lambda connection: keys._rotate(connection, revoke=False))
    assert (old in kids(folder)) is left
    assert new in kids(folder)


def test_the_longest_token_ends_before_its_key() -> None:
    """A token that was signed just before the next key took over has expired when the key is deleted."""
    assert db.keys.KEPT >= db.keys.AHEAD + MAX_TOKEN_SECONDS + db.keys.LEEWAY


@pytest.fixture
async def context(folder: Path) -> AsyncIterator[Context]:
    """A process of the server on the folder."""
    found = await data_folder.open_context(Config(data=folder))
    yield found
    found.close()


async def test_a_server_that_runs_deletes_what_is_outlived(context: Context) -> None:
    """Its background work deletes a key whose time is over, and no other."""
    database = context.database
    old, new = (await database.read(db.keys.every))[0], await database.write(db.keys.add, *new_key())
    await data_folder.delete_outlived_keys(context)
    assert await database.read(db.keys.every) == [old, new]
    older = update(signing_keys).values(created_at=signing_keys.c.created_at - (db.keys.KEPT + 60) * SECOND)
    await database.write(lambda connection: connection.execute(older))
    await data_folder.delete_outlived_keys(context)
    assert [key.kid for key in await database.read(db.keys.every)] == [new.kid]


async def test_a_flood_of_made_up_keys_reads_the_rows_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are read once within a second; a token of a newer key is accepted after the next reading."""
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    read: list[str] = []
    context.database._driver.set_trace_callback(lambda sql: read.append(sql) if "signing_keys" in sql else None)
    for _ in range(50):
        with pytest.raises(Unauthorized):
            await authentication._read(
                context, Signer([db.keys.Key(*new_key(), 0)], context.config.registry).sign(ACTOR, 60)
            )
    assert len(read) == 1
    made = await context.database.write(db.keys.add, *new_key())
    clock += db.keys.LOOK_EVERY
    token = Signer([made], context.config.registry).sign(ACTOR, 60)
    assert (await authentication._read(context, token)).kid == made.kid
    assert len(read) == 2
