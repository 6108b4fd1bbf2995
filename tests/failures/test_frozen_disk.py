"""44: the disk hangs, as while fsfreeze holds it for a snapshot: what needs no disk goes on, and servers still end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from failures.client import GONE, check, kill, mounted, run
from failures.serving import serving
from failures.test_signals import free, until
from failures.test_writer import SECONDS, workers
from polly_dockers.db.journal import state
from polly_dockers.db.sqlite import exclusive
from support.wire_client import Person, image, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server
    from support.wire_client import Repo


@contextlib.contextmanager
def frozen(place: Path) -> Iterator[None]:
    """Freeze a file system for the block: every call that would change it waits, and no signal ends that wait."""
    run("fsfreeze", "--freeze", str(place))
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", str(place))


@dataclass
class Frozen:
    """A server of one worker, whose data is on a disk of its own, and whose log is not."""

    server: Server
    place: Path
    ann: Person
    """The admin."""
    repo: Repo
    worker: int

    def states(self) -> list[str]:
        """The state of each thread of the worker, as ps(1) shows it: D waits for the disk, Z has ended."""
        found = []
        for thread in Path(f"/proc/{self.worker}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.append((thread / "stat").read_text().rpartition(") ")[2][0])
        return found

    def hangs(self) -> None:
        """Wait until a thread of the worker waits for the disk."""
        until(lambda: "D" in self.states(), "no thread waits for the disk")

    def ends(self) -> None:
        """Wait until no thread of the worker is left but those that wait for the disk."""
        until(lambda: not set(self.states()) - {"D", "Z"}, "the worker goes on")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Frozen]:
    """The server; each test freezes its disk."""
    with mounted(tmp_path, 192) as (place, _):
        (place / "data").mkdir(mode=0o700)
        (tmp_path / "data").symlink_to(place / "data")
        with serving(tmp_path, "--workers", "1", "--graceful-seconds", "1") as server:
            ann = Person(server.port, server.org, *server.admin)
            repo = ann.new_repo()
            [worker] = workers(server)
            ended = os.pidfd_open(worker)
            try:
                yield Frozen(server, place, ann, repo, worker)
            finally:
                if server.process is not None:
                    kill(server)
                gone, _, _ = select.select([ended], [], [], SECONDS)
                os.close(ended)
            assert gone, "the worker goes on"


def refused(repo: Repo, method: str, path: str, body: bytes) -> int:
    """The status of a request; 0 if the server ended before it was answered."""
    try:
        return repo.send(method, path, body).status
    except GONE:
        return 0


def test_a_worker_whose_disk_hangs(disk: Frozen) -> None:
    """Pulls and /healthz are answered, new uploads and manifests get 503, and open uploads wait for the disk."""
    repo, made = disk.repo, image()
    repo.push(made, "v1")
    appended, finished = repo.start(), repo.start()
    with futures.ThreadPoolExecutor(4) as clients, frozen(disk.place):
        begun = clients.submit(repo.send, "POST", repo.path("blobs/uploads/"), b"")
        put = clients.submit(repo.put, "v2", made.manifest)
        waiting = [
            clients.submit(repo.send, "PATCH", appended, b"x"),
            clients.submit(repo.send, "PUT", f"{finished}?digest={sha256(b'x')}", b"x"),
        ]
        disk.hangs()
        while not (begun.done() and put.done()):
            assert disk.ann.by_password.get("/healthz").status == 200
            assert repo.manifest("v1").body == made.manifest
        assert [begun.result().status, put.result().status] == [503, 503]
        assert not any(each.done() for each in waiting)
    assert [each.result().status for each in waiting] == [202, 201]
    repo.push(image(), "v3")
    kill(disk.server)
    check(disk.server)


@pytest.mark.parametrize("way", ["push", "command"])
def test_a_pull_right_after_a_change(disk: Frozen, way: str) -> None:
    """It does not wait for the disk, whether the worker made the change or a command of the operator."""
    repo, made = disk.repo, image()
    repo.push(made, "v1")
    if way == "command":
        with exclusive(disk.server.data) as connection:
            state.add_stale(connection, 1)
    with frozen(disk.place):
        assert repo.manifest("v1").body == made.manifest


def test_the_end_of_a_server_whose_disk_hangs(disk: Frozen) -> None:
    """SIGTERM ends it within its usual time. Only threads that wait for the disk are left, until that goes on."""
    repo, process = disk.repo, disk.server.process
    assert process is not None
    with futures.ThreadPoolExecutor() as clients, frozen(disk.place):
        asked = clients.submit(refused, repo, "POST", repo.path("blobs/uploads/"), b"")
        disk.hangs()
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        disk.ends()
        assert free(disk.server.port)
        assert asked.result() in {0, 503}
    assert process.stdout is not None
    process.stdout.close()
    disk.server.process = None


def test_a_worker_ends_by_itself(disk: Frozen) -> None:
    """It waits for the disk for a limited time, also if nobody kills it, and the next worker serves."""
    repo = disk.repo
    place = repo.start()
    with futures.ThreadPoolExecutor() as clients, frozen(disk.place):
        asked = clients.submit(refused, repo, "PATCH", place, b"x")
        disk.hangs()
        os.kill(disk.worker, signal.SIGTERM)
        disk.ends()
        assert asked.result() in {0, 503}
    assert "threads are still busy" in disk.server.log.read_text()
    until(lambda: refused(repo, "POST", repo.path("blobs/uploads/"), b"") == 202, "no new worker takes a push")
