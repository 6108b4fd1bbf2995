"""Which version a database is of: read without Alembic, whose import takes longer than most commands run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import NoResultFound

from polly_dockers.db.engine import FILE, open_engine
from polly_dockers.db.schema import REVISION
from polly_dockers.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection


def read(folder: Path) -> str:
    """The revision of the folder's tables, empty for a database that has none yet."""
    engine = open_engine(folder / FILE)
    try:
        with engine.connect() as connection:
            if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0:
                return ""
            return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
    except NoResultFound:
        return ""
    finally:
        engine.dispose()


def touch(connection: Connection) -> None:
    """Write a page of the database, and change nothing by that."""
    number = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version = {int(number)}")


def check(folder: Path, found: str) -> None:
    """Raise Unavailable for a revision that is newer than this version knows."""
    if found > REVISION:
        msg = (
            f"The data folder {folder} was written by a newer version of polly-server (revision {found}). "
            "Install the newer version, or restore a backup of this version."
        )
        raise Unavailable(msg)
