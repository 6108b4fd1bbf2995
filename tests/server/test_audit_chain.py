"""polly-server check finds every change of the audit log, also after a rebuild."""

from __future__ import annotations

import contextlib
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from pysqlite3 import dbapi2 as sqlite

from support.server import BIN, polly_server
from support.wire_client import admin, image

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server


@pytest.fixture
def server(own_server: Server) -> Server:
    """A server that received pushes and has ended; its log is whole, and the check has sealed it."""
    repo = admin(own_server).new_repo()
    for tag in ("v1", "v2", "v3"):
        repo.push(image(), tag)
    own_server.stop()
    return own_server


def check(server: Server, *more: str) -> tuple[int, str]:
    """Run the check; its exit code and its output."""
    command = [str(BIN / "polly-server"), "check", "--data", str(server.data), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def head(server: Server) -> str:
    """The head of the chain, as the check prints it for a log that is whole."""
    code, said = check(server)
    assert (code, "The audit log is whole" in said) == (0, True), said
    return said.split()[-1]


def change(server: Server, statement: str) -> None:
    """Change the database as somebody who can write to it could."""
    with contextlib.closing(sqlite.connect(server.data / "polly.db")) as connection, connection:
        assert connection.execute(statement).rowcount >= 1


def cells(table: str) -> list[list[str]]:
    """The entries of the log as polly-server prints them, below their heading."""
    if not table:
        return []
    heading, *lines = table.splitlines()
    assert heading.split() == ["at", "event", "by", "from", "subject", "detail"]
    return [re.split(" {2,}", line) for line in lines]


def test_a_log_that_nobody_touched(server: Server) -> None:
    """The check says that it is whole; the head that it printed is still in the chain after more entries."""
    before = head(server)
    server.start()
    admin(server).new_repo()
    server.stop()
    after = head(server)
    assert int(after.partition(":")[0]) > int(before.partition(":")[0])
    assert check(server, "--audit-head", before)[0] == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET by = 'somebody@acme.example' WHERE id = 3",
        "UPDATE audit SET at = at - 1 WHERE id = 3",
        "UPDATE audit SET subject = subject || 'x', hash = x'00' WHERE id = (SELECT max(id) FROM audit)",
        "DELETE FROM audit WHERE id = 3",
        "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)",
        "DELETE FROM audit WHERE id > 2",
    ],
)
def test_changes_are_found(server: Server, statement: str) -> None:
    """A changed entry, one removed from the middle, and one removed from the end are found."""
    head(server)
    change(server, statement)
    code, said = check(server)
    assert (code, "The audit log was changed" in said) == (1, True), said


def test_a_log_that_was_forged(server: Server) -> None:
    """If all hashes are made again and the journal is deleted, a head that was kept shows it. No head is printed."""
    noted = head(server)
    change(server, "UPDATE audit SET by = 'somebody@acme.example' WHERE event = 'push'")
    change(server, "UPDATE audit SET position = NULL, hash = NULL")
    for file in (server.data / "journal").glob("*.log"):
        file.unlink()
    server.start()
    server.stop()
    assert check(server)[0] == 0
    code, said = check(server, "--audit-head", noted)
    number = noted.partition(":")[0]
    wrong = f"The audit log was changed: its entry {number} is not the one that the head that was given has."
    assert (code, wrong in said, "whole" in said) == (1, True, False), said


def test_a_head_of_a_longer_log(server: Server) -> None:
    """The check says where the log ends."""
    last = int(head(server).partition(":")[0])
    code, said = check(server, "--audit-head", f"500:{'0' * 64}")
    wrong = f"it ends at entry {last}, and the head that was given has 500. It was cut off, or the head is of another"
    assert (code, wrong in said) == (1, True), said


def test_a_backup_with_entries_that_are_not_sealed(server: Server, tmp_path: Path) -> None:
    """The check says how many entries are newer than the head."""
    head(server)
    polly_server("org", "create", "--data", str(server.data), "--org", "later")
    polly_server("backup", "--data", str(server.data), "--to", str(tmp_path / "backup"))
    said = polly_server("check", "--data", str(tmp_path / "backup"))
    assert "The audit log is whole. The newest 1 entry is not sealed yet. Keep its head" in said


def test_a_wrong_head(server: Server) -> None:
    """The error says what a head looks like."""
    code, said = check(server, "--audit-head", "12")
    assert (code, "POSITION:HASH" in said) == (2, True)


def test_it_comes_back_with_the_database(server: Server) -> None:
    """After a rebuild from the journal it has the same entries, and the same head."""
    before, log = head(server), polly_server("audit", "--data", str(server.data), "--latest", "1000", "--all-events")
    for file in server.data.glob("polly.db*"):
        file.unlink()
    polly_server("rebuild", "--data", str(server.data))
    assert polly_server("audit", "--data", str(server.data), "--latest", "1000", "--all-events") == log
    assert head(server) == before


def test_what_the_operator_does_is_in_it(server: Server) -> None:
    """polly-server audit lists all organisations, or one, newest first."""
    slug, (email, _) = server.new_org()
    polly_server("org", "delete", "--data", str(server.data), "--org", slug, "--yes")
    polly_server("org", "restore", "--data", str(server.data), "--org", slug)
    told = [tuple(entry[1:5]) for entry in cells(polly_server("audit", "--data", str(server.data), "--org", slug))]
    assert told == [
        ("restore", "polly-server", "-", slug),
        ("delete", "polly-server", "-", slug),
        ("member-add", "polly-server", "-", email),
        ("organisation-create", "polly-server", "-", slug),
    ]
    pushes = cells(polly_server("audit", "--data", str(server.data), "--event", "push"))
    assert [entry[4].rpartition(":")[2] for entry in pushes] == ["v3", "v2", "v1"]


def test_the_operator_narrows_it(server: Server) -> None:
    """Entries are filtered by author, docker repository and time; those about tokens are listed if asked for."""

    def entries(*options: str) -> list[tuple[str, str]]:
        table = polly_server("audit", "--data", str(server.data), "--latest", "600", *options)
        return [(entry[1], entry[4]) for entry in cells(table)]

    every = entries("--all-events")
    without = [each for each in every if not each[0].startswith("token-")]
    assert without != every
    assert entries("--since", "yesterday", "--until", "tomorrow") == without
    path = next(subject for event, subject in every if event == "repository-create")
    org, _, name = path.partition("/")
    mine = [each for each in every if each[1].partition(":")[0] == path]
    assert entries("--org", org, "--name", name) == mine
    assert entries("--name", path, "--by", "policy") == []
    for wrong, right in (
        (("--since", "soon"), "--since"),
        (("--name", "hello"), "--name ORG/hello"),
        (("--by", ""), "--by is empty"),
    ):
        done = subprocess.run(
            [BIN / "polly-server", "audit", "--data", server.data, *wrong], capture_output=True, text=True, check=False
        )
        assert (done.returncode, right in done.stderr) == (2, True)
