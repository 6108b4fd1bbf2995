"""Upgrading the tables of a data folder to this version."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext

from polly_dockers.db import version
from polly_dockers.db.schema import REVISION
from polly_dockers.db.sqlite import FILE, WRITER_LOCK, connect
from polly_dockers.system import locks

if TYPE_CHECKING:
    from sqlalchemy import Connection

SCRIPTS: Final = Path(__file__).with_name("migrations")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))  # a % would begin a reference
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        command.upgrade(_config(connection), "head")
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def upgrade(folder: Path) -> str | None:
    """Make or upgrade the tables in one transaction; returns their previous revision, None for new tables.

    Several processes may call it at once. Raises Unavailable, and changes nothing, if the tables are of a newer
    version, or if they need an upgrade while a server runs.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with locks.held(folder / WRITER_LOCK), connect(folder / FILE) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        version.check(folder, found or "")
        if found != REVISION:
            with version.no_server(folder):
                _upgrade(connection)
        return found
