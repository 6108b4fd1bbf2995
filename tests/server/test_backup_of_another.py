"""A backup to a folder that holds the backup of another registry is refused, also if that has no good database."""

from __future__ import annotations

import os
import shutil
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


@pytest.fixture
def mixed(data: Path, tmp_path: Path) -> Path:
    """The backup of ``data`` with the journal of another registry."""
    other, copy = tmp_path / "other", tmp_path / "mixed"
    data_folder.prepare(other)
    polly_server("org", "create", "--data", str(other), "--org", "elsewhere")
    shutil.copytree(tmp_path / "b1", copy)
    shutil.rmtree(copy / frames.FOLDER)
    shutil.copytree(other / frames.FOLDER, copy / frames.FOLDER)
    assert data.is_dir()
    return copy


def test_a_journal_of_another_beside_its_own_database(data: Path, mixed: Path) -> None:
    """It may be all that is left of the other registry, so it is not replaced, and the backup is not copied either."""
    before = files(mixed)
    done = back_up(data, mixed)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{mixed} has a database, and the journal of another registry. Nothing in it was changed." in done.stderr
    done = back_up(mixed, mixed.with_name("b3"))
    assert (done.returncode, "has another history than its journal" in done.stderr) == (1, True)
    assert files(mixed) == before


@pytest.mark.parametrize("by_hand", [False, True])
def test_both_registries_of_a_mixed_backup_can_be_restored(data: Path, mixed: Path, *, by_hand: bool) -> None:
    """A check and a restore say how, and propose no server on the backup. By hand: from a data folder."""
    if by_hand:
        shutil.copy(data / "polly.db", mixed / "polly.db")
    check = [str(BIN / "polly-server"), "check", "--data", str(mixed)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, f"The database of the backup {mixed} has another history" in done.stderr) == (1, True), (
        done
    )
    new = mixed.with_name("new")
    restore = [str(BIN / "polly-server"), "restore", "--from", str(mixed), "--data", str(new)]
    refused = subprocess.run(restore, capture_output=True, text=True, check=False)
    assert (refused.returncode, new.exists()) == (1, False)
    assert refused.stderr.partition("has another history")[2] in done.stderr
    commands = [line.strip() for line in done.stderr.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in commands] == [
        "polly-server",
        "mv",
        "polly-server",
        "install",
        "cp",
        "polly-server",
    ]
    assert not [line for line in commands if line.endswith(f"--data {mixed}") or " run " in line]
    (mixed / "blobs").mkdir(exist_ok=True)
    names = {}
    for name, chosen in (("journal", commands[3:]), ("database", commands[1:3])):
        new = mixed.with_name(name)
        lines = "\n".join(chosen).replace("…", str(new)).replace("polly-server", str(BIN / "polly-server"))
        subprocess.run(["sh", "-ec", lines], check=True)
        names[name] = [
            word for word in ("first", "elsewhere") if word in polly_server("org", "list", "--data", str(new))
        ]
    assert names == {"journal": ["elsewhere"], "database": ["first"]}
