"""People at a shell: each has a home folder, an account on the server, and an engine."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.server import Server

    from .engine import Engine

BIN = Path(sys.executable).parent
SECONDS = 120
"""How long a command may take before the test fails; none is expected to come near."""

CONNECTION_LOST = re.compile(r"broken pipe|connection reset|unexpected EOF|: EOF|Traceback", re.IGNORECASE)
"""What a client must never print instead of the server's message."""
REFUSED = re.compile(r"denied|unauthorized|401|authorization failed", re.IGNORECASE)
"""How clients say that the server refused."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.out + self.err

    @property
    def refused(self) -> bool:
        """Whether the server refused, and the client says so."""
        return self.code != 0 and bool(REFUSED.search(self.said)) and not CONNECTION_LOST.search(self.said)


@dataclass(frozen=True)
class Person:
    """A person with their own home folder, at a shell."""

    server: Server
    org: str
    email: str
    password: str
    home: Path
    env: dict[str, str]

    def run(self, *command: str, stdin: str = "") -> Done:
        """Run a program to its end."""
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.home,
            timeout=SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *command: str, stdin: str = "") -> str:
        """The stdout of a program; it must succeed."""
        done = self.run(*command, stdin=stdin)
        assert done.code == 0, (command, done.said)
        return done.out

    def refused(self, *command: str, stdin: str = "") -> str:
        """The output of a program that must fail, for a reason that the server gave."""
        done = self.run(*command, stdin=stdin)
        assert done.code != 0, (command, done.said)
        assert not CONNECTION_LOST.search(done.said), done.said
        return done.said

    def polly(self, *arguments: str, stdin: str = "") -> str:
        """The stdout of ``polly``; it must succeed."""
        return self.ok("polly", *arguments, stdin=stdin)

    def login(self) -> None:
        """Sign in to Polly."""
        self.polly(
            "login", "--server", self.server.url, "--email", self.email, "--password-stdin", stdin=f"{self.password}\n"
        )

    def docker_login(self) -> None:
        """Sign Docker in by the printed command, as a person would."""
        printed = self.polly("dockers", "login")
        assert "Login Succeeded" in self.ok("sh", "-c", printed)

    def token(self) -> str:
        """A new access token for the registry, as ``polly dockers login`` prints it."""
        return self.polly("dockers", "login").splitlines()[1]

    def create(self, *options: str) -> str:
        """Make a docker repository of its own for a test; its name."""
        name = f"e2e/{secrets.token_hex(4)}"
        self.polly("dockers", "create", "--name", name, "--description", "made by a test", *options)
        return name

    def reference(self, name: str, tag: str = "latest") -> str:
        """``HOST:PORT/org/name:tag``."""
        return f"{self.server.registry}/{self.org}/{name}:{tag}"

    def commits(self, name: str, *options: str) -> list[dict[str, Any]]:
        """The commits of a docker repository, newest first."""
        printed = self.polly("dockers", "commit-list", "--name", name, "--all", "--output", "json", *options)
        commits: list[dict[str, Any]] = json.loads(printed)
        return commits


def new_person(server: Server, engine: Engine, home: Path, org: str, account: tuple[str, str]) -> Person:
    """A person who has not signed in yet, without the settings of the person who runs the tests."""
    for folder in (home, home / "run", home / "storage"):
        folder.mkdir(mode=0o700)
    (home / "containers.conf").write_text(
        "[engine]\n"
        'cgroup_manager = "cgroupfs"\nevents_logger = "none"\nlock_type = "file"\n'
        f'tmp_dir = "{home}/storage/tmp"\nstatic_dir = "{home}/storage/libpod"\n'
        f'volume_path = "{home}/storage/volumes"\n'
    )
    (home / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/storage/images"\nrunroot = "{home}/storage/run"\n'
    )
    env = {
        "HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(home / "run"),
        "TZ": "UTC",
        "DOCKER_HOST": engine.docker_host,
        "DOCKER_BUILDKIT": "0",
        "CONTAINERS_CONF": str(home / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        "CONTAINERD_ADDRESS": engine.containerd,
        "CONTAINERD_NAMESPACE": "e2e",
        "BUILDAH_ISOLATION": "chroot",
    }
    return Person(server, org, *account, home, env)
