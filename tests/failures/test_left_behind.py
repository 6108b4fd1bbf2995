"""What a server that was killed leaves outside of its data folder is deleted by the next one."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from failures.serving import serving

if TYPE_CHECKING:
    from conftest import Server

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
