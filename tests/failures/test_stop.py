"""34: SIGTERM that comes while the workers are being forked ends them all."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import BIN, Server, free_port


def test_a_worker_that_is_being_forked(tmp_path: Path) -> None:
    """It has not taken its signals yet, and ends by itself all the same."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    settings = tmp_path / "settings.toml"
    settings.write_text("graceful_seconds = 1\nworkers = 1\n")
    slow = ["-e", "trace=pipe2", "-e", "inject=pipe2:delay_enter=1000000"]  # a worker's first call of its own
    place = ["--data", str(server.data), "--listen", server.registry, "--config", str(settings)]
    calls = tmp_path / "calls"
    command = ["strace", "-f", "-o", str(calls), *slow, str(BIN / "polly-server"), "run", *place]
    with server.log.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as tracer:
        assert tracer.stdout is not None
        assert tracer.stdout.readline().startswith(b"Polly Docker Repository")
        [arbiter] = children(tracer.pid)
        while not children(arbiter):
            pass
        subprocess.run(["kill", "-TERM", str(arbiter)], check=True)
        assert tracer.wait() == 0
    assert "+++ killed by SIGTERM +++" in calls.read_text()
    assert "SIGKILL" not in calls.read_text()


def children(process: int) -> list[int]:
    """Processes that one has forked."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
