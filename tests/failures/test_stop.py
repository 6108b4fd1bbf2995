"""34: SIGTERM ends all workers, even while they are being forked, and idle clients do not delay the end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from failures.test_signals import certificate, until
from support.server import BIN, Server, ending, free_port
from support.wire_client import connected


def test_a_worker_that_is_being_forked(tmp_path: Path) -> None:
    """It has no signal handlers yet, but still ends."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    settings = tmp_path / "settings.toml"
    settings.write_text("graceful_seconds = 1\nworkers = 1\n")
    slow = ["-e", "trace=pipe2", "-e", "inject=pipe2:delay_enter=1000000"]  # a worker's first call of its own
    place = ["--data", str(server.data), "--listen", server.registry, "--config", str(settings)]
    calls = tmp_path / "calls"
    command = ["strace", "-f", "-o", str(calls), *slow, str(BIN / "polly-server"), "run", *place]
    with server.log.open("w") as log, ending(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)) as tracer:
        assert tracer.stdout is not None
        assert tracer.stdout.readline().startswith(b"Polly Docker Repository")
        [arbiter] = children(tracer.pid)
        until(lambda: bool(children(arbiter)), "no worker is forked")
        subprocess.run(["kill", "-TERM", str(arbiter)], check=True)
        assert tracer.wait(timeout=60) == 0
    assert "+++ killed by SIGTERM +++" in calls.read_text()
    assert "SIGKILL" not in calls.read_text()


def test_connections_that_are_idle(tmp_path: Path) -> None:
    """They are closed, whatever was requested on them; requests in flight would have an hour."""
    server = Server(tmp_path / "data", free_port(), ("--graceful-seconds", "3600"))
    server.init()
    server.start()
    asked = (
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    )
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        idle = [stack.enter_context(connected(server.port)) for _ in asked]
        for connection, request in zip(idle, asked, strict=True):
            connection.sendall(request)
            assert not request or connection.recv(65_536).startswith(b"HTTP/1.1 ")
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        for connection in idle:
            assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("days", "event", "field"), [(0, "certificate has expired", "expired"), (5, "certificate expires soon", "expires")]
)
def test_the_first_line_of_the_log(tmp_path: Path, days: int, event: str, field: str) -> None:
    """Every line is JSON if the settings say so, also the warning of a certificate that ends."""
    certificate(tmp_path, days)
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    server = Server(tmp_path / "data", free_port(), ("--log-format", "json", *files))
    server.init()
    server.start()
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert (lines[0]["event"], lines[0]["level"], field in lines[0]) == (event, "warning", True)


def test_an_idle_client_that_does_not_say_goodbye(tmp_path: Path) -> None:
    """With TLS the client should close too; if it does not, the connection is closed before OpenSSL's 30 seconds."""
    certificate(tmp_path, 30)
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    server = Server(tmp_path / "data", free_port(), ("--graceful-seconds", "3600", *files))
    server.init()
    server.start()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), timeout=20))
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    with socket.socket(fileno=connection.detach()) as raw:  # what comes is looked at, and never answered
        raw.settimeout(20)
        while raw.recv(65_536):
            pass
    server.stop()


def children(process: int) -> list[int]:
    """The child processes of a process."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
