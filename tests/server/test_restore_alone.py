"""A restore or a backup has its folder for itself: what else would write there is refused, and says what to do."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from polly_dockers.db.sqlite import SERVER_LOCK
from polly_dockers.errors import Unavailable
from polly_dockers.maintenance import backup, backup_folder, restoring
from polly_dockers.system import locks
from support.registry_rows import held
from support.server import BIN, new_password, polly_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INIT = ("init", "--org", "other", "--email", "eve@b.example", "--password-stdin")
MAKES = [INIT, ("run", "--listen", "127.0.0.1:0"), ("run", "--demo", "--listen", "127.0.0.1:0")]
"""Commands that would make a database."""
USES = [("org", "list"), ("key", "rotate"), ("gc",), ("check",)]


class Stopped(BaseException):
    """A restore that is stopped in the middle."""


def refused(folder: Path, *command: str) -> str:
    """Run a command on the folder, which must fail; its error."""
    line = [str(BIN / "polly-server"), *command, "--data", str(folder)]
    done = subprocess.run(line, input=new_password(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done
    return done.stderr


def restore(source: Path, folder: Path) -> None:
    """Restore in this process."""
    backup.restore(source, folder, lambda _: lambda _: None)


def at(monkeypatch: pytest.MonkeyPatch, step: str, what: Callable[[], None]) -> None:
    """Do something before a step of backups and restores."""
    original = getattr(backup, step)

    def wrapped(*arguments: object) -> object:
        monkeypatch.setattr(backup, step, original)
        what()
        return original(*arguments)

    monkeypatch.setattr(backup, step, wrapped)


@pytest.mark.parametrize("step", ["_check_journal", "_copy_blobs"])
def test_nothing_makes_a_registry_while_it_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """init, run, rebuild, another restore and all other commands are refused; the restore ends as if it was alone."""
    new, errors = tmp_path / "new", list[str]()
    others = [*MAKES, *USES, ("rebuild",), ("restore", "--from", str(tmp_path / "b1"))]
    if step == "_check_journal":  # nothing but a part of the database is there
        others = [INIT, ("org", "list")]
    at(monkeypatch, step, lambda: errors.extend(refused(new, *command) for command in others))
    restore(tmp_path / "b1", new)
    assert len(errors) == len(others)
    for command, error in zip(others, errors, strict=True):
        if command != ("rebuild",) or "no journal" not in error:
            assert "restore to" in error, (command, error)
            assert "running" in error, (command, error)
    assert held(new) == held(data)


def test_one_that_was_left_unfinished(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command names the three ways on; after the restore was run again, everything works."""
    new = tmp_path / "new"

    def stop() -> None:
        raise Stopped

    at(monkeypatch, "_copy_blobs", stop)
    with pytest.raises(Stopped):
        restore(tmp_path / "b1", new)
    for command in [*MAKES, *USES, ("backup", "--to", str(tmp_path / "b2"))]:
        error = refused(new, *command)
        for part in (
            "was not finished",
            "\n  polly-server restore --from",
            "\n  polly-server rebuild --data",
            "\n  mv ",
        ):
            assert part in error, (command, error)
    polly_server("restore", "--data", str(new), "--from", str(tmp_path / "b1"))
    assert held(new) == held(data)
    assert "first" in polly_server("org", "list", "--data", str(new))


def test_a_rebuild_ends_one_that_was_left_unfinished(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the backup is gone, what was restored is made a registry, which every command accepts."""
    new = tmp_path / "new"

    def stop() -> None:
        raise Stopped

    at(monkeypatch, "_mark_lost", stop)
    with pytest.raises(Stopped):
        restore(tmp_path / "b1", new)
    polly_server("rebuild", "--data", str(new))
    assert not list(new.glob("*.part"))
    assert not (new / restoring.MARK).exists()
    assert held(new)[0] == held(data)[0]
    polly_server("key", "rotate", "--data", str(new))


def test_a_database_that_appears_is_not_overwritten(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that knows nothing of the lock made it: it is looked for again before the rename."""
    assert data.is_dir()
    new = tmp_path / "new"

    def make() -> None:
        for name in ("polly.db", "polly.db-wal"):
            (new / name).write_bytes(b"x")

    at(monkeypatch, "_mark_lost", make)
    with pytest.raises(Unavailable, match="holds a registry already"):
        restore(tmp_path / "b1", new)
    assert (new / "polly.db").read_bytes() == (new / "polly.db-wal").read_bytes() == b"x"


def test_a_server_that_lost_its_database(data: Path, tmp_path: Path) -> None:
    """It has to be stopped first: its workers would still write to the lost one."""
    lock = locks.open_file(data / SERVER_LOCK)
    locks.try_acquire(lock, shared=True)
    for file in data.glob("polly.db*"):
        file.unlink()
    assert "Stop the server first" in refused(data, "restore", "--from", str(tmp_path / "b1"))
    os.close(lock)
    polly_server("restore", "--data", str(data), "--from", str(tmp_path / "b1"))


def test_one_backup_at_a_time(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a backup is written, no other one to that folder begins, and nothing is restored from it."""
    errors = list[str]()

    def others() -> None:
        errors.append(refused(data, "backup", "--to", str(tmp_path / "b1")))
        errors.append(refused(tmp_path / "new", "restore", "--from", str(tmp_path / "b1")))

    at(monkeypatch, "_copy_blobs", others)
    backup.backup(data, tmp_path / "b1", lambda _: lambda _: None)
    assert "Another backup to" in errors[0]
    assert "A backup is being written to" in errors[1]
    at(monkeypatch, "_copy_blobs", lambda: errors.append(refused(data, "backup", "--to", str(tmp_path / "b1"))))
    restore(tmp_path / "b1", tmp_path / "new")
    assert "a restore from it" in errors[2]
    (tmp_path / "b1" / backup_folder.LOCK).unlink()  # the backup of an earlier version
    restore(tmp_path / "b1", tmp_path / "newer")
    assert held(tmp_path / "newer") == held(data)
