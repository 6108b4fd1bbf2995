"""All rows of a server, to compare them before and after a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pysqlite3 import dbapi2 as sqlite

if TYPE_CHECKING:
    from support.server import Server

ON_THE_SIDE = {
    *("access_tokens", "audit", "journal", "manifest_pulls", "repository_deltas", "signing_keys"),
    *("clock", "readiness", "sqlite_sequence", "throttles"),
}
"""Tables that a refused request, or the server on its own, may change: counts of attempts, times of uses."""

TOTALS = {("repositories", column) for column in ("tags", "commits", "size", "pushed_at", "active_at")}
"""Columns that the server updates automatically, some seconds after a push."""


def rows(server: Server) -> dict[str, list[Any]]:
    """The rows of every table, without those tables and columns."""
    connection = sqlite.connect(f"{(server.data / 'polly.db').as_uri()}?mode=ro", uri=True)
    try:
        found = connection.execute(
            "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'"
        )
        columns: dict[str, list[str]] = {}
        for table, column in found:
            if table not in ON_THE_SIDE and (table, column) not in TOTALS:
                columns.setdefault(table, []).append(column)
        return {
            table: list(connection.execute(f"SELECT {', '.join(names)} FROM {table}"))  # noqa: S608 - names of the schema
            for table, names in columns.items()
        }
    finally:
        connection.close()
