"""Start real servers: each has its own data folder, its own port and real processes."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr

import pytest

from polly_dockers.db.sqlite import FILE, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_password() -> str:
    """A password made up at run time."""
    return secrets.token_urlsafe(12)


def polly_server(*arguments: str, stdin: str = "") -> str:
    """Run ``polly-server`` to its end; what it printed. Raises where it fails."""
    done = subprocess.run([BIN / "polly-server", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def ending(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """A process for a block: however that is left, the process has ended then, and its pipes are closed."""
    with process:
        try:
            yield process
        finally:
            process.kill()  # nothing, where it was waited for


@dataclass
class Server:
    """A polly-server that runs, and ways to put people into it."""

    data: Path
    port: int
    options: tuple[str, ...] = ()
    org: str = "acme"
    command: tuple[str, ...] = (str(BIN / "polly-server"),)
    admin: tuple[str, str] = field(default_factory=lambda: ("ann@acme.example", new_password()))
    process: subprocess.Popen[str] | None = None

    @property
    def registry(self) -> str:
        """HOST:PORT, as it stands before every image path."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address of the server, http://HOST:PORT."""
        return f"http://{self.registry}"

    @property
    def log(self) -> Path:
        """What the server writes to stderr."""
        return self.data.with_suffix(".log")

    def init(self) -> None:
        """Make the data folder with its organisation and admin."""
        email, password = self.admin
        polly_server(
            "init", "--data", str(self.data), "--org", self.org, "--email", email, "--password-stdin", stdin=password
        )

    def start(self) -> None:
        """Start the server and wait until it says that it listens."""
        listen = () if "--listen" in self.options else ("--listen", self.registry)
        place = ("--data", str(self.data), *listen)
        command = [*self.command, "run", *place, *self.options]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("Polly Docker Repository"):
            with ending(self.process):
                self.process = None
            pytest.fail(f"the server does not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        """End the server by SIGTERM and wait for it."""
        if self.process is not None:
            with ending(self.process) as process:
                self.process = None
                process.terminate()
                assert process.wait(timeout=90) == 0
            assert "Traceback" not in self.log.read_text()

    def add_user(self, *, role: str = "writer", org: str | None = None) -> tuple[str, str]:
        """A new member of an organisation: email and password."""
        email, password = f"user-{secrets.token_hex(4)}@acme.example", new_password()
        polly_server(
            *("user", "add", "--data", str(self.data), "--org", org or self.org, "--email", email),
            *("--role", role, "--password-stdin"),
            stdin=password,
        )
        return email, password

    def stored(self) -> set[str]:
        """Digests of the blobs whose bytes are on the disk."""
        return {f"sha256:{path.name.partition('.')[0]}" for path in (self.data / "blobs").glob("*/*/*")}

    def lose_database(self) -> None:
        """Delete the database with its WAL, while the server stands still."""
        for file in self.data.glob("polly.db*"):
            file.unlink()

    def copy_database(self, copy: Path) -> None:
        """Copy the database, while the server stands still.

        Of processes that end at the same moment, none may have written the WAL to it, so that is done first.
        """
        with connect(self.data / FILE) as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
        shutil.copy(self.data / FILE, copy)

    def give_admin_back(self) -> None:
        """Give the admin the role and the password again, which are not in the store."""
        email, password = self.admin
        place = ("--data", str(self.data), "--email", email, "--password-stdin")
        polly_server("user", "add", "--org", self.org, "--role", "admin", *place, stdin=password)

    def new_org(self, *, create_on_push: bool = False) -> tuple[str, tuple[str, str]]:
        """A new organisation and its admin: slug, and email and password."""
        slug = f"org-{secrets.token_hex(4)}"
        options = ["--create-on-push"] if create_on_push else []
        polly_server("org", "create", "--data", str(self.data), "--org", slug, *options)
        return slug, self.add_user(role="admin", org=slug)


@contextlib.contextmanager
def running_server(folder: Path, *options: str) -> Iterator[Server]:
    """A server of its own for one test, with options of ``polly-server run``."""
    server = Server(folder / "data", free_port(), options)
    server.init()
    server.start()
    try:
        yield server
    finally:
        server.stop()
