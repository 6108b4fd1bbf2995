"""5, 16: a lost journal is written again; if that is killed, or an older version began it, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from polly_dockers.auth import members
from polly_dockers.db import migrate
from polly_dockers.db.journal import frames, snapshot, state
from polly_dockers.db.sqlite import exclusive
from polly_dockers.errors import Unavailable
from polly_dockers.maintenance import backup, garbage, rebuild
from polly_dockers.server import data_folder
from polly_dockers.system import locks
from support.registry_rows import held
from support.server import BIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

CALLS = (("write", 1), ("fsync", 3), ("fsync", 4), ("fsync", 5), ("rename", 1), ("fsync", 8))
"""Of the folder of the journal, of the part, of the row, and of its name. Two syncs of other folders come before."""
COUNT = 1200
"""Organisations: more than fit into two batches."""
PREPARE = """
import sys
from pathlib import Path
from polly_dockers.server import data_folder
from polly_dockers.system import locks
data_folder.prepare(Path(sys.argv[1]))
"""


def add(connection: Connection, *names: str) -> None:
    """Organisations of these names."""
    for name in names:
        members.create_organisation(connection, name)


def add_one(name: str, connection: Connection) -> None:
    """One organisation."""
    add(connection, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with much in its database, and no journal."""
    folder = tmp_path_factory.mktemp("anew") / "data"
    data_folder.prepare(folder)
    data_folder.transaction(folder, lambda connection: add(connection, *(f"org{number:05}" for number in range(COUNT))))
    shutil.rmtree(folder / frames.FOLDER)
    return folder


def rebuilt(folder: Path, copy: Path) -> list[list[object]]:
    """What a rebuild makes of the journal alone."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("polly.db*"))
    rebuild.rebuild(copy)
    return held(copy)


@pytest.mark.parametrize(("call", "number"), CALLS)
def test_it_is_killed(folder: Path, tmp_path: Path, call: str, number: int) -> None:
    """The database is unchanged; after the next change by a command, the journal is complete."""
    whole, data, copy = held(folder), tmp_path / "data", tmp_path / "copy"
    shutil.copytree(folder, data)
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *inject, sys.executable, "-c", PREPARE, str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    assert held(data) == whole
    data_folder.transaction(data, lambda connection: add(connection, "after"))
    after = held(data)
    assert len(after[1]) == COUNT + 1
    assert rebuilt(data, copy) == after
    data_folder.prepare(data)
    assert (held(data), rebuilt(data, copy)) == (after, after)


@pytest.mark.parametrize("row", [True, False])
def test_a_version_that_did_so_in_place_was_killed(folder: Path, tmp_path: Path, *, row: bool) -> None:
    """Two of three batches are in the journal, and no row says so: the database has all of it, so it is written anew.

    Without a row: a data folder from before there was a journal.
    """
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    whole = held(data)
    with exclusive(data) as connection:
        written = frames.Journal(data)
        for batch in list(snapshot.batches(connection, state.last_batch(connection) + 1_000_000))[:2]:
            written.append(batch.id, batch.previous, list(batch.records))
        written.close()
        if not row:
            connection.exec_driver_sql("DELETE FROM journal")
    data_folder.prepare(data)
    assert held(data) == whole
    assert rebuilt(data, tmp_path / "copy") == whole


def test_a_folder_from_before_there_was_a_journal(folder: Path, tmp_path: Path) -> None:
    """It gets a journal at the next start."""
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    with contextlib.closing(sqlite3.connect(data / "polly.db")) as rows, rows:
        rows.execute("DELETE FROM journal")
    data_folder.prepare(data)
    assert rebuilt(data, tmp_path / "copy") == held(data)


def test_two_histories_say_what_each_has(folder: Path, tmp_path: Path) -> None:
    """The message prefers neither, and nothing is changed."""
    data, other = tmp_path / "data", tmp_path / "other"
    shutil.copytree(folder, data)
    data_folder.prepare(other)
    data_folder.transaction(other, lambda connection: add(connection, "x", "y"))
    shutil.copytree(other / frames.FOLDER, data / frames.FOLDER)
    whole = held(data)
    with pytest.raises(Unavailable) as refused:
        data_folder.prepare(data)
    assert f"Only the database has {COUNT} organisations; only the journal has 2 organisations" in str(refused.value)
    assert held(data) == whole


def test_a_change_before_the_next_start(folder: Path, tmp_path: Path) -> None:
    """A change by an older version, which checks nothing, does not hide that the journal was lost."""
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    data_folder._write(data, lambda connection: add(connection, "since"))
    data_folder.prepare(data)
    whole = held(data)
    assert len(whole[1]) == COUNT + 1
    assert rebuilt(data, tmp_path / "copy") == whole


def test_a_change_beside_a_database_from_a_backup(folder: Path, tmp_path: Path) -> None:
    """If an old database is put in place and a command changes it, the newer batches of the journal come first."""
    data, old = tmp_path / "data", tmp_path / "old"
    shutil.copytree(folder, data)
    data_folder.prepare(data)
    shutil.copytree(data, old)
    data_folder.transaction(data, lambda connection: add(connection, "since"))
    for file in data.glob("polly.db*"):
        file.unlink()
    shutil.copy(old / "polly.db", data / "polly.db")
    data_folder.transaction(data, lambda connection: add(connection, "after"))
    data_folder.prepare(data)
    assert {"since", "after"} <= {word for row in held(data)[1] for word in row}


def damaged(folder: Path, data: Path, before: Callable[[], object] = lambda: None) -> Path:
    """A data folder with one flipped byte in the middle of its journal. ``before`` is called before that."""
    shutil.copytree(folder, data)
    data_folder.prepare(data)
    for name in ("first", "second", "third"):
        data_folder.transaction(data, partial(add_one, name))
    before()
    file = max((data / frames.FOLDER).glob("*.log"))
    content = bytearray(file.read_bytes())
    content[content.index(b"second")] ^= 1
    file.write_bytes(content)
    return data


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of polly-server."""
    return subprocess.run([str(BIN / "polly-server"), *words], capture_output=True, text=True, check=False)


def checked(data: Path) -> str:
    """What a check prints."""
    done = command("check", "--data", str(data))
    return done.stdout + done.stderr


def back_up(data: Path, copy: Path) -> subprocess.CompletedProcess[str]:
    """Make a backup, or bring it up to date."""
    return command("backup", "--data", str(data), "--to", str(copy))


def test_a_gap_in_the_middle(folder: Path, tmp_path: Path) -> None:
    """A check finds it; a command leaves it; the next start writes the journal again from the intact database."""
    data = damaged(folder, tmp_path / "data")
    assert "The journal lacks changes of the database. The next start of the server writes it again." in checked(data)
    data_folder.transaction(data, lambda connection: add(connection, "after"))
    whole = held(data)
    data_folder.prepare(data)
    assert "Nothing is wrong." in checked(data)
    assert held(data) == whole
    assert rebuilt(data, tmp_path / "copy") == whole


def test_a_gap_and_a_database_that_lacks_the_end(folder: Path, tmp_path: Path) -> None:
    """What only the journal has after the gap is applied first; then the journal is written again."""
    data = damaged(folder, tmp_path / "data")
    shutil.copytree(data, tmp_path / "old")
    data_folder.transaction(data, lambda connection: add(connection, "after"))
    whole = held(data)
    for file in data.glob("polly.db*"):
        file.unlink()
    shutil.copy(tmp_path / "old" / "polly.db", data / "polly.db")
    data_folder.prepare(data)
    assert held(data) == whole
    assert rebuilt(data, tmp_path / "copy") == whole


def test_a_backup_of_a_journal_with_a_gap(folder: Path, tmp_path: Path) -> None:
    """It says so, and keeps what an earlier backup has of the journal."""
    data, copy = tmp_path / "data", tmp_path / "backup"
    damaged(folder, data, lambda: back_up(data, copy))
    early = {file.name for file in (copy / frames.FOLDER).iterdir()}
    data_folder.transaction(data, lambda connection: add(connection, "after"))
    done = back_up(data, copy)
    assert done.returncode == 0
    assert "The journal lacks changes of the database." in done.stderr
    assert early <= {file.name for file in (copy / frames.FOLDER).iterdir()}
    data_folder.prepare(data)
    assert back_up(data, copy).stderr == ""


def test_a_gap_and_no_database(folder: Path, tmp_path: Path) -> None:
    """The rebuild is refused, and says how the database comes back; following that works. Nothing is changed."""
    data = damaged(folder, tmp_path / "data")
    backup.backup(data, tmp_path / "late", lambda _: lambda _: None)
    data_folder.transaction(data, lambda connection: add(connection, "after"))
    whole = held(data)
    for file in data.glob("polly.db*"):
        file.unlink()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"lacks changes from before 20") as refused:
            rebuild.rebuild(data)
        assert not list(data.glob("polly.db*"))
    _, _, ways = str(refused.value).partition(" and the rest from the journal:\n")
    commands = ways.partition("\nOtherwise")[0].replace("…", str(tmp_path / "late"))
    subprocess.run(["sh", "-c", commands], check=True, env={"PATH": f"{BIN}:{os.environ['PATH']}"})
    assert held(data) == whole


def test_a_gap_and_an_empty_database(folder: Path, tmp_path: Path) -> None:
    """An earlier rebuild may have left tables without rows: the message is the same."""
    data = damaged(folder, tmp_path / "data")
    for file in data.glob("polly.db*"):
        file.unlink()
    migrate.upgrade(data)
    with pytest.raises(Unavailable, match="take its database"):
        data_folder.prepare(data)


def test_a_collection_runs(folder: Path, tmp_path: Path) -> None:
    """The journal is not written again meanwhile: the start is refused, and changes nothing."""
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    with locks.held(data / garbage.LOCK), pytest.raises(Unavailable, match="A garbage collection or a backup"):
        data_folder.prepare(data)
    assert not frames.exists(data)
