"""18: a disk that loses what was written, while uploads share their syncs: what is lost is never taken for stored."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import threading
from concurrent import futures
from typing import TYPE_CHECKING

import pytest

from failures.client import Pusher, check, kill, mounted, run, verify
from failures.serving import serving
from failures.tracer import SLOW, trace
from polly_dockers.blobs import filesystem, linux
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.errors import StorageFull, Unavailable
from support.uploading import begin, commit, keep, push, read, uploads_left
from support.wire_client import Person, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCKS = "4096"
"""A page of memory, so that the disk loses whole blocks."""


class FailingDisk:
    """An ext4 on a loop device whose file has no room for some blocks: writing them fails."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "disk"
        self._filler = folder / "memory" / "filler"

    def settle(self) -> None:
        """Let the journal's blocks come to their places, so that only new ones are missing."""
        run("fsfreeze", "--freeze", str(self.place))
        run("fsfreeze", "--unfreeze", str(self.place))

    def fail(self) -> None:
        """Let all writes fail of blocks that the disk has not written yet."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def recover(self) -> None:
        """Let them succeed again; what was lost stays lost."""
        self._filler.unlink()

    def forget(self) -> None:
        """Let Linux drop all files of the disk from its memory."""
        run("umount", str(self.place))
        run("mount", "-o", "loop", str(self._filler.with_name("image")), str(self.place))


@contextlib.contextmanager
def failing_disk(folder: Path, *options: str, journal: bool = True) -> Iterator[FailingDisk]:
    """A disk that loses the bytes of files when it fails; with ``journal`` false, it loses its journal as well."""
    disk, memory = FailingDisk(folder), folder / "memory"
    image = memory / "image"
    memory.mkdir()
    disk.place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=80m", "none", str(memory))
    try:
        image.write_bytes(bytes(64 << 20))
        lazy = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
        run("mkfs.ext4", "-q", "-m", "0", "-b", BLOCKS, "-E", lazy, *options, str(image))
        if journal:
            with image.open("r+b") as file:  # mkfs leaves holes
                data = file.read()
                file.seek(0)
                file.write(data)
        run("mount", "-o", "loop", str(image), str(disk.place))
        try:
            if journal:
                run("fstrim", str(disk.place))  # holes again, except for the journal and the tables
            yield disk
        finally:
            run("umount", "--lazy", str(disk.place))
    finally:
        run("umount", "--lazy", str(memory))


async def test_bytes_that_another_upload_s_sync_lost_are_never_acknowledged(tmp_path: Path) -> None:
    """Uploads that finish together meet the error, and it is reported only once. One that is open fails later."""
    with failing_disk(tmp_path) as disk, contextlib.closing(FileBlobStore(disk.place)) as store:
        lost = secrets.token_bytes(100_000)
        before = [await keep(store, data, "before") for data in (b"before", lost)]
        disk.settle()
        await begin(store, lost, upload="open")
        disk.fail()
        blobs = [secrets.token_bytes(1000) for _ in range(12)]
        uploads = [f"upload-{number}" for number in range(12)]
        found = await asyncio.gather(*map(keep, [store] * 12, blobs, uploads), return_exceptions=True)
        assert StorageFull in {type(each) for each in found}
        assert {type(each) for each in found} <= {StorageFull, Unavailable}
        disk.recover()
        with pytest.raises((StorageFull, Unavailable)):
            await commit(store, digest=sha256(lost), upload="open")
        assert await read(store, await keep(store, lost, "again")) == lost
        assert await read(store, before[0]) == b"before"


@pytest.mark.parametrize("others", [0, 12])
async def test_lost_bytes_that_linux_has_forgotten_are_never_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """If the file and its error have left memory, no sync reports it, be it shared or not: the bytes are read again."""
    monkeypatch.setattr(filesystem, "ALONE", 0)
    monkeypatch.setattr(linux, "dirty", lambda: 0)
    lost, hasher = secrets.token_bytes(100_000), hashlib.sha256()
    with failing_disk(tmp_path) as disk:
        with contextlib.closing(FileBlobStore(disk.place)) as store:
            await keep(store, b"before")
            disk.settle()
            await store.start("open")
            async with store.append("open") as segment:
                await segment.keep([lost], hasher)
            disk.fail()
            blobs = [secrets.token_bytes(1000) for _ in range(12)]
            found = await asyncio.gather(*map(push, [store] * 12, blobs, map(str, range(12))), return_exceptions=True)
            assert {type(each) for each in found} <= {StorageFull, Unavailable}
            disk.recover()
        disk.forget()
        with contextlib.closing(FileBlobStore(disk.place)) as store:
            assert await store.size("open") == len(lost)
            blobs = [secrets.token_bytes(1000) for _ in range(others)]
            refused, *keys = await asyncio.gather(
                commit(store, digest=sha256(lost), upload="open", hasher=hasher),
                *map(push, [store] * others, blobs, (f"later-{number}" for number in range(others))),
                return_exceptions=True,
            )
            assert isinstance(refused, Unavailable)
            assert [await read(store, str(key)) for key in keys] == blobs
            assert uploads_left(store) == []


def test_a_file_remembers_what_was_lost_when_the_file_system_has_forgotten(tmp_path: Path) -> None:
    """The sync of the file system reports an error once. The files that lost bytes know it, and no others."""
    with failing_disk(tmp_path) as disk:
        root = linux.open_to_sync(disk.place)
        assert root is not None
        linux.sync_file_system(root)
        fds = {}
        for name in ("lost", "closed", "whole"):
            if name == "whole":
                with pytest.raises(OSError, match="No space left"):
                    linux.sync_file_system(root)
                disk.recover()
            elif name == "lost":
                disk.fail()
            fds[name] = os.open(disk.place / name, os.O_RDWR | os.O_CREAT)
            os.write(fds[name], bytes(range(250)) * 400)
            if name == "closed":
                os.close(fds[name])
        linux.sync_file_system(root)
        fds["closed"] = os.open(disk.place / "closed", os.O_RDWR)
        linux.check_written(fds["whole"], 100_000)
        for name in ("lost", "closed"):
            with pytest.raises(OSError, match="No space left"):
                linux.check_written(fds[name], 100_000)
        for fd in (*fds.values(), root):
            os.close(fd)


def test_a_journal_that_failed_for_another_program_is_reported(tmp_path: Path) -> None:
    """Then syncfs and fsync find nothing to write, and succeed."""
    with failing_disk(tmp_path, journal=False) as disk:
        root, other = linux.open_to_sync(disk.place), os.open(disk.place, os.O_RDONLY)
        assert root is not None
        disk.fail()
        with contextlib.suppress(OSError):
            while True:  # until the journal comes to blocks that the disk never wrote
                os.utime(other)
                os.fsync(other)
        with pytest.raises(OSError, match="Read-only"):
            linux.sync_file_system(root)
        os.close(root)
        os.close(other)


def test_a_file_system_without_a_journal_is_not_synced_as_a_whole(tmp_path: Path) -> None:
    """Its names would not be on the disk after that."""
    with failing_disk(tmp_path, "-O", "^has_journal") as disk:
        assert linux.open_to_sync(disk.place) is None


@pytest.mark.parametrize(("call", "number"), [("syncfs", 1), ("syncfs", 2), ("syncfs", 3), ("sync_file_range", 3)])
def test_an_error_while_many_push(tmp_path: Path, call: str, number: int) -> None:
    """The answer is 507 or 503, nothing that was promised is lost, and later pushes are stored."""
    with mounted(tmp_path, 192) as (place, _), serving(place, "--workers", "1") as server:
        ann = Person(server.port, server.org, *server.admin)
        pushers = [Pusher(ann.new_repo()) for _ in range(12)]

        failed = threading.Event()

        def push(pusher: Pusher) -> None:
            """Push until one of them is refused: no syncs are shared while the machine has much to write."""
            while not failed.is_set():
                if not pusher.image("v1"):
                    failed.set()

        error = f"error=EIO:when={number}"
        with trace(server, call, error, SLOW), futures.ThreadPoolExecutor(len(pushers)) as threads:
            list(threads.map(push, pushers))
        assert {status for pusher in pushers for status in pusher.record.refusals} <= {503, 507}
        for pusher in pushers:
            assert pusher.image("after")
            verify(ann.at(pusher.repo.name), pusher.record)
        kill(server)
        check(server)
