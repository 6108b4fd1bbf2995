"""Debian's Docker Engine, started by the tests with its own containerd, data folder and socket."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60
"""How long a daemon may take to start or to end before the test fails; none is expected to come near."""

# Plugins that look for things outside the folder (cri, opt), or that are of no use here.
CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{folder}/containerd.sock"
"""


class Daemon:
    """A process that serves until it is stopped, and its log, which shows when it is ready."""

    def __init__(self, command: list[str], log: Path, ready: str) -> None:
        self._said = threading.Event()
        self._ready = False
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._copy, args=(log, ready))
        self._reader.start()
        self._said.wait(SECONDS)
        if not self._ready:
            self.stop()
            msg = f"{command[0]} does not start:\n{log.read_text()}"
            raise AssertionError(msg)

    def _copy(self, log: Path, ready: str) -> None:
        assert self.process.stdout is not None
        with log.open("w") as file, self.process.stdout as lines:
            for line in lines:
                file.write(line)
                file.flush()
                if ready in line:
                    self._ready = True
                    self._said.set()
        self._said.set()

    def stop(self) -> None:
        """End it by SIGTERM and wait until it is gone."""
        self.process.terminate()
        self.process.wait(timeout=SECONDS)
        self._reader.join(timeout=SECONDS)


@dataclass(frozen=True)
class Engine:
    """A Docker Engine that runs, and the containerd below it."""

    folder: Path

    @property
    def docker_host(self) -> str:
        """What DOCKER_HOST has to be."""
        return f"unix://{self.folder}/docker.sock"

    @property
    def containerd(self) -> str:
        """The socket of its containerd, for ``ctr``."""
        return f"{self.folder}/containerd.sock"


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine with nothing in it, which leaves nothing behind.

    Its folder lies directly in the folder for temporary files: a socket's path is 107 bytes at most.
    """
    folder = Path(tempfile.mkdtemp(prefix="polly-engine-"))
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(_unmount, folder)
            (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder))
            (folder / "daemon.json").write_text("{}")
            containerd = [_daemon("containerd"), "--config", f"{folder}/containerd.toml"]
            stack.callback(Daemon(containerd, folder / "containerd.log", "containerd successfully booted").stop)
            dockerd = [
                *(_daemon("dockerd"), "--config-file", f"{folder}/daemon.json"),
                *("--host", f"unix://{folder}/docker.sock"),
                *(
                    "--data-root",
                    f"{folder}/data",
                    "--exec-root",
                    f"{folder}/exec",
                    "--pidfile",
                    f"{folder}/docker.pid",
                ),
                *("--containerd", f"{folder}/containerd.sock", "--storage-driver", "overlay2"),
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            ]
            stack.callback(Daemon(dockerd, folder / "dockerd.log", f"API listen on {folder}/docker.sock").stop)
            yield Engine(folder)
    finally:
        shutil.rmtree(folder)


def _daemon(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert path, f"{name} is missing: apt-get install docker.io containerd"
    return path


def _unmount(folder: Path) -> None:
    """Unmount what a daemon may have left mounted below the folder, the last first."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=True)
