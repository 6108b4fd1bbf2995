"""38: the disk is full for a day: requests that only read go on, even if they would also write something."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import delete

from failures.client import check, kill, mounted
from failures.clock import DAY, HOUR, Clock
from failures.serving import fill, serving
from polly_dockers import db
from polly_dockers.config import Config
from polly_dockers.db.schema import repository_blobs
from polly_dockers.errors import StorageFull
from polly_dockers.maintenance.garbage import Collector
from polly_dockers.server import data_folder
from support import use_cases
from support.server import BIN, Server, free_port, new_password, polly_server
from support.wire_client import Person, basic, bearer, image, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from support.wire_client import Image, Repo

SECONDS = 300.0
"""After which a command that should have been refused has failed its test."""


def test_a_day_on_a_full_disk(tmp_path: Path) -> None:
    """Pulls with old and new tokens, lists and sign-ins go on; when there is room again, pushes work."""
    clock = Clock(tmp_path / "clock")
    with mounted(tmp_path, 64) as (place, _), serving(place, clock=clock) as server:
        ann = Person(server.port, server.org, *server.admin)
        old, fresh, full = (ann.access_token(scope, 30 * DAY) for scope in ("registry", "registry", "full"))
        repo, made = ann.new_repo(), image()
        repo.push(made, "v1")
        pull(ann.at(repo.name, secret=old), made)
        fill(filler := place / "filler")
        for hour in (0, 1, 2, 13, 24, 25):
            clock.set(hour * HOUR)
            pull(ann.at(repo.name, secret=old), made)
            pull(ann.at(repo.name, secret=fresh), made)
            for query in ("repositories", f"commits?repository={repo.name.partition('/')[2]}", "trash", "audit"):
                assert bearer(server.port, full).get(f"{ann.base}/{query}").status == 200, (hour, query)
            assert ann.by_password.get("/token").status == 200
            assert basic(server.port, ann.email, secrets.token_hex(9)).get("/token").status == 401
            assert ann.by_password.get("/readyz").status in {503, 507}
            assert ann.at(repo.name, secret=old).put(f"v{hour}", made.manifest).status == 507
        filler.unlink()
        assert ann.at(repo.name, secret=old).put("again", made.manifest).status == 201
        pull(ann.at(repo.name, secret=fresh), made)
        listed = bearer(server.port, full).get("/api/v1/tokens").json()["items"]
        assert {item["scope"]: bool(item["last_used_at"]) for item in listed} == {"registry": True, "full": True}
        kill(server)
        check(server)


def pull(repo: Repo, made: Image) -> None:
    """All of an image."""
    assert repo.manifest("v1").body == made.manifest
    assert "v1" in repo.get(repo.path("tags/list")).json()["tags"]
    for blob in made.blobs:
        assert repo.blob(sha256(blob)).body == blob


def test_space_comes_back_on_a_full_disk(tmp_path: Path) -> None:
    """Garbage is deleted even if there is no room for a row, and then pushes work again."""
    clock = Clock(tmp_path / "clock")
    short = ("--lease-seconds", "10", "--grace-seconds", "40", "--collect-seconds", "1")
    with mounted(tmp_path, 64) as (place, _), serving(place, *short, clock=clock) as server:
        repo = Person(server.port, server.org, *server.admin).new_repo()
        digest = repo.push_blob(secrets.token_bytes(5_000_000))
        with contextlib.closing(sqlite.connect(server.data / "polly.db", timeout=30)) as rows:
            while not rows.execute("SELECT count(*) FROM tombstones").fetchone()[0]:
                pass
        fill(place / "filler")
        clock.set(59)  # no jump, but the wait is over, and the collector writes down what the clocks show
        while digest in server.stored():
            pass
        while os.statvfs(place).f_bavail * os.statvfs(place).f_frsize < 1 << 20:
            pass  # ext4 gives the room of a deleted file back with its next commit
        repo.push(image(), "v1")
        kill(server)
        check(server)


async def test_a_purge_of_a_full_disk(tmp_path: Path) -> None:
    """Files that wait for their deletion are deleted, and the purge, which needs room, goes on in the same run."""
    with mounted(tmp_path, 64) as (place, _):
        await asyncio.to_thread(use_cases.prepare, place / "data")
        settings: dict[str, Any] = {"trash_days": 0, "grace_seconds": 0}
        context = await data_folder.open_context(Config(data=place / "data", **settings))
        try:
            await use_cases.create(context, use_cases.NAME.name)
            await use_cases.push_blob(context, secrets.token_bytes(5_000_000))
            await context.database.write(delete_blobs)
            for _ in range(100):
                made = image()
                await use_cases.push_image(context, made, "v1")
                await use_cases.delete(context, commit=made.digest)
            fill(place / "filler")
            with pytest.raises(StorageFull):
                await create_until_full(context)
            report = await Collector(context, thorough=False).run()  # as a server does: without compaction
            assert report is not None
            assert (report.purged, report.files) == (100, 1)
            await use_cases.create(context, "other")
        finally:
            context.close()


async def create_until_full(context: Context) -> None:
    """Fill the last block of the journal too."""
    for number in range(1000):
        await use_cases.create(context, f"more-{number}")


def delete_blobs(connection: Connection) -> None:
    """Delete the rows of all blobs; their files may be deleted now."""
    connection.execute(delete(repository_blobs))
    db.garbage.delete_unlinked(connection, 0)


def test_a_full_disk_is_not_a_damaged_database(tmp_path: Path) -> None:
    """Every command on a full disk says that it is full, does not ask for a backup, and changes nothing."""
    with mounted(tmp_path, 64) as (place, _), serving(place) as server:
        repo = Person(server.port, server.org, *server.admin).new_repo()
        made = image()
        repo.push(made, "v1")
        server.stop()
        fill(filler := place / "filler")
        for command in (("run", "--listen", "127.0.0.1:0"), ("user", "list"), ("check",), ("gc",)):
            refused(server, *command)
        server.lose_database()
        fill(place / "more")
        refused(server, "rebuild")
        assert [file.stat().st_size for file in server.data.glob("polly.db*")] in ([], [0])
        filler.unlink()
        (server.data / "polly.db").touch()  # as a command leaves it that was killed there
        assert "rebuild" in refusal(server, "user", "list")
        polly_server("rebuild", "--data", str(server.data))
        server.start()
        server.give_admin_back()
        pull(Person(server.port, server.org, *server.admin).repo(repo.name.partition("/")[2]), made)


def test_two_that_make_a_database_on_a_full_disk(tmp_path: Path) -> None:
    """What one of them has just made is not deleted by the other one, which fails. Afterwards either can go on."""
    with mounted(tmp_path, 64) as (place, _):
        server = Server(place / "data", free_port())
        server.data.mkdir()
        with (server.data / "polly.db").open("wb") as made:
            fill(filler := place / "filler")
            init = ("init", "--org", "acme", "--email", "ann@acme.example", "--password-stdin")
            refused(server, *init)
            assert (server.data / "polly.db").stat().st_ino == os.fstat(made.fileno()).st_ino
            filler.unlink()
        assert "There is no registry in" in refusal(server, "org", "list")
        server.init()
        polly_server("backup", "--data", str(server.data), "--to", str(place / "copy"))
        os.truncate(server.data / "polly.db", 0)
        shutil.rmtree(server.data / "journal")
        polly_server("restore", "--data", str(server.data), "--from", str(place / "copy"))


def refused(server: Server, *arguments: str) -> None:
    """A command that needs room on the disk says so in one line."""
    said = refusal(server, *arguments)
    assert "is full" in said, arguments
    assert "estore a backup" not in said
    assert said.count("\n") == 1


def refusal(server: Server, *arguments: str) -> str:
    """The message of a command that fails."""
    command = [str(BIN / "polly-server"), *arguments, "--data", str(server.data)]
    password = new_password()
    done = subprocess.run(command, input=password, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode != 0
    return done.stderr
