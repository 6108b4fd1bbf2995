"""A backup is restored to a folder without its database: what only its journal has is not deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from polly_dockers.db.journal import frames
from polly_dockers.maintenance import backup, restoring
from polly_dockers.server import data_folder
from polly_dockers.system import durable
from support.registry_rows import held
from support.server import BIN, polly_server
from support.wire_client import sha256

if TYPE_CHECKING:
    from pathlib import Path


class Stopped(BaseException):
    """A restore that is stopped in the middle."""


def lose(data: Path) -> None:
    """Delete the database."""
    for file in data.glob("polly.db*"):
        file.unlink()


def restore(source: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [str(BIN / "polly-server"), "restore", "--data", str(data), "--from", str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_newer_journal_stays(data: Path, tmp_path: Path) -> None:
    """The restore is refused; the error says how both are used, and how either one. Using both brings all back."""
    polly_server("org", "create", "--data", str(data), "--org", "later")
    before = held(data)
    lose(data)
    files = {path: path.read_bytes() for path in (data / frames.FOLDER).iterdir()}
    done = restore(tmp_path / "b1", data)
    assert done.returncode == 1
    both = [
        f"  rm -f {data}/polly.db-*",
        f"  install -o root -g root -m 600 {tmp_path / 'b1'}/polly.db {data}",
        f"  polly-server rebuild --data {data}",
    ]
    assert done.stderr.splitlines()[1:] == [
        "To bring back everything from the backup and the journal, with passwords, roles and tokens as in the backup:",
        *both,
        "To bring back everything except passwords, roles and tokens from the journal:",
        f"  polly-server rebuild --data {data}",
        "To restore the backup anyway, without what changed since:",
        f"  mv {data} {data}.before",
        f"  polly-server restore --from {tmp_path / 'b1'} --data {data}",
    ]
    assert {path: path.read_bytes() for path in (data / frames.FOLDER).iterdir()} == files
    assert not list(data.glob("polly.db*"))
    assert not (data / restoring.MARK).exists()
    path = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-ec", "\n".join(both)], check=True, env=path)
    assert held(data) == before


def test_a_journal_of_another_registry_stays(tmp_path: Path, data: Path) -> None:
    """It is older than the backup, but of another registry, so it is not deleted."""
    other = tmp_path / "other"
    data_folder.prepare(other)
    polly_server("org", "create", "--data", str(other), "--org", "elsewhere")
    polly_server("org", "create", "--data", str(data), "--org", "later")
    polly_server("backup", "--data", str(data), "--to", str(tmp_path / "b1"))
    lose(other)
    files = {path: path.read_bytes() for path in (other / frames.FOLDER).iterdir()}
    done = restore(tmp_path / "b1", other)
    assert (done.returncode, "from the backup and the journal" in done.stderr) == (1, False)
    assert {path: path.read_bytes() for path in (other / frames.FOLDER).iterdir()} == files


def test_a_journal_that_the_backup_has_is_no_obstacle(data: Path, tmp_path: Path) -> None:
    """Nothing was changed since the backup; a WAL that was left is not applied to the restored database."""
    before = held(data)
    lose(data)
    (data / "polly.db-wal").write_bytes(b"of another")
    assert restore(tmp_path / "b1", data).returncode == 0
    assert held(data) == before
    assert not (data / "polly.db-wal").exists() or (data / "polly.db-wal").read_bytes() != b"of another"


@pytest.mark.parametrize("at", ["_copy_blobs", "_drop_journal", "_mark_lost"])
def test_it_goes_on_after_it_was_stopped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """It may continue from an older backup; but changes that were made after a rebuild are not deleted."""
    shutil.copytree(tmp_path / "b1", tmp_path / "b2")
    polly_server("org", "create", "--data", str(data), "--org", "later")
    polly_server("backup", "--data", str(data), "--to", str(tmp_path / "b2"))
    new = tmp_path / "new"

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(backup, at, stop)
    with pytest.raises(Stopped):
        backup.restore(tmp_path / "b2", new, lambda _: lambda _: None)
    again, rebuilt = tmp_path / "again", tmp_path / "rebuilt"
    shutil.copytree(new, again)
    shutil.copytree(new, rebuilt)
    done = restore(tmp_path / "b1", again)
    assert (done.returncode, (again / restoring.MARK).exists()) == (0, False), done.stderr
    assert len(held(again)[1]) == 1
    if at != "_copy_blobs":
        polly_server("rebuild", "--data", str(rebuilt))
        polly_server("org", "create", "--data", str(rebuilt), "--org", "after")
        lose(rebuilt)
        assert restore(tmp_path / "b2", rebuilt).returncode == 1
    assert restore(tmp_path / "b2", new).returncode == 0
    assert held(new) == held(data)


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_a_backup_without_a_journal(data: Path, tmp_path: Path, how: str) -> None:
    """Its database has everything: it is restored and can be copied, and the journal is written again."""
    journal = tmp_path / "b1" / frames.FOLDER
    shutil.rmtree(journal)
    if how == "empty":
        journal.mkdir()
    polly_server("backup", "--data", str(tmp_path / "b1"), "--to", str(tmp_path / "b2"))
    for source in ("b1", "b2"):
        new = tmp_path / f"from-{source}"
        done = restore(tmp_path / source, new)
        assert done.returncode == 0, done.stderr
        assert "journal lacks changes or is gone. It was written again from the database." in done.stderr
        assert held(new) == held(data)
        lose(new)
        polly_server("rebuild", "--data", str(new))
        assert held(new) == held(data)


@pytest.mark.parametrize("mark", ["server.lock", "polly.db-wal"])
def test_a_data_folder_is_no_source(data: Path, tmp_path: Path, mark: str) -> None:
    """What is only in its WAL would be lost; the error names the command that copies it, and nothing is made."""
    source = tmp_path / "b1"
    if mark == "server.lock":
        source = data
    else:
        (source / mark).write_bytes(b"pages")
    done = restore(source, tmp_path / "new")
    assert (done.returncode, f"polly-server backup --data {source} --to …" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "new").exists()


def test_a_backup_that_an_older_version_looked_at(data: Path, tmp_path: Path) -> None:
    """It left lock files and an empty WAL; it can be restored."""
    for name in ("writer.lock", "collector.lock", "polly.db-wal", "polly.db-shm"):
        (tmp_path / "b1" / name).touch()
    assert restore(tmp_path / "b1", tmp_path / "new").returncode == 0
    assert held(tmp_path / "new") == held(data)


def flip(file: Path, at: int) -> None:
    """Damage 64 bytes of a file."""
    content = bytearray(file.read_bytes())
    content[at : at + 64] = bytes(each ^ 0xFF for each in content[at : at + 64])
    file.write_bytes(content)


def test_a_damaged_journal_in_a_backup_is_copied_again(data: Path, tmp_path: Path) -> None:
    """Its file has the right size; a check finds the damage, and the next backup repairs it, as the check says."""
    file = max((tmp_path / "b1" / frames.FOLDER).glob("*.log"))
    whole = file.read_bytes()
    flip(file, len(whole) // 2)
    command = [str(BIN / "polly-server"), "check", "--data", str(tmp_path / "b1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "The next backup copies it again." in done.stderr
    polly_server("backup", "--data", str(data), "--to", str(tmp_path / "b1"))
    assert file.read_bytes() == whole
    assert "Nothing is wrong." in polly_server(*command[1:])


@pytest.mark.parametrize("at", [0, 100])
def test_a_damaged_database_in_a_backup_is_replaced(data: Path, tmp_path: Path, at: int) -> None:
    """A restore names the backup and leaves nothing; the next backup warns, and the backup is complete again."""
    flip(tmp_path / "b1" / "polly.db", at)
    refused = restore(tmp_path / "b1", tmp_path / "new")
    assert (refused.returncode, f"backup {tmp_path / 'b1'} is damaged" in refused.stderr) == (1, True), refused.stderr
    assert not (tmp_path / "new").exists()
    command = [str(BIN / "polly-server"), "backup", "--data", str(data), "--to", str(tmp_path / "b1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "was damaged, and was replaced" in done.stderr) == (0, True), done.stderr
    assert "Nothing is wrong." in polly_server("check", "--data", str(tmp_path / "b1"))


def test_each_new_folder_is_synced(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure after a restore takes no folder away: the folder above each new one was synced."""
    digest = sha256(b"blob")[7:]
    stored = tmp_path / "b1" / "blobs" / "sha256" / digest[:2]
    stored.mkdir(parents=True)
    (stored / f"{digest}.0").write_bytes(b"blob")
    synced, sync = {data}, durable.sync

    def noted(path: Path) -> None:
        synced.add(path)
        sync(path)

    monkeypatch.setattr(durable, "sync", noted)
    new = tmp_path / "x" / "y"
    backup.restore(tmp_path / "b1", new, lambda _: lambda _: None)
    assert {tmp_path, tmp_path / "x", new, new / "blobs", new / "blobs" / "sha256"} <= synced
