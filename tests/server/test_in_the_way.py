"""What lies where a file or a folder of the registry belongs is named in one line, in words for operators."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polly_dockers.config import Config, read_running, write_running
from polly_dockers.system import folders, locks, regular
from support.server import BIN, new_password, polly_server

if TYPE_CHECKING:
    from collections.abc import Callable

INIT = ("init", "--org", "b", "--email", "eve@b.example", "--password-stdin")
STRANGE = ("Errno", "sqlite", "SQLite", "no such table", "directory", "File exists", "Traceback")
"""Words that help no operator."""


def refused(data: Path, *words: str) -> str:
    """Run a command that fails: its error, which is one line without strange words."""
    whole = [str(BIN / "polly-server"), *words, "--data", str(data)]
    done = subprocess.run(whole, input=new_password(), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert all(line.startswith("  ") for line in done.stderr.splitlines()[1:]), done.stderr  # commands to paste
    assert not any(word in done.stderr for word in STRANGE), done.stderr
    return done.stderr


def test_a_backup_with_an_empty_database(data: Path, tmp_path: Path) -> None:
    """It is damaged; following the message writes it again."""
    os.truncate(tmp_path / "b1" / "polly.db", 0)
    error = refused(tmp_path / "new", "restore", "--from", str(tmp_path / "b1"))
    assert "The database of the backup" in error
    assert "is damaged. Nothing was restored." in error
    polly_server("backup", "--data", str(data), "--to", str(tmp_path / "b1"))
    polly_server("restore", "--data", str(tmp_path / "new"), "--from", str(tmp_path / "b1"))


def test_a_folder_named_as_the_database(data: Path, tmp_path: Path) -> None:
    """In a backup and in a data folder."""
    copy = tmp_path / "b1"
    for folder in (copy, data):
        for file in folder.glob("polly.db*"):
            file.unlink()
        (folder / "polly.db").mkdir()
    said = "polly.db is not a file, and should be the database of the registry."
    for error in (
        refused(tmp_path / "new", "restore", "--from", str(copy)),
        refused(data, "backup", "--to", str(tmp_path / "other")),
        refused(copy, "check"),
        refused(data, "run", "--listen", "127.0.0.1:0"),
        refused(data, "org", "list"),
        refused(data, *INIT),
        refused(data, "restore", "--from", str(copy)),
    ):
        assert said in error


def test_a_backup_to_a_folder_with_a_folder_named_as_the_database(data: Path, tmp_path: Path) -> None:
    """It is refused, and the folder stays."""
    (tmp_path / "b1" / "polly.db").unlink()
    (tmp_path / "b1" / "polly.db").mkdir()
    error = refused(data, "backup", "--to", str(tmp_path / "b1"))
    assert f"{tmp_path / 'b1' / 'polly.db'} is not a file" in error


@pytest.mark.parametrize("below", ["", "below"])
def test_a_link_to_nothing(data: Path, tmp_path: Path, below: str) -> None:
    """Such as one to a disk that is not mounted: the message names the link and where it leads."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "not-mounted")
    said = f"{link} is a link to {tmp_path / 'not-mounted'}, which does not exist. Make or mount that folder"
    copy = str(tmp_path / "b1")
    for words in (INIT, ("run", "--listen", "127.0.0.1:0"), ("org", "list"), ("check",), ("restore", "--from", copy)):
        assert said in refused(link / below, *words), words
    assert said in refused(data, "backup", "--to", str(link / below))
    assert said in refused(tmp_path / "new", "restore", "--from", str(link / below))


@pytest.mark.parametrize("name", ["blobs", "journal"])
def test_a_file_named_as_a_folder(data: Path, tmp_path: Path, name: str) -> None:
    """In a backup and in a data folder."""
    copy = tmp_path / "b1"
    for folder in (copy, data):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).touch()
    for words in (("run", "--listen", "127.0.0.1:0"), ("org", "create", "more"), ("check",), ("gc",), ("rebuild",)):
        assert f"{data / name} is a file, and should be a folder" in refused(data, *words), words
    for error in (
        refused(tmp_path / "new", "restore", "--from", str(copy)),
        refused(copy, "check"),
    ):
        assert f"{copy / name} is a file, and should be a folder" in error
    (data / name).unlink()
    assert f"{copy / name} is a file" in refused(data, "backup", "--to", str(copy))


@pytest.mark.parametrize("command", ["init", "restore"])
def test_what_a_new_folder_may_hold(data: Path, tmp_path: Path, command: str) -> None:
    """What file systems and desktops put into an empty folder is no obstacle, and files of projects are."""
    assert data.is_dir()
    new = tmp_path / "new"
    new.mkdir()
    words = INIT if command == "init" else ("restore", "--from", str(tmp_path / "b1"))
    for name in ("poetry.lock", "pyproject.toml", "Cargo.lock", "a.db"):
        (new / name).touch()
        assert f"holds {name}, which is not part of a registry" in refused(new, *words)
        (new / name).unlink()
    for name in (".DS_Store", "aquota.user", "aquota.group", ".nfs000000000001", "polly.toml"):
        (new / name).touch()
    for name in (".snapshot", "lost+found", "@eaDir"):
        (new / name).mkdir()
    polly_server(*words, "--data", str(new), stdin=new_password() if command == "init" else "")


def test_all_files_of_a_registry_are_known(data: Path) -> None:
    """A data folder in use holds no name that a new one may not hold."""
    polly_server("gc", "--data", str(data))
    folders.refuse_others(data, "no such file")


@pytest.mark.parametrize("name", ["backup.lock", "collector.lock", "restoring", "running.toml", "server.lock"])
def test_a_pipe_named_as_a_file_of_the_registry(data: Path, tmp_path: Path, name: str) -> None:
    """Nothing waits for its other end, in a data folder or a backup: the message names it."""
    copy = tmp_path / "b1"
    for folder in (copy, data):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    for place, error in (
        (data, refused(data, "check")),
        (data, refused(data, "backup", "--to", str(tmp_path / "other"))),
        (copy, refused(tmp_path / "new", "restore", "--from", str(copy))),
        (copy, refused(copy, "backup", "--to", str(tmp_path / "other"))),
    ):
        assert f"{place / name} is not a file, and should be one of the registry. Move it away" in error


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_only_a_regular_file_is_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A lock, and a file that is read, is opened without waiting, and is refused if it is something else."""
    make(place := tmp_path / "place")
    with pytest.raises(OSError, match="place is not a regular file"):
        locks.open_file(place)
    with pytest.raises(OSError, match="place is not a regular file"):
        regular.read(place)


def test_the_settings_of_a_server_are_written_over_a_pipe(tmp_path: Path) -> None:
    """The name of the new file may be taken by something that would keep the server waiting."""
    os.mkfifo(tmp_path / "running.new")
    write_running(Config(data=tmp_path))
    assert "trash_days" in read_running(tmp_path)
