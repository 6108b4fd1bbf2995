"""Which file systems are synced as a whole, and how much waits to be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from polly_dockers.blobs import linux


@pytest.mark.parametrize(("release", "able"), [("5.16.20-generic", False), ("5.17.0", True), ("6.12.1+deb13", True)])
def test_a_kernel_that_hides_errors_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, *, able: bool
) -> None:
    """Before Linux 5.8, syncfs does not report bytes that could not be written."""
    monkeypatch.setattr(linux, "_has_journal", lambda _: True)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    fd = linux.open_to_sync(tmp_path)
    assert (fd is not None) == able
    if fd is not None:
        linux.sync_file_system(fd)
        os.close(fd)


def test_only_known_file_systems_are_synced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On others such a sync may cost much more than that of a file."""
    monkeypatch.setattr(linux, "_type_of", lambda _: 0x9123683E)  # Btrfs
    assert linux.open_to_sync(tmp_path) is None


def test_a_folder_that_takes_no_changes_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how a journal that has failed shows itself."""

    def utime(_: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(linux, "_has_journal", lambda _: True)
    monkeypatch.setattr(os, "utime", utime)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Read-only"):
        linux.open_to_sync(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_sync_that_fails_is_an_error() -> None:
    """The number of the error is that of the system."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.sync_file_system(-1)


def test_what_waits_to_be_written_is_known() -> None:
    """The bytes of all file systems, as /proc/meminfo has them."""
    assert 0 <= linux.dirty() < 1 << 50
