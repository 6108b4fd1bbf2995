"""The database of a backup, which is only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, NoReturn, ParamSpec, TypeVar

from polly_dockers.db.sqlite import FILE, Database, open_unchanged
from polly_dockers.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")


class BackupDatabase(Database):
    """The database of a backup. It is only read."""

    only_read = True

    def __init__(self, folder: Path) -> None:
        self._engine = open_unchanged(folder / FILE)
        self._reader = self._engine.connect()
        self._driver = self._reader.connection.driver_connection
        self._in_snapshot = False
        self.on_damage = lambda _reason: None

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """Raise Unavailable."""
        del fn, args, kwargs
        msg = "A backup can't be changed."
        raise Unavailable(msg)

    def close(self) -> bool:
        """Close the file."""
        self._end()
        self._reader.close()
        self._engine.dispose()
        return True
