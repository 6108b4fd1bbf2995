"""A database that is damaged in the middle: commands recognise it, and what they say brings everything back."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cli.people import Terminal, environment
from polly_dockers.auth import members
from polly_dockers.server import data_folder
from support.registry_rows import held
from support.server import BIN, Server, polly_server

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

PAGE = 4096
WITH_BACKUP, WITHOUT_BACKUP = 1, 2
"""The ways of the message."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose database has many pages."""
    folder = tmp_path_factory.mktemp("whole") / "data"

    def add(connection: Connection) -> None:
        for number in range(500):
            members.create_organisation(connection, f"org{number:05}")

    data_folder.prepare(folder)
    data_folder.transaction(folder, add)
    return folder


def damage(folder: Path, part: float) -> None:
    """Overwrite 4 KB of the database with random bytes, or its header with zeros."""
    file = folder / "polly.db"
    data = bytearray(file.read_bytes())
    at = int(len(data) * part)
    data[at : at + PAGE] = random.Random(0).randbytes(PAGE) if at else bytes(PAGE)  # noqa: S311 - no secret
    file.write_bytes(data)


def follow(said: str, way: int, backup: Path | None = None) -> str:
    """Paste the commands of a way of a message into a shell; what they print."""
    lines = [line for line in said.split("\nTo ")[way].splitlines() if line.startswith("  ")]
    commands = "\n".join(lines).replace("…", str(backup))
    line = ["sh", "-c", commands]
    return subprocess.run(line, check=True, capture_output=True, text=True, env=environment(BIN, BIN)).stdout


@pytest.mark.parametrize("part", [0, 0.4, 0.6, 0.9])
def test_a_damaged_database(whole: Path, tmp_path: Path, part: float) -> None:
    """check, backup and rebuild fail and say the same; following it brings all rows back."""
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    damage(data, part)
    ways = set[str]()
    for words in (["check"], ["backup", "--to", str(tmp_path / "backup")], ["rebuild"]):
        line = [str(BIN / "polly-server"), *words, "--data", str(data)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        first, *lines = done.stderr.splitlines()
        assert (done.returncode, f"The database of {data} is damaged" in first) == (1, True), done
        ways.add("\n".join(["", *lines[:12]]))
    [said] = ways
    follow(said, WITHOUT_BACKUP)
    assert held(data) == held(whole)


def test_a_database_that_is_damaged_again(whole: Path, tmp_path: Path) -> None:
    """What the second error says puts the database beside the first one, which stays as it was put away."""
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    away = []
    for _ in range(2):
        damage(data, 0.4)
        away.append((data / "polly.db").read_bytes())
        line = [str(BIN / "polly-server"), "check", "--data", str(data)]
        follow(subprocess.run(line, capture_output=True, text=True, check=False).stderr, WITHOUT_BACKUP)
    assert [path.read_bytes() for path in sorted(data.glob("damaged-database*/polly.db"))] == away
    assert held(data) == held(whole)


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_what_is_copied_from_a_terminal_works(whole: Path, tmp_path: Path, columns: int) -> None:
    """Each command is one line of the terminal, however narrow it is, also if the path has spaces."""
    data = tmp_path / "the data of the registry"
    shutil.copytree(whole, data)
    damage(data, 0.4)
    terminal = Terminal([str(BIN / "polly-server"), "check", "--data", str(data)], columns, environment(tmp_path, BIN))
    assert terminal.end() == 1
    follow(terminal.raw.replace("\r\n", "\n"), WITHOUT_BACKUP)
    assert held(data) == held(whole)


@pytest.mark.parametrize(("how", "newer"), [("damaged", 0), ("damaged", 1), ("gone", 1)])
def test_the_database_of_a_backup_and_the_journal(tmp_path: Path, how: str, newer: int) -> None:
    """The first way brings back all, with the roles and passwords of the backup, and says how many passwords lack."""
    server = Server(tmp_path / "data", 0)
    server.init()
    backup, email = tmp_path / "backup", "ann@acme.example"
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    polly_server("org", "create", "--data", str(server.data), "--org", "later")
    for _ in range(newer):
        server.add_user(org="later")
    known = held(server.data)
    if how == "gone":
        (server.data / "polly.db").unlink()
    else:
        damage(server.data, 0.5)
    line = [str(BIN / "polly-server"), "check", "--data", str(server.data)]
    said = subprocess.run(line, capture_output=True, text=True, check=False).stderr
    assert f"The database of {server.data} is {how}" in said
    printed = follow(said, WITH_BACKUP, backup)
    assert held(server.data) == known
    assert ("Accounts without a password: 1." in printed) == bool(newer)
    users = json.loads(polly_server("user", "list", "--data", str(server.data), "--output", "json"))
    [ann] = [each for each in users if each["email"] == email]
    assert (ann["has_password"], ann["roles"]) == (True, [{"organisation": "acme", "role": "admin"}])
