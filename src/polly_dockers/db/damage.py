"""What is wrong inside the file of a database: what SQLite finds, and values that no query can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

_TYPES: Final = (
    ("INT", "an integer", ("integer", "real", "null")),
    ("CHAR", "text", ("text", "null")),
    ("TEXT", "text", ("text", "null")),
    ("BLOB", "bytes", ("blob", "null")),
)
"""What the declared type of a column contains, what its values are called, and which types of SQLite they have."""
_NOT_ASCII: Final = "'*[^' || char(1) || '-' || char(127) || ']*'"
_COLUMNS: Final = (
    "SELECT made.name, held.name, upper(held.type) FROM (SELECT 'sqlite_master' AS name UNION ALL"
    " SELECT name FROM sqlite_master WHERE type = 'table') AS made, pragma_table_info(made.name) AS held"
)


def find(connection: Connection, limit: int) -> list[str]:
    """What is wrong with the file of the database, a short sentence each, at most about ``limit``. It reads all of it.

    Each index is compared with its table: a query trusts an index, and would not find a row that the index lacks.
    Raises what ``sqlite.ERRORS`` lists if the file is too damaged for that.
    """
    found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({limit})")]
    return [each for each in found if each != "ok"] or list(_values(connection))[:limit]


def _values(connection: Connection) -> Iterator[str]:
    """A sentence for each column with a value that is not of its type, or is text that is not UTF-8."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for table, column, declared in connection.exec_driver_sql(_COLUMNS).all():
        tables.setdefault(table, []).append((column, declared))
    for table, columns in tables.items():
        known = [(column, *each[1:]) for column, declared in columns for each in _TYPES if each[0] in declared]
        if known:
            yield from _of_table(connection, table, known)


def _of_table(connection: Connection, table: str, columns: list[tuple[str, str, tuple[str, ...]]]) -> Iterator[str]:
    names = [_quoted(column) for column, _, _ in columns]
    wrong = [
        f"typeof({name}) NOT IN {types}{f' OR {name} GLOB {_NOT_ASCII} OR instr({name}, char(0))' * (what == 'text')}"
        for name, (_, what, types) in zip(names, columns, strict=True)
    ]
    values = ", ".join(f"typeof({name}), CAST({name} AS BLOB)" for name in names)
    query = f"SELECT {values} FROM {_quoted(table)} NOT INDEXED WHERE {' OR '.join(wrong)}"  # noqa: S608 - quoted
    seen = set[str]()
    for row in connection.exec_driver_sql(query):
        for at, (column, what, types) in enumerate(columns):
            kind, value = row[2 * at : 2 * at + 2]
            if column not in seen and (kind not in types or (kind == "text" and not _is_utf8(value))):
                seen.add(column)
                yield f"a value of {table}.{column} is not {what}"


def _is_utf8(value: Any) -> bool:  # noqa: ANN401 - untyped
    try:
        bytes(value).decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
