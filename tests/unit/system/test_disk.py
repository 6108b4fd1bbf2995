"""What clients are told of an error of the system, in every part of the server."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from polly_dockers.db import disk_errors
from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.system import disk
from polly_dockers.system.ownership import AccessDenied


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageFull),
        (errno.EACCES, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.EMFILE, Unavailable),
        (errno.ENOLCK, Unavailable),
    ],
)
def test_the_database_and_the_blobs_tell_the_same(number: int, kind: type[Exception]) -> None:
    """Only a disk that is full or broken is one: too many open files, for instance, are Unavailable."""
    error = OSError(number, os.strerror(number), "/data/file")
    told = disk_errors.reported(error)
    assert type(told) is kind
    with pytest.raises(kind, match=str(told)), disk.reporting():
        raise error


def test_a_missing_file_is_for_the_caller() -> None:
    """Only the caller knows what it means."""
    with pytest.raises(FileNotFoundError), disk.reporting():
        Path("/missing").stat()
