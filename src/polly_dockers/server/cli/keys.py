"""The commands of polly-server for signing keys: key list, key rotate."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from polly_dockers import db
from polly_dockers.auth.registry_tokens import new_key
from polly_dockers.cli import tables
from polly_dockers.cli.help import HelpedCommand
from polly_dockers.cli.options import Output
from polly_dockers.cli.tables import Column
from polly_dockers.db.audit import Event
from polly_dockers.server.cli import folder
from polly_dockers.server.cli.folder import Data
from polly_dockers.server.cli.help import group, moment, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from polly_dockers.db.keys import Key

_KEY: Final = (
    Column("key", itemgetter("id")),
    Column("created at", itemgetter("created_at")),
    Column("use", itemgetter("use")),
)
app: Final = group("Keys that sign registry tokens.")


@app.command("list", cls=HelpedCommand, epilog="polly-server key list --data data")
def run_list(data: Data = Path("data"), *, output: Output = "table") -> None:
    """List the signing keys, newest first. For each: id, when it was made, and its use."""
    found = folder.read(data, db.keys.every)
    signing = db.keys.signing(found)
    in_words = _text if output == "json" else _date
    items = [
        {"id": key.kid, "created_at": in_words("", key.created_at), "use": _use(key, signing, found, in_words)}
        for key in reversed(found)
    ]
    tables.display(output, items, _KEY, items)


def _use(key: Key, signing: Key, found: Sequence[Key], in_words: Callable[[str, int], str]) -> str:
    """The use of a key, in words; ``in_words`` formats a time with words before it."""
    if key == signing:
        return "signs"
    if key.created_at > signing.created_at:
        return in_words("signs from ", key.signs_from)
    until = db.keys.kept_until(key, found)
    return in_words("verifies until ", until) if until is not None else "verifies"


def _text(before: str, microseconds: int) -> str:
    return before + moment(microseconds)


def _date(before: str, microseconds: int) -> str:
    return tables.date(moment(microseconds), before)


@app.command("rotate", cls=HelpedCommand, epilog="polly-server key rotate --data data")
def run_rotate(
    data: Data = Path("data"),
    *,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Delete all older keys at once, for example after one was stolen.")
    ] = False,
) -> None:
    """Create a new signing key, while the server runs. Nobody is signed out.

    Tokens that older keys signed work until they expire. Then the older keys are deleted. With --revoke they are
    deleted now: their tokens are refused from the next request on, and Docker gets a new token automatically.
    """
    kid = folder.transaction(data, lambda connection: _rotate(connection, revoke=revoke))
    if revoke:
        tell(f"Key {kid} signs from now on. All others are deleted, and tokens that they signed are refused.")
    else:
        tell(
            f"Key {kid} begins to sign {db.keys.AHEAD} seconds from now. Older keys are deleted when everything that "
            "they signed has expired."
        )


def _rotate(connection: Connection, *, revoke: bool) -> str:
    before = db.keys.every(connection)
    made = db.keys.add(connection, *new_key())
    db.keys.remove(connection, before if revoke else db.keys.outlived(connection))
    detail = "older keys revoked" if revoke else ""
    db.audit.append(connection, Event.key_rotate, made.kid, organisation_id=None, by=None, detail=detail)
    return made.kid
