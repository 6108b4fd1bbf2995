"""Commands on the folder of a backup: looking at it changes nothing, and the next backup to it works."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pysqlite3.dbapi2 as sqlite
import pytest

from polly_dockers.db.sqlite import is_backup, open_engine
from polly_dockers.errors import Unavailable
from polly_dockers.maintenance import backup as maintenance
from support.server import BIN, Server, free_port, new_password, polly_server
from support.wire_client import Image, Repo, image, sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READING = [
    ("check",),
    ("check", "--sample", "0"),
    ("usage",),
    ("user", "list"),
    ("org", "list"),
    ("org", "list", "--deleted"),
    ("key", "list"),
    ("audit",),
    ("gc", "--dry-run"),
]
WRITING = [
    ("check", "--repair"),
    ("gc",),
    ("init", "--org", "more", "--email", "eve@more.example", "--password-stdin"),
    ("rebuild",),
    ("org", "create", "more"),
    ("org", "update", "acme", "--create-on-push"),
    ("org", "delete", "acme", "--yes"),
    ("org", "restore", "acme"),
    ("user", "add", "eve@acme.example", "--org", "acme", "--role", "reader", "--password-stdin"),
    ("user", "set-role", "ann@acme.example", "--org", "acme", "--role", "reader"),
    ("user", "remove", "ann@acme.example", "--org", "acme", "--yes"),
    ("user", "reset-password", "ann@acme.example", "--password-stdin"),
    ("user", "revoke-tokens", "--all"),
    ("key", "rotate"),
]


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """All files and folders with their modes and bytes."""
    return {
        path: (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
    }


def command(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of polly-server on the folder."""
    whole = [str(BIN / "polly-server"), *words, "--data", str(folder)]
    return subprocess.run(whole, input=stdin, capture_output=True, text=True, check=False)


def back_up(server: Server, folder: Path) -> str:
    """Make a backup, or bring it up to date."""
    return polly_server("backup", "--data", str(server.data), "--to", str(folder))


@pytest.fixture
def backup(server: Server, repo: Repo, tmp_path: Path) -> Path:
    """A backup of the server that has that repository."""
    assert repo.manifest("v1").status == 200
    back_up(server, tmp_path / "backup")
    return tmp_path / "backup"


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_looking_changes_nothing(backup: Path, words: tuple[str, ...]) -> None:
    """Whatever only reads works on a backup, as its owner left it, and leaves nothing there."""
    backup.chmod(0o755)  # a data folder would be closed to others, with a warning
    before = state(backup)
    done = command(backup, *words)
    assert (done.returncode, "Traceback" in done.stderr, "Warning" in done.stderr) == (0, False, False), done.stderr
    assert state(backup) == before


def test_the_next_backup_works(server: Server, repo: Repo, backup: Path) -> None:
    """After all that, a backup copies what is new, and the backup can be restored."""
    for words in READING:
        assert command(backup, *words).returncode == 0
    repo.push(image(), "v2")
    assert back_up(server, backup).startswith("Copied 2 blobs")
    assert "Nothing is wrong." in command(backup, "check").stdout


def test_the_second_backup_is_a_backup_too(server: Server, repo: Repo, backup: Path) -> None:
    """Its database needs no WAL, commands that change something are refused, and looking at it changes nothing."""
    repo.push(image(), "v2")
    back_up(server, backup)
    assert is_backup(backup)
    before = state(backup)
    assert command(backup, "user", "list").returncode == 0
    assert command(backup, "gc").returncode == 1
    assert state(backup) == before


def test_a_backup_that_fails_leaves_no_database(server: Server, pushed: Image, repo: Repo, tmp_path: Path) -> None:
    """Otherwise the folder would look like a restore that was not finished."""
    assert repo.manifest("v1").status == 200
    file_of(server.data, pushed.blobs[0]).unlink()
    assert command(server.data, "backup", "--to", str(tmp_path / "new")).returncode == 1
    assert list((tmp_path / "new").glob("polly.db*")) == []


def test_usage_counts_all_commits(server: Server, repo: Repo, backup: Path) -> None:
    """Also those that were not added to the total yet when the backup was made."""
    done = command(backup, "usage", "--output", "json")
    found = {each["name"]: each["commits"] for each in json.loads(done.stdout)["repositories"]}
    assert found[repo.name.partition("/")[2]] == 1
    assert server.org in command(backup, "org", "list").stdout


def test_a_backup_of_a_backup(backup: Path, tmp_path: Path) -> None:
    """It is copied as a data folder is, and nothing is left there."""
    before = state(backup)
    done = command(backup, "backup", "--to", str(tmp_path / "second"))
    assert (done.returncode, done.stdout.startswith("Copied 2 blobs")) == (0, True), done.stderr
    assert state(backup) == before
    assert "Nothing is wrong." in command(tmp_path / "second", "check").stdout


def test_a_disk_that_is_mounted_read_only(backup: Path) -> None:
    """A check needs no writing."""
    script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"'
    for words in READING:
        inside = [str(BIN / "polly-server"), *words, "--data", str(backup)]
        whole = ["unshare", "--mount", "sh", "-ec", script, "sh", str(backup), *inside]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_a_change_is_refused(backup: Path, words: tuple[str, ...]) -> None:
    """The message says how to change the registry elsewhere; nothing in the backup changes."""
    before = state(backup)
    done = command(backup, *words, stdin=new_password())
    assert (done.returncode, done.stdout) == (1, "")
    assert f"polly-server restore --from {backup} --data …" in done.stderr
    assert state(backup) == before


def test_a_damaged_backup_is_repaired_by_the_next_one(server: Server, pushed: Image, backup: Path) -> None:
    """The check names the file to delete."""
    digest = sha256(pushed.blobs[0])[7:]
    file = next((backup / "blobs" / "sha256" / digest[:2]).glob(f"{digest}.*"))
    file.write_bytes(bytes(len(pushed.blobs[0])))
    done = command(backup, "check")
    assert done.returncode == 1
    assert f"delete {file}, and make another backup to this folder" in done.stderr
    file.unlink()
    assert "make another backup to this folder" in command(backup, "check").stderr
    assert back_up(server, backup).startswith("Copied 1 blob ")
    assert "Nothing is wrong." in command(backup, "check").stdout


def file_of(folder: Path, content: bytes) -> Path:
    """The file of a blob in a backup or a data folder."""
    digest = sha256(content)[7:]
    return next((folder / "blobs" / "sha256" / digest[:2]).glob(f"{digest}.*"))


def orphan(server: Server, name: str) -> Path:
    """A place for the file of a blob that no row names."""
    folder = server.data / "blobs" / "sha256" / "00"
    folder.mkdir(exist_ok=True)
    return folder / f"{'0' * 64}.{name}"


@pytest.mark.parametrize("change", [-3, None, 5], ids=["shorter", "empty", "longer"])
def test_a_file_of_another_size_is_copied_again(
    server: Server, pushed: Image, backup: Path, change: int | None
) -> None:
    """One damaged file in the backup does not stop later backups; the result says that it was copied again."""
    file = file_of(backup, pushed.blobs[0])
    os.truncate(file, 0 if change is None else file.stat().st_size + change)
    said = back_up(server, backup)
    assert said.startswith("Copied 1 blob ")
    assert "1 blob of the earlier backup had a wrong size and was copied again." in said
    assert file.read_bytes() == pushed.blobs[0]
    assert "had a wrong size" not in back_up(server, backup)
    assert "Nothing is wrong." in command(backup, "check").stdout


def test_a_damaged_data_folder_is_named(server: Server, pushed: Image, backup: Path, tmp_path: Path) -> None:
    """A new backup of it fails, and says how to repair it from an earlier one. Following that works."""
    file_of(server.data, pushed.blobs[0]).write_bytes(b"damaged")
    done = command(server.data, "backup", "--to", str(tmp_path / "second"))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"1 blob is missing or damaged in {server.data}: sha256:" in done.stderr
    assert f"polly-server check --data {server.data} --repair --from …" in done.stderr
    assert command(server.data, "check", "--repair", "--from", str(backup)).returncode == 0
    assert command(server.data, "backup", "--to", str(tmp_path / "second")).returncode == 0


def test_a_damaged_file_without_a_row_is_left_out(server: Server, backup: Path, tmp_path: Path) -> None:
    """The garbage collector deletes it later; a check would not find it, so it must not stop backups."""
    orphan(server, "left").write_bytes(b"damaged")
    assert back_up(server, backup).startswith("Copied 0 blobs")
    back_up(server, tmp_path / "second")
    assert not list((tmp_path / "second").rglob("*.left"))


def test_files_without_a_row_may_vanish(server: Server, repo: Repo, tmp_path: Path) -> None:
    """An upload of a blob that exists deletes its own file at once; that stops no backup."""
    assert repo.manifest("v1").status == 200
    vanishing = orphan(server, "vanishing")
    vanishing.write_bytes(b"the second upload")
    orphan(server, "gone").symlink_to("nothing")  # a file that is deleted between the listing and the next look

    def start(_total: int) -> Callable[[int], None]:
        vanishing.unlink()
        return lambda _count: None

    assert maintenance.backup(server.data, tmp_path / "second", start).blobs == 2
    assert "Nothing is wrong." in command(tmp_path / "second", "check").stdout


def test_a_file_with_a_row_that_vanishes(server: Server, repo: Repo, pushed: Image, tmp_path: Path) -> None:
    """A repair may set it aside while the backup looks; the error names the data folder, not the backup."""
    assert repo.manifest("v1").status == 200
    file = file_of(server.data, pushed.blobs[0])

    def start(_total: int) -> Callable[[int], None]:
        file.unlink()
        return lambda _count: None

    with pytest.raises(Unavailable, match="is missing or damaged in"):
        maintenance.backup(server.data, tmp_path / "second", start)


def test_a_lost_blob_that_a_backup_repairs(server: Server, pushed: Image, backup: Path) -> None:
    """What a check prints about it does not ask to push it and say that it is repaired."""
    file_of(server.data, pushed.blobs[0]).unlink()
    assert command(server.data, "check", "--repair").returncode == 1
    said = command(server.data, "check").stderr
    assert "was lost before this check. Push it again to repair it, or give --repair and --from" in said
    assert "It is still lost; push it again" in command(server.data, "check", "--repair").stderr
    done = command(server.data, "check", "--repair", "--from", str(backup))
    assert (done.returncode, "ush it again" in done.stderr) == (0, False)
    assert "was lost before this check. It is repaired from the backup" in done.stderr


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_restore_leaves_out_what_is_damaged(
    server: Server, repo: Repo, pushed: Image, backup: Path, tmp_path: Path, how: str
) -> None:
    """All else is restored, the images are named, and another backup or a push brings the blob back."""
    whole, restored = tmp_path / "whole", tmp_path / "restored"
    shutil.copytree(backup, whole)
    file = file_of(backup, pushed.blobs[0])
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if how == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    done = command(restored, "restore", "--from", str(backup))
    digest = sha256(pushed.blobs[0])
    assert (done.returncode, "Restored 1 blob " in done.stdout) == (1, True), done.stderr
    assert f"The blob {digest} is missing or damaged in the backup, and was not restored.\n" in done.stderr
    assert f"  {repo.name}:v1@{pushed.digest}\n" in done.stderr
    assert f"polly-server check --data {restored} --repair --from …" in done.stderr
    server.stop()
    first, server.data = server.data, restored
    server.start()
    assert (repo.manifest("v1").status, repo.blob(digest).status) == (200, 404)
    again = command(restored, "check", "--repair", "--from", str(whole))
    assert again.returncode == 0, again.stderr
    assert repo.blob(digest).body == content
    server.stop()
    server.data = first
    server.start()


def test_what_older_versions_left(server: Server, repo: Repo, backup: Path) -> None:
    """They opened the database for writing, and left lock files and an empty folder. The next backup removes these."""
    before = {path.name for path in backup.iterdir()}
    open_engine(backup / "polly.db").dispose()
    for name in ("writer.lock", "collector.lock", "polly.db-shm", "polly.db.part-wal", "polly.db.part-shm"):
        (backup / name).touch()
    (backup / "uploads").mkdir()
    repo.push(image(), "v2")
    assert back_up(server, backup).startswith("Copied 2 blobs")
    assert {path.name for path in backup.iterdir()} == before
    assert "Nothing is wrong." in command(backup, "check").stdout


def test_a_backup_of_an_older_version(backup: Path) -> None:
    """It is not upgraded in place."""
    with contextlib.closing(sqlite.connect(backup / "polly.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.commit()
    before = state(backup)
    done = command(backup, "check")
    assert done.returncode == 1
    assert f"where it is upgraded:\n  polly-server restore --from {backup} --data …" in done.stderr
    assert state(backup) == before


def test_a_folder_that_was_restored_is_no_backup(server: Server, backup: Path, tmp_path: Path) -> None:
    """Whether a server ran there or not: no backup is written to it, and commands change it."""
    restored = tmp_path / "restored"
    polly_server("restore", "--from", str(backup), "--data", str(restored))
    done = command(server.data, "backup", "--to", str(restored))
    assert "is the data folder of a server" in done.stderr
    assert command(restored, "key", "rotate", "--revoke").returncode == 0
    assert command(restored, "org", "create", "more").returncode == 0


def test_a_copy_of_a_data_folder_is_no_backup(tmp_path: Path) -> None:
    """Nor is one that lost its lock files: commands change it as before."""
    made = Server(tmp_path / "data", free_port())
    made.init()
    shutil.copytree(made.data, tmp_path / "copy", ignore=shutil.ignore_patterns("*.lock"))
    assert not is_backup(tmp_path / "copy")
    assert command(tmp_path / "copy", "org", "create", "more").returncode == 0
