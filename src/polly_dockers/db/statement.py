"""Statements of frequent requests, which are compiled once and passed to the driver directly.

For each execution SQLAlchemy builds a statement, finds its compiled form in a cache, and makes a context and a result.
That takes 29 µs for the query of a manifest; the driver alone takes 9 (benchmarks/manifest_query.py).
"""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, column, func

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update

VALUES: Final = func.json_each(bindparam("values")).table_valued(column("value", Text), name="each")
"""The rows of a parameter ``values``, made by ``as_json``: one statement then does the work of many."""


def as_json(values: Iterable[str]) -> str:
    """Texts as the parameter of ``VALUES``."""
    return json.dumps(list(values))


class Statement:
    """A SELECT, INSERT, UPDATE or DELETE with named parameters. Its rows are named tuples."""

    def __init__(self, query: Select[*tuple[Any, ...]] | Insert | Update | Delete, *columns: str) -> None:
        """``columns`` are the columns that an INSERT or UPDATE sets; each is a parameter of the same name."""
        kept: Any = query
        self._query = kept
        self._columns = columns or None
        returned = kept.selected_columns if kept.is_select else kept._returning  # noqa: SLF001 - no other way to it
        names = [column.name for column in returned]
        kind: Any = collections.namedtuple("Row", names)  # type: ignore[misc] # noqa: PYI024 - known at run time
        self._named = kind._make
        self._sql = ""
        self._constants: dict[str, Any] = {}

    def first(self, connection: Connection, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - a named tuple
        """The first row; None if there is none."""
        row = self._execute(connection, values).fetchone()
        return None if row is None else self._named(row)

    def all(self, connection: Connection, values: Mapping[str, object]) -> list[Any]:
        """All rows, as named tuples."""
        return [self._named(row) for row in self._execute(connection, values)]

    def run(self, connection: Connection, values: Mapping[str, object]) -> int:
        """Execute it; returns how many rows it changed."""
        return int(self._execute(connection, values).rowcount)

    def _execute(self, connection: Connection, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - a cursor of the driver
        if not self._sql:
            self._compile(connection.dialect)
        driver: Any = connection.connection.driver_connection
        return driver.execute(self._sql, {**self._constants, **values} if self._constants else values)

    def _compile(self, dialect: Dialect) -> None:
        kind: Any = type(dialect)
        compiled: Any = self._query.compile(dialect=kind(paramstyle="named"), column_keys=self._columns)
        self._constants = {
            name: parameter.value for name, parameter in compiled.binds.items() if not parameter.required
        }
        self._sql = str(compiled)
