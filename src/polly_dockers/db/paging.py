"""Pages of rows with a limit in bytes, for rows that may be large. Rows after the page are not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Row, Select

ROOM: Final = 4 << 20
"""The most bytes of a page, unless its only row has more."""


def fetch(
    connection: Connection,
    query: Select[*tuple[Any, ...]],
    limit: int,
    size: Callable[[Row[*tuple[Any, ...]]], int],
    room: int = ROOM,
) -> tuple[list[Row[*tuple[Any, ...]]], bool]:
    """The first rows of a query, and whether more follow.

    There are at most ``limit`` rows and at most ``room`` bytes as ``size`` measures them, but at least one row.
    """
    found: list[Row[*tuple[Any, ...]]] = []
    with connection.execute(query.limit(limit + 1)) as rows:
        for row in rows:
            room -= size(row)
            if len(found) == limit or (found and room < 0):
                return found, True
            found.append(row)
    return found, False
