"""4, 5, 32: the collector is killed at its system calls, loses its rows, or stops: at most it leaves garbage."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from failures.client import Pusher, check, verify
from support.server import BIN, Server, polly_server, running_server
from support.wire_client import admin, image, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CALLS = ("unlink", "pwrite64", "fdatasync", "fcntl", "flock")
SETTINGS = "grace_seconds = 0\ntrash_days = 0\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that does not collect automatically."""
    with running_server(tmp_path, "--collect-seconds", "0") as running:
        yield running


def leases_end(server: Server) -> None:
    """Let all leases end, by a change of the rows: the collector is a process of its own, with its own clock."""
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE repository_blobs SET leased_until = 1 WHERE leased_until > 0")


class Collector:
    """Runs of ``polly-server gc`` that are disturbed while a client pushes."""

    def __init__(self, server: Server, folder: Path) -> None:
        settings = folder / "settings.toml"
        settings.write_text(SETTINGS)
        self.command = ["gc", "--data", str(server.data), "--config", str(settings)]
        self._server = server
        self.repo = admin(server).new_repo()
        self._pusher = Pusher(self.repo)

    def hurt(self, inject: Callable[[int], list[str]]) -> Iterator[subprocess.CompletedProcess[str]]:
        """Each run that did not end well: at its first, second, … call, until that comes no more.

        ``inject`` gives strace's options for the call of a number. What lives is there after each of them.
        """
        number = 1
        while True:
            assert self._pusher.image(f"v{number}")
            gone = image()
            self.repo.push(gone, "gone")
            assert self.repo.delete(f"manifests/{gone.digest}").status == 202
            for left_over in range(3):
                self.repo.push_blob(f"left over {number} {left_over}".encode())
            leases_end(self._server)
            done = subprocess.run(
                ["strace", "-f", "-qq", "-o", "/dev/null", *inject(number), str(BIN / "polly-server"), *self.command],
                capture_output=True,
                text=True,
                check=False,
            )
            verify(self.repo, self._pusher.record)
            if done.returncode == 0:
                return
            yield done
            number += max(1, number // 2)

    def finish(self) -> None:
        """Collect without a disturbance; then everything that is needed is there, and nothing else."""
        for _ in range(3):
            leases_end(self._server)
            polly_server(*self.command)
        blobs = self._pusher.record.blobs
        assert self._server.stored() == set(blobs)
        assert all(sha256(data) == digest for digest, data in blobs.items())
        check(self._server)


@pytest.mark.parametrize("call", CALLS)
def test_the_collector_is_killed(server: Server, tmp_path: Path, call: str) -> None:
    """5: it is killed at its first, second, … call: what is needed stays, and in the end everything else is gone."""
    collector = Collector(server, tmp_path)
    trace = ["-e", f"trace={call}"]
    killed = list(collector.hurt(lambda number: [*trace, "-e", f"inject={call}:signal=KILL:when={number}"]))
    assert killed
    assert {done.returncode for done in killed} <= {-signal.SIGKILL, 128 + signal.SIGKILL}
    collector.finish()


@pytest.mark.parametrize("call", ["pread64", "flock", "fsync"])
def test_the_collector_loses_its_rows(server: Server, tmp_path: Path, call: str) -> None:
    """4: from its first, second, … call on the disk returns EIO: it ends and says so, and what is needed stays."""
    collector = Collector(server, tmp_path)
    files = ("polly.db", "polly.db-wal", "polly.db-shm", "writer.lock")
    of_rows = ["-e", f"trace={call}", *(word for name in files for word in ("-P", str(server.data / name)))]
    failed = list(collector.hurt(lambda number: [*of_rows, "-e", f"inject={call}:error=EIO:when={number}+"]))
    assert failed
    for done in failed:
        assert done.returncode == 1, done.stderr
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr
    collector.finish()


def test_the_collector_without_a_database(server: Server, tmp_path: Path) -> None:
    """4: without a database nothing is deleted: with an empty one, every blob would look like garbage."""
    collector = Collector(server, tmp_path)
    made = image()
    collector.repo.push(made, "v1")
    server.stop()
    server.lose_database()
    with pytest.raises(AssertionError, match="polly-server rebuild"):
        polly_server(*collector.command)
    assert server.stored() == set(map(sha256, made.blobs))


STANDS_STILL = """
import os, signal, sys
from polly_dockers.server.cli import entry
unlink, left = os.unlink, [int(sys.argv.pop(1))]
def unlink_and_stop(path, **options):
    unlink(path, **options)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
os.unlink = unlink_and_stop
entry.run()
"""
"""polly-server that stops after a deletion; its first argument says which."""


@pytest.mark.parametrize("number", [1, 5])
def test_the_collector_stops_for_a_while(server: Server, tmp_path: Path, number: int) -> None:
    """32: stopped between two deletions for longer than any lease, it deletes nothing that was pushed meanwhile."""
    collector = Collector(server, tmp_path)
    repo = collector.repo
    made = [image() for _ in range(5)]
    for each in made:
        repo.push(each, "v1")
        assert repo.delete(f"manifests/{each.digest}").status == 202
    leases_end(server)
    polly_server(*collector.command)  # takes them out of the trash; the next run deletes
    leases_end(server)
    command = [sys.executable, "-c", STANDS_STILL, str(number), *collector.command]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert state is not None
            assert state.si_code == os.CLD_STOPPED
            for each in made:
                repo.push(each, "v1")
            leases_end(server)
        finally:
            process.send_signal(signal.SIGCONT)
    assert process.returncode == 0
    for each in made:
        assert repo.manifest(each.digest).body == each.manifest
        assert all(repo.blob(sha256(blob)).body == blob for blob in each.blobs)
    polly_server(*collector.command)
    assert server.stored() == {sha256(blob) for each in made for blob in each.blobs}
    check(server)
