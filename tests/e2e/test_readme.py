"""The README's walk through is run exactly: every command, and what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.server import ending, free_port

from .engine import running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1:5000"

MASKS = (
    (r"sha256:[0-9a-f]{64}", "<digest>"),
    (r"\b[0-9a-f]{12}: ", "<layer>: "),
    (r"polly_[A-Za-z0-9_-]{43}", "<token>"),
    (r"[A-Z][a-z]+ \d{1,2}, \d{4}, \d\d:\d\d:\d\d [AP]M", "<date>"),
    (r"\b\d+(\.\d+)? (B|kB|MB)\b", "<size>"),
    (r"size: \d+", "size: <size>"),
    (r"/\S+/(data|config\.json)\b", r"<folder>/\1"),
    (r"DEPRECATED: The legacy builder(.*\n)+?\n", ""),
    (r"invite-[a-z2-7]{32}", "<code>"),
    (r"'[A-Za-z0-9_-]{16}'|password [A-Za-z0-9_-]{16}", "<password>"),
    (r"[ ]{2,}", "  "),
    (r"[ ]+$", ""),
)


def blocks() -> list[list[tuple[str, str]]]:
    """The console blocks of the README: commands with what they print."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE) for block in found]


def masked(text: str) -> str:
    """The text without what changes with each run."""
    for pattern, word in MASKS:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text.strip()


class Shell:
    """A shell at the repository's folder, whose registry listens on another port than the README's."""

    def __init__(self, home: Path, docker_host: str) -> None:
        self.here = f"127.0.0.1:{free_port()}"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._env = {"HOME": str(home), "PATH": path, "DOCKER_HOST": docker_host, "DOCKER_BUILDKIT": "0", "TZ": "UTC"}
        self._server = subprocess.Popen(
            ["scripts/serve", "--listen", self.here, "--data", str(home / "data")],
            cwd=ROOT,
            env=self._env,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        lines = []
        for line in self._server.stdout:
            lines.append(line)
            if "polly dockers commit-list" in line:
                break
        self.greeting = "".join(lines).replace(self.here, HOST)
        self.password = re.findall(r"the password (\S+)", self.greeting)[0]

    def run(self, command: str) -> str:
        """The output of a command."""
        command = command.replace(HOST, self.here).replace("PASSWORD", self.password)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout.replace(self.here, HOST)

    def close(self) -> None:
        """End the server."""
        with ending(self._server):
            self._server.terminate()
            self._server.wait(timeout=90)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell with a Docker Engine of its own, beside a server that was just started for the first time."""
    with running_engine() as engine:
        opened = Shell(tmp_path, engine.docker_host)
        yield opened
        opened.close()


def test_the_walk_through_prints_what_the_readme_says(shell: Shell) -> None:
    """Each command of the README, in order, prints what the README shows, except for dates, digests and the like."""
    start, *rest = blocks()
    assert masked(shell.greeting) == masked(start[0][1])
    for block in rest:
        for command, printed in block:
            assert masked(shell.run(command)) == masked(printed), command
