"""Each folder that is made for a registry survives a power failure: the folder above it is synced."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest

from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.db.journal import frames, records
from polly_dockers.server import data_folder
from polly_dockers.system import durable

KEY = f"sha256/{'a' * 2}/{'a' * 64}.b"


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The folders that were made, and whose names were not synced since."""
    left, sync, mkdir = set[Path](), durable.sync, Path.mkdir

    def synced(path: Path) -> None:
        sync(path)
        left.difference_update([each for each in left if each.parent == path])

    def made(path: Path, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        missing = [each for each in (path, *path.parents) if not each.exists()]
        mkdir(path, mode, parents=parents, exist_ok=exist_ok)
        left.update(missing)

    monkeypatch.setattr(durable, "sync", synced)
    monkeypatch.setattr(Path, "mkdir", made)
    return left


def test_a_new_data_folder(tmp_path: Path, unsynced: set[Path]) -> None:
    """Also the folders above it."""
    data_folder.prepare(tmp_path / "x" / "y" / "data")
    assert unsynced == set()


def test_folders_of_a_store(tmp_path: Path, unsynced: set[Path]) -> None:
    """Also the one of damaged blobs."""
    with contextlib.closing(FileBlobStore(tmp_path)) as store:
        (tmp_path / "blobs" / KEY).parent.mkdir(parents=True)
        unsynced.clear()
        (tmp_path / "blobs" / KEY).touch()
        asyncio.run(store.set_aside(KEY))
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    assert unsynced == set()


def test_the_folder_of_the_journal(tmp_path: Path, unsynced: set[Path]) -> None:
    """Whether a start tries to write there, or a change is appended."""
    frames.check(tmp_path)
    assert unsynced == set()
    shutil.rmtree(tmp_path / frames.FOLDER)
    with contextlib.closing(frames.Journal(tmp_path)) as journal:
        journal.append(1, 0, [records.UserMade(1, "ann@acme.example", 1)])
    assert unsynced == set()


def test_a_data_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """A server whose disk was unmounted must not write its journal to the disk below."""
    with contextlib.closing(frames.Journal(tmp_path / "gone")) as journal, pytest.raises(FileNotFoundError):
        journal.append(1, 0, [records.UserMade(1, "ann@acme.example", 1)])
    assert not (tmp_path / "gone").exists()
