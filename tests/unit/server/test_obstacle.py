"""Files that come and go during pushes are not reported as a lack of permission."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from polly_dockers.errors import StorageFull
from polly_dockers.server import data_folder
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACES = ("uploads/0123", "journal/1.snapshot.log.part", "polly.db-wal", "polly.db-shm", "blobs/sha256")
COMING_AND_GOING = pytest.mark.parametrize("name", PLACES)


@contextlib.contextmanager
def gone_when_asked(folder: Path, name: str, patched: pytest.MonkeyPatch) -> Iterator[None]:
    """A file that is there when the folder is listed, and not when it is asked about."""
    place, access = folder / name, os.access
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()

    def ask(path: Path, mode: int, *, effective_ids: bool) -> bool:
        if path == place:
            place.unlink(missing_ok=True)
        return access(path, mode, effective_ids=effective_ids)

    with patched.context() as now:
        now.setattr(os, "access", ask)
        yield
    assert not place.exists()


@COMING_AND_GOING
def test_what_ended_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """If a listed file is gone, nothing is reported."""
    with gone_when_asked(tmp_path, name, monkeypatch):
        assert ownership.obstacle(tmp_path) is None


@COMING_AND_GOING
def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A full disk is reported as such, even if a file disappears meanwhile."""
    full = StorageFull("The disk is full.")
    with (
        gone_when_asked(tmp_path, name, monkeypatch),
        pytest.raises(StorageFull),
        data_folder.explained(tmp_path),
    ):
        raise full


def test_a_folder_that_goes_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders such as ``damaged`` and those of the journal may be deleted meanwhile."""
    (tmp_path / "journal").mkdir()
    asked = os.access

    def ask(path: Path, mode: int, *, effective_ids: bool) -> bool:
        answer = asked(path, mode, effective_ids=effective_ids)
        if path == tmp_path / "journal":
            path.rmdir()
        return answer

    monkeypatch.setattr(os, "access", ask)
    assert ownership.obstacle(tmp_path) is None


def test_what_is_there_and_may_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that exists and cannot be read is still reported."""
    (tmp_path / "uploads").mkdir()
    place = tmp_path / "uploads" / "0123"
    place.touch(mode=0o000)
    asked = os.access
    monkeypatch.setattr(os, "access", lambda path, *rest, **more: path != place and asked(path, *rest, **more))
    assert str(place) in (ownership.obstacle(tmp_path) or "")
