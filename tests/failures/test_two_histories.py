"""A database that is newer than its journal, and does not belong to it: nothing that only one of them has is lost.

If they belong together, the journal lost its end, and the start writes it again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from failures.serving import serving
from polly_dockers.auth import members
from polly_dockers.db.journal import frames, older
from polly_dockers.errors import Unavailable
from polly_dockers.maintenance import rebuild
from polly_dockers.server import data_folder
from support.collecting import collect
from support.registry_rows import fill, held
from support.server import BIN, new_password, polly_server
from support.wire_client import Person

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

COMMANDS = [
    ("check",),
    ("check", "--output", "json"),
    ("run", "--listen", "127.0.0.1:0"),
    ("rebuild",),
    ("gc",),
    ("check", "--repair"),
    ("backup", "--to", "backup"),
    ("key", "list"),
    ("org", "create", "more"),
    ("init", "--org", "more", "--email", "eve@more.example", "--password-stdin"),
]


def add(connection: Connection, *names: str) -> None:
    """Organisations of these names."""
    for name in names:
        members.create_organisation(connection, name)


def change(folder: Path, *names: str) -> None:
    """Go on with a registry."""
    data_folder.transaction(folder, lambda connection: add(connection, *names))


def registry(folder: Path, *names: str) -> Path:
    """A data folder with these organisations."""
    data_folder.prepare(folder)
    for name in names:
        change(folder, name)
    return folder


def put_database(source: Path, folder: Path) -> None:
    """Replace the database of a data folder."""
    for file in folder.glob("polly.db*"):
        file.unlink()
    shutil.copy(source / "polly.db", folder / "polly.db")


def told(folder: Path) -> dict[str, bytes]:
    """The files of the journal."""
    return {file.name: file.read_bytes() for file in (folder / frames.FOLDER).iterdir()}


def refused(folder: Path) -> str:
    """Run commands on the folder: all of them fail and change nothing. What they all say."""
    rows, journal = held(folder), told(folder)
    errors = set[str]()
    for words in COMMANDS:
        line = [str(BIN / "polly-server"), *words, "--data", str(folder)]
        done = subprocess.run(
            line, input=new_password(), cwd=folder.parent, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1, done
        said = json.loads(done.stdout)["damages"][0]["what"] if "json" in words else done.stderr
        lines = said.splitlines()[:8]
        assert lines[1:] == [
            "To keep the database, from which the server writes the journal again:",
            f"  mv {folder}/journal {folder}/journal.other",
            f"  polly-server run --data {folder}",
            "To keep the journal, which has no passwords, roles or tokens:",
            f"  install -d -o root -g root -m 700 {folder}/other-database",
            f"  mv {folder}/polly.db* {folder}/other-database",
            f"  polly-server rebuild --data {folder}",
        ], done
        errors.add(lines[0].partition("Only the database")[2])
    assert (held(folder), told(folder)) == (rows, journal)
    [error] = errors
    return f"Only the database{error}"


def test_a_newer_database_of_another_registry(tmp_path: Path) -> None:
    """Every command is refused, says how much only one of the two has, and how to keep either one."""
    data = registry(tmp_path / "data", "a", "b", "c")
    other = registry(tmp_path / "other", "x")
    put_database(other, data)
    error = refused(data)
    assert "Only the database has 1 organisation; only the journal has 3 organisations" in error


def test_a_newer_database_of_another_copy(tmp_path: Path) -> None:
    """Both copies of a registry went on, and the database of the one that went on later is put into the other."""
    data = registry(tmp_path / "data", "shared")
    shutil.copytree(data, tmp_path / "copy")
    change(data, "here")
    change(tmp_path / "copy", "there")
    change(tmp_path / "copy", "there-too")
    put_database(tmp_path / "copy", data)
    assert "Only the database has 2 organisations; only the journal has 1 organisation," in refused(data)


def test_either_one_can_be_kept(tmp_path: Path) -> None:
    """Following the message leaves the chosen one as it was."""
    data = registry(tmp_path / "data", "here")
    other = registry(tmp_path / "other", "there")
    of_journal, of_database = held(data), held(other)
    put_database(other, data)
    shutil.copytree(data, tmp_path / "second")
    shutil.move(data / frames.FOLDER, tmp_path / "away")
    data_folder.prepare(data)
    assert held(data) == of_database
    put_away = tmp_path / "second"
    for file in put_away.glob("polly.db*"):
        file.unlink()
    rebuild.rebuild(put_away)
    assert held(put_away)[1] == of_journal[1]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_journal_that_lost_its_end(tmp_path: Path, *, compacted: bool) -> None:
    """It is written again, although the database has purged since what the journal still holds."""
    with serving(tmp_path) as server:
        fill(Person(server.port, server.org, *server.admin))
        server.stop()
        polly_server("org", "delete", server.org, "--yes", "--data", str(server.data))
        journal = server.data / frames.FOLDER
        if compacted:
            collect(server, trash_days=30)
        shutil.copytree(journal, tmp_path / "early")
        assert collect(server, later=60).purged
        change(server.data, "since")
        rows = held(server.data)
        shutil.rmtree(journal)
        shutil.copytree(tmp_path / "early", journal)
        server.start()
        server.stop()
        assert held(server.data) == rows
        server.lose_database()
        rebuild.rebuild(server.data)
        assert held(server.data)[1] == rows[1]
        server.start()


def test_a_check_of_an_old_copy_brings_it_up_to_date(tmp_path: Path) -> None:
    """It writes to the audit log, so it applies what only the journal has before that, as each change does."""
    data = registry(tmp_path / "data", "first")
    shutil.copy(data / "polly.db", tmp_path / "polly.db")
    change(data, "second")
    rows = held(data)
    put_database(tmp_path, data)
    line = [str(BIN / "polly-server"), "check", "--data", str(data)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert held(data) == rows


def test_what_belongs_together_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start reads the rows of the journal only if one of the two lacks something."""
    data = registry(tmp_path / "data", "a")

    def compare(*_: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(older, "is_descendant", compare)
    data_folder.prepare(data)
    change(data, "b")


def test_an_entry_of_the_audit_log_is_enough(tmp_path: Path) -> None:
    """What only the journal has may be a change of settings."""
    data = registry(tmp_path / "data", "shared")
    shutil.copytree(data, tmp_path / "copy")
    polly_server("org", "update", "shared", "--create-on-push", "--data", str(data))
    change(tmp_path / "copy", "there")
    put_database(tmp_path / "copy", data)
    with pytest.raises(Unavailable, match="another history"):
        data_folder.prepare(data)
