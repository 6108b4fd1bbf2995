"""Files that are only named like those of the journal, and files that were damaged, cost nothing that others hold."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from polly_dockers.auth import members
from polly_dockers.db.journal import compaction, frames
from polly_dockers.errors import Unavailable
from polly_dockers.maintenance import backup, histories, rebuild
from polly_dockers.server import data_folder
from support.registry_rows import held

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

LAST = 2**63 - 1
"""The largest number that the database can store."""
NUMBERS = (0, LAST - 1, LAST, LAST + 1, 10**20 - 1)


def add(data: Path, name: str) -> None:
    """Make an organisation."""

    def make(connection: Connection) -> None:
        members.create_organisation(connection, name)

    data_folder.transaction(data, make)


def back_up(data: Path, copy: Path) -> backup.Copied:
    """Copy the data folder."""
    return backup.backup(data, copy, lambda _: lambda _: None)


def lose_database(data: Path) -> None:
    """Delete it."""
    for file in data.glob("polly.db*"):
        file.unlink()


def rebuilt(data: Path, place: Path) -> list[list[object]]:
    """What a rebuild makes of the journal alone."""
    shutil.copytree(data, place, ignore=shutil.ignore_patterns("polly.db*"))
    rebuild.rebuild(place)
    return held(place)


def journal(data: Path) -> set[str]:
    """The names of the files of the journal."""
    return {path.name for path in (data / frames.FOLDER).iterdir()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose journal has a snapshot and a file."""
    folder = tmp_path / "data"
    data_folder.prepare(folder)
    add(folder, "one")
    compaction.compact(folder, lambda _: None)
    add(folder, "two")
    add(folder, "three")
    assert len(journal(folder)) == 2
    return folder


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".log", b""), (".log", b"x"), (frames.SNAPSHOT, b""), (frames.SNAPSHOT, frames.frame(5, 0, []))],
)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_that_is_only_named_like_one(
    data: Path, tmp_path: Path, number: int, suffix: str, content: bytes
) -> None:
    """A server starts, a compaction deletes nothing that is needed, and a backup has the whole journal."""
    copy, stray = tmp_path / "copy", data / frames.FOLDER / f"{number:020}{suffix}"
    back_up(data, copy)
    before = journal(copy)
    stray.write_bytes(content)
    assert histories.difference(data) == ""
    assert back_up(data, copy).journal_is_whole
    assert before <= journal(copy)
    data_folder.prepare(data)
    add(data, "four")
    assert rebuilt(data, tmp_path / "before") == held(data)
    compaction.compact(data, lambda _: None)
    add(data, "five")
    assert rebuilt(data, tmp_path / "after") == held(data)
    assert back_up(data, copy).journal_is_whole
    assert rebuilt(copy, tmp_path / "from-copy") == held(data)


def test_an_empty_file_comes_first(tmp_path: Path) -> None:
    """A backup copies the files after it, and keeps those of an earlier one."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    data_folder.prepare(data)
    add(data, "one")
    back_up(data, copy)
    (data / frames.FOLDER / f"{0:020}.log").touch()
    for name in ("two", "three"):
        assert back_up(data, copy).journal_is_whole
        assert rebuilt(copy, tmp_path / f"before-{name}") == held(data)
        add(data, name)


def test_a_snapshot_under_another_name(data: Path, tmp_path: Path) -> None:
    """A copy of it with a later number hides nothing."""
    (snapshot,) = (path for path in frames.listed(data / frames.FOLDER) if frames.is_snapshot(path))
    shutil.copy(snapshot, snapshot.with_name(f"{frames.last(data) + 5:020}{frames.SNAPSHOT}"))
    assert rebuilt(data, tmp_path / "rebuilt") == held(data)


def test_text_that_looks_like_the_end_of_a_snapshot(tmp_path: Path) -> None:
    """It hides neither the end that is there, nor makes an error."""
    place = tmp_path / frames.FOLDER / f"{frames.FIRST:020}{frames.SNAPSHOT}"
    place.parent.mkdir()
    fakes = frames.frame(7, 0, []) + frames.HEAD.pack(frames.MAGIC, 1, 2_212_294_583) + b"1" + frames.MAGIC
    place.write_bytes(frames.frame(1, 0, []) + frames.frame(frames.FIRST, 1, [fakes]))  # type: ignore[list-item]
    assert frames.last(tmp_path) == frames.FIRST
    os.truncate(place, len(frames.frame(1, 0, [])) + 20)
    assert frames.last(tmp_path) == 0


def test_a_backup_keeps_what_a_damaged_journal_lacks(data: Path, tmp_path: Path) -> None:
    """A file that was cut since the earlier backup does not replace its copy, and nothing of the copy is deleted."""
    copy = tmp_path / "copy"
    back_up(data, copy)
    whole = held(data)
    cut = frames.listed(data / frames.FOLDER)[-1]
    os.truncate(cut, cut.stat().st_size - 1)
    back_up(data, copy)
    assert rebuilt(copy, tmp_path / "rebuilt") == whole


@pytest.mark.parametrize("alone", [True, False])
def test_a_damaged_snapshot_and_no_database(data: Path, alone: bool) -> None:  # noqa: FBT001 - a parameter
    """A rebuild is refused: it would make a registry with less in it, or nothing. The snapshot stays."""
    snapshot, file = frames.listed(data / frames.FOLDER)
    os.truncate(snapshot, snapshot.stat().st_size - 1)
    if alone:
        file.unlink()
    lose_database(data)
    with pytest.raises(Unavailable, match=r"The journal of .* is damaged: it lacks"):
        rebuild.rebuild(data)
    assert snapshot.exists()


def test_a_damaged_snapshot_is_written_again(data: Path, tmp_path: Path) -> None:
    """The next start makes a new one from the database."""
    snapshot = frames.listed(data / frames.FOLDER)[0]
    os.truncate(snapshot, snapshot.stat().st_size - 1)
    assert histories.difference(data) == histories.JOURNAL_LACKS
    data_folder.prepare(data)
    assert rebuilt(data, tmp_path / "rebuilt") == held(data)


def test_a_linked_file_of_a_backup(data: Path, tmp_path: Path) -> None:
    """Nobody reads a link in a journal, so the next backup replaces it, and leaves the file that it leads to."""
    copy = tmp_path / "copy"
    back_up(data, copy)
    for name in journal(copy):
        (copy / frames.FOLDER / name).rename(tmp_path / name)
        (copy / frames.FOLDER / name).symlink_to(tmp_path / name)
    add(data, "four")
    assert back_up(data, copy).journal_is_whole
    assert journal(copy) == journal(data)
    assert not any(path.is_symlink() for path in (copy / frames.FOLDER).iterdir())
    assert rebuilt(copy, tmp_path / "again") == held(data)
    assert all((tmp_path / name).is_file() for name in journal(copy))


@pytest.mark.parametrize("end", ["", ".part"])
def test_a_folder_in_the_place_of_a_file_of_a_backup(data: Path, tmp_path: Path, end: str) -> None:
    """The next backup names the folder and leaves no file behind. It works when the folder is gone."""
    copy = tmp_path / "copy"
    back_up(data, copy)
    place = copy / frames.FOLDER / max(journal(copy))
    place.unlink()
    place = place.with_name(place.name + end)
    place.mkdir()
    add(data, "four")
    with pytest.raises(Unavailable, match=f"{place} is a folder, where a file of the registry belongs. Move it away"):
        back_up(data, copy)
    assert list(copy.rglob("*.part")) == [place] * bool(end)
    place.rmdir()
    assert back_up(data, copy).journal_is_whole
