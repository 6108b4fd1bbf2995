"""What a server that was killed leaves outside of its data folder is deleted by the next one."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from failures.serving import serving
from polly_dockers.web.metrics import Counts
from support.server import polly_server
from support.wire_client import Client, basic

if TYPE_CHECKING:
    from support.server import Server

SHARED = Path("/dev/shm")  # noqa: S108 - where a server has what its processes share


def shared(server: Server) -> Path:
    """The folder that the processes of a server share."""
    assert server.process is not None
    [found] = SHARED.glob(f"polly-metrics-{server.process.pid}-*")
    return found


def ended() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_what_a_killed_supervisor_leaves(tmp_path: Path) -> None:
    """34: the next start deletes it; what belongs to a server that runs, to another user or to others stays."""
    gone = ended()
    foreign, held, other = (SHARED / f"polly-metrics-{gone}-{name}" for name in ("foreign", "held", "x"))
    others = SHARED / f"other-{gone}-x"
    for folder in (foreign, held, other, others):
        folder.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(foreign, nobody, nobody)
    fd = os.open(held, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        with serving(tmp_path) as server, serving(tmp_path / "another") as running:
            left, used = shared(server), shared(running)
            assert not other.exists()
            assert server.process is not None
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            with_workers = os.open(left, os.O_RDONLY)
            fcntl.flock(with_workers, fcntl.LOCK_EX)  # its workers are gone as well
            os.close(with_workers)
            assert server.process.stdout is not None
            server.process.stdout.close()
            server.start()
            assert not left.exists()
            assert all(folder.exists() for folder in (foreign, held, others, used))
            server.stop()
    finally:
        os.close(fd)
        for folder in (foreign, held, other, others):
            shutil.rmtree(folder, ignore_errors=True)


def test_the_shared_folder_goes(tmp_path: Path) -> None:
    """It is made again. Where it can't be, /metrics answers, and the end of a worker loses nothing of the audit log."""
    with serving(tmp_path, "--workers", "1", "--collect-seconds", "0") as server:
        client, folder = Client(server.port), shared(server)
        shutil.rmtree(folder)
        assert "polly_resident_bytes{pid=" in client.get("/metrics").body.decode()
        assert folder.stat().st_mode & 0o777 == 0o700
        shutil.rmtree(folder)
        folder.touch()
        try:
            answer = client.get("/metrics")
            assert (answer.status, "polly_gc_last_run_timestamp_seconds 0.0" in answer.body.decode()) == (200, True)
            for _ in range(3):
                assert basic(server.port, server.admin[0], "wrong").get("/token").status == 401
            server.stop()
        finally:
            folder.unlink()
        told = polly_server("audit", "--data", str(server.data), "--event", "sign-in-refused", "--output", "json")
        assert sum(int(entry["detail"].partition(" ")[0] or 1) for entry in json.loads(told)) == 3


def test_the_shared_folder_of_somebody_else(tmp_path: Path) -> None:
    """Nothing is written to a folder that another user made under the name of one that is gone."""
    folder = tmp_path / "polly-metrics-1-x"
    folder.mkdir(mode=0o777)
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(folder, nobody, nobody)
    with pytest.raises(PermissionError):
        Counts(folder, tmp_path).write()
    assert list(folder.iterdir()) == []
