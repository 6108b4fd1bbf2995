"""Tables are not upgraded while a server of another version runs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from typing import TYPE_CHECKING

import pytest
from alembic import command

from polly_dockers import db
from polly_dockers.db import migrate
from polly_dockers.db.schema import REVISION
from polly_dockers.db.sqlite import FILE, open_engine
from polly_dockers.errors import Unavailable
from polly_dockers.server import data_folder
from support.server import BIN, polly_server, running_server

if TYPE_CHECKING:
    from pathlib import Path

OLD = "0001"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A data folder of the first version, which had no lock for its server."""
    folder = tmp_path / "older"
    folder.mkdir(mode=0o700)
    opened = open_engine(folder / FILE)
    with opened.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(migrate._config(connection), OLD)
        connection.exec_driver_sql("COMMIT")
    opened.dispose()
    return folder


def claim(folder: Path, revision: str) -> None:
    """Let the database say that it is of this revision."""
    with contextlib.closing(sqlite3.connect(folder / FILE, timeout=30)) as rows, rows:
        rows.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_a_server_runs(tmp_path: Path) -> None:
    """Commands that would upgrade its tables are refused. After the server has ended, they may upgrade."""
    with running_server(tmp_path) as server:
        claim(server.data, OLD)
        for arguments in (("rebuild",), ("init", "--org", "x", "--email", "a@x.example", "--password-stdin")):
            full = [str(BIN / "polly-server"), *arguments, "--data", str(server.data)]
            done = subprocess.run(full, input="a long password", capture_output=True, text=True, check=False)
            assert (done.returncode, "Stop the server first" in done.stderr) == (1, True), done.stderr
        assert db.version.read(server.data) == OLD
        claim(server.data, REVISION)
    with db.version.no_server(server.data):
        pass


def test_a_command_does_not_upgrade(older: Path) -> None:
    """A command on a folder of an older version changes nothing and says what to do, as its server may be running."""
    done = subprocess.run(
        [str(BIN / "polly-server"), "org", "list", "--data", str(older)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "of an older version" in done.stderr
    assert f"polly-server run --data {older}" in done.stderr
    assert db.version.read(older) == OLD
    with pytest.raises(Unavailable, match="of an older version"):
        data_folder.require(older)


def test_what_upgrades(older: Path) -> None:
    """``init`` upgrades; other commands work after it."""
    data_folder.require(older, upgrades=True)
    data_folder.prepare(older)
    assert db.version.read(older) == REVISION
    polly_server("org", "create", "--data", str(older), "--org", "acme")


def test_a_server_that_starts_meanwhile(older: Path) -> None:
    """It does not serve tables that are being changed or of another version; two of the same version may run."""
    with pytest.raises(Unavailable, match="of an older version"):
        db.version.serve(older)
    with db.version.no_server(older), pytest.raises(Unavailable, match="is being upgraded"):
        db.version.serve(older)
    data_folder.prepare(older)
    held = [db.version.serve(older), db.version.serve(older)]
    with pytest.raises(Unavailable, match="Stop the server first"), db.version.no_server(older):
        pass
    for fd in held:
        os.close(fd)
    with db.version.no_server(older):
        pass
