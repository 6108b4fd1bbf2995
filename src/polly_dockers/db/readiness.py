"""The row that /readyz writes, to find out whether the database can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from polly_dockers.db.schema import readiness
from polly_dockers.db.sqlite import now

if TYPE_CHECKING:
    from sqlalchemy import Connection


def fresh(connection: Connection, microseconds: int) -> bool:
    """Whether some process wrote the row within the last ``microseconds``; False if the clock was set back since."""
    at = connection.execute(select(readiness.c.checked_at)).scalar_one_or_none()
    return at is not None and 0 <= now() - at < microseconds


def write(connection: Connection) -> None:
    """Write the row with the time of now."""
    connection.execute(delete(readiness))
    connection.execute(insert(readiness), {"checked_at": now()})
