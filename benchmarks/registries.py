"""The servers: Polly with sign-in and its default settings, docker-registry without, nginx as the limit for reading."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.client import Answer, Connection
from benchmarks.processes import Process, listener

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN: Final = Path(sys.executable).parent
ORG: Final = "acme"
EMAIL: Final = "ann@acme.example"

# What Debian's own configuration says, with a place, an address and no sign-in of ours.
REGISTRY_CONFIG: Final = """\
version: 0.1
log: {{fields: {{service: registry}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {folder}/data}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
  headers: {{X-Content-Type-Options: [nosniff]}}
health:
  storagedriver: {{enabled: true, interval: 10s, threshold: 3}}
"""
NGINX_CONFIG: Final = """\
user root;
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75;
    server {{
        listen 127.0.0.1:{port}{ssl};
        root {root};
        location /v2/ {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_buffering off;
        }}
    }}
}}
"""


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether anybody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(port: int, *, tls: bool) -> bool:
    """Whether the server there answers 200."""
    try:
        with Connection(port, tls=tls) as connection:
            return connection.ask("GET", "/healthz").status == HTTPStatus.OK
    except OSError:
        return False


@contextlib.contextmanager
def folder_for(name: str, parent: Path) -> Iterator[Path]:
    """A new folder that goes away at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Registry:
    """A server of the registry protocol that runs."""

    name = "docker-registry"

    def __init__(self, folder: Path, port: int, process: Process | _Running, *, tls: bool = False) -> None:
        self.folder = folder
        self.port = port
        self.process = process
        self.tls = tls

    def path(self, repository: str) -> str:
        """Where a repository is, below /v2."""
        return f"/v2/{repository}"

    def headers(self, repository: str, actions: str = "pull,push") -> dict[str, str]:
        """Headers that sign a request for the repository in."""
        _ = repository, actions
        return {}

    def create(self, repository: str) -> None:
        """Make a repository, where it has to be made."""

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        return self.folder / f"data/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"

    def make_room(self, digest: str) -> None:
        """Delete the file of a blob, whose row stays."""
        self.blob(digest).unlink()


class _Running:
    """A server that somebody else started."""

    def __init__(self, port: int) -> None:
        self.pid = listener(port)


class Peer(Registry):
    """Any registry that runs already, without sign-in."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__(Path(), port, _Running(port))
        self.name = name

    def make_room(self, digest: str) -> None:
        """Leave the blob: where its file is, only the registry knows."""


class Polly(Registry):
    """Polly, and its admin with an access token."""

    name = "Polly"

    def __init__(self, folder: Path, port: int, process: Process, *, password: str, tls: bool = False) -> None:
        super().__init__(folder, port, process, tls=tls)
        self.password = password
        self.answered = 0.0
        """When it first answered, by the clock of time.perf_counter."""
        body = json.dumps({"scope": "full", "expires_in": 86_400, "label": "benchmark"}).encode()
        made = self.ask("POST", "/api/v1/tokens", self.basic(password), body).must(201).json()
        self.token: str = made["token"]
        self.api = {"Authorization": f"Bearer {self.token}"}
        self.registry_token: str = (
            self.ask("POST", "/api/v1/tokens", self.basic(password), json.dumps({"scope": "registry"}).encode())
            .must(201)
            .json()["token"]
        )

    @staticmethod
    def basic(secret: str) -> dict[str, str]:
        """Headers with email and password, or with an access token in the password's place."""
        pair = base64.b64encode(f"{EMAIL}:{secret}".encode()).decode()
        return {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        """One request on a connection of its own."""
        with Connection(self.port, tls=self.tls) as connection:
            return connection.ask(method, path, headers, body)

    def path(self, repository: str) -> str:
        """Where a repository of the organisation is, below /v2."""
        return f"/v2/{ORG}/{repository}"

    def scope(self, repository: str, actions: str = "pull,push") -> str:
        """Path and query of the token endpoint for a repository."""
        return f"/token?service=127.0.0.1:{self.port}&scope=repository:{ORG}/{repository}:{actions}"

    def headers(self, repository: str, actions: str = "pull,push") -> dict[str, str]:
        """A new registry token, good for ten minutes."""
        answer = self.ask("GET", self.scope(repository, actions), self.basic(self.registry_token))
        return {"Authorization": f"Bearer {answer.must(200).json()['token']}"}

    def create(self, repository: str) -> None:
        """Make a repository through /api/v1."""
        body = json.dumps({"name": repository, "description": "made by a benchmark"}).encode()
        headers = self.api | {"Content-Type": "application/json"}
        self.ask("POST", f"/api/v1/organisations/{ORG}/repositories", headers, body).must(201)

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        return next((self.folder / f"data/blobs/sha256/{digest[7:9]}").glob(f"{digest[7:]}.*"))


def init_polly(data: Path) -> str:
    """A data folder with an organisation and its admin; the password."""
    password = secrets.token_urlsafe(12)
    subprocess.run(
        [BIN / "polly-server", *("init", "--data", data, "--org", ORG, "--email", EMAIL, "--password-stdin")],
        input=password,
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return password


@contextlib.contextmanager
def running_polly(parent: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[Polly]:
    """Polly with its default settings: two workers, sign-in, a line of log for each request, to a file."""
    with folder_for("polly", parent) as folder:
        password = init_polly(folder / "data")
        with serving_polly(folder, password, certificate) as polly:
            yield polly


@contextlib.contextmanager
def serving_polly(folder: Path, password: str, certificate: tuple[Path, Path] | None = None) -> Iterator[Polly]:
    """Polly on a data folder that is there."""
    port = free_port()
    command = [str(BIN / "polly-server"), "run", "--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}"]
    if certificate is not None:
        command += ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1])]
    tls = certificate is not None
    process = Process(command, folder / "log", lambda: answers(port, tls=tls))
    answered = time.perf_counter()
    try:
        polly = Polly(folder, port, process, password=password, tls=tls)
        polly.answered = answered
        yield polly
    finally:
        process.stop()


@contextlib.contextmanager
def running_registry(parent: Path, peer: tuple[str, int] | None = None) -> Iterator[Registry]:
    """Debian's docker-registry, with Debian's settings and without sign-in; or the peer, which runs already."""
    if peer is not None:
        yield Peer(*peer)
        return
    with folder_for("registry", parent) as folder:
        port = free_port()
        config = folder / "config.yml"
        config.write_text(REGISTRY_CONFIG.format(folder=folder, port=port))
        process = Process(["docker-registry", "serve", str(config)], folder / "log", lambda: listens(port))
        try:
            yield Registry(folder, port, process)
        finally:
            process.stop()


@contextlib.contextmanager
def running_nginx(
    parent: Path, root: Path, certificate: tuple[Path, Path] | None = None, *, behind: int = 1
) -> Iterator[Registry]:
    """Nginx on the files of a folder, by sendfile, or by TLS; it is also a proxy before the port ``behind``."""
    with folder_for("nginx", parent) as folder:
        port = free_port()
        config = folder / "nginx.conf"
        ssl = f" ssl; ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]}" if certificate else ""
        config.write_text(NGINX_CONFIG.format(folder=folder, port=port, root=root, ssl=ssl, behind=behind))
        command = [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(config), "-e", "stderr"]
        process = Process(command, folder / "log", lambda: listens(port))
        try:
            yield Registry(folder, port, process, tls=certificate is not None)
        finally:
            process.stop()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the loopback address, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key
