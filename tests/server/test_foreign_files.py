"""Other programs put files and folders of their own among the blobs: nothing opens, counts, copies or deletes them."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.server import BIN
from support.wire_client import Image, Person, Repo, image, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.server import Server

SECONDS = 100
"""After which a command that waits for the other end of a FIFO has failed its test."""
OTHER = "0" * 64
"""A digest of no blob."""


def folder(place: Path) -> None:
    """A folder with a file."""
    place.mkdir()
    (place / "thumb.jpg").write_bytes(b"x")


def listening(place: Path) -> None:
    """A socket. The path of a socket is short, so it is made elsewhere and moved."""
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(place.parent, os.O_RDONLY)
        try:
            made.bind(f"/proc/self/fd/{here}/{place.name[:20]}")
        finally:
            os.close(here)
    (place.parent / place.name[:20]).rename(place)


MAKE: dict[str, Callable[[Path], None]] = {
    "folder": folder,
    "fifo": os.mkfifo,
    "socket": listening,
    "file": Path.touch,
    "link": lambda place: place.symlink_to("nothing"),
}


def litter(data: Path) -> dict[Path, int]:
    """Put everything everywhere among the blobs; the modes of all that."""
    made: dict[Path, int] = {}
    blobs = data / "blobs"
    inside = next(path for path in (blobs / "sha256").iterdir())
    names = {
        blobs: ("@eaDir", ".DS_Store", "lost+found", "md5", "a.b"),
        blobs / "sha256": ("@eaDir", ".DS_Store", "lost+found", "xx", f"{OTHER}.x"),
        inside: ("@eaDir", ".DS_Store", "lost+found", OTHER, f".{OTHER}.swp", f"{inside.name}{OTHER[2:]}.a~"),
    }
    for place, wanted in names.items():
        for at, name in enumerate(wanted):
            for how, make in MAKE.items():
                entry = place / name if at % len(MAKE) == list(MAKE).index(how) else place / f"{name}-{how}"
                make(entry)
                made[entry] = entry.lstat().st_mode
    for how, make in MAKE.items():
        if how not in {"file", "link"}:
            entry = inside / f"{inside.name}{OTHER[2:]}.{how}"
            make(entry)
            made[entry] = entry.lstat().st_mode
    return made


def litter_journal(data: Path) -> dict[Path, int]:
    """Put things into the folder of the journal, some of them with the name of one of its files; their modes."""
    place = data / "journal"
    (place / "abc.log").write_text("x")
    (place / f"{5:020}.log.txt").write_text("x")
    for at, how in enumerate(("folder", "fifo", "socket")):
        MAKE[how](place / f"{at}{9:019}.log")
    return {path: path.lstat().st_mode for path in place.iterdir() if path.lstat().st_size < 2 or not path.is_file()}


def command(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of polly-server on the folder."""
    whole = [str(BIN / "polly-server"), *words, "--data", str(data)]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=SECONDS)


def file_of(data: Path, content: bytes) -> Path:
    """The file of a blob."""
    digest = sha256(content)[7:]
    return next((data / "blobs" / "sha256" / digest[:2]).glob(f"{digest}.*"))


def test_in_a_backup(server: Server, repo: Repo, pushed: Image, tmp_path: Path) -> None:
    """A check, a restore and the next backup work, and leave them there."""
    copy, new = tmp_path / "copy", tmp_path / "new"
    assert command(server.data, "backup", "--to", str(copy)).returncode == 0
    made = litter(copy)
    (copy / "journal" / "@eaDir").mkdir()
    made |= litter_journal(copy)
    (copy / "@eaDir").mkdir()
    checked = command(copy, "check")
    assert (checked.returncode, "no image uses, which are deleted later: 0. Nothing" in checked.stdout) == (0, True)
    restored = command(new, "restore", "--from", str(copy))
    assert (restored.returncode, "Restored 2 blobs" in restored.stdout) == (0, True), restored.stderr
    repo.push(image(), "v2")
    done = command(server.data, "backup", "--to", str(copy))
    assert (done.returncode, "Copied 2 blobs" in done.stdout) == (0, True), done.stderr
    assert {path: path.lstat().st_mode for path in made} == made
    assert file_of(new, pushed.blobs[0]).read_bytes() == pushed.blobs[0]
    again = command(server.data, "check", "--repair", "--from", str(copy))
    assert again.returncode == 0, again.stderr


def test_in_a_data_folder(server: Server, repo: Repo, tmp_path: Path) -> None:
    """A server starts, serves and collects garbage; each command works, a rebuild too. They stay there."""
    server.stop()
    made = litter(server.data)
    for place in ("uploads", "journal"):
        (server.data / place / "@eaDir").mkdir()
    made |= litter_journal(server.data)
    for words in (("check",), ("check", "--repair"), ("usage",), ("gc", "--dry-run"), ("gc",)):
        done = command(server.data, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert "no image uses, which are deleted later: 0. Nothing" in command(server.data, "check").stdout
    assert command(server.data, "backup", "--to", str(tmp_path / "copy")).stdout.startswith("Copied 2 blobs")
    server.lose_database()
    done = command(server.data, "rebuild")
    assert (done.returncode, "and 2 blobs in the database" in done.stdout) == (0, True), done
    server.start()
    server.give_admin_back()
    name = repo.name.partition("/")[2]
    assert Person(server.port, server.org, *server.admin).repo(name).manifest("v1").status == 200
    assert {path: path.lstat().st_mode for path in made} == made


def test_a_backup_that_names_other_files(server: Server, repo: Repo, tmp_path: Path) -> None:
    """A database can name any file of the machine as a blob. A restore refuses it, and a server does not serve it."""
    copy, secret = tmp_path / "copy", tmp_path / "secret"
    secret.write_bytes(b"secret")
    assert command(server.data, "backup", "--to", str(copy)).returncode == 0
    digest = str(repo.manifest("v1").json()["config"]["digest"])
    for data, key in ((copy, "../../secret"), (server.data, f"../../{secret.name}")):
        with sqlite3.connect(data / "polly.db") as connection:
            connection.execute("UPDATE blobs SET storage_key = ?, size = 6 WHERE digest = ?", (key, digest))
            connection.execute("INSERT INTO tombstones (storage_key, not_before) VALUES (?, 1)", (key,))
        connection.close()
    done = command(tmp_path / "new", "restore", "--from", str(copy))
    assert (done.returncode, "names a file that is not a blob: '../../secret'" in done.stderr) == (1, True), done.stderr
    assert repo.blob(digest).status == 500
    assert command(server.data, "gc").returncode == 0
    checked = command(server.data, "check", "--repair")
    assert "has no file ../../secret. It is repaired from sha256/" in checked.stderr
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("how", ["folder", "fifo", "socket"])
def test_in_the_place_of_a_blob(server: Server, repo: Repo, pushed: Image, tmp_path: Path, how: str) -> None:
    """The blob counts as missing everywhere; in a backup, the next one copies it or names what is in the way."""
    copy, content = tmp_path / "copy", pushed.blobs[0]
    assert command(server.data, "backup", "--to", str(copy)).returncode == 0
    in_copy, here = file_of(copy, content), file_of(server.data, content)
    in_copy.unlink()
    MAKE[how](in_copy)
    assert "has no file" in command(copy, "check").stderr
    restored = command(tmp_path / "new", "restore", "--from", str(copy))
    assert (restored.returncode, "is missing or damaged in the backup" in restored.stderr) == (1, True)
    done = command(server.data, "backup", "--to", str(copy))
    if how == "folder":
        assert f"{in_copy} is a folder, where a file of the registry belongs. Move it away" in done.stderr
        shutil.rmtree(in_copy)
        done = command(server.data, "backup", "--to", str(copy))
    assert (done.returncode, in_copy.read_bytes()) == (0, content), done.stderr
    here.unlink()
    MAKE[how](here)
    assert repo.blob(sha256(content)).status == 500
    assert "has no file" in command(server.data, "check").stderr
    failed = command(server.data, "backup", "--to", str(tmp_path / "second"))
    assert (failed.returncode, "is missing or damaged in" in failed.stderr) == (1, True)
    assert command(server.data, "check", "--repair", "--from", str(copy)).returncode == 0
    assert repo.blob(sha256(content)).body == content


def test_an_empty_disk_is_mounted_for_the_blobs(tmp_path: Path) -> None:
    """Its lost+found does not look like a registry that lost its database."""
    data = tmp_path / "data"
    (data / "blobs" / "lost+found" / "x").mkdir(parents=True)
    (data / "blobs" / "lost+found" / "x" / "y").touch()
    done = command(data, "org", "list")
    assert (done.returncode, "There is no registry in" in done.stderr) == (1, True), done.stderr
