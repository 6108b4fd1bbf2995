"""The journal is compacted beside a server: purged manifests leave it, and a rebuild still brings back all the rest."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers.config import Config
from polly_dockers.db.journal import compaction, frames, records, state
from polly_dockers.errors import Unavailable
from polly_dockers.maintenance import rebuild
from polly_dockers.registry import audit
from polly_dockers.server import data_folder
from support.collecting import collect
from support.registry_rows import fill, held
from support.server import Server, polly_server
from support.wire_client import OCI_MANIFEST, Image, Person, Repo, admin, image, sha256
from support.workers import each_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.server_options("--collect-seconds", "0")


def compact(server: Server) -> None:
    """Compact, whether it is due or not."""
    compaction.compact(server.data, lambda _took: None)
    [first, *_] = frames.files(server.data)
    assert frames.is_snapshot(first)


def told(server: Server) -> bytes:
    """All bytes of the journal."""
    return b"".join(path.read_bytes() for path in sorted((server.data / frames.FOLDER).iterdir()))


def rebuilt(server: Server, folder: Path) -> list[list[Any]]:
    """What a rebuild from the journal and the blobs alone makes of the data folder: in a copy of it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(server.data, folder, ignore=shutil.ignore_patterns("polly.db*"))
    assert rebuild.rebuild(folder).lost == []
    assert frames.last(folder) == data_folder.transaction(folder, state.last_batch)
    return held(folder)


def push(ann: Person) -> tuple[Repo, Image]:
    """An image in a repository of its own."""
    repo, made = ann.new_repo(), image()
    repo.push(made, "v1")
    return repo, made


def test_the_same_registry(server: Server, tmp_path: Path) -> None:
    """After a compaction a rebuild makes what it made before: everything, with its ids and times; and once more."""
    fill(admin(server))
    server.stop()
    assert rebuilt(server, tmp_path / "copy") != []
    for _ in range(2):
        compact(server)
        assert rebuilt(server, tmp_path / "copy") == held(server.data)
    assert [path.name for path in (server.data / frames.FOLDER).iterdir()] == [frames.files(server.data)[0].name]


def test_what_is_purged_leaves_it(server: Server, tmp_path: Path) -> None:
    """The collector takes purged manifests out of the journal, and leaves what is still in the registry."""
    ann = admin(server)
    fill(ann)
    repo, gone = push(ann)
    _, kept = push(ann)
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={repo.name.partition('/')[2]}").status == 200
    assert gone.manifest in told(server)
    collect(server)
    assert gone.manifest not in told(server)
    assert kept.manifest in told(server)
    assert rebuilt(server, tmp_path / "copy") == held(server.data)
    assert "Nothing is wrong" in polly_server("check", "--data", str(server.data))


def test_workers_that_have_it_open(server: Server, tmp_path: Path) -> None:
    """After a compaction each worker writes to a new file, and what it pushes then is in the journal."""
    repo = admin(server).new_repo()
    with each_worker(server) as workers:
        for round_ in range(3):
            for worker in workers:
                made = image()
                for blob in made.blobs:
                    path = repo.path(f"blobs/uploads/?digest={sha256(blob)}")
                    assert worker.send(repo, "POST", path, blob).status == 201
                path = repo.path(f"manifests/v{round_}")
                assert worker.send(repo, "PUT", path, made.manifest, OCI_MANIFEST).status == 201
            compact(server)
    assert rebuilt(server, tmp_path / "copy") == held(server.data)


def test_pushes_meanwhile(server: Server, tmp_path: Path) -> None:
    """Pushes between the steps of a compaction are in the files after its snapshot, not in the snapshot."""
    ann = admin(server)
    fill(ann)
    pushed = []
    compaction.compact(server.data, lambda _took: pushed.append(push(ann)))
    assert pushed
    [snapshot, *behind] = frames.files(server.data)
    assert frames.is_snapshot(snapshot)
    assert pushed[0][1].manifest not in snapshot.read_bytes()
    assert any(pushed[0][1].manifest in path.read_bytes() for path in behind)
    assert rebuilt(server, tmp_path / "copy") == held(server.data)
    push(ann)
    server.stop()
    server.start()
    assert rebuilt(server, tmp_path / "copy") == held(server.data)


def test_writers_wait_for_no_reading(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """New batches are read before the writers' lock is taken, and only the last of them under the lock."""
    ann = admin(server)
    push(ann)
    read: list[tuple[bool, int]] = []
    heads = frames.heads_from

    def counted(path: Path, begin: int) -> Iterator[tuple[int, int, int]]:
        for found in heads(path, begin):
            with (server.data / "writer.lock").open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked = False
                except BlockingIOError:
                    locked = True
            read.append((locked, found[0]))
            yield found

    monkeypatch.setattr(frames, "heads_from", counted)
    steps = 0

    def rest(_took: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            for _ in range(3):
                push(ann)
            server.stop()

    compaction.compact(server.data, rest)
    [snapshot, *_] = frames.files(server.data)
    behind = {batch for _, batch in read if batch > frames.number(snapshot)}
    assert len(behind) > 3
    assert [batch for locked, batch in read if locked] == [max(behind)]
    assert steps >= len(read) - 1, "what is read is paced as well"


def test_a_process_that_appends_to_an_old_file(server: Server, tmp_path: Path) -> None:
    """If a process did not see that a compaction began, the compaction is given up, and nothing is lost."""
    ann = admin(server)
    push(ann)

    def go_back(_took: float) -> None:
        data_folder.transaction(server.data, lambda connection: state.begin_file(connection, 0))
        push(ann)

    assert compaction.compact(server.data, go_back) == 0
    assert not any(map(frames.is_snapshot, frames.files(server.data)))
    assert rebuilt(server, tmp_path / "copy") == held(server.data)


def test_while_somebody_reads_it(server: Server, tmp_path: Path) -> None:
    """Files that are being read are deleted by the next run; nobody reads a mixture of old and new files."""
    ann = admin(server)
    fill(ann)
    server.stop()
    reading = frames.read(server.data)
    first = next(reading)
    before = set((server.data / frames.FOLDER).iterdir())
    compact(server)
    assert before < set((server.data / frames.FOLDER).iterdir())
    assert rebuilt(server, tmp_path / "copy") == held(server.data)
    read = [first, *reading]
    assert [batch.id for batch in read] == sorted({batch.id for batch in read})
    compaction.sweep(server.data)
    assert set((server.data / frames.FOLDER).iterdir()) == set(frames.files(server.data))


def test_a_compaction_that_was_stopped(server: Server, tmp_path: Path) -> None:
    """Nothing has changed, the partial file is gone, and the next compaction succeeds."""
    fill(admin(server))
    server.stop()

    def stop(_took: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compaction.compact(server.data, stop)
    assert not any(map(frames.is_snapshot, frames.files(server.data)))
    assert not list((server.data / frames.FOLDER).glob("*.part"))
    assert rebuilt(server, tmp_path / "copy") == held(server.data)
    compact(server)


def test_a_snapshot_that_the_disk_changed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is read again before the files that it replaces are deleted."""
    fill(admin(server))
    server.stop()
    before = told(server)
    fsync = os.fsync

    def flip(fd: int) -> None:
        fsync(fd)
        for part in (server.data / frames.FOLDER).glob("*.part"):
            data = bytearray(part.read_bytes())
            data[len(data) // 2] ^= 1
            part.write_bytes(data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", flip)
        with pytest.raises(Unavailable, match="not changed"):
            compaction.compact(server.data, lambda _took: None)
    assert told(server) == before


# --- backups and older databases ------------------------------------------------------------------------------------


def back_up(server: Server, folder: Path) -> None:
    """Make a backup, or bring it up to date."""
    polly_server("backup", "--data", str(server.data), "--to", str(folder))


def restored(backup: Path, folder: Path) -> list[list[Any]]:
    """What a restored backup holds, by its database and by its journal."""
    shutil.rmtree(folder, ignore_errors=True)
    polly_server("restore", "--from", str(backup), "--data", str(folder))
    found = held(folder)
    for file in folder.glob("polly.db*"):
        file.unlink()
    rebuild.rebuild(folder)
    assert held(folder) == found
    return found


def test_backups(server: Server, tmp_path: Path) -> None:
    """A backup after a compaction has only the new journal, and can be restored."""
    ann, backup = admin(server), tmp_path / "backup"
    fill(ann)
    _, gone = push(ann)
    back_up(server, backup)
    compact(server)
    push(ann)
    back_up(server, backup)
    names = {path.name for path in (backup / frames.FOLDER).iterdir()}
    assert names == {path.name for path in frames.files(server.data)}
    server.stop()
    assert restored(backup, tmp_path / "restored") == held(server.data)
    assert gone.manifest in told(server)


def test_a_backup_that_was_stopped(server: Server, tmp_path: Path) -> None:
    """A backup that fails between the new journal and the new database is still the previous one, with its journal."""
    ann, backup = admin(server), tmp_path / "backup"
    fill(ann)
    back_up(server, backup)
    server.stop()
    before = held(server.data)
    server.start()
    push(ann)
    compact(server)
    for path in frames.files(server.data):
        shutil.copy(path, backup / frames.FOLDER)
    assert restored(backup, tmp_path / "restored") == before


def test_a_database_from_before_a_compaction(server: Server, tmp_path: Path) -> None:
    """The next start brings it up to date; passwords, roles and tokens stay those of the copy."""
    ann = admin(server)
    fill(ann)
    repo, _ = push(ann)
    slug, _ = server.new_org()
    server.stop()
    server.copy_database(tmp_path / "old.db")
    server.start()
    push(ann)
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={repo.name.partition('/')[2]}").status == 200
    polly_server("org", "delete", "--data", str(server.data), "--org", slug, "--yes")
    assert collect(server, lease_seconds=86_400).purged > 2
    push(ann)
    server.stop()
    before = held(server.data)
    for file in server.data.glob("polly.db*"):
        file.unlink()
    shutil.copy(tmp_path / "old.db", server.data / "polly.db")
    server.start()
    server.stop()
    after = held(server.data)
    assert all(set(map(repr, old)) <= set(map(repr, new)) for old, new in zip(before, after, strict=True))
    assert repo.name.partition("/")[2] not in str(after[2])
    server.start()
    _, made = push(Person(server.port, server.org, *server.admin))
    server.stop()
    assert made.manifest in told(server)
    assert "Nothing is wrong" in polly_server("check", "--data", str(server.data))


def test_a_database_of_another_registry(server: Server, tmp_path: Path) -> None:
    """It is refused, though it is older than the journal's snapshot, and nothing is changed."""
    other = Server(tmp_path / "other", server.port, org="other", admin=("eve@other.example", server.admin[1]))
    other.init()
    fill(admin(server))
    server.stop()
    collect(server)
    before = told(server)
    for file in server.data.glob("polly.db*"):
        file.unlink()
    other.copy_database(server.data / "polly.db")
    copied = (server.data / "polly.db").read_bytes()
    with pytest.raises(Unavailable, match="another history"):
        rebuild.catch_up(server.data)
    assert (told(server), (server.data / "polly.db").read_bytes()) == (before, copied)


def test_a_rebuild_beside_a_collection(server: Server) -> None:
    """It would add rows for storage keys that are being deleted, so it is refused until the collection ends."""
    push(admin(server))
    server.stop()
    server.lose_database()
    with (server.data / "collector.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="when it has ended"):
            rebuild.rebuild(server.data)
    assert rebuild.rebuild(server.data).commits == 1


def test_a_check_while_it_is_compacted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the journal was compacted during a check, the check reads it again, and finds nothing wrong."""
    push(admin(server))
    server.stop()
    has, sealed = frames.has, frames.sealed

    def compacted(look: Any) -> Any:  # noqa: ANN401 - either of the two
        def look_late(folder: Path, batch: int) -> Any:  # noqa: ANN401
            monkeypatch.undo()
            user = records.UserMade(1, "a@b.example", 1)
            data_folder.transaction(folder, lambda connection: records.add(connection, user))
            compact(server)
            return look(folder, batch)

        return look_late

    for name, look in (("has", has), ("sealed", sealed)):
        monkeypatch.setattr(frames, name, compacted(look))
        assert check(server) == []
        monkeypatch.undo()


def check(server: Server) -> list[str]:
    """What a check finds wrong."""
    from polly_dockers.maintenance.check import Check  # noqa: PLC0415 - beside its only use

    async def run() -> list[str]:
        registry = await data_folder.open_context(Config(data=server.data))
        try:
            return [each.what for each in (await Check(registry).run()).damages]
        finally:
            registry.close()

    return asyncio.run(run())


# --- the audit log ----------------------------------------------------------------------------------------------------

DAY = 86_400 * 1_000_000


def age(server: Server, days: int) -> None:
    """Stop the server, make its log look as if it was written some days ago, with matching hashes, and start it."""
    server.stop()
    change = "UPDATE audit SET at = at - ?, position = NULL, hash = NULL"
    with contextlib.closing(sqlite3.connect(server.data / "polly.db")) as connection, connection:
        connection.execute(change, [days * DAY])
    shutil.rmtree(server.data / frames.FOLDER)
    server.start()


def test_old_entries_are_dropped(server: Server, tmp_path: Path) -> None:
    """With audit_days, the chain continues after dropped entries, also after a rebuild; the journal loses them too."""
    ann = admin(server)
    fill(ann)
    age(server, 40)
    polly_server("check", "--data", str(server.data))
    admin(server).new_repo()
    settings = ("audit", "--data", str(server.data), "--latest", "1000", "--all-events")
    before = [" ".join(line.split()) for line in polly_server(*settings).splitlines()[1:]]
    assert collect(server, trash_days=30).dropped == 0
    dropped = collect(server, trash_days=30, audit_days=30).dropped
    assert dropped > 10
    after = [" ".join(line.split()) for line in polly_server(*settings).splitlines()[1:]]
    assert after[1:] == before[:-dropped]
    assert f"{dropped} entries from before" in after[0]
    assert "audit-drop" in after[0]
    assert collect(server, trash_days=30, audit_days=30).dropped == 0
    server.stop()
    said = polly_server("check", "--data", str(server.data))
    assert "Nothing is wrong" in said
    assert before[-1].split("  ")[0].encode() not in told(server)
    assert rebuilt(server, tmp_path / "copy") == held(server.data)
    copy = dataclasses.replace(server, data=tmp_path / "copy")
    assert said.split()[-1] == polly_server("check", "--data", str(copy.data)).split()[-1]


def test_dropped_entries_are_recorded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry about it is in the same transaction: if it can't be written, nothing is dropped."""
    fill(admin(server))
    age(server, 40)
    server.stop()
    polly_server("check", "--data", str(server.data))
    before = held(server.data)

    def refuse(*_: object, **__: object) -> None:
        raise LookupError

    monkeypatch.setattr("polly_dockers.db.audit.append", refuse)

    async def drop() -> None:
        registry = await data_folder.open_context(Config(data=server.data, audit_days=30))
        try:
            await audit.drop_old(registry)
        finally:
            registry.close()

    with pytest.raises(LookupError):
        asyncio.run(drop())
    assert held(server.data) == before


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit WHERE position = (SELECT min(position) FROM audit)",
        "DELETE FROM audit_start",
        "UPDATE audit_start SET hash = x'00'",
        "UPDATE audit_start SET position = position + 1",
    ],
)
def test_a_beginning_that_was_cut_off(server: Server, statement: str) -> None:
    """If somebody else removed the beginning, the check finds it, although the server may drop entries."""
    fill(admin(server))
    age(server, 40)
    polly_server("check", "--data", str(server.data))
    push(admin(server))
    collect(server, trash_days=30, audit_days=30)
    server.stop()
    assert check(server) == []
    with contextlib.closing(sqlite3.connect(server.data / "polly.db")) as connection, connection:
        assert connection.execute(statement).rowcount == 1
    assert any("audit log was changed" in each for each in check(server))


def test_a_week_in_a_server(server: Server) -> None:
    """A server compacts automatically once something has been gone for a week."""
    ann = admin(server)
    repo, gone = push(ann)
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={repo.name.partition('/')[2]}").status == 200
    assert collect(server).purged == 1
    assert gone.manifest not in told(server)
    assert not compaction.is_due(server.data, 0, time.time() + 8 * 86_400, thorough=False)
    assert data_folder.transaction(server.data, state.stale) == 0
