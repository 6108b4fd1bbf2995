"""Pages of rows that are bounded in bytes as well: a row may hold a lot, and what is beyond the page is never read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Row, Select

ROOM: Final = 4 << 20
"""Bytes of a page, unless its one row has more."""


def fetch(
    connection: Connection,
    query: Select[*tuple[Any, ...]],
    limit: int,
    size: Callable[[Row[*tuple[Any, ...]]], int],
    room: int = ROOM,
) -> tuple[list[Row[*tuple[Any, ...]]], bool]:
    """The first rows, and whether more follow: ``limit`` at most, ``room`` bytes by ``size`` at most, one at least."""
    found: list[Row[*tuple[Any, ...]]] = []
    with connection.execute(query.limit(limit + 1)) as rows:
        for row in rows:
            room -= size(row)
            if len(found) == limit or (found and room < 0):
                return found, True
            found.append(row)
    return found, False
