"""Rows of signing keys: which one signs now, and how long older ones are kept.

Every process must know a signing key before a token that it signed arrives. So a new key signs AHEAD seconds after it
was made. A process that meets an unknown key reads the rows again, at most once in LOOK_EVERY seconds. A reading that
is too recent to be repeated is then newer than any key that signs. An older key verifies tokens until all that it
signed have expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, insert, select

from polly_dockers.config import MAX_TOKEN_SECONDS
from polly_dockers.db import clock
from polly_dockers.db.schema import signing_keys
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

LEEWAY: Final = 60
"""By how many seconds the clocks of nodes may differ."""
LOOK_EVERY: Final = 1
"""Seconds between two readings of the rows because of an unknown key, which anybody can make up."""
AHEAD: Final = 3
"""Seconds between making a key and signing with it: LOOK_EVERY, and more for a transaction that waits."""
KEPT: Final = MAX_TOKEN_SECONDS + LEEWAY + 600
"""Seconds for which a key verifies after the next one was made, with ten minutes for a disk that hangs."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that signs registry tokens."""

    kid: str
    private_key: bytes
    created_at: int

    @property
    def signs_from(self) -> int:
        """When it begins to sign, in microseconds since 1970, unless it is the only one."""
        return self.created_at + AHEAD * SECOND


_ALL: Final = Statement(
    select(signing_keys.c.kid, signing_keys.c.private_key, signing_keys.c.created_at).order_by(
        signing_keys.c.created_at, signing_keys.c.kid
    )
)
_DELETE: Final = Statement(delete(signing_keys).where(signing_keys.c.kid == bindparam("kid")))


def every(connection: Connection) -> list[Key]:
    """All signing keys, oldest first."""
    return [Key(*row) for row in _ALL.all(connection, {})]


def signing(keys: Sequence[Key]) -> Key:
    """The key that signs now: the newest that every process knows, or the oldest if all are too new."""
    at = now()
    return next((key for key in reversed(keys) if key.signs_from <= at), keys[0])


def add(connection: Connection, kid: str, private_key: bytes) -> Key:
    """Insert a key. It is the newest even if the clock was set back."""
    newest = max((key.created_at for key in every(connection)), default=0)
    key = Key(kid, private_key, max(now(), newest + 1))
    connection.execute(insert(signing_keys), {"kid": kid, "private_key": private_key, "created_at": key.created_at})
    return key


def kept_until(key: Key, keys: Sequence[Key]) -> int | None:
    """When a key may be deleted, in microseconds since 1970; None for the newest of ``keys``."""
    following = next((each for each in keys if each.created_at > key.created_at), None)
    return following.created_at + KEPT * SECOND if following is not None else None


def outlived(connection: Connection) -> list[Key]:
    """Keys whose tokens have all expired."""
    keys, at = every(connection), clock.ago(connection, KEPT)
    return [key for key in keys if (until := kept_until(key, keys)) is not None and until - KEPT * SECOND < at]


def remove(connection: Connection, keys: Sequence[Key]) -> None:
    """Delete keys. The next request with a token that they signed is refused."""
    for key in keys:
        _DELETE.run(connection, {"kid": key.kid})


def remove_outlived(connection: Connection) -> None:
    """Delete keys whose tokens have all expired."""
    remove(connection, outlived(connection))
