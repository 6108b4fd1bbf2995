"""A query that is asked on every request: compiled once, and handed to the driver without another look.

SQLAlchemy finds a compiled query in its cache, builds a context and a result for each execution: 29 µs for the query of
a manifest, where the driver alone takes 9 (benchmarks/manifest_query.py).
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Dialect, Select


class Statement:
    """A SELECT with bound parameters, whose rows are tuples with names."""

    def __init__(self, select: Select[*tuple[Any, ...]]) -> None:
        self._select = select
        names = [column.name for column in select.selected_columns]
        kind: Any = collections.namedtuple("Row", names)  # type: ignore[misc] # noqa: PYI024 - known at run time
        self._named = kind._make
        self._sql = ""
        self._constants: dict[str, Any] = {}

    def first(self, connection: Connection, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - a named tuple
        """The first row, by its columns' names, or None."""
        if not self._sql:
            self._compile(connection.dialect)
        driver: Any = connection.connection.driver_connection
        row = driver.execute(self._sql, {**self._constants, **values}).fetchone()
        return None if row is None else self._named(row)

    def _compile(self, dialect: Dialect) -> None:
        kind: Any = type(dialect)
        named = kind(paramstyle="named")
        compiled: Any = self._select.compile(dialect=named)
        self._constants = {
            name: parameter.value for name, parameter in compiled.binds.items() if not parameter.required
        }
        self._sql = str(compiled)
