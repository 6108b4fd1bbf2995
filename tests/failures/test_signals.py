"""34, 41: signals, a closed terminal, a renewed certificate, and processes of the server that are killed."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from support.server import BIN, Server, ending, free_port
from support.wire_client import admin, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def certificate(folder: Path, days: int, *, kind: str = "ec") -> int:
    """Write a new self-signed certificate and its key, each beside the old one and then renamed; its serial number."""
    key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.acme.example")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    put(folder / "cert.pem", made.public_bytes(serialization.Encoding.PEM))
    put(folder / "key.pem", private)
    return made.serial_number


def put(file: Path, content: bytes) -> None:
    """Replace a file by a new one atomically."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(file)


def shown(port: int) -> int:
    """The serial number of the certificate that a new connection gets."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=60)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def until(fact: Callable[[], bool], what: str) -> None:
    """Wait until a request or the kernel shows that something is true; each check takes a moment itself."""
    pause = threading.Event()
    for _ in range(1200):
        if fact():
            return
        pause.wait(0.05)
    pytest.fail(what)


def free(port: int) -> bool:
    """Whether another server could have the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


WORKERS = 2
"""How many workers a server has by default."""


def children(process: int) -> list[int]:
    """The workers of a server."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def all_workers(server: Server) -> list[int]:
    """The workers of a server, when all are there: it says that it is up before the last is forked."""
    until(lambda: len(children(process(server).pid)) == WORKERS, "a worker is missing")
    return children(process(server).pid)


def events(server: Server) -> list[dict[str, Any]]:
    """What the server's log has, requests left out."""
    found = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [each for each in found if each["event"] != "request"]


class Upload:
    """An upload whose body has begun and not ended."""

    def __init__(self, server: Server) -> None:
        repo = admin(server).new_repo()
        self.content = os.urandom(100_000)
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.connection.putrequest("POST", repo.path(f"blobs/uploads/?digest={sha256(self.content)}"))
        for name, value in {
            "Authorization": repo.authorization or "",
            "Content-Length": str(len(self.content)),
            "Expect": "100-continue",
        }.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        assert self.connection.sock.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        self.connection.send(self.content[:50_000])

    def end(self) -> int:
        """Send the rest; the status of the answer."""
        with contextlib.closing(self.connection):
            self.connection.send(self.content[50_000:])
            with contextlib.closing(http.client.HTTPResponse(self.connection.sock, method="POST")) as answer:
                answer.begin()
                answer.read()
                return answer.status


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server in its own session, so it does not get our signals and has no terminal."""
    made = Server(tmp_path / "data", free_port())
    made.init()
    made.command = ("setsid", str(BIN / "polly-server"))
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()
    elif made.process is not None:
        assert made.process.stdout is not None
        made.process.stdout.close()


def process(server: Server) -> subprocess.Popen[str]:
    """The server's supervisor."""
    assert server.process is not None
    return server.process


def test_sighup_without_a_terminal_leaves_everything_as_it_is(server: Server) -> None:
    """The processes stay, and an upload in flight finishes."""
    upload = Upload(server)
    workers = all_workers(server)
    process(server).send_signal(signal.SIGHUP)
    for worker in workers:
        os.kill(worker, signal.SIGHUP)
    until(lambda: any("SIGHUP" in each["event"] for each in events(server)), "SIGHUP is not logged")
    assert upload.end() == 201
    assert children(process(server).pid) == workers


def test_a_closed_terminal_ends_the_server_as_sigterm_does(tmp_path: Path) -> None:
    """An upload in flight is answered first; no process stays, and the port is free."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    keyboard, terminal = pty.openpty()
    where = ("--data", str(server.data), "--listen", server.registry)
    with server.log.open("w") as log:
        started = subprocess.Popen(
            ["setsid", "--ctty", str(BIN / "polly-server"), "run", *where],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    os.close(terminal)
    assert started.stdout is not None
    with ending(started):
        assert started.stdout.readline().startswith("Polly Docker Repository")
        upload = Upload(server)
        workers = children(started.pid)
        os.close(keyboard)
        until(lambda: free(server.port), "the server goes on listening")
        assert upload.end() == 201
        assert started.wait(timeout=60) == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "SIGHUP, the terminal was closed" in [each.get("reason") for each in events(server)]


def test_nohup_keeps_the_server_when_the_terminal_is_closed(tmp_path: Path) -> None:
    """If SIGHUP was ignored at the start, it does not end the server."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    server.command = ("nohup", str(BIN / "polly-server"))
    server.start()
    process(server).send_signal(signal.SIGHUP)
    until(lambda: any("SIGHUP" in each["event"] for each in events(server)), "SIGHUP is not logged")
    assert Upload(server).end() == 201
    server.stop()


def test_workers_end_with_a_supervisor_that_is_killed(server: Server) -> None:
    """After kill -9 no worker holds the port, and requests in flight are answered."""
    upload = Upload(server)
    workers = all_workers(server)
    process(server).kill()
    process(server).wait()
    until(lambda: free(server.port), "a worker goes on listening")
    assert upload.end() == 201
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "a worker goes on")


def test_a_worker_that_is_killed_is_replaced(server: Server) -> None:
    """The others answer meanwhile."""
    Upload(server).end()
    before = all_workers(server)
    os.kill(before[0], signal.SIGKILL)
    assert Upload(server).end() == 201
    until(lambda: len(set(children(process(server).pid)) - {before[0]}) == len(before), "no worker takes its place")


@pytest.mark.parametrize(
    "signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGQUIT,)]
)
def test_a_second_interrupt_does_not_wait(server: Server, signals: tuple[signal.Signals, ...]) -> None:
    """Ctrl-C twice, or SIGQUIT, ends it although an upload is in flight."""
    upload = Upload(server)
    for each in signals:
        os.killpg(process(server).pid, each) if each is signal.SIGINT else process(server).send_signal(each)
        until(lambda: free(server.port), "the server goes on listening")
    assert process(server).wait(timeout=30) == 0
    with contextlib.suppress(OSError, http.client.HTTPException):
        assert upload.end() != 201
    assert "SIGKILL" not in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_log_has_the_start_and_the_end(server: Server, number: signal.Signals) -> None:
    """At the start version, address, folder and workers; at the end why, and how long it ran."""
    upload = Upload(server)
    os.killpg(process(server).pid, number) if number is signal.SIGINT else process(server).send_signal(number)
    until(lambda: free(server.port), "the server goes on listening")
    assert upload.end() == 201
    assert process(server).wait(timeout=60) == 0
    first, *_, last = events(server)
    assert (first["event"], first["url"], first["data"]) == ("server starting", server.url, str(server.data))
    assert {"version", "workers", "pid", "user"} <= first.keys()
    assert (last["event"], last["reason"], last["code"]) == ("server stopped", number.name, 0)
    assert last["seconds"] >= 0


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Server, Path, int]]:
    """A server with a certificate: it, the folder of the certificate, and its serial number."""
    folder = tmp_path / "tls"
    folder.mkdir()
    serial = certificate(folder, 90, kind="rsa")
    pair = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    made = Server(tmp_path / "data", free_port(), (*pair, "--metrics-listen", f"127.0.0.1:{free_port()}"))
    made.init()
    made.command = ("setsid", str(BIN / "polly-server"))
    made.start()
    yield made, folder, serial
    made.stop()


def request(connection: http.client.HTTPSConnection) -> int:
    """The status of a request on a connection that may be open."""
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def expiry(server: Server) -> float:
    """The end of the certificate, from /metrics."""
    connection = http.client.HTTPConnection(server.options[-1], timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    [line] = [line for line in text.splitlines() if line.startswith("polly_tls_certificate_expiry_timestamp_seconds ")]
    return float(line.split()[1])


def test_sighup_reads_the_certificate_again(secure: tuple[Server, Path, int]) -> None:
    """New connections get the new one, also with another kind of key; open ones stay; /metrics shows it."""
    server, folder, serial = secure
    assert shown(server.port) == serial
    before = expiry(server)
    loose = ssl._create_unverified_context()  # noqa: S323 - the certificate is made up
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=loose)
    assert request(connection) == 200
    held, workers = connection.sock, all_workers(server)
    renewed = certificate(folder, 180)
    process(server).send_signal(signal.SIGHUP)
    until(lambda: expiry(server) > before, "the metric stays")
    until(lambda: all(shown(server.port) == renewed for _ in range(8)), "the old certificate is shown")
    assert request(connection) == 200
    assert connection.sock is held
    connection.close()
    assert children(process(server).pid) == workers


def test_a_certificate_whose_files_change_is_taken(secure: tuple[Server, Path, int]) -> None:
    """The server notices new files without a signal."""
    server, folder, _ = secure
    renewed = certificate(folder, 180)
    until(lambda: all(shown(server.port) == renewed for _ in range(8)), "the old certificate is shown")


def test_a_certificate_that_became_a_pipe(secure: tuple[Server, Path, int]) -> None:
    """A pipe that nobody writes to is refused, and the server still handles signals."""
    server, folder, serial = secure
    (folder / "cert.pem").unlink()
    os.mkfifo(folder / "cert.pem")
    process(server).send_signal(signal.SIGHUP)
    refused = "certificate reload failed; the previous one stays in use"
    until(lambda: refused in [each["event"] for each in events(server)], "it is not refused")
    assert shown(server.port) == serial
    server.stop()


def test_a_broken_certificate_is_refused(secure: tuple[Server, Path, int]) -> None:
    """The old one stays, also in later workers; the log says why, and a correct one is used afterwards."""
    server, folder, serial = secure
    assert shown(server.port) == serial
    good = (folder / "cert.pem").read_bytes()
    put(folder / "cert.pem", b"not a certificate")
    process(server).send_signal(signal.SIGHUP)
    refused = "certificate reload failed; the previous one stays in use"
    until(lambda: refused in [each["event"] for each in events(server)], "it is not refused")
    [line] = [each for each in events(server) if each["event"] == refused]
    assert str(folder / "cert.pem") in line["reason"]
    workers = all_workers(server)
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: len(set(children(process(server).pid)) - {workers[0]}) == len(workers), "no worker takes its place")
    assert all(shown(server.port) == serial for _ in range(8))
    renewed = certificate(folder, 180)
    process(server).send_signal(signal.SIGHUP)
    until(lambda: all(shown(server.port) == renewed for _ in range(8)), "the old certificate is shown")
    put(folder / "cert.pem", good)
    process(server).send_signal(signal.SIGHUP)
    until(lambda: "is not the key of" in server.log.read_text(), "a key of another certificate is taken")
