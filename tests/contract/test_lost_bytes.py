"""Bytes of an upload that Linux has dropped from memory between two requests are not taken for written."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from polly_dockers.blobs import linux, upload_digest
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.errors import StorageFull, Unavailable
from support.uploading import DIGEST, HELLO, begin, commit, read, uploads_left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileBlobStore]:
    """A store of files of which nothing stays in memory."""
    monkeypatch.setattr(linux, "has_left_memory", lambda *_: True)
    store = FileBlobStore(tmp_path)
    yield store
    store.close()


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("ending", ["keep", "finish"])
@pytest.mark.parametrize("digest", ["stored", "in memory"])
async def test_bytes_that_left_memory_are_read_again(
    stored: FileBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str, ending: str, *, lost: bool
) -> None:
    """If Linux drops an upload's file, the errors of the disk are dropped too. What was lost ends the upload.

    That does not need a file system that can store the digest, if the process still has it.
    """
    if digest == "in memory":
        monkeypatch.setattr(upload_digest, "write", lambda *_: None)
    hasher = hashlib.sha256()
    await stored.start("upload")
    async with stored.append("upload") as segment:
        await segment.keep([b"hello"], hasher)
    if lost:
        (tmp_path / "uploads" / "upload").write_bytes(b"\0ello")
    with pytest.raises(Unavailable, match="lost") if lost else nullcontext():
        async with stored.append("upload") as segment:
            if ending == "keep":
                await segment.keep([], hasher)
            else:
                key, _ = await segment.finish([b", store"], hasher, DIGEST)
                assert await read(stored, key) == HELLO
    assert uploads_left(stored) == (["upload"] if ending == "keep" and not lost else [])


async def test_an_upload_that_can_not_be_read_again_is_over(
    stored: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of its bytes are in memory after that, so the next request would not try again."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    await stored.start("upload")
    async with stored.append("upload") as segment:
        await segment.keep([b"hello"], hashlib.sha256())
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        with pytest.raises(StorageFull):
            await commit(stored, b", store", digest=DIGEST)
    assert uploads_left(stored) == []


async def test_an_upload_without_a_stored_digest_is_read_when_it_is_finished(stored: FileBlobStore) -> None:
    """There is nothing to compare its bytes with before, as after the server was killed."""
    await begin(stored, b"hello")
    assert await read(stored, await commit(stored, b", store", digest=DIGEST)) == HELLO
