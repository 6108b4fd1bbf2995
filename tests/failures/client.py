"""A client that records what was answered with success, and what has no answer yet."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import select
import signal
import struct
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.server import BIN
from support.wire_client import Image, Person, Repo, image, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.server import Server

GONE = (ConnectionError, http.client.HTTPException, TimeoutError, OSError)
"""What a client sees if a server dies."""


@dataclass
class Record:
    """What the server has promised."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, set[str]] = field(default_factory=dict)
    """The digests that a tag may have ("" for none): two while a push or deletion of it has no answer yet."""
    answers: int = 0
    refusals: list[int] = field(default_factory=list)
    """Statuses other than success."""


class Pusher:
    """Pushes images step by step, and records each answer."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.record = Record()

    def blob(self, data: bytes, *, whole: bool) -> bool:
        """Push a blob in one request or in three; whether it was promised."""
        repo, digest = self.repo, sha256(data)
        if whole:
            status = repo.send("POST", repo.path(f"blobs/uploads/?digest={digest}"), data).status
        else:
            started = repo.send("POST", repo.path("blobs/uploads/"), b"")
            if not self._noted(started.status):
                return False
            place = started.header("Location")
            if not self._noted(repo.send("PATCH", place, data).status):
                return False
            status = repo.send("PUT", f"{place}?digest={digest}", b"").status
        if not self._noted(status):
            return False
        self.record.blobs[digest] = data
        return True

    def manifest(self, made: Image, tag: str) -> bool:
        """Push a manifest to a tag; whether it was promised."""
        before = self.record.tags.get(tag, {""})
        self.record.tags[tag] = before | {made.digest}
        status = self.repo.put(tag, made.manifest).status
        if not self._noted(status):
            self.record.tags[tag] = before
            return False
        self.record.tags[tag] = {made.digest}
        self.record.manifests[made.digest] = made.manifest
        return True

    def image(self, tag: str, *, whole: bool = False) -> bool:
        """Push an image with its blobs."""
        made = image()
        return all(self.blob(blob, whole=whole) for blob in made.blobs) and self.manifest(made, tag)

    def delete(self, tag: str) -> None:
        """Delete a tag."""
        before = self.record.tags[tag]
        self.record.tags[tag] = before | {""}
        if self._noted(self.repo.delete(f"manifests/{tag}").status):
            self.record.tags[tag] = {""}
        else:
            self.record.tags[tag] = before

    def _noted(self, status: int) -> bool:
        if status < http.client.BAD_REQUEST:
            self.record.answers += 1
            return True
        self.record.refusals.append(status)
        return False


def scenario(pusher: Pusher) -> bool:
    """All kinds of commits: blobs in one request and in three, tags that are new, overwritten, deleted.

    Whether it came to its end; if not, the server is gone.
    """
    try:
        pusher.image("v1")
        pusher.image("v1", whole=True)
        pusher.image("v2")
        pusher.delete("v2")
    except GONE:
        return False
    return True


def verify(repo: Repo, record: Record) -> None:
    """Everything that was promised is there, byte for byte, under its digest; each tag has its last image."""
    for digest, data in record.blobs.items():
        answer = repo.blob(digest)
        assert (answer.status, answer.body == data) == (200, True), digest
    for digest, body in record.manifests.items():
        answer = repo.manifest(digest)
        assert (answer.status, answer.body == body) == (200, True), digest
    for tag, allowed in record.tags.items():
        answer = repo.manifest(tag)
        found = answer.header("Docker-Content-Digest") if answer.status == 200 else ""
        assert found in allowed, (tag, found, allowed)


def check(server: Server) -> None:
    """polly-server check finds nothing wrong."""
    done = subprocess.run(
        [str(BIN / "polly-server"), "check", "--data", str(server.data)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rebuild(server: Server, person: Callable[[], Person], name: str, record: Record) -> None:
    """After the database is deleted, the journal restores every manifest and tag that was promised."""
    for file in server.data.glob("polly.db*"):
        file.unlink()
    done = subprocess.run(
        [str(BIN / "polly-server"), "rebuild", "--data", str(server.data)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    server.start()
    named = {digest for body in record.manifests.values() for digest in record.blobs if digest.encode() in body}
    record.blobs = {digest: record.blobs[digest] for digest in named}
    verify(person().repo(name), record)


@contextlib.contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A small ext4 on a loop device: where it is mounted, and what cuts its power and brings it back.

    Cutting the power is EXT4_IOC_SHUTDOWN without a flush of its journal: what was not synced is forgotten.
    """
    disk, place = folder / "disk.img", folder / "disk"
    with disk.open("wb") as file:
        file.truncate(megabytes << 20)
    run("mkfs.ext4", "-q", "-m", "0", str(disk))
    place.mkdir()

    def mount() -> None:
        run("mount", "-o", "loop", str(disk), str(place))

    def unmount() -> None:
        run("umount", str(place))

    def lose_power() -> None:
        shut_down(place)
        unmount()
        mount()

    mount()
    try:
        yield place, lose_power
    finally:
        unmount()


def shut_down(place: Path) -> None:
    """Let the file system lose what is not on its disk, and return EIO from now on."""
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x8004587D, struct.pack("I", 2))  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
    finally:
        os.close(fd)


def run(*command: str) -> None:
    """Run a command; raises where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


def kill(server: Server) -> None:
    """Kill -9 of the whole server, arbiter and workers; returns once all of them are gone."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)  # so that it starts no other worker meanwhile
    children = _descendants(server.process.pid)
    server.process.kill()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            child = os.pidfd_open(pid)
            signal.pidfd_send_signal(child, signal.SIGKILL)
            select.select([child], [], [])
            os.close(child)
    server.process.wait()
    assert server.process.stdout is not None
    server.process.stdout.close()
    server.process = None


def _descendants(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [child for each in map(int, found) for child in (each, *_descendants(each))]
