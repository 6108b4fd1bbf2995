"""A server whose stderr is a pipe that nobody reads."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from support.crowd import works
from support.server import Server, ending, free_port
from support.wire_client import Client, admin, connected

if TYPE_CHECKING:
    from pathlib import Path

AT_ONCE = 50
ROUNDS = 300
PATH = "/" + "x" * 490


def test_requests_go_on(tmp_path: Path) -> None:
    """With a log that nobody reads, requests are answered, and dropped lines are counted and logged."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    place = ("--data", str(server.data), "--listen", server.registry, "--workers", "1")
    command = [*server.command, "run", *place]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"Polly Docker Repository")
        request = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with connected(server.port) as connection, connection.makefile("rb") as answers:
            for _ in range(ROUNDS):
                connection.sendall(request * AT_ONCE)
                came = 0
                while came < AT_ONCE:
                    line = answers.readline()
                    assert line, "the server hung up"
                    came += b"HTTP/1.1 404" in line
        works(admin(server).new_repo(), "v1")
        counted = re.search(rb"\npolly_log_dropped_lines_total ([0-9.]+)\n", Client(server.port).get("/metrics").body)
        assert counted is not None
        assert float(counted[1]) > 0
        process.terminate()
        lines = process.stderr.read().splitlines()
        assert process.wait(timeout=60) == 0
    assert any(b"log lines were dropped" in line for line in lines)
    assert sum(PATH.encode() in line for line in lines) < AT_ONCE * ROUNDS
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in lines)
