"""36: while an organisation or a repository is purged, restoring it works as a whole or is refused."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from polly_dockers import db
from polly_dockers.auth import members
from polly_dockers.errors import NotInTrash
from polly_dockers.model import Role
from polly_dockers.server import data_folder
from polly_dockers.system.durations import SECONDS_PER_DAY
from support.collecting import collect
from support.server import BIN, ending, polly_server
from support.wire_client import Image, Person, Repo, admin, image, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from support.server import Server

MOST = 30
"""Transactions of a collector that purges one small repository, at most."""


pytestmark = pytest.mark.server_options("--collect-seconds", "0")


class Died(Exception):
    """A collector that ends in the middle."""


def check(server: Server) -> None:
    """All space is free again, and the check finds nothing wrong."""
    for days in (2, 4):
        collect(server, later=days * SECONDS_PER_DAY)
    assert server.stored() == set()
    assert "Nothing is wrong" in polly_server("check", "--data", str(server.data))


class Repository:
    """A repository in the trash, and what was in it."""

    kind = "repository"

    def __init__(self, server: Server) -> None:
        self.server, self.ann = server, admin(server)
        self.repo = self.ann.new_repo()
        self.made = [fill(self.repo) for _ in range(2)]
        self.short = self.name = self.repo.name.partition("/")[2]
        self.subject = self.repo.name
        self.delete()

    def delete(self) -> None:
        """Move it to the trash."""
        assert self.ann.api.send("DELETE", f"{self.ann.base}/repository?name={self.short}").status == 200

    def restore(self) -> str:
        """Empty if it was restored; else the error."""
        answer = self.ann.api.json("POST", f"{self.ann.base}/trash", {"repository": self.short})
        assert answer.status == 200 or (answer.status, answer.code) == (404, "NOT_IN_TRASH"), answer.body
        return "" if answer.status == 200 else str(answer.json()["errors"][0]["message"])

    def whole(self) -> None:
        """All of it is there, byte for byte, with its commits."""
        assert self.ann.repository(self.short)["commits"] == 3 * len(self.made)
        for made in self.made:
            assert self.repo.manifest(made.digest).body == made.manifest
            assert all(self.repo.blob(sha256(blob)).body == blob for blob in made.blobs)

    def purges(self) -> int:
        """How often the audit log says that it was purged."""
        with contextlib.closing(sqlite3.connect(self.server.data / "polly.db")) as connection:
            rows = connection.execute("SELECT 1 FROM audit WHERE event = 'purge' AND subject = ?", [self.subject])
            return len(rows.fetchall())


class Organisation(Repository):
    """An organisation in the trash, and what was in it."""

    kind = "organisation"

    def __init__(self, server: Server) -> None:
        slug, (email, password) = f"org-{secrets.token_hex(4)}", server.admin

        def make(connection: Connection) -> None:
            made = members.create_organisation(connection, slug)
            members.add(connection, made, slug, email, Role.admin, "", members.Existing.keep_password)

        data_folder.transaction(server.data, make)
        self.server, self.ann = server, Person(server.port, slug, email, password)
        self.repo = self.ann.new_repo()
        self.made = [fill(self.repo) for _ in range(2)]
        self.short, self.name, self.subject = self.repo.name.partition("/")[2], slug, slug
        self.delete()

    def delete(self) -> None:
        """Move it to the trash."""

        def throw(connection: Connection) -> None:
            db.trash.move_organisation(connection, members.require_organisation(connection, self.name), self.name)

        data_folder.transaction(self.server.data, throw)

    def restore(self) -> str:
        """Empty if it was restored; else the error."""

        def restore(connection: Connection) -> bool | None:
            item = next((each for each in db.trash.organisations_in(connection) if each.name == self.name), None)
            return db.restore.restore_organisation(connection, item, self.name) if item is not None else None

        try:
            return "" if data_folder.transaction(self.server.data, restore) else "it may have been purged"
        except NotInTrash as refusal:
            return refusal.message

    def restore_by_command(self) -> str:
        """What polly-server org restore says."""
        command = [str(BIN / "polly-server"), "org", "restore", "--data", str(self.server.data), "--org", self.name]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def fill(repo: Repo) -> Image:
    """Push an image to three tags."""
    made = image()
    repo.push(made, "v1", "v2", "latest")
    return made


BOTH = pytest.mark.parametrize("what", [Repository, Organisation], ids=["repository", "organisation"])


@BOTH
def test_a_restore_between_any_two_steps(server: Server, what: type[Repository]) -> None:
    """Before the first step a restore brings back everything; afterwards it is refused, and everything is deleted."""
    there, refused, said = what(server), 0, list[str]()

    def restore() -> None:
        said.append(there.restore())

    for number in range(1, MOST):
        said.clear()
        collect(server, restore, number)
        if said == [""]:
            assert number == 1
            there.whole()
            assert there.purges() == 0
            there.delete()
        elif said:
            refused += "being purged" in said[0]
            assert there.purges() == 1
            assert "it may have been purged" in there.restore()
            there = what(server)
        else:
            break
    assert refused >= 6
    check(server)


@BOTH
def test_restored_and_deleted_again(server: Server, what: type[Repository]) -> None:
    """A collector that had found the earlier item in the trash does not purge the newer one."""
    there = what(server)

    def meanwhile() -> None:
        assert there.restore() == ""
        there.delete()

    collect(server, meanwhile, 1)
    assert there.purges() == 0
    assert there.restore() == ""
    there.whole()


@BOTH
def test_a_collector_that_ends_in_the_middle(server: Server, what: type[Repository]) -> None:
    """What it began to purge can't be restored; the next run finishes it, even with a longer trash_days."""

    def end() -> None:
        raise Died

    for number in (2, 4, 7):
        there = what(server)
        with pytest.raises(Died):
            collect(server, end, number)
        assert "being purged" in there.restore()
        if isinstance(there, Organisation):
            assert "being purged" in there.restore_by_command()
        else:
            assert there.ann.api.get(f"{there.ann.base}/trash").json()["total"] == 0
        assert collect(server, trash_days=365).purged == 1
        assert there.purges() == 1
        assert "it may have been purged" in there.restore()
    check(server)


@BOTH
def test_a_rebuild_in_the_middle(server: Server, what: type[Repository]) -> None:
    """What was being purged can't be restored after a rebuild either, because blobs may be gone; it is purged."""

    def end() -> None:
        raise Died

    there = what(server)
    with pytest.raises(Died):
        collect(server, end, 7)
    server.stop()
    for file in (server.data / "blobs").glob("*/*/*"):
        file.unlink()  # as later steps of a purge do
    server.lose_database()
    polly_server("rebuild", "--data", str(server.data))
    server.start()
    server.give_admin_back()
    if there.kind == "repository":
        there.ann = Person(server.port, server.org, *server.admin)
    assert "being purged" in there.restore()
    assert collect(server, trash_days=365).purged == 1
    assert there.purges() == 1
    assert "it may have been purged" in there.restore()


def test_a_commit_of_many_tags(server: Server) -> None:
    """A commit that is purged in several transactions can be restored before the first of them, and not after it."""
    ann = admin(server)
    repo, made = ann.new_repo(), image()
    repo.push(made, *(f"v{number}" for number in range(201)))
    name = repo.name.partition("/")[2]
    answers = []

    def restore() -> None:
        answers.append(ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "commit": made.digest}))

    for number in (1, 2):
        assert repo.delete(f"manifests/{made.digest}").status == 202
        assert collect(server, restore, number).purged == number - 1
        assert ann.repository(name)["commits"] == 201 * (2 - number)
    assert answers[0].status == 200
    assert (answers[1].status, answers[1].code, b"being purged" in answers[1].body) == (404, "NOT_IN_TRASH", True)


def test_another_of_its_name(server: Server) -> None:
    """While a repository is being purged, a restore brings back the newer one of its name."""
    older, made = Repository(server), image()

    def meanwhile() -> None:
        older.ann.repo(older.ann.create(older.short)).push(made, "v1")
        older.delete()
        assert older.restore() == ""

    collect(server, meanwhile, 3)
    assert older.ann.repo(older.short).manifest("v1").body == made.manifest
    assert older.purges() == 1


STANDS_STILL = """
import os, signal, sys
from polly_dockers.server.cli import entry
from polly_dockers.db import garbage
purge, left = garbage.purge_repository, [3]
def purge_and_stop(*args):
    done = purge(*args)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    return done
garbage.purge_repository = purge_and_stop
entry.run()
"""
"""polly-server that stops in the middle of a purge, inside a transaction."""


def test_a_command_that_is_killed_and_one_that_goes_on(server: Server, tmp_path: Path) -> None:
    """While polly-server gc hangs, or after it was killed, in the middle of a purge, a restore is refused."""
    settings = tmp_path / "settings.toml"
    settings.write_text("trash_days = 0\ngrace_seconds = 0\n")
    command = [sys.executable, "-c", STANDS_STILL, "gc", "--data", str(server.data), "--config", str(settings)]
    for number in (signal.SIGKILL, signal.SIGCONT):
        there = Repository(server)
        with ending(subprocess.Popen(command, stdout=subprocess.DEVNULL)) as process:
            state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert state is not None
            assert state.si_code == os.CLD_STOPPED
            process.send_signal(number)
            said = there.restore()
            process.wait(60)
        assert "purged" in said
        if number == signal.SIGKILL:
            assert "being purged" in there.restore()
            assert collect(server).purged == 1
        assert there.purges() == 1
    check(server)
