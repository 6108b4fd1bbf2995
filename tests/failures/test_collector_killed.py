"""4, 5, 32: the collector is killed at its system calls, loses its rows, or stands still: it leaks at most."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
from typing import TYPE_CHECKING

import pytest

from conftest import BIN, Server, polly_server, running_server
from contract.wire_client import admin, image, sha256
from failures.client import Pusher, check, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLS = ("unlink", "pwrite64", "fdatasync", "fcntl", "flock")
SETTINGS = "grace_seconds = 0\ntrash_days = 0\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that collects nothing by itself."""
    with running_server(tmp_path, "--collect-seconds", "0") as running:
        yield running


def leases_end(server: Server) -> None:
    """All of them, by hand, in the rows."""
    with sqlite3.connect(server.data / "polly.db", timeout=30) as connection:
        connection.execute("UPDATE repository_blobs SET leased_until = 1 WHERE leased_until > 0")
    connection.close()


@pytest.mark.parametrize("call", CALLS)
def test_the_collector_is_killed(server: Server, tmp_path: Path, call: str) -> None:
    """At its first, second, … call: what lives stays, and in the end all else is gone."""
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS)
    collect = ["gc", "--data", str(server.data), "--config", str(settings)]
    repo = admin(server).new_repo()
    pusher = Pusher(repo)
    number, killed = 1, 0
    while True:
        assert pusher.image(f"v{number}")
        gone = image()
        repo.push(gone, "gone")
        assert repo.delete(f"manifests/{gone.digest}").status == 202
        for left_over in range(3):
            repo.push_blob(f"left over {number} {left_over}".encode())
        leases_end(server)
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", *inject, str(BIN / "polly-server"), *collect],
            capture_output=True,
            check=False,
        )
        verify(repo, pusher.record)
        if done.returncode == 0:
            break
        assert done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}, done.stderr
        killed += 1
        number += max(1, number // 2)
    assert killed > 0
    for _ in range(3):
        leases_end(server)
        polly_server(*collect)
    assert server.stored() == set(pusher.record.blobs)
    assert all(sha256(data) == digest for digest, data in pusher.record.blobs.items())
    check(server)


@pytest.mark.parametrize("call", ["pread64", "flock", "fsync"])
def test_the_collector_loses_its_rows(server: Server, tmp_path: Path, call: str) -> None:
    """4: from its first, second, … call on the disk answers EIO: it ends and says so, and what lives stays."""
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS)
    collect = ["gc", "--data", str(server.data), "--config", str(settings)]
    repo = admin(server).new_repo()
    pusher = Pusher(repo)
    number, failed = 1, 0
    while True:
        assert pusher.image(f"v{number}")
        repo.push_blob(f"left over {number}".encode())
        leases_end(server)
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={number}+"]
        for name in ("polly.db", "polly.db-wal", "polly.db-shm", "writer.lock"):
            inject += ["-P", str(server.data / name)]
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", *inject, str(BIN / "polly-server"), *collect],
            capture_output=True,
            text=True,
            check=False,
        )
        verify(repo, pusher.record)
        if done.returncode == 0:
            break
        assert done.returncode == 1, done.stderr
        assert "polly-server: " in done.stderr
        assert "Traceback" not in done.stderr
        failed += 1
        number += max(1, number // 2)
    assert failed > 0
    for _ in range(3):
        leases_end(server)
        polly_server(*collect)
    assert server.stored() == set(pusher.record.blobs)
    check(server)


def test_the_collector_without_a_database(server: Server, tmp_path: Path) -> None:
    """4: where it is gone nothing is deleted: an empty one would take every blob for garbage."""
    repo = admin(server).new_repo()
    made = image()
    repo.push(made, "v1")
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS)
    server.stop()
    server.lose_database()
    with pytest.raises(AssertionError, match="polly-server rebuild"):
        polly_server("gc", "--data", str(server.data), "--config", str(settings))
    assert server.stored() == set(map(sha256, made.blobs))


@pytest.mark.parametrize("number", [1, 5])
def test_the_collector_stands_still(server: Server, tmp_path: Path, number: int) -> None:
    """32: stopped between two deletions, for longer than any lease, it takes nothing that was pushed meanwhile."""
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS)
    collect = ["gc", "--data", str(server.data), "--config", str(settings)]
    repo = admin(server).new_repo()
    made = [image() for _ in range(5)]
    for each in made:
        repo.push(each, "v1")
        assert repo.delete(f"manifests/{each.digest}").status == 202
    for _ in range(2):
        leases_end(server)
        inject = ["-e", "trace=unlink", "-e", f"inject=unlink:signal=STOP:when={number}"]
        log = tmp_path / "calls"
        command = ["strace", "-f", "-qq", "-o", str(log), *inject, str(BIN / "polly-server"), *collect]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as tracer:
            collector = stopped(tracer, log)
            if collector is None:
                continue
            for each in made:
                repo.push(each, "v1")
            leases_end(server)
            os.kill(collector, signal.SIGCONT)
        break
    else:
        pytest.fail("the collector deleted nothing")
    for each in made:
        assert repo.manifest(each.digest).body == each.manifest
        assert all(repo.blob(sha256(blob)).body == blob for blob in each.blobs)
    polly_server(*collect)
    assert server.stored() == {sha256(blob) for each in made for blob in each.blobs}
    check(server)


def stopped(tracer: subprocess.Popen[bytes], log: Path) -> int | None:
    """The process that strace began, once it stands still; None: it came to its end."""
    while tracer.poll() is None:
        found = re.search(r"^([0-9]+) --- .*SIGSTOP", log.read_text() if log.exists() else "", re.MULTILINE)
        if found is not None:
            return int(found[1])
    return None
