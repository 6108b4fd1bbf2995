"""A backup to a folder that holds the backup of another registry is refused, also if that has no good database."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from polly_dockers.db.journal import frames
from polly_dockers.server import data_folder
from support.server import BIN, polly_server

if TYPE_CHECKING:
    from pathlib import Path

HOW = ["missing", "empty", "cut", "no database"]


def back_up(data: Path, copy: Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [str(BIN / "polly-server"), "backup", "--data", str(data), "--to", str(copy)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def damage(copy: Path, how: str) -> None:
    """Damage the database of a backup."""
    place = copy / "polly.db"
    if how == "missing":
        place.unlink()
    elif how == "empty":
        os.truncate(place, 0)
    elif how == "cut":
        os.truncate(place, place.stat().st_size // 2)
    else:
        place.write_bytes(b"of something else")


def files(copy: Path) -> dict[Path, bytes]:
    """The files of a backup, but not its lock, which each backup makes."""
    return {path: path.read_bytes() for path in copy.rglob("*") if path.is_file() and path.name != "backup.lock"}


@pytest.mark.parametrize("how", HOW)
def test_its_journal_stays(data: Path, tmp_path: Path, how: str) -> None:
    """Its journal says whose backup it is: nothing in the folder changes, and the error asks for another folder."""
    other, copy = tmp_path / "other", tmp_path / "b1"
    data_folder.prepare(other)
    polly_server("org", "create", "--data", str(other), "--org", "elsewhere")
    damage(copy, how)
    before = files(copy)
    done = back_up(other, copy)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{copy} has no undamaged database, and the journal of another registry." in done.stderr
    assert "Give each registry its own folder." in done.stderr
    assert files(copy) == before
    assert back_up(data, copy).returncode == 0


@pytest.mark.parametrize("how", HOW)
def test_its_own_registry_may_replace_it(data: Path, tmp_path: Path, how: str) -> None:
    """Also after the registry went on."""
    polly_server("org", "create", "--data", str(data), "--org", "later")
    damage(tmp_path / "b1", how)
    done = back_up(data, tmp_path / "b1")
    assert (done.returncode, "was damaged, and was replaced" in done.stderr) == (0, how != "missing"), done.stderr
    assert "Nothing is wrong." in polly_server("check", "--data", str(tmp_path / "b1"))


def test_nothing_says_whose_it_was(data: Path, tmp_path: Path) -> None:
    """Without a database and a journal, the blobs are used for any registry."""
    copy = tmp_path / "b1"
    (copy / "polly.db").unlink()
    for file in (copy / frames.FOLDER).iterdir():
        file.unlink()
    assert back_up(data, copy).returncode == 0
