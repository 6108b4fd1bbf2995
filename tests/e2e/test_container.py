"""The Dockerfile: buildah builds it, podman runs it as an ordinary user, and only its data can be written."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.server import free_port, new_password
from support.wire_client import Person, image

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MOST = 160_000_000
"""Bytes that the image may add to its base."""
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
"""Without them podman asks for more than a container of CI may have."""


@dataclass(frozen=True)
class Storage:
    """buildah and podman with images of their own."""

    folder: Path

    def ok(self, *command: str, stdin: str = "") -> str:
        """A command that has to work; what it printed."""
        settings = self.folder / "storage.conf"
        settings.write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{self.folder}/run"\ngraphroot = "{self.folder}/graph"\n'
        )
        environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(settings), "HOME": str(self.folder)}
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def size(self, name: str) -> int:
        """Bytes of an image."""
        return int(self.ok("podman", "image", "inspect", "--format", "{{.Size}}", name))


def pip_settings(folder: Path) -> list[str]:
    """Let pip inside of a build find packages as it does here; options of buildah."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = [line.split("=", 1) for line in listed.stdout.splitlines()]
    wanted = {key.rpartition(".")[2]: value.strip("'") for key, value in pairs if not key.startswith("install.")}
    settings = folder / "pip.conf"
    settings.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in wanted.items()))
    places = {Path(value) for value in wanted.values() if value.startswith("/") and Path(value).exists()}
    mounts = [f"--volume={place}:{place}:ro" for place in places]
    return [f"--volume={settings}:/etc/pip.conf:ro", *mounts]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """Where the image ``polly`` is, built on Debian's Python."""
    storage = Storage(tmp_path_factory.mktemp("storage"))
    base = storage.folder / "base.tar"
    packages = "--include=python3-venv,dash,coreutils,libc-bin"
    sources = sorted(Path("/etc/apt/sources.list.d").glob("debian*.sources")) or [Path("/etc/apt/sources.list")]
    codename = subprocess.run(
        ["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"], capture_output=True, text=True, check=True
    ).stdout.strip()
    storage.ok("mmdebstrap", "--quiet", "--variant=extract", packages, codename, str(base), *map(str, sources))
    storage.ok("podman", "import", "--quiet", str(base), "localhost/base:1")
    base.unlink()
    build = ("buildah", "build", "--quiet", "--isolation", "chroot", "--network", "host", "--build-arg")
    storage.ok(*build, "BASE=localhost/base:1", *pip_settings(storage.folder), "--tag", "localhost/polly:1", str(ROOT))
    yield storage
    storage.ok("podman", "rm", "--all", "--force", "--time", "0")
    storage.ok("podman", "rmi", "--all", "--force")


def test_it_is_small_and_its_user_is_nobody_special(storage: Storage) -> None:
    """It adds little to its base, has a numeric user, as Kubernetes requires, and no package installer."""
    assert storage.size("localhost/polly:1") - storage.size("localhost/base:1") < MOST
    user = storage.ok("podman", "image", "inspect", "--format", "{{.Config.User}}", "localhost/polly:1")
    assert user.strip() == "10001:10001"
    assert "pip" not in storage.ok(
        "podman", "run", "--rm", *LIMITS, "--entrypoint", "ls", "localhost/polly:1", "/opt/polly/bin"
    )


def test_it_serves_with_a_root_file_system_that_is_read_only(storage: Storage) -> None:
    """A registry is created, serves a push and a pull, ends cleanly, and is there again in the next container."""
    port, password = free_port(), new_password()
    run = ("podman", "run", "--rm", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")
    place = (*LIMITS, "--network=host", "--volume=registry:/data", f"--env=POLLY_LISTEN=127.0.0.1:{port}")
    account = ("--org", "acme", "--email", "ann@acme.example", "--password-stdin")
    storage.ok(*run, *place, "--interactive", "localhost/polly:1", "init", *account, stdin=password)
    ann = Person(port, "acme", "ann@acme.example", password)
    made = image()
    for first in (True, False):
        name = f"polly-{secrets.token_hex(4)}"
        storage.ok(*run, *place, "--detach", "--name", name, "localhost/polly:1")
        wait_until_it_answers(storage, port, name)
        if first:
            ann.create(name="hello")
            ann.repo("hello").push(made, "v1")
        assert ann.repo("hello").manifest("v1").body == made.manifest
        storage.ok("podman", "stop", "--time", "60", name)


def wait_until_it_answers(storage: Storage, port: int, name: str) -> None:
    """Wait for the line that the server prints once it listens."""
    with subprocess.Popen(
        ["podman", "logs", "--follow", name],
        env={**os.environ, "CONTAINERS_STORAGE_CONF": str(storage.folder / "storage.conf")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as follow:
        assert follow.stdout is not None
        seen = []
        for line in follow.stdout:
            seen.append(line)
            if "Polly Docker Repository" in line:
                break
        else:
            pytest.fail("".join(seen))
        follow.terminate()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as answer:
        assert answer.status == 200
